"""Recipes: their flags are accepted, and the runner does what it says."""

import functools
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

_FOLDER = ROOT / 'recipes'
sys.path.insert(0, str(_FOLDER))

import job as job_lib  # noqa: E402
import plan  # noqa: E402
import runner  # noqa: E402
from plan import Recipe, Row, Setting  # noqa: E402

from deeplab.common import InputError  # noqa: E402

_HELPERS = ['job', 'plan', 'records', 'report', 'runner', 'settings']
_NAMES = sorted(
  path.stem
  for path in _FOLDER.glob('*.py')
  if path.stem not in _HELPERS and not path.stem.endswith('_rows')
)


@functools.cache
def _load(path):
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _recipe(name):
  return _load(_FOLDER / f'{name}.py').RECIPE


_CASES = [(name, scale) for name in _NAMES for scale in _recipe(name).settings]


@pytest.fixture
def parse(monkeypatch):
  """Parses the command line of a script, each time from new flags."""
  from absl import flags as absl_flags

  from deeplab import (
    evaluation_flags,
    flag_checks,
    flags,
    model_flags,
  )

  helpers = [evaluation_flags, flag_checks, flags, model_flags, runner]

  def parse_flags(module, define, arguments):
    values = absl_flags.FlagValues()
    for one in [*helpers, module]:
      monkeypatch.setattr(one, 'FLAGS', values)
    with monkeypatch.context() as patch:
      names = [name for name in dir(absl_flags) if name.startswith('DEFINE_')]
      for name in [*names, 'mark_flags_as_required', 'register_validator']:
        function = functools.partial(
          getattr(absl_flags, name), flag_values=values
        )
        patch.setattr(absl_flags, name, function)
      define()
    rest = values(['script', *arguments])
    assert rest == ['script']

  return parse_flags


@pytest.fixture
def run_recipe(parse):
  """Runs a recipe in this process; returns nothing."""

  def run(recipe, *arguments):
    parse(runner, runner.define_flags, arguments)
    runner.run(recipe)

  return run


# What the recipes say.


@pytest.mark.parametrize('name', _NAMES)
def test_a_recipe_tells_what_it_needs(name):
  recipe = _recipe(name)
  text = _load(_FOLDER / f'{name}.py').__doc__
  assert recipe.name == name
  assert f'python recipes/{name}.py --output_dir=' in text
  assert ('--scale=small' in text) == (plan.SMALL in recipe.settings)
  assert 'Needs:' in text and 'Time:' in text and 'arXiv:' in text
  for row in recipe.rows:
    if row.paper is not None:
      digits = f'{row.paper:.2f}'
      assert digits in text or digits.rstrip('0') in text, row.name


def test_every_recipe_is_in_the_docs():
  text = (ROOT / 'docs' / 'recipes.md').read_text()
  for name in _NAMES:
    assert f'({os.path.join("..", "recipes", name)}.py)' in text, name


def _commands(run_recipe, capsys, recipe, scale, folder):
  run_recipe(recipe, f'--scale={scale}', f'--output_dir={folder}', '--dry_run')
  for line in capsys.readouterr().out.splitlines():
    python, script, *arguments = shlex.split(line)
    assert python == 'python'
    yield script, arguments


# What the shapes of the logits depend on.
_LOGITS_FIELDS = [
  'outputs_to_num_classes',
  'logits_kernel_size',
  'vgg_side_branches',
  'vgg_fc_filters',
  'decoder_filters',
]


@pytest.fixture
def accept(parse, monkeypatch):
  """Runs train.py, eval.py or vis.py up to the library call."""
  from deeplab import stored_options
  from deeplab.evaluation import evaluator, trimap, visualizer
  from deeplab.training import loop

  trained = []

  def train(config):
    initial = config.tf_initial_checkpoint
    stored = stored_options.load(initial) if initial else None
    if stored and config.initialize_last_layer:
      for field in _LOGITS_FIELDS:
        old, new = getattr(stored, field), getattr(config.model_options, field)
        assert old == new, field
    stored_options.save(config.train_logdir, config.model_options)
    trained.append(config)

  def evaluate(job, logdir, trimap_widths=None, trimap_boundary=None):
    if trimap_widths is not None:
      trimap.check_options(trimap_widths, trimap_boundary)
    visualize(job, logdir)

  def visualize(job, *_):
    stored = stored_options.load(job.checkpoint_dir)
    options = job.make_options(
      stored.outputs_to_num_classes['semantic'], job.checkpoint_dir
    )
    assert options.model_variant == stored.model_variant

  monkeypatch.setattr(loop, 'train', train)
  monkeypatch.setattr(evaluator, 'run', evaluate)
  monkeypatch.setattr(visualizer, 'run', visualize)
  # There is no initial checkpoint to look at.
  monkeypatch.setattr(stored_options, 'resnet_root_convs', lambda path: 3)

  def run(script, arguments):
    module = _load(ROOT / script)
    parse(module, module._define_flags, arguments)
    module.main()
    return trained

  return run


def _accept_all(recipe, scale, tmp_path, run_recipe, capsys, accept):
  """The TrainConfig of each row that trains."""
  trained = []
  for script, arguments in _commands(
    run_recipe, capsys, recipe, scale, tmp_path
  ):
    if script.startswith('datasets/'):
      assert (ROOT / script).exists()
    else:
      trained = accept(script, arguments)
  return trained


@pytest.mark.parametrize('name, scale', _CASES)
def test_flags_are_accepted(name, scale, tmp_path, run_recipe, capsys, accept):
  recipe = _recipe(name)
  trained = _accept_all(recipe, scale, tmp_path, run_recipe, capsys, accept)
  rows = plan.select_rows(recipe, scale)
  for row in rows:
    if row.initial_checkpoint:
      assert row.initial_checkpoint.startswith(row.train['model_variant'])
  assert [config.train_logdir for config in trained] == [
    str(tmp_path / f'{name}_{scale}' / row.name / 'train')
    for row in rows
    if row.trains
  ]


@pytest.mark.slow
@pytest.mark.parametrize('scale', plan.SCALES)
def test_networks_can_be_built(scale, tmp_path, run_recipe, capsys, accept):
  import keras

  from deeplab import model

  done = set()
  for name in _NAMES:
    if scale not in _recipe(name).settings:
      continue
    for config in _accept_all(
      _recipe(name), scale, tmp_path, run_recipe, capsys, accept
    ):
      options = config.model_options.replace(crop_size=[65, 65])
      key = options.to_json() + str(config.image_pyramid)
      if key not in done:
        done.add(key)
        model.build_model(options, config.image_pyramid)
        keras.utils.clear_session()
  assert len(done) > 20


def test_v1_trains_on_downsampled_labels_with_a_step_policy(
  tmp_path, run_recipe, capsys, accept
):
  trained = _accept_all(
    _recipe('v1_table2'), 'full', tmp_path, run_recipe, capsys, accept
  )
  config = trained[-1]
  assert not config.upsample_logits and config.learning_policy == 'step'
  assert config.model_options.vgg_fc_filters == 1024
  assert list(config.model_options.atrous_rates) == [12]


# Plans.

_SETTING = Setting('text', 'shapes', {'a': 1, 'b': 2}, {'c': 3}, 'start')


def _make(*rows, **settings):
  settings = settings or {'full': _SETTING, 'small': _SETTING}
  return Recipe('name', 'table', rows, settings)


def test_flags_of_a_row_win():
  row = Row(
    'one',
    train={'a': None, 'b': 5, 'd': [1, 2]},
    eval={'e': True},
    small_train={'b': None},
    small_eval={'e': False},
  )
  (full,) = plan.select_rows(_make(row), 'full')
  assert full.train == {'b': 5, 'd': [1, 2]}
  assert full.eval == {'c': 3, 'e': True}
  (small,) = plan.select_rows(_make(row), 'small')
  assert small.train == {'d': [1, 2]}
  assert plan.shell_flags(small.eval) == ['--c=3', '--e=false']
  assert plan.shell_flags(small.train) == ['--d=1,2']


def test_a_row_brings_those_it_needs():
  recipe = _make(
    Row('zero'),
    Row('one'),
    Row('two', start='one', small_start=None),
    Row('three', weights='two'),
  )

  def names(scale):
    return [r.name for r in plan.select_rows(recipe, scale, ['three'])]

  assert names('full') == ['one', 'two', 'three']
  assert names('small') == ['two', 'three']


def test_other_data_and_checkpoints_are_those_of_full_scale():
  recipe = _make(Row('one', data='coco', checkpoint='other'))
  (full,) = plan.select_rows(recipe, 'full')
  assert (full.data, full.checkpoint) == ('coco', 'other')
  (small,) = plan.select_rows(recipe, 'small')
  assert (small.data, small.checkpoint) == ('shapes', 'start')


@pytest.mark.parametrize(
  'rows, message',
  [
    ([Row('one'), Row('one')], 'two rows'),
    ([Row('a/b')], 'no name of a folder'),
    ([Row('one', weights='two'), Row('two')], "comes before 'two'"),
    ([Row('one'), Row('two', weights='one', train={'a': 1})], 'not train'),
  ],
)
def test_plans_that_are_wrong(rows, message):
  with pytest.raises(ValueError, match=message):
    _make(*rows)


# The runner.


@pytest.fixture
def records(tmp_path):
  """A folder that looks like TFRecord files."""
  folder = tmp_path / 'records'
  folder.mkdir()
  for split in ('train', 'val'):
    (folder / f'{split}-00000-of-00001.tfrecord').touch()
  return folder


@pytest.fixture
def ran(monkeypatch):
  """Commands that were run; evaluations leave a result."""
  commands = []

  def run_command(command, log_path):
    commands.append(command)
    arguments = command[2:] if command[0] == '-m' else command[1:]
    values = dict(flag[2:].split('=', 1) for flag in arguments)
    if command[0] == 'eval.py':
      os.makedirs(values['eval_logdir'])
      result = {'miou': 0.5, 'step': 7}
      if 'trimap_widths' in values:
        bands = [{'width': 1, 'miou': 0.25}, {'width': 2, 'miou': None}]
        result['trimap'] = {'bands': bands}
      path = os.path.join(values['eval_logdir'], 'miou_latest.json')
      with open(path, 'w') as file:
        json.dump(result, file)
    if command[:2] == ['-m', 'deeplab.crf_search']:
      with open(values['output'], 'w') as file:
        json.dump({'best': {'w1': 5, 'miou': 0.6}}, file)
    return 3.0

  monkeypatch.setattr(runner, 'run_command', run_command)
  return commands


_SMALL = Setting('a test', 'shapes', {}, {})
_ROWS = _make(
  Row('one', paper=70.0, eval={'trimap_widths': [1, 2]}),
  Row('two', weights='one', eval={'crf': True}),
  small=_SMALL,
)


def _arguments(tmp_path, records, *more):
  return (
    '--scale=small',
    f'--output_dir={tmp_path}/out',
    f'--data_dir={records}',
    *more,
  )


def test_runs_every_row_and_writes_the_table(
  run_recipe, ran, tmp_path, records, capsys
):
  run_recipe(_ROWS, *_arguments(tmp_path, records))
  assert [command[0] for command in ran] == ['train.py', 'eval.py', 'eval.py']
  folder = tmp_path / 'out' / 'name_small'
  assert f'--checkpoint_dir={folder}/one/train' in ran[2]
  results = json.loads((folder / 'results.json').read_text())
  assert results['rows'][0] == {
    'row': 'one',
    'paper': 70.0,
    'seconds': {'train': 3, 'eval': 3},
    'miou': 50.0,
    'step': 7,
    'trimap': {'1': 25.0, '2': None},
  }
  table = (folder / 'results.md').read_text()
  assert '| one | 70.00 | 50.00 | 25.00 |  | 3 | 3 | 7 |' in table
  assert table in capsys.readouterr().out

  run_recipe(_ROWS, *_arguments(tmp_path, records))
  assert len(ran) == 3
  assert 'one: finished before' in capsys.readouterr().out
  assert (folder / 'results.md').read_text() == table


def test_goes_on_where_a_command_failed(
  run_recipe, ran, tmp_path, records, monkeypatch
):
  works = runner.run_command

  def fail(command, log_path):
    if command[0] == 'eval.py':
      raise InputError('failed')
    return works(command, log_path)

  monkeypatch.setattr(runner, 'run_command', fail)
  with pytest.raises(InputError, match='failed'):
    run_recipe(_ROWS, *_arguments(tmp_path, records))
  monkeypatch.setattr(runner, 'run_command', works)
  ran.clear()
  run_recipe(_ROWS, *_arguments(tmp_path, records))
  # train.py finds itself that it is at its last step.
  assert [command[0] for command in ran] == ['train.py', 'eval.py', 'eval.py']


def test_refuses_results_of_other_flags(run_recipe, ran, tmp_path, records):
  run_recipe(_ROWS, *_arguments(tmp_path, records, '--steps=5'))
  assert '--training_number_of_steps=5' in ran[0]
  with pytest.raises(InputError, match=r'steps=5 there.*steps=6 now'):
    run_recipe(_ROWS, *_arguments(tmp_path, records, '--steps=6'))


def test_flags_of_the_crf_are_for_rows_with_crf(
  run_recipe, ran, tmp_path, records
):
  run_recipe(
    _ROWS,
    *_arguments(tmp_path, records, '--eval_flag=crf_w1=4', '--eval_flag=x=1'),
  )
  assert '--x=1' in ran[1] and '--crf_w1=4' not in ran[1]
  assert '--x=1' in ran[2] and '--crf_w1=4' in ran[2]


def test_searches_the_crf(run_recipe, ran, tmp_path, records):
  run_recipe(_ROWS, *_arguments(tmp_path, records, '--search_crf'))
  assert [command[0] for command in ran] == [
    'train.py',
    'eval.py',
    '-m',
    'eval.py',
  ]
  assert not any(flag.startswith('--crf') for flag in ran[2])
  assert '--crf_w1=5' in ran[3] and '--crf=true' in ran[3]


def test_leaves_out_rows_whose_own_data_are_missing(
  run_recipe, ran, tmp_path, records, capsys
):
  recipe = _make(
    Row('one'),
    Row('stage', data='coco', eval=None),
    Row('two', start='stage'),
    full=Setting('a test', 'voc', {}, {}),
  )
  arguments = [f'--output_dir={tmp_path}/out', f'--data_dir={records}']
  run_recipe(recipe, *arguments)
  assert len(ran) == 2
  output = capsys.readouterr().out
  assert 'two: left out without --data_dir=coco=FOLDER' in output
  with pytest.raises(InputError, match='--data_dir=coco=PATH'):
    run_recipe(recipe, *arguments, '--rows=two')
  run_recipe(recipe, *arguments, f'--data_dir=coco={records}')
  assert len(ran) == 5


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--rows=one,three'], 'has no rows three .*It has one, two'),
    (['--steps=0'], '--steps must be positive. Received: 0'),
    (['--train_flag=x'], 'NAME=VALUE'),
    (['--data_dir=x=/y'], 'the rows need voc'),
    (['--data_dir=/nowhere'], '/nowhere: there is no such folder'),
    ([], '--data_dir must name the folder of TFRecord files of .voc'),
    (['--data_dir={records}', '--eval_flag=eval_split=no'], "split 'no'"),
    (['--data_dir={records}'], '--initial_checkpoint must name'),
    (
      ['--data_dir={records}', '--initial_checkpoint=/nowhere'],
      '/nowhere: there is no such checkpoint',
    ),
    (['--scale=small'], 'runs at --scale=full only'),
  ],
)
def test_errors(run_recipe, ran, tmp_path, records, arguments, message):
  recipe = _make(
    Row('one'),
    Row('two', weights='one'),
    full=Setting('a test', 'voc', {}, {}, 'imagenet'),
  )
  arguments = [argument.format(records=records) for argument in arguments]
  with pytest.raises(InputError, match=message):
    run_recipe(recipe, f'--output_dir={tmp_path}/out', *arguments)
  assert not ran


def test_camvid_wants_its_folder(run_recipe, ran, tmp_path):
  recipe = _make(Row('one'), small=Setting('a test', 'camvid', {}, {}))
  arguments = ['--scale=small', f'--output_dir={tmp_path}/out']
  with pytest.raises(InputError, match='--camvid_root must name'):
    run_recipe(recipe, *arguments)
  run_recipe(recipe, *arguments, '--camvid_root=CamVid')
  assert ran[0][0] == 'datasets/build_camvid_data.py'
  assert '--camvid_root=CamVid' in ran[0]


def test_a_checkpoint_may_be_a_prefix(tmp_path):
  (tmp_path / 'vgg_16.ckpt.index').touch()
  assert job_lib._is_checkpoint(str(tmp_path / 'vgg_16.ckpt'))
  assert not job_lib._is_checkpoint(str(tmp_path / 'vgg'))


def test_a_failing_command_shows_its_log(tmp_path):
  script = tmp_path / 'script.py'
  script.write_text('print("the reason"); raise SystemExit(3)')
  log = tmp_path / 'log'
  with pytest.raises(InputError, match=r'status 3(.|\n)*the reason'):
    runner.run_command([str(script)], str(log))
  assert log.read_text().startswith(f'$ python {script}')


def test_an_interrupted_command_cleans_up(tmp_path):
  script = tmp_path / 'script.py'
  script.write_text(
    'import pathlib, signal, sys, time\n'
    'signal.signal(signal.SIGTERM, lambda *_: sys.exit())\n'
    'here = pathlib.Path(__file__).parent\n'
    'try:\n'
    '  (here / "started").touch()\n'
    '  time.sleep(60)\n'
    'finally:\n'
    '  (here / "cleaned").touch()\n'
  )

  def interrupt(*_):
    if (tmp_path / 'started').exists():
      signal.setitimer(signal.ITIMER_REAL, 0)
      raise KeyboardInterrupt

  old = signal.signal(signal.SIGALRM, interrupt)
  signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
  try:
    with pytest.raises(KeyboardInterrupt):
      runner.run_command([str(script)], str(tmp_path / 'log'))
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)
  assert (tmp_path / 'cleaned').exists()


@pytest.mark.slow
def test_one_row_end_to_end(tmp_path):
  from deeplab.datasets import build_shapes_data, shapes_images

  build_shapes_data.convert(
    str(tmp_path / 'shapes'),
    num_train=16,
    num_val=2,
    options=shapes_images.Options(height=64, width=80),
  )
  command = [
    sys.executable,
    str(_FOLDER / 'v3_table4.py'),
    '--scale=small',
    f'--output_dir={tmp_path}/out',
    f'--data_dir={tmp_path}/shapes/{build_shapes_data.RECORDS}',
    '--rows=block7_eval8',
    '--steps=2',
  ]
  result = subprocess.run(command, capture_output=True, text=True)
  assert result.returncode == 0, result.stderr
  folder = tmp_path / 'out' / 'v3_table4_small'
  rows = json.loads((folder / 'results.json').read_text())['rows']
  assert [row['row'] for row in rows][:2] == ['block7', 'block7_eval8']
  for row in rows[:2]:
    assert row['step'] == 2 and 0 <= row['miou'] <= 100
  assert all('miou' not in row for row in rows[2:])
  again = subprocess.run(command, capture_output=True, text=True)
  assert 'block7: finished before' in again.stdout

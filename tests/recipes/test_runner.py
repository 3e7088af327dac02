"""What runs recipes does what it says."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
from recipe_files import FOLDER

from deeplab.common import InputError
from experiment import job as job_lib
from experiment import runner
from experiment.plan import Recipe, Row, Setting

_SMALL = Setting('a test', 'shapes', {}, {})
_FULL = Setting('a test', 'voc', {}, {}, 'imagenet')


def _make(*rows, **settings):
  return Recipe('name', 'table', rows, settings)


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


def test_refuses_results_of_other_data_and_weights(
  run_recipe, ran, tmp_path, records
):
  recipe = _make(Row('one'), full=_FULL)

  def run(**places):
    run_recipe(
      recipe,
      f'--output_dir={tmp_path}/out',
      *(f'--{name}={path}' for name, path in places.items()),
    )

  others = tmp_path / 'others'
  shutil.copytree(records, others)
  weights = [tmp_path / 'a.h5', tmp_path / 'b.h5']
  for path in weights:
    path.touch()
  run(data_dir=records, initial_checkpoint=weights[0])
  with pytest.raises(InputError, match=r'data_dir=.*records there.*others now'):
    run(data_dir=others, initial_checkpoint=weights[0])
  with pytest.raises(InputError, match=r'checkpoint=.*a.h5 there.*b.h5 now'):
    run(data_dir=records, initial_checkpoint=weights[1])
  run(data_dir=records, initial_checkpoint=weights[0])
  assert len(ran) == 2


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
    full=_FULL,
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


def test_a_checkpoint_is_a_file_a_prefix_or_a_folder_with_files(tmp_path):
  for name in ('vgg_16.ckpt.index', 'weights.h5'):
    (tmp_path / name).touch()
  (tmp_path / 'empty').mkdir()
  for name in ('vgg_16.ckpt', 'weights.h5', '.'):
    assert job_lib._is_checkpoint(str(tmp_path / name)), name
  for name in ('vgg', 'empty'):
    assert not job_lib._is_checkpoint(str(tmp_path / name)), name


def test_a_failing_command_shows_its_log(tmp_path):
  script = tmp_path / 'script.py'
  script.write_text('print("the reason"); raise SystemExit(3)')
  log = tmp_path / 'log'
  with pytest.raises(InputError, match=r'status 3(.|\n)*the reason'):
    runner.run_command([str(script)], str(log))
  assert log.read_text().startswith(f'$ python {script}')
  with pytest.raises(InputError, match=r'^crf_search ended with status'):
    runner.run_command(['-m', 'deeplab.crf_search', '--no'], str(log))


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
    str(FOLDER / 'v3_table4.py'),
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

"""The scripts accept the flags of every recipe."""

import os
import shlex

import pytest
from conftest import ROOT
from recipe_files import FOLDER, NAMES, load, load_recipe

from experiment import plan

_CASES = [
  (name, scale) for name in NAMES for scale in load_recipe(name).settings
]


@pytest.mark.parametrize('name', NAMES)
def test_a_recipe_tells_what_it_needs(name):
  recipe = load_recipe(name)
  text = load(FOLDER / f'{name}.py').__doc__
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
  for name in NAMES:
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
    module = load(ROOT / script)
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
  recipe = load_recipe(name)
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
  for name in NAMES:
    if scale not in load_recipe(name).settings:
      continue
    for config in _accept_all(
      load_recipe(name), scale, tmp_path, run_recipe, capsys, accept
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
    load_recipe('v1_table2'), 'full', tmp_path, run_recipe, capsys, accept
  )
  config = trained[-1]
  assert not config.upsample_logits and config.learning_policy == 'step'
  assert config.model_options.vgg_fc_filters == 1024
  assert list(config.model_options.atrous_rates) == [12]

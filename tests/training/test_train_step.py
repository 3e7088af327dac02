"""Three steps of training against what the original computed."""

import hashlib
import json
import pathlib

import keras
import numpy as np
import pytest
import recipe
import tensorflow as tf
from deeplab import common
from deeplab.slim import keras_layers
from deeplab.training import config as config_lib
from deeplab.training import strategies, train_step

_DATA = pathlib.Path(__file__).parent.parent / 'testdata' / 'training'
_GOLDEN = json.loads((_DATA / 'steps.json').read_text())
_FAST = ('mobilenet_v2_bn', 'mobilenet_v2_adam', 'resnet_v1_18_beta_bn')
_IGNORE_LABEL = 255

# Flags that are fields of ModelOptions.
_MODEL_FIELDS = (
  'output_stride',
  'model_variant',
  'label_weights',
  'atrous_rates',
  'multi_grid',
  'decoder_output_stride',
  'aspp_with_batch_norm',
  'logits_kernel_size',
)


def _configurations():
  for name in _GOLDEN:
    marks = [] if name in _FAST else [pytest.mark.slow]
    yield pytest.param(name, marks=marks)


def make_config(golden):
  """TrainConfig of a golden configuration."""
  flags = dict(golden['flags'])
  options = {key: flags.pop(key) for key in _MODEL_FIELDS if key in flags}
  options = common.ModelOptions(
    outputs_to_num_classes={'semantic': golden['classes']},
    crop_size=flags.pop('train_crop_size'),
    **options,
  )
  return config_lib.TrainConfig(
    model_options=options, train_logdir='unused', dataset_dir='unused', **flags
  )


def make_step(golden, **changes):
  """A TrainStep with the golden weights; dropout is the identity."""
  config = make_config(golden).replace(**changes)
  strategy = strategies.make_strategy(config.num_clones, config.clone_on_cpu)
  step = train_step.TrainStep(config, strategy, _IGNORE_LABEL)
  for layer in step.model.layers:
    if isinstance(layer, keras_layers.Dropout):
      layer.rate = 0.0
  recipe.assign(step.variables)
  step.global_step.assign(golden['start_step'])
  return step


def distribute(strategy):
  """The golden batch as (images, labels) of a strategy's replicas."""
  batch = np.load(_DATA / 'batch.npz')
  values = batch['images'].astype(np.float32), batch['labels'].astype(np.int32)
  if strategy.num_replicas_in_sync == 1:
    return tuple(tf.constant(value) for value in values)
  parts = [np.split(v, strategy.num_replicas_in_sync) for v in values]
  return tuple(
    strategy.experimental_distribute_values_from_function(
      lambda context, part=part: tf.constant(
        part[context.replica_id_in_sync_group]
      )
    )
    for part in parts
  )


def _digest(value):
  return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _described(variables):
  return [[name, list(variable.shape)] for name, variable in variables.items()]


def _norm(value):
  return float(np.linalg.norm(np.asarray(value, np.float64)))


def _check_names(step, golden):
  assert _digest(_described(step.variables)) == golden['variables_sha256']
  slots = sorted(_described(step.optimizer.slots))
  assert _digest(slots) == golden['optimizer_variables_sha256']
  assert step.multipliers == golden['gradient_multipliers']


def _check_gradients(step, golden, batch):
  """Norms and first values; batch norm's statistics are put back."""
  metrics, gradients, _ = tf.function(
    lambda *args: step.strategy.run(step.compute_gradients, args=args)
  )(*batch, tf.identity(step.global_step))
  metrics, gradients = tf.nest.map_structure(
    lambda value: step.strategy.experimental_local_results(value)[0].numpy(),
    (metrics, gradients),
  )
  assert _digest(list(gradients)) == golden['trainable_sha256']
  expected = np.array(golden['gradient_norms'])
  floor = 1e-5 * np.linalg.norm(expected)
  norms = np.array([_norm(gradient) for gradient in gradients.values()])
  np.testing.assert_allclose(norms, expected, rtol=1e-3, atol=floor)
  np.testing.assert_allclose(
    [gradient.flat[0] for gradient in gradients.values()],
    golden['gradient_samples'],
    rtol=1e-3,
    atol=floor,
  )
  np.testing.assert_allclose(
    metrics[train_step.REGULARIZATION],
    golden['regularization_sum'],
    rtol=1e-5,
  )
  for name, variable in step.variables.items():
    if 'moving' in name:
      variable.assign(recipe.make_value(name, variable.shape))


def check(golden, step):
  """Runs three steps and compares everything."""
  _check_names(step, golden)
  batch = distribute(step.strategy)
  _check_gradients(step, golden, batch)
  run = tf.function(step.run)
  for expected in golden['steps']:
    metrics, _ = run(*batch)
    loss = metrics['semantic_merged_logits'].numpy()
    np.testing.assert_allclose(loss, np.mean(expected['losses']), rtol=1e-5)
    np.testing.assert_allclose(
      metrics[train_step.TOTAL_LOSS], expected['total_loss'], rtol=1e-5
    )
    np.testing.assert_allclose(
      metrics[train_step.LEARNING_RATE], expected['learning_rate'], rtol=1e-6
    )
  assert step.global_step.numpy() == golden['start_step'] + 3
  np.testing.assert_allclose(
    [_norm(variable) for variable in step.variables.values()],
    golden['variable_norms'],
    rtol=1e-4,
  )
  slots = step.optimizer.slots
  np.testing.assert_allclose(
    [_norm(slots[name]) for name in sorted(slots)],
    golden['optimizer_variable_norms'],
    rtol=1e-3,
    atol=1e-5 * np.linalg.norm(golden['optimizer_variable_norms']),
  )


@pytest.mark.parametrize('name', _configurations())
def test_three_steps_of_the_original(name):
  golden = _GOLDEN[name]
  if golden['flags'].get('num_clones'):
    pytest.skip('needs virtual devices: see test_distribution.py')
  keras.backend.clear_session()
  check(golden, make_step(golden))

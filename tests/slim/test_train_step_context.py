"""What a training step draws and gathers, however the batch is divided.

Two virtual CPU devices, in a process of their own: they must be asked for
before TensorFlow is used.
"""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab import slim
from deeplab.core import nas_cell
from deeplab.slim import scopes

_SEED = (3, 7)
_SHAPE = (9, 9, 5)


def make_images(size=8):
  rng = np.random.default_rng(0)
  # A mean far from zero is what costs digits of a variance.
  return rng.normal(5.0, 1.0, (size, *_SHAPE)).astype(np.float32)


def make_network(delay=-1):
  """Convolutions and batch norm: {official name: variable} and a model."""
  with (
    slim.layer_store(seed=1),
    slim.quantized(delay, is_training=True),
    slim.arg_scope([slim.conv2d], normalizer_fn=slim.batch_norm),
    slim.arg_scope([slim.batch_norm], scale=True, decay=0.9),
  ):
    inputs = keras.Input(_SHAPE)
    net = slim.conv2d(inputs, 6, 3, stride=2, scope='first')
    net = slim.conv2d(net, 4, 1, scope='second')
    model = keras.Model(inputs, net)
  layers = [x for x in model.layers if hasattr(x, 'creation_index')]
  return model, {
    slim.official_name(v): v for layer in layers for v in layer.variables
  }


def train(strategy, images, delay=-1, sync_batch_norm=True, **compiled):
  """Outputs, gradients and statistics of a step on all images."""
  with strategy.scope():
    model, named = make_network(delay)
  for name, variable in named.items():
    if name.endswith(('gamma', 'beta')):
      variable.assign(np.linspace(0.5, 1.5, variable.shape[0]))
  weights = {n: v.value for n, v in named.items() if v.trainable}
  replicas = strategy.num_replicas_in_sync
  target = np.random.default_rng(1).normal(size=(len(images), 5, 5, 4))

  def step(images, target):
    with tf.GradientTape() as tape:
      with slim.train_step_context(
        tf.constant(0, tf.int64),
        tf.constant(_SEED),
        sync_batch_norm=sync_batch_norm,
      ):
        outputs = model(images)
      loss = tf.reduce_mean(tf.sin(outputs) * target)
    return outputs, tf.distribute.get_replica_context().all_reduce(
      'MEAN', tape.gradient(loss, weights)
    )

  @tf.function(**compiled)
  def run():
    def part(values):
      parts = tf.split(tf.constant(values, tf.float32), replicas)
      return strategy.experimental_distribute_values_from_function(
        lambda context: parts[context.replica_id_in_sync_group]
      )

    return strategy.run(step, (part(images), part(target)))

  outputs, gradients = run()
  local = strategy.experimental_local_results
  result = {'outputs': np.concatenate([x.numpy() for x in local(outputs)])}
  for name, gradient in gradients.items():
    copies = [x.numpy() for x in local(gradient)]
    np.testing.assert_array_equal(copies[0], copies[-1])
    result[f'gradient of {name}'] = copies[0]
  for name, variable in named.items():
    result[name] = variable.numpy()
  return result


def compare_replicas(delay):
  """Two replicas against one device, and against what is not synchronised."""
  tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices('CPU')[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
  )
  two = tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])
  images = make_images()
  expected = train(tf.distribute.get_strategy(), images, delay)
  actual = train(two, images, delay)
  assert expected.keys() == actual.keys()
  for name, value in expected.items():
    scale = np.abs(value).max() + 1e-6
    # Ranges of activations are those of a replica, then averaged.
    if '_quant/' not in name:
      np.testing.assert_allclose(
        actual[name] / scale, value / scale, atol=5e-6, err_msg=name
      )
  alone = train(two, images, delay, sync_batch_norm=False)
  assert np.abs(alone['outputs'] - expected['outputs']).max() > 0.01


@pytest.mark.parametrize('delay', [-1, 1000])
def test_two_replicas_have_the_moments_of_the_whole_batch(delay):
  """Plain, and with batch norm folded for quantisation."""
  folder = pathlib.Path(__file__).resolve().parent
  code = (
    'import test_train_step_context as test;'
    f'test.compare_replicas({delay}); print("agreed")'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'PYTHONPATH': str(folder)},
    capture_output=True,
    text=True,
  )
  assert done.stdout == 'agreed\n', done.stderr[-4000:]


@pytest.mark.parametrize('compiled', [{}, {'jit_compile': True}])
def test_one_replica_keeps_the_fused_kernel(compiled):
  images = make_images(2)
  results = [
    train(strategy, images, sync_batch_norm=sync, **compiled)
    for strategy, sync in (
      (tf.distribute.get_strategy(), False),
      (tf.distribute.OneDeviceStrategy('CPU:0'), True),
    )
  ]
  for name, value in results[0].items():
    np.testing.assert_array_equal(results[1][name], value, err_msg=name)


# Random draws.


def _draw(make_layer, images, compiled=False, seed=_SEED, **context):
  layer = make_layer()

  @tf.function(jit_compile=compiled)
  def run(first_image):
    with slim.train_step_context(
      tf.constant(1000, tf.int64), tf.constant(seed), first_image
    ):
      return layer(images)

  first_image = context.get('first_image', 0)
  return run(tf.constant(first_image, tf.int64)).numpy()


def _dropout(name='dropout'):
  with slim.layer_store():
    inputs = keras.Input((3, 5, 7))
    return keras.Model(inputs, slim.dropout(inputs, 0.7, scope=name))


def _drop_path():
  schedule = nas_cell.DropPathSchedule(0.6, 1000, 1)
  return nas_cell.DropPath(schedule, 0, 'path')


@pytest.mark.parametrize('compiled', [False, True])
@pytest.mark.parametrize('make_layer', [_dropout, _drop_path])
def test_every_division_of_a_batch_drops_the_same(make_layer, compiled):
  # One image has 105 values: no whole number of the generator's counts.
  images = np.ones((8, 3, 5, 7), np.float32)
  whole = _draw(make_layer, images)
  assert 0 < np.mean(whole == 0) < 1
  for size in (8, 4, 2):
    parts = [
      _draw(make_layer, images[i : i + size], compiled, first_image=i)
      for i in range(0, 8, size)
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-6)


def test_images_and_seeds_draw_independently():
  images = np.ones((200, 3, 5, 7), np.float32)
  kept = _draw(_dropout, images) > 0
  assert kept.mean() == pytest.approx(0.7, abs=0.01)
  np.testing.assert_allclose(kept.mean(0), 0.7, atol=0.15)
  np.testing.assert_allclose(kept.mean((1, 2, 3)), 0.7, atol=0.2)
  others = [
    kept[1:],
    _draw(_dropout, images, seed=(3, 8)) > 0,
    _draw(lambda: _dropout('other'), images) > 0,
    _draw(_dropout, images, first_image=200) > 0,
  ]
  for other in others:
    same = np.mean(kept[: len(other)] == other)
    assert same == pytest.approx(0.7**2 + 0.3**2, abs=0.02)


def test_any_size_of_images():
  with slim.layer_store():
    inputs = keras.Input((None, None, 7))
    dynamic = keras.Model(inputs, slim.dropout(inputs, 0.7, scope='dropout'))
  images = np.ones((4, 3, 5, 7), np.float32)

  @tf.function(input_signature=[tf.TensorSpec([None] * 3 + [7])])
  def run(images):
    with slim.train_step_context(None, tf.constant(_SEED)):
      return dynamic(images)

  np.testing.assert_allclose(run(images), _draw(_dropout, images), rtol=1e-6)


def test_draws_are_the_same_with_xla():
  def draw():
    step = tf.constant(0, tf.int64)
    with slim.train_step_context(step, tf.constant([0, 0], tf.int64)):
      return scopes.draw_uniform('a', [2, 9])

  compiled = tf.function(draw, jit_compile=True)
  np.testing.assert_array_equal(draw(), compiled())

"""The slim functions against TensorFlow 1's."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import recipe
from deeplab import slim
from deeplab.common import InputError
from deeplab.core import xception
from deeplab.slim.nets import resnet_utils

_UNITS = np.load(
  pathlib.Path(__file__).parent.parent / 'testdata' / 'units.npz'
)


def _run(build, inputs):
  """The output of a network function with recipe weights."""
  with slim.layer_store() as store:
    tensor = keras.Input(inputs.shape[1:])
    network = keras.Model(tensor, build(tensor))
  recipe.assign(
    {
      slim.official_name(variable): variable
      for layer in store.layers.values()
      for variable in layer.variables
    }
  )
  return network(inputs).numpy()


@pytest.mark.parametrize(
  'name, epsilon, decay',
  [
    ('bn_small', 1e-5, 0.9997),
    ('bn_one_pixel', 1e-5, 0.9997),
    ('bn_xception', 1e-3, 0.95),
  ],
)
def test_batch_norm_in_training(name, epsilon, decay):
  x = _UNITS[f'{name}_x']
  with slim.layer_store() as store:
    tensor = keras.Input(x.shape[1:])
    outputs = slim.batch_norm(
      tensor, decay=decay, epsilon=epsilon, scale=True, is_training=True
    )
    network = keras.Model(tensor, outputs)
  layer = store.layers['BatchNorm']
  channels = x.shape[-1]
  layer.gamma.assign(np.linspace(0.5, 1.5, channels))
  layer.beta.assign(np.linspace(-0.5, 0.5, channels))
  for step in (1, 2):
    y = network(x)
    np.testing.assert_allclose(y, _UNITS[f'{name}_y'], rtol=1e-5, atol=1e-5)
    for key in ('moving_mean', 'moving_variance'):
      # The variance is the unbiased one: it matters for one pixel.
      np.testing.assert_allclose(
        getattr(layer, key).numpy(), _UNITS[f'{name}_{key}_{step}'], rtol=1e-6
      )


def test_frozen_batch_norm_trains_gamma_and_beta():
  x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
  with slim.layer_store():
    tensor = keras.Input(x.shape[1:])
    outputs = slim.batch_norm(tensor, scale=True, is_training=False)
    network = keras.Model(tensor, outputs)
  with tf.GradientTape() as tape:
    loss = tf.reduce_sum(network(x) ** 2)
  gradients = tape.gradient(loss, network.trainable_variables)
  assert [v.name for v in network.trainable_variables] == ['gamma', 'beta']
  assert all(np.abs(gradient).min() > 0 for gradient in gradients)
  assert network.non_trainable_variables[0].numpy().max() == 0


_SIZES = ('9x10', '8x7')


@pytest.mark.parametrize('size', _SIZES)
@pytest.mark.parametrize('kernel', [3, 7])
@pytest.mark.parametrize('stride, rate', [(1, 1), (2, 1), (1, 2), (1, 3)])
def test_conv2d_same(size, kernel, stride, rate):
  outputs = _run(
    lambda x: resnet_utils.conv2d_same(
      x, 4, kernel, stride, rate=rate, scope='c'
    ),
    _UNITS[f'conv_{size}_x'],
  )
  expected = _UNITS[f'conv_{size}_k{kernel}_s{stride}_r{rate}']
  np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('size', _SIZES)
@pytest.mark.parametrize('stride, rate', [(1, 1), (2, 1), (1, 2), (1, 4)])
def test_separable_conv2d_same(size, stride, rate):
  outputs = _run(
    lambda x: xception.separable_conv2d_same(
      x, 4, 3, stride, rate=rate, scope='s'
    ),
    _UNITS[f'conv_{size}_x'],
  )
  expected = _UNITS[f'sep_{size}_s{stride}_r{rate}']
  np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def test_arg_scopes_nest_and_are_restored():
  @slim.add_arg_scope
  def function(a=1, b=2):
    return a, b

  with slim.arg_scope([function], a=3, b=4):
    with slim.arg_scope([function], b=5) as saved:
      assert function() == (3, 5)
      assert function(b=6) == (3, 6)
    assert function() == (3, 4)
  assert function() == (1, 2)
  with slim.arg_scope(saved):
    assert function() == (3, 5)
  with (
    pytest.raises(ValueError, match='add_arg_scope'),
    slim.arg_scope([print], a=1),
  ):
    pass


def test_layers_are_shared_by_scope_and_default_names_start_anew():
  with slim.layer_store() as store:
    for side in (5, 9):
      with slim.variable_scope('net'):
        x = slim.conv2d(keras.Input((side, side, 3)), 4, 3)
        slim.conv2d(x, 4, 3)
  assert list(store.layers) == ['net/Conv', 'net/Conv_1']


@pytest.mark.parametrize(
  'layer, stride, rate',
  [
    (slim.conv2d, 1, (2, 3)),
    (slim.conv2d, 2, 2),
    (slim.separable_conv2d, 2, (3, 6)),
  ],
)
def test_strides_and_rates_that_do_not_go_together(layer, stride, rate):
  inputs = keras.Input((9, 9, 4))
  with slim.layer_store(), pytest.raises(ValueError, match='rate must be'):
    layer(inputs, 4, 3, stride=stride, rate=rate)


def test_a_shared_layer_has_one_rate():
  with slim.layer_store():
    x = keras.Input((9, 9, 3))
    slim.conv2d(x, 4, 3, scope='a')
    with pytest.raises(ValueError, match='rate'):
      slim.conv2d(x, 4, 3, rate=2, scope='a')


def test_initial_values_depend_on_seed_and_name():
  def values(seed):
    with slim.layer_store(seed) as store:
      x = keras.Input((9, 9, 3))
      for scope in ('a', 'b'):
        slim.conv2d(x, 4, 3, scope=scope)
    return [layer.kernel.numpy() for layer in store.layers.values()]

  first, second, other = values(1), values(1), values(2)
  np.testing.assert_array_equal(first, second)
  assert not np.array_equal(first[0], first[1])
  assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize(
  'stddev_or_limit, initializer',
  [
    (np.sqrt(2.6 / 27), slim.variance_scaling_initializer()),
    (0.09, slim.truncated_normal_initializer(0.09)),
    (np.sqrt(6 / (9 * (3 + 512))), slim.xavier_initializer()),
  ],
)
def test_initializers(stddev_or_limit, initializer):
  values = np.asarray(initializer((3, 3, 3, 512), [1, 2]))
  # Truncation at two standard deviations, or the limit of a uniform one.
  bound = np.abs(values).max() / stddev_or_limit
  spread = values.std() / stddev_or_limit
  is_uniform = bound < 1.01
  assert bound == pytest.approx(1.0 if is_uniform else 2.0, abs=0.01)
  # The standard deviation of a normal cut at 2 is 0.8796.
  assert spread == pytest.approx(0.5774 if is_uniform else 0.8796, rel=0.02)


def test_dropout_is_a_function_of_the_seed():
  x = np.ones((2, 8, 8, 16), np.float32)
  with slim.layer_store():
    tensor = keras.Input(x.shape[1:])
    network = keras.Model(tensor, slim.dropout(tensor, keep_prob=0.9))

  def run(seed):
    with slim.train_step_context(step=None, seed=tf.constant(seed)):
      return network(x).numpy()

  np.testing.assert_array_equal(run([3, 7]), run([3, 7]))
  assert not np.array_equal(run([3, 7]), run([3, 8]))
  assert np.isclose((run([3, 7]) == 0).mean(), 0.1, atol=0.03)
  assert np.isclose(run([3, 7]).max(), 1 / 0.9)


def test_each_call_of_a_dropout_layer_draws_anew():
  """The scales of an image pyramid share layers, not what is dropped."""
  x = np.ones((1, 16, 16, 4), np.float32)
  with slim.layer_store():
    tensor = keras.Input(x.shape[1:])
    outputs = []
    for _ in range(2):
      with slim.variable_scope('scale'):
        outputs.append(slim.dropout(tensor, keep_prob=0.5))
    network = keras.Model(tensor, outputs)

  def run():
    with slim.train_step_context(step=None, seed=tf.constant([3, 7])):
      return [output.numpy() for output in network(x)]

  first, second = run()
  assert not np.array_equal(first, second)
  np.testing.assert_array_equal(run(), [first, second])


_DILATED = """
import keras, tensorflow as tf
from deeplab import slim
with slim.layer_store(0):
  x = keras.Input((9, 10, 3))
  network = keras.Model(x, slim.conv2d(x, 4, 3, rate=2, scope='c'))
with tf.GradientTape() as tape:
  loss = tf.reduce_sum(network(tf.ones([1, 9, 10, 3])) ** 2)
gradient = tape.gradient(loss, network.trainable_variables)[0]
print(float(loss), float(tf.norm(gradient)))
"""


def test_dilated_convolutions_train_without_onednn():
  results = [
    subprocess.run(
      [sys.executable, '-c', _DILATED],
      env={**os.environ, 'TF_ENABLE_ONEDNN_OPTS': flag},
      capture_output=True,
      text=True,
      check=True,
    ).stdout.split()
    for flag in '01'
  ]
  without, with_onednn = np.array(results, float)
  np.testing.assert_allclose(without, with_onednn, rtol=1e-5)


def test_a_kernel_beyond_any_memory_is_refused():
  for filters in (2**40, 2**62):
    with (
      slim.layer_store(),
      pytest.raises(
        InputError, match=r'convolution.*1, 1, 3, .*Fewer channels'
      ),
    ):
      slim.conv2d(keras.Input((5, 5, 3)), filters, 1, scope='convolution')


def test_a_store_keeps_its_seed():
  with slim.layer_store(seed=1) as store:
    pass
  with (
    pytest.raises(ValueError, match='has its own seed'),
    slim.layer_store(seed=2, store=store),
  ):
    pass

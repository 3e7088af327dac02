"""Folded layers against the layers that they are made of."""

import functools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import recipe
from deeplab import constant_graph, slim
from deeplab.core import conv2d_ws
from deeplab.slim import devices, folding, winograd
from deeplab.slim.nets import resnet_utils

_NORM = functools.partial(slim.batch_norm, is_training=False)
_NORMALIZED = {'normalizer_fn': _NORM}
_BIASED = {'normalizer_fn': None}


def _images(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


class _Pair:
  """A network of a function, and its folded form, with recipe weights."""

  def __init__(self, build, *shapes, dtype=None):
    """Builds both.

    Args:
      build: from a Keras tensor for each shape to another one.
      *shapes: of the inputs, without the batch.
      dtype: that the folded form computes in, None for float32.
    """
    inputs = [keras.Input(shape) for shape in shapes]
    self._store = slim.LayerStore()
    with slim.layer_store(store=self._store):
      self.network = keras.Model(inputs, build(*inputs))
    recipe.assign(self.variables())
    with (
      slim.layer_store(store=self._store),
      slim.folded(),
      slim.compute_dtype(dtype),
    ):
      self.folded = keras.Model(inputs, build(*inputs))

  def variables(self):
    """{official name: variable}."""
    return {
      slim.official_name(variable): variable
      for layer in self._store.layers.values()
      for variable in layer.variables
    }

  def check(self, *values, tolerance=2e-6):
    """The folded form equals the network, called and compiled.

    Returns:
      Types of the operations that it is compiled to.
    """
    values = [tf.constant(value) for value in values]
    expected = self.network(values).numpy()
    assert expected.std() > 0.01
    compiled = constant_graph.compile_function(
      lambda *values: {'outputs': self.folded(list(values))},
      *(
        tf.TensorSpec(inputs.shape, name=f'input_{i}')
        for i, inputs in enumerate(self.folded.inputs)
      ),
    )
    for found in (self.folded(values), compiled(*values)['outputs']):
      assert found.shape == expected.shape
      difference = np.abs(found.numpy().astype(np.float32) - expected).max()
      assert difference <= tolerance * np.abs(expected).max()
    return {node.type for node in compiled.graph.get_operations()}


@pytest.mark.parametrize('outcome', [_NORMALIZED, _BIASED])
@pytest.mark.parametrize('padding', ['SAME', 'VALID'])
@pytest.mark.parametrize('stride, rate', [(1, 1), (2, 1), (1, 2), (1, 5)])
def test_convolutions(stride, rate, padding, outcome):
  pair = _Pair(
    lambda x: slim.conv2d(
      x, 5, 3, stride=stride, rate=rate, padding=padding, **outcome
    ),
    (14, 17, 4),
  )
  pair.check(_images(2, 14, 17, 4))


# Sides are multiples of three outputs a rate apart, or are not.
@pytest.mark.parametrize('dtype, tolerance', [(None, 1e-5), ('bfloat16', 0.03)])
@pytest.mark.parametrize(
  'rate, size, known',
  [
    (1, (9, 12), (9, 12)),
    (1, (10, 11), (10, 11)),
    (2, (12, 17), (12, 17)),
    (4, (23, 12), (23, 12)),
    (1, (10, 12), (None, None)),
    (2, (12, 17), (None, None)),
  ],
)
def test_wide_convolutions(rate, size, known, dtype, tolerance):
  """Of so many channels that a faster algorithm takes over."""
  shape = (*known, 256)
  assert winograd.suits(
    (3, 3, 256, 272), (None, *shape), 1, [rate, rate], 'SAME'
  )
  pair = _Pair(
    lambda x: slim.conv2d(x, 272, 3, rate=rate, **_NORMALIZED),
    shape,
    dtype=dtype,
  )
  operations = pair.check(_images(2, *size, 256), tolerance=tolerance)
  is_taken = devices.has_dilated_depthwise(tf.as_dtype(dtype or 'float32'))
  assert ('Conv2D' in operations) != is_taken


@pytest.mark.parametrize('rates', [(1, 3), (3, 2)])
def test_winograd_with_unequal_rates(rates):
  images, kernel = _images(2, 13, 17, 6), _images(3, 3, 6, 5)
  expected = tf.nn.conv2d(images, kernel, 1, 'SAME', dilations=rates)
  kernel = winograd.transform_kernel(kernel)
  for size in (13, 17), (None, None), (13, None):
    convolve = tf.function(
      lambda images: winograd.conv2d(images, kernel, rates),
      input_signature=[tf.TensorSpec([None, *size, 6])],
    )
    np.testing.assert_allclose(convolve(images), expected, atol=1e-4)


@pytest.mark.parametrize(
  'channels, sides, rate',
  [
    (128, (33, 33), 1),
    # What the tiles have beyond the sides costs more than they spare.
    (256, (33, 33), 18),
    (256, (33, None), 18),
  ],
)
def test_convolutions_that_stay_plain(channels, sides, rate):
  assert not winograd.suits(
    (3, 3, channels, channels),
    (None, *sides, channels),
    1,
    [rate, rate],
    'SAME',
  )


@pytest.mark.parametrize(
  'activation',
  [None, keras.ops.relu, keras.ops.relu6, keras.ops.sigmoid],
)
@pytest.mark.parametrize('rate', [1, 2, 8])
def test_activations(rate, activation):
  def build(net):
    arguments = {'activation_fn': activation, **_NORMALIZED}
    net = slim.separable_conv2d(net, None, 3, rate=rate, **arguments)
    return slim.conv2d([net, net], 5, 1, **arguments)

  # Some values are beyond six.
  _Pair(build, (17, 19, 4)).check(9 * _images(2, 17, 19, 4))


@pytest.mark.parametrize('outcome', [_NORMALIZED, _BIASED])
@pytest.mark.parametrize('filters', [6, None])
@pytest.mark.parametrize(
  'multiplier, stride, padding',
  [(1, 1, 'SAME'), (2, 2, 'SAME'), (1, 1, 'VALID')],
)
def test_separable_convolutions(multiplier, stride, padding, filters, outcome):
  pair = _Pair(
    lambda x: slim.separable_conv2d(
      x, filters, 3, multiplier, stride, padding, **outcome
    ),
    (10, 13, 4),
  )
  pair.check(_images(2, 10, 13, 4))


def _depthwise(rate, padding='SAME', outcome=None):
  return lambda x: slim.separable_conv2d(
    x, None, 3, rate=rate, padding=padding, **(outcome or _NORMALIZED)
  )


# Rates that the sides are multiples of and that they are not, and greater ones
# than the sides.
@pytest.mark.parametrize('size', [(16, 16), (17, 17), (12, 19)])
@pytest.mark.parametrize('rate', [2, 3, 6, 7, 8, 18, (6, 4), (8, 9)])
def test_dilated_depthwise_convolutions(rate, size):
  _Pair(_depthwise(rate), (*size, 4)).check(_images(2, *size, 4))


@pytest.mark.parametrize('rate', [2, 7])
@pytest.mark.parametrize(
  'padding, outcome', [('VALID', _NORMALIZED), ('SAME', _BIASED)]
)
def test_other_dilated_depthwise_convolutions(rate, padding, outcome):
  pair = _Pair(_depthwise(rate, padding, outcome), (20, 19, 4))
  pair.check(_images(2, 20, 19, 4))


@pytest.mark.parametrize('rate', [1, 2, 12])
def test_sides_that_nobody_knows_yet(rate):
  pair = _Pair(_depthwise(rate), (None, None, 4))
  for size in ((16, 21), (9, 9)):
    pair.check(_images(2, *size, 4))


def test_weight_standardisation():
  pair = _Pair(
    lambda x: conv2d_ws.conv2d(
      x, 5, 3, use_weight_standardization=True, **_NORMALIZED
    ),
    (9, 10, 4),
  )
  pair.check(_images(2, 9, 10, 4))


def test_strided_convolutions_with_explicit_padding():
  def build(net):
    with slim.arg_scope([slim.conv2d], **_NORMALIZED):
      return resnet_utils.conv2d_same(net, 5, 3, 2, scope='c')

  _Pair(build, (10, 13, 4)).check(_images(2, 10, 13, 4))


@pytest.mark.parametrize(
  'arguments', [{'scale': True}, {'scale': False, 'center': False}]
)
def test_batch_norm_with_and_without_gamma_and_beta(arguments):
  norm = functools.partial(_NORM, epsilon=1e-5, **arguments)
  pair = _Pair(lambda x: slim.conv2d(x, 5, 3, normalizer_fn=norm), (9, 10, 4))
  pair.check(_images(2, 9, 10, 4))


def test_batch_norm_that_follows_no_convolution():
  def build(net):
    net = keras.ops.relu(_NORM(net))
    return slim.conv2d(net, 5, 1)

  _Pair(build, (9, 10, 4)).check(_images(2, 9, 10, 4))


# Several inputs of one convolution.


def _project(*parts):
  return slim.conv2d(list(parts), 5, 1, **_NORMALIZED)


def test_a_projection_of_several_tensors():
  shapes = [(9, 10, 4), (9, 10, 3), (9, 10, 2)]
  values = [_images(2, *shape) for shape in shapes]
  _Pair(_project, *shapes).check(*values)


@pytest.mark.parametrize('outcome', [_NORMALIZED, _BIASED])
@pytest.mark.parametrize('place', [0, 1])
def test_a_plane_is_one_pixel(place, outcome):
  """Its share of the projection is the same at every pixel."""

  def build(plane, features):
    if not slim.is_folded():
      plane = keras.ops.broadcast_to(plane, (2, 9, 10, 3))
    parts = [features]
    parts.insert(place, plane)
    return slim.conv2d(parts, 5, 1, **outcome)

  shapes = [(1, 1, 3), (9, 10, 4)]
  values = [_images(2, *shape) for shape in shapes]
  _Pair(build, *shapes).check(*values)


def test_planes_that_are_none_at_another_size():
  """As the features and the pooled feature of two scales in one network."""

  def build(features, plane, small):
    spread = plane
    if not slim.is_folded():
      spread = keras.ops.broadcast_to(plane, (2, 9, 10, 3))
    large, small = (
      slim.conv2d(parts, 5, 1, scope='projection', **_NORMALIZED)
      for parts in ([features, spread], [small, plane])
    )
    return large + small

  shapes = [(9, 10, 4), (1, 1, 3), (1, 1, 4)]
  values = [_images(2, *shape) for shape in shapes]
  _Pair(build, *shapes).check(*values)


def test_features_of_one_pixel():
  shapes = [(1, 1, 3), (1, 1, 4)]
  values = [_images(2, *shape) for shape in shapes]
  _Pair(_project, *shapes).check(*values)


# What it is for.


def _network(net):
  with slim.arg_scope([slim.conv2d, slim.separable_conv2d], **_NORMALIZED):
    net = slim.conv2d(net, 8, 3, stride=2, scope='stem')
    shortcut = slim.conv2d(net, 8, 1, activation_fn=None, scope='shortcut')
    net = slim.separable_conv2d(net, 8, 3, rate=2, scope='separable')
    net = slim.separable_conv2d(net, None, 3, rate=8, scope='depthwise')
    net = slim.conv2d(net, 8, 1, activation_fn=None, scope='project')
    net = keras.ops.relu(net + shortcut)
  # As the logits are, float32 whatever the rest is.
  with slim.compute_dtype(None):
    return slim.conv2d(net, 5, 1, activation_fn=None, scope='logits')


def test_a_network():
  _Pair(_network, (33, 35, 3)).check(_images(2, 33, 35, 3), tolerance=1e-5)


def test_a_network_in_bfloat16():
  pair = _Pair(_network, (33, 35, 3), dtype='bfloat16')
  # Eight bits, in six roundings.
  pair.check(_images(2, 33, 35, 3), tolerance=3e-2)
  assert pair.folded.output.dtype == 'float32'
  images = [_images(2, 33, 35, 3)]
  difference = np.abs(pair.folded(images) - pair.network(images)).max()
  # It was computed in bfloat16.
  assert difference > 1e-4


def test_folded_layers_keep_the_values_that_they_were_made_of():
  pair = _Pair(_network, (33, 33, 3))
  images = [_images(1, 33, 33, 3)]
  before = pair.folded(images).numpy()
  for variable in pair.variables().values():
    variable.assign(variable * 1.5)
  np.testing.assert_array_equal(pair.folded(images), before)
  assert np.abs(pair.network(images) - before).max() > 0.1


def test_folded_is_closed_again():
  assert not slim.is_folded()
  with slim.folded():
    assert slim.is_folded()
  assert not slim.is_folded()


@pytest.mark.parametrize('dtype', [tf.float32, tf.bfloat16])
def test_constants(dtype):
  values = _images(3, 5)
  found = folding.constant(values, dtype)
  assert found.dtype == dtype
  np.testing.assert_array_equal(found, tf.cast(values, dtype))


_WITHOUT_ONEDNN = """
import sys
sys.path[:0] = [{tests!r}, {tests!r} + '/slim']
import test_folding as test
for rate in (2, 6, 7):
  test.test_dilated_depthwise_convolutions(rate, (12, 19))
test.test_wide_convolutions(2, (12, 17), (12, 17), None, 1e-5)
test.test_a_network()
test.test_a_network_in_bfloat16()
"""


def test_processors_without_onednn(repository):
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      _WITHOUT_ONEDNN.format(tests=str(repository / 'tests')),
    ],
    env={**os.environ, 'TF_ENABLE_ONEDNN_OPTS': '0'},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-4000:]

"""Products of linear 1x1 convolutions."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab import constant_graph, inference, slim
from deeplab.common import ModelOptions
from deeplab.slim import folding

_INPUTS, _MIDDLE, _OUTPUTS = 24, 16, 8


def _layer(seed, *shape, dtype=tf.float32, **arguments):
  """A convolution with a bias, of constants as in folded networks."""
  rng = np.random.default_rng(seed)
  kernel = rng.normal(size=shape) / np.sqrt(np.prod(shape[:3]))
  bias = rng.normal(size=shape[-1])
  arguments = {'strides': 1, 'padding': 'SAME', **arguments}

  def convolve(net):
    net = tf.nn.conv2d(net, folding.constant(kernel, dtype), **arguments)
    return tf.nn.bias_add(net, folding.constant(bias, dtype))

  return convolve


def _project(**options):
  return _layer(0, 1, 1, _INPUTS, _MIDDLE, **options)


def _follow(seed=1, outputs=_OUTPUTS, **options):
  return _layer(seed, 1, 1, _MIDDLE, outputs, **options)


def _compile(network, size=(9, 9), dtype=tf.float32):
  """What is computed, what should be, and the operations left for it."""
  spec = tf.TensorSpec([2, *size, _INPUTS], dtype, 'images')
  compiled = constant_graph.compile_function(network, spec)
  images = np.random.default_rng(9).normal(size=(2, 9, 9, _INPUTS))
  images = tf.constant(images, dtype)
  found, expected = (
    [tf.cast(value, tf.float32).numpy() for value in tf.nest.flatten(values)]
    for values in (compiled(images), network(images))
  )
  return found, expected, compiled.graph.get_operations()


def _kernels(operations):
  """Shapes of the kernels of 1x1 convolutions, sorted."""
  kernels = [op.inputs[1].shape for op in operations if op.type == 'Conv2D']
  return sorted(tuple(k[2:]) for k in kernels if tuple(k[:2]) == (1, 1))


def _check(network, kernels, tolerance=1e-5, **options):
  found, expected, operations = _compile(network, **options)
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, atol=tolerance)
  assert _kernels(operations) == kernels
  return operations


def _branch(project, follow):
  return lambda images: tf.nn.relu(follow(project(images)))


def test_two_become_their_product():
  operations = _check(_branch(_project(), _follow()), [(_INPUTS, _OUTPUTS)])
  # What it was made of is gone.
  constants = [op.outputs[0].shape for op in operations if op.type == 'Const']
  assert sorted(constants, key=len) == [[_OUTPUTS], [1, 1, _INPUTS, _OUTPUTS]]


def test_constants_of_bfloat16():
  dtype = tf.bfloat16
  network = _branch(_project(dtype=dtype), _follow(dtype=dtype))
  _check(network, [(_INPUTS, _OUTPUTS)], 0.05, dtype=dtype)


@pytest.mark.parametrize('size', [(9, 9), (None, None)])
@pytest.mark.parametrize(
  'average',
  [
    lambda net: tf.reduce_mean(net, (1, 2), keepdims=True),
    lambda net: tf.reduce_mean(net, (-2, -3), keepdims=True),
    lambda net: tf.nn.avg_pool2d(net, 4, 2, 'VALID'),
    # Where a window lies beyond the border, it is of what is inside.
    lambda net: tf.nn.avg_pool2d(net, 3, 2, 'SAME'),
    lambda net: tf.cast(
      tf.reduce_mean(tf.cast(net, tf.float64), (1, 2), keepdims=True),
      tf.float32,
    ),
  ],
)
def test_averages_are_of_the_inputs(average, size):
  project, direct, pooled = _project(), _follow(1), _follow(2, 100)

  def network(images):
    net = project(images)
    return tf.nn.relu(direct(net)), tf.nn.relu(pooled(average(net)))

  # The second would not pay for itself, but is one of averages.
  _check(network, [(_INPUTS, _OUTPUTS), (_INPUTS, 100)], size=size)


def test_strided_follower():
  _check(_branch(_project(), _follow(strides=2)), [(_INPUTS, _OUTPUTS)])


def test_three_in_a_row():
  second, third = _follow(), _layer(2, 1, 1, _OUTPUTS, 4)
  network = _branch(lambda images: second(_project()(images)), third)
  _check(network, [(_OUTPUTS, 4), (_INPUTS, _OUTPUTS)])


def _with(other):
  """A network whose projection is used otherwise, too."""
  project, follow = _project(), _follow()

  def network(images):
    net = project(images)
    return tf.nn.relu(follow(net)), other(net)

  return network


@pytest.mark.parametrize(
  'network',
  [
    _with(tf.identity),
    _with(_layer(3, 3, 3, _MIDDLE, 4)),
    _with(lambda net: tf.reduce_max(net, (1, 2), keepdims=True)),
    _with(lambda net: tf.reduce_mean(net, (1, 3), keepdims=True)),
    _with(lambda net: tf.nn.avg_pool2d(net, 2, 1, 'VALID')),
    _with(lambda net: net + 1.0),
    # As a kernel.
    _with(lambda net: tf.nn.conv2d(tf.ones([1, 9, 9, 9]), net, 1, 'VALID')),
    _branch(lambda images: tf.nn.relu(_project()(images)), _follow()),
    _branch(_project(strides=2), _follow()),
    _branch(_project(), lambda net: _follow()(net[:, 1:])),
  ],
)
def test_is_left_alone(network):
  _check(network, [(_MIDDLE, _OUTPUTS), (_INPUTS, _MIDDLE)])


def test_larger_products_are_not_made():
  # 24 * 48 are as many as 24 * 16 + 16 * 48; one less is less.
  network = _branch(_project(), _follow(outputs=48))
  _check(network, [(_MIDDLE, 48), (_INPUTS, _MIDDLE)])
  network = _branch(_project(), _follow(outputs=47))
  _check(network, [(_INPUTS, 47)])


@pytest.mark.parametrize('crop_size', [[33, 33], None])
@pytest.mark.parametrize('has_aspp', [True, False])
def test_the_last_unit_of_mobilenet_v2(crop_size, has_aspp):
  options = ModelOptions(
    {'semantic': 5},
    crop_size=crop_size,
    model_variant='mobilenet_v2',
    output_stride=16,
    add_image_level_feature=has_aspp,
    aspp_with_concat_projection=has_aspp,
    aspp_convs_filters=256,
  )
  store = slim.LayerStore()
  inference.build_predictor(options, store=store)
  scores = inference.fold(options, store).scores
  spec = tf.TensorSpec([1, *(crop_size or [None, None]), 3], name='images')
  compiled = constant_graph.compile_function(scores, spec)
  kernels = _kernels(compiled.graph.get_operations())
  assert (960, 320) not in kernels
  assert kernels.count((960, 256)) == 1 + has_aspp

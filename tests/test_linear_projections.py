"""Linear 1x1 convolutions, folded into those that follow."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab import constant_graph, inference, slim
from deeplab.common import ModelOptions
from deeplab.slim import folding

_INPUTS, _MIDDLE, _OUTPUTS = 24, 16, 8
# Kernels of what is folded, and of what is not.
_FOLDED = [(_INPUTS, _OUTPUTS)]
_ALONE = [(_MIDDLE, _OUTPUTS), (_INPUTS, _MIDDLE)]


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


def _branch(*layers):
  def network(net):
    for layer in layers:
      net = layer(net)
    return tf.nn.relu(net)

  return network


def _check(
  network,
  kernels,
  tolerance=1e-5,
  size=(9, 9),
  dtype=tf.float32,
  inputs=_INPUTS,
):
  """Compiles a network, and compares what it computes.

  Args:
    network: function from features to nested tensors.
    kernels: [(inputs, outputs)] of the 1x1 convolutions that are left, sorted.
    tolerance: absolute, of the values.
    size: [height, width] that is told beforehand.
    dtype: of the features.
    inputs: channels that are told beforehand.

  Returns:
    The tf.Operations that are left.
  """
  spec = tf.TensorSpec([2, *size, inputs], dtype, 'images')
  compiled = constant_graph.compile_function(network, spec)
  images = np.random.default_rng(9).normal(size=(2, 9, 9, _INPUTS))
  images = tf.constant(images, dtype)
  found, expected = compiled(images), network(images)
  for one, other in zip(*map(tf.nest.flatten, (found, expected)), strict=True):
    one, other = (tf.cast(x, tf.float32) for x in (one, other))
    np.testing.assert_allclose(one, other, atol=tolerance)
  operations = compiled.graph.get_operations()
  assert _kernels(operations) == kernels
  return operations


def _kernels(operations):
  """Those of 1x1 convolutions, sorted."""
  shapes = [op.inputs[1].shape for op in operations if op.type == 'Conv2D']
  return sorted(tuple(s[2:]) for s in shapes if tuple(s[:2]) == (1, 1))


def _constants(operations):
  shapes = [op.outputs[0].shape for op in operations if op.type == 'Const']
  return sorted(tuple(shape) for shape in shapes)


def test_two_become_one():
  operations = _check(_branch(_project(), _follow()), _FOLDED)
  # Of what it was made nothing is left.
  assert _constants(operations) == [(1, 1, _INPUTS, _OUTPUTS), (_OUTPUTS,)]


def test_bfloat16():
  dtype = tf.bfloat16
  network = _branch(_project(dtype=dtype), _follow(dtype=dtype))
  operations = _check(network, _FOLDED, 0.05, dtype=dtype)
  assert _constants(operations) == [(1, 1, _INPUTS, _OUTPUTS), (_OUTPUTS,)]


@pytest.mark.parametrize('options', [{'strides': 2}, {'dilations': 2}])
def test_strides_and_rates_of_what_follows(options):
  _check(_branch(_project(), _follow(**options)), _FOLDED)


def test_three_in_a_row():
  second, third = _follow(), _layer(2, 1, 1, _OUTPUTS, 4)
  _check(_branch(_project(), second, third), [(_OUTPUTS, 4), *_FOLDED])


def _mean(axes, dtype=tf.float32):
  return lambda net: tf.cast(
    tf.reduce_mean(tf.cast(net, dtype), axes, keepdims=True), net.dtype
  )


def _pool(side, stride, padding):
  return lambda net: tf.nn.avg_pool2d(net, side, stride, padding)


def _two_branches(average, outputs):
  """Of a projection, and of averages of it."""
  project, direct, pooled = _project(), _follow(1), _follow(2, outputs)

  def network(images):
    net = project(images)
    return _branch(direct)(net), _branch(average, pooled)(net)

  return network


@pytest.mark.parametrize('size', [(9, 9), (None, None)])
@pytest.mark.parametrize(
  ('average', 'outputs'),
  [
    # Of one place; more outputs than would pay for themselves at all places.
    pytest.param(_mean((1, 2)), 100, id='mean'),
    pytest.param(_mean((-2, -3)), 100, id='negative_axes'),
    pytest.param(_mean((1, 2), tf.float64), 100, id='in_another_type'),
    pytest.param(_mean(1), 8, id='mean_of_columns'),
    pytest.param(_pool(4, 2, 'VALID'), 8, id='windows'),
    # Where they lie beyond the border, of what is inside.
    pytest.param(_pool(3, 2, 'SAME'), 8, id='windows_with_padding'),
  ],
)
def test_averages_of_a_projection(average, outputs, size):
  kernels = sorted([(_INPUTS, _OUTPUTS), (_INPUTS, outputs)])
  _check(_two_branches(average, outputs), kernels, size=size)


def test_averages_of_one_window():
  kernels = [(_INPUTS, _OUTPUTS), (_INPUTS, 100)]
  _check(_two_branches(_pool(9, 1, 'VALID'), 100), kernels)


def _with(other):
  """A network whose projection is used otherwise, too."""
  project, follow = _project(), _follow()

  def network(images):
    net = project(images)
    return tf.nn.relu(follow(net)), other(net)

  return network


def _wait(layer):
  """A layer that waits for something else."""

  def wait(net):
    with tf.control_dependencies([tf.reduce_sum(net)]):
      return layer(net)

  return wait


@pytest.mark.parametrize(
  'network',
  [
    pytest.param(_with(tf.identity), id='result'),
    pytest.param(_with(_layer(3, 3, 3, _MIDDLE, 4)), id='kernel_3x3'),
    pytest.param(_with(lambda net: net + 1.0), id='sum'),
    pytest.param(_with(_pool(2, 1, 'VALID')), id='average_alone'),
    pytest.param(_with(_mean((1, 3))), id='mean_over_channels'),
    pytest.param(
      _with(lambda net: tf.nn.conv2d(tf.ones([1, 9, 9, 9]), net, 1, 'VALID')),
      id='as_a_kernel',
    ),
    pytest.param(
      _branch(_project(), tf.nn.relu, _follow()), id='activation_between'
    ),
    pytest.param(
      _branch(_project(), lambda net: net[:, 1:], _follow()), id='slice_between'
    ),
    pytest.param(
      _branch(
        _project(),
        lambda net: tf.cast(tf.cast(net, tf.int32), tf.float32),
        _follow(),
      ),
      id='rounded_between',
    ),
    pytest.param(
      _branch(
        _project(),
        lambda net: tf.cast(net, tf.float64),
        _follow(dtype=tf.float64),
      ),
      id='follows_in_another_type',
    ),
    pytest.param(_branch(_project(strides=2), _follow()), id='strided'),
    pytest.param(_branch(_wait(_project()), _follow()), id='waits'),
  ],
)
def test_is_left_alone(network):
  _check(network, _ALONE)


def test_groups_are_left_alone():
  groups = _layer(1, 1, 1, _MIDDLE // 2, _OUTPUTS)
  kernels = [(_MIDDLE // 2, _OUTPUTS), (_INPUTS, _MIDDLE)]
  _check(_branch(_project(), groups), kernels)


def test_channels_that_are_not_known():
  _check(_branch(_project(), _follow()), _ALONE, inputs=None)


@pytest.mark.parametrize(
  ('outputs', 'is_folded'),
  # 24 * 48 are as many as 24 * 16 + 16 * 48.
  [(48, False), (47, True)],
)
def test_only_what_saves_work(outputs, is_folded):
  kernels = [(_MIDDLE, outputs), (_INPUTS, _MIDDLE)]
  if is_folded:
    kernels = [(_INPUTS, outputs)]
  _check(_branch(_project(), _follow(outputs=outputs)), kernels)


def test_averages_of_all_places_count():
  kernels = [(_MIDDLE, _OUTPUTS), (_MIDDLE, 100), (_INPUTS, _MIDDLE)]
  _check(_two_branches(_pool(3, 1, 'SAME'), 100), kernels)


def test_constants_that_others_use_stay():
  """As where a layer is called twice, and not folded once."""
  kernel = np.random.default_rng(1).normal(size=(1, 1, _MIDDLE, _OUTPUTS))
  project, bias = _project(), np.ones(_OUTPUTS, np.float32)

  def network(images):
    constants = folding.constant(kernel, tf.float32), tf.constant(bias)

    def follow(net):
      net = tf.nn.conv2d(net, constants[0], 1, 'SAME')
      return tf.nn.relu(tf.nn.bias_add(net, constants[1]))

    return follow(project(images)), follow(images[..., :_MIDDLE])

  _check(network, [(_MIDDLE, _OUTPUTS), *_FOLDED])


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
  )
  store = slim.LayerStore()
  inference.build_predictor(options, store=store)
  scores = inference.fold(options, store).scores
  spec = tf.TensorSpec([1, *(crop_size or [None, None]), 3], name='images')
  compiled = constant_graph.compile_function(scores, spec)
  kernels = _kernels(compiled.graph.get_operations())
  assert (960, 320) not in kernels
  assert kernels.count((960, 256)) == 1 + has_aspp
  images = tf.random.uniform([1, 33, 33, 3], maxval=255.0)
  found, expected = compiled(images)['semantic'], scores(images)['semantic']
  error = tf.reduce_max(tf.abs(found - expected))
  assert error < 1e-4 * tf.math.reduce_std(expected)

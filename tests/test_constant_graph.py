"""Functions with constant weights."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from deeplab import constant_graph
from deeplab.slim import devices


def _images(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _spec(*shape, dtype=tf.float32, name='images'):
  return tf.TensorSpec(shape, dtype, name)


def _variables():
  return {
    'kernel': tf.Variable(_images(3, 3, 4, 5)),
    'bias': tf.Variable(_images(5)),
  }


def _convolve(variables, images):
  net = tf.nn.conv2d(images, variables['kernel'], 1, 'SAME')
  return tf.nn.relu(tf.nn.bias_add(net, variables['bias']))


def test_computes_the_same_without_variables():
  variables = _variables()
  images = tf.constant(_images(2, 9, 10, 4))

  def function(images):
    net = _convolve(variables, images)
    return {'z': net, 'a': tf.argmax(net, -1, tf.int32)}

  compiled = constant_graph.compile_function(function, _spec(None, 9, None, 4))
  expected = function(images)
  found = compiled(images)
  assert found.keys() == expected.keys()
  np.testing.assert_allclose(found['z'], expected['z'], atol=1e-5)
  np.testing.assert_array_equal(found['a'], tf.argmax(found['z'], -1))
  # It does not follow what it was made of.
  variables['kernel'].assign(-variables['kernel'])
  np.testing.assert_array_equal(compiled(images)['z'], found['z'])
  # Nor does it want another trace for other shapes.
  assert compiled(images[:1, :, :4])['z'].shape == (1, 9, 4, 5)


def test_several_arguments_in_order():
  compiled = constant_graph.compile_function(
    lambda b, a: {'difference': b - a},
    _spec(2, name='b'),
    _spec(2, name='a'),
  )
  found = compiled(tf.constant([3.0, 4.0]), tf.constant([1.0, 1.0]))
  np.testing.assert_array_equal(found['difference'], [2, 3])


@pytest.mark.parametrize('output', ['input', 'constant'])
def test_outputs_that_nothing_computes(output):
  compiled = constant_graph.compile_function(
    lambda x: {'input': x, 'constant': tf.constant([5.0])}, _spec(None)
  )
  expected = {'input': [1.0, 2.0], 'constant': [5.0]}
  values = compiled(tf.constant([1.0, 2.0]))
  np.testing.assert_array_equal(values[output], expected[output])


def test_inside_another_function_and_saved(tmp_path):
  variables = _variables()
  compiled = constant_graph.compile_function(
    lambda x: {'outputs': _convolve(variables, x)}, _spec(None, 9, 9, 4)
  )
  images = tf.constant(_images(2, 9, 9, 4))
  expected = compiled(images)['outputs']

  @tf.function(input_signature=[_spec(None, 9, 9, 4)])
  def twice(images):
    return {
      'outputs': compiled(images)['outputs'],
      'again': 2 * compiled(images)['outputs'],
    }

  tf.saved_model.save(tf.Module(), str(tmp_path), twice)
  saved = tf.saved_model.load(str(tmp_path))
  assert not saved.signatures['serving_default'].variables
  found = saved.signatures['serving_default'](images=images)
  np.testing.assert_allclose(found['outputs'], expected, atol=1e-5)
  np.testing.assert_allclose(found['again'], 2 * expected, atol=1e-5)


@pytest.mark.parametrize('size', [(8, 8), (9, 9), (9, 12)])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize(
  'paddings, constant',
  [
    ([[1, 1], [1, 1]], 0),
    ([[0, 1], [0, 1]], 0),
    ([[1, 1], [0, 2]], 0),
    ([[2, 2], [2, 2]], 0),
    # Padding of another colour is no padding of a convolution.
    ([[1, 1], [1, 1]], 3),
  ],
)
@pytest.mark.parametrize('depthwise', [True, False])
def test_explicit_padding(depthwise, paddings, constant, stride, size):
  """Whatever becomes of it, the outputs are the same."""
  kernel = _images(3, 3, 4, 1 if depthwise else 5)

  def function(images):
    net = tf.pad(images, [[0, 0], *paddings, [0, 0]], constant_values=constant)
    convolve = tf.nn.depthwise_conv2d if depthwise else tf.nn.conv2d
    return {'o': convolve(net, kernel, [1, stride, stride, 1], 'VALID')}

  for sides in (size, (None, None)):
    compiled = constant_graph.compile_function(function, _spec(2, *sides, 4))
    images = tf.constant(_images(2, *size, 4))
    np.testing.assert_allclose(
      compiled(images)['o'], function(images)['o'], atol=1e-5
    )


@pytest.mark.parametrize(
  'paddings, stride, padding',
  [
    ([[1, 1], [1, 1]], 1, b'SAME'),
    ([[1, 1], [1, 1]], 2, b'SAME'),
    ([[0, 1], [0, 1]], 2, b'VALID'),
    ([[2, 2], [2, 2]], 1, b'VALID'),
  ],
)
def test_padding_of_depthwise_convolutions(paddings, stride, padding):
  kernel = _images(3, 3, 4, 1)

  def function(images):
    net = tf.pad(images, [[0, 0], *paddings, [0, 0]])
    strides = [1, stride, stride, 1]
    return {'o': tf.nn.depthwise_conv2d(net, kernel, strides, 'VALID')}

  graph = constant_graph.compile_function(function, _spec(2, 9, 9, 4)).graph
  (convolution,) = (
    node
    for node in graph.get_operations()
    if node.type == 'DepthwiseConv2dNative'
  )
  assert convolution.get_attr('padding') == padding
  is_padded = convolution.inputs[0].op.type == 'Pad'
  assert is_padded == (padding == b'VALID')


# Sums that TensorFlow's remapper joins with convolutions, some of which it
# fails at: functions of features, and of two biased convolutions.


def _two_convolutions(first, second, net):
  return {'outputs': tf.nn.relu(first(net) + second(net))}


def _two_convolutions_and_their_sum(first, second, net):
  total = first(net) + second(net)
  return {'outputs': tf.nn.relu(total), 'total': total}


def _relu_and_another(first, second, net):
  """The shortcut and the residual of Xception's and ResNet's units."""
  total = first(net) + net
  return {'outputs': second(tf.nn.relu(total)) + total}


def _chain(first, second, net):
  for _ in range(3):
    net = second(tf.nn.relu(first(net))) + net
    net = tf.nn.relu(net) + first(net)
  return {'outputs': net}


_PATTERNS = {
  pattern.__name__.strip('_'): pattern
  for pattern in (
    _two_convolutions,
    _two_convolutions_and_their_sum,
    _relu_and_another,
    _chain,
  )
}


def _pattern(name):
  """A function of features [batch, 9, 9, 4] with constants in it."""

  def layer(seed):
    random = np.random.default_rng(seed)
    kernel = 0.2 * random.normal(size=(3, 3, 4, 4)).astype(np.float32)
    bias = random.normal(size=4).astype(np.float32)
    return lambda net: tf.nn.bias_add(
      tf.nn.conv2d(net, tf.cast(kernel, net.dtype), 1, 'SAME'),
      tf.cast(bias, net.dtype),
    )

  return lambda net: _PATTERNS[name](layer(0), layer(1), net)


@pytest.mark.parametrize('dtype', [tf.float32, tf.bfloat16])
@pytest.mark.parametrize('name', _PATTERNS)
def test_patterns_compute_the_same(name, dtype):
  function = _pattern(name)
  images = tf.cast(_images(2, 9, 9, 4), dtype)
  compiled = constant_graph.compile_function(
    function, _spec(None, 9, 9, 4, dtype=dtype)
  )
  expected = function(images)
  for key, value in compiled(images).items():
    assert value.dtype == dtype
    value, reference = (
      tf.cast(x, tf.float32).numpy() for x in (value, expected[key])
    )
    tolerance = 1e-5 if dtype == tf.float32 else 0.05
    assert np.abs(value - reference).max() <= tolerance * reference.std()


_LOGGED = """
import sys
sys.path[:0] = [{folder!r}]
import numpy as np
import tensorflow as tf
import test_constant_graph as test
from deeplab import constant_graph
if {without}:
  constant_graph._part_activations = lambda graph: None
spec = tf.TensorSpec([None, 9, 9, 4], name='images')
images = tf.zeros([1, 9, 9, 4])
for name in test._PATTERNS:
  function = test._pattern(name)
  constant_graph.compile_function(function, spec)(images)
"""


@pytest.mark.parametrize('without', [False, True])
def test_the_remapper_does_not_fail(repository, without):
  """It would leave every convolution of the graph as it was.

  It does so for a ReLU of a sum that others use too, unless it is helped. Once
  it does not, `_part_activations` can go.
  """
  if not devices.has_dilated_depthwise(tf.float32):
    pytest.skip('needs oneDNN')
  code = _LOGGED.format(folder=str(repository / 'tests'), without=without)
  done = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '0'},
    capture_output=True,
    text=True,
    check=True,
  )
  assert ('remapper failed' in done.stderr) == without

"""Winograd's convolution of three by three, for inference on processors.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks,
arXiv:1509.09308, section 4.1: F(3x3, 3x3). Nine outputs take twenty-five
products in place of eighty-one. The sums before and after, of all tiles along a
side at once, are matrix products too: one by a band matrix, which at the sides
that feature maps have costs less than passes over slices do.
"""

import functools

import numpy as np
import tensorflow as tf

# Outputs of a tile along a side.
_TILE = 3

# Polynomials are evaluated at these, and at infinity: as often as a tile has
# inputs. Of those tried, these round least, three times as much as the plain
# convolution.
_POINTS = (0.45, -0.45, 1.25, -1.25)
_SAMPLES = len(_POINTS) + 1

# With fewer channels the sums take more time than is spared.
_MIN_CHANNELS = 256

# Of the plain convolution's products; with more it is as fast.
_MAX_SHARE = 0.6

# Taken for a side that is not known: images of 513 pixels at output stride 16.
# With 256 channels what pays there costs up to half as much again from sides of
# some 150 on; with 512 it pays at 257 still.
_USUAL_SIDE = 33


def suits(kernel_shape, input_shape, stride, rates, padding):
  """Whether `conv2d` can take the place of a convolution, and pays.

  Args:
    kernel_shape: [height, width, input channels, output channels].
    input_shape: [batch, height, width, channels], None where not known.
    stride: integer.
    rates: [rate of the height, rate of the width].
    padding: 'SAME' or 'VALID'.
  """
  height, width, *channels = kernel_shape
  if (height, width, stride, padding) != (3, 3, 1, 'SAME'):
    return False
  if min(channels) < _MIN_CHANNELS:
    return False
  sides = [side or _USUAL_SIDE for side in input_shape[1:3]]
  down, across = (
    _SAMPLES * _num_tiles(*pair) for pair in zip(sides, rates, strict=True)
  )
  sums = sides[0] * across * (sides[1] + down) * sum(channels)
  products = down * across * np.prod(channels)
  # oneDNN's kernels leave out what would be multiplied by padding.
  plain = np.prod(channels) * np.prod(
    [
      side + 2 * max(side - rate, 0)
      for side, rate in zip(sides, rates, strict=True)
    ]
  )
  return sums + products <= _MAX_SHARE * plain


def _num_tiles(side, rate):
  """Tiles along a side, whose outputs are a rate apart."""
  return -(-side // (_TILE * rate)) * rate


@functools.cache
def _transforms():
  """The matrices B^T, G and A^T of the paper, by the method of Toom and Cook.

  Returns:
    float64 [samples, samples], [samples, 3] and [tile, samples].
  """

  def evaluation(size):
    """Of polynomials with so many coefficients, at the points."""
    values = np.zeros([_SAMPLES, size])
    values[:-1] = np.vander(_POINTS, size, increasing=True)
    # At infinity it is the last coefficient.
    values[-1, -1] = 1
    return values

  inputs = np.linalg.inv(evaluation(_SAMPLES)).T
  # Sums of a size, and kernels that make up for it.
  scale = np.abs(inputs).max(axis=1, keepdims=True)
  return inputs / scale, evaluation(3) * scale, evaluation(_TILE).T


def transform_kernel(kernel):
  """Kernels of the products.

  Args:
    kernel: float array [3, 3, channels, filters].

  Returns:
    float32 [samples * samples, channels, filters].
  """
  _, transform, _ = _transforms()
  # Columns come first, as in `conv2d`.
  kernel = np.einsum(
    'ai,bj,ijcf->bacf', transform, transform, kernel.astype(np.float64)
  )
  return kernel.reshape(-1, *kernel.shape[2:]).astype(np.float32)


def _side_matrices(side, rate, dtype):
  """The sums along a whole side.

  Args:
    side: integer, or an int32 tensor.
    rate: integer.
    dtype: of the results.

  Returns:
    [samples * tiles, side], from the inputs of a convolution;
    [side, samples * tiles], to its outputs.
  """
  inputs, _, outputs = (
    tf.constant(matrix, tf.float32) for matrix in _transforms()
  )
  num_tiles = _num_tiles(side, rate)
  tiles = tf.range(num_tiles)
  first = tiles // rate * rate * _TILE + tiles % rate

  def places(start, stop, axis):
    """One-hot vectors, along that axis, of where tiles have their values."""
    steps = rate * tf.range(start, stop)[:, tf.newaxis]
    # Zeros for what lies outside.
    return tf.one_hot(first + steps, side, axis=axis)

  before = tf.matmul(
    inputs, tf.reshape(places(-1, _SAMPLES - 1, -1), [_SAMPLES, -1])
  )
  after = tf.matmul(outputs, places(0, _TILE, 0), transpose_a=True)
  size = _SAMPLES * num_tiles
  return (
    tf.cast(tf.reshape(before, [size, side]), dtype),
    tf.cast(tf.reshape(after, [side, size]), dtype),
  )


def conv2d(inputs, kernel, rates):
  """A convolution of stride 1 that keeps the size.

  Args:
    inputs: [batch, height, width, channels].
    kernel: of `transform_kernel`, in the type of the inputs.
    rates: atrous rates of height and width.

  Returns:
    [batch, height, width, filters].
  """
  channels, filters = kernel.shape[1:]
  size = inputs.shape[1:3].as_list()
  if None in size:
    size = tf.unstack(tf.shape(inputs)[1:3])
  height = size[0]
  (rows_in, rows_out), (columns_in, columns_out) = (
    _side_matrices(*pair, inputs.dtype)
    for pair in zip(size, rates, strict=True)
  )
  down, across = (_num_tiles(*pair) for pair in zip(size, rates, strict=True))
  # The batch stays an axis of its own, so that TensorFlow knows that there are
  # as many images after as before, and joins what follows.
  net = tf.matmul(columns_in, inputs)
  net = tf.reshape(net, [-1, height, _SAMPLES, across * channels])
  net = tf.matmul(rows_in, tf.transpose(net, [0, 2, 1, 3]))
  net = tf.reshape(net, [-1, _SAMPLES**2, down * across, channels])
  net = tf.matmul(net, kernel)
  net = tf.reshape(net, [-1, _SAMPLES, _SAMPLES * down, across * filters])
  net = tf.transpose(tf.matmul(rows_out, net), [0, 2, 1, 3])
  net = tf.reshape(net, [-1, height, _SAMPLES * across, filters])
  net = tf.matmul(columns_out, net)
  # Nor does it see otherwise that sides it does not know are those of before.
  return tf.reshape(net, tf.concat([tf.shape(inputs)[:3], [filters]], axis=0))

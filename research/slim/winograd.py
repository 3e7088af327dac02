"""Winograd's convolution of three by three, for inference on processors.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks,
arXiv:1509.09308, section 4.1: F(2x2, 3x3). Four outputs take sixteen products
in place of thirty-six; what is spared is spent in part on sums around them.
"""

import numpy as np
import tensorflow as tf

# The matrix G of the paper.
_KERNEL_TRANSFORM = np.array(
  [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]
)

# With fewer channels the sums take more time than is spared.
_MIN_CHANNELS = 256

# Of the transformed inputs; more does not stay in the processor's cache.
_MAX_BYTES = 2**25


def suits(kernel_shape, input_shape, stride, rates, padding):
  """Whether `conv2d` can take the place of a float32 convolution, and pays.

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
  if min(channels) < _MIN_CHANNELS or None in input_shape[1:3]:
    return False
  tiles = np.prod(
    [
      _num_tiles(*pair) * pair[1]
      for pair in zip(input_shape[1:3], rates, strict=True)
    ]
  )
  return 16 * tiles * max(channels) * 4 <= _MAX_BYTES


def transform_kernel(kernel):
  """float32 [16, channels, filters] of a kernel [3, 3, channels, filters]."""
  transform = _KERNEL_TRANSFORM
  # Columns come first, as in `conv2d`.
  kernel = np.einsum(
    'ai,bj,ijcf->bacf', transform, transform, kernel.astype(np.float64)
  )
  return kernel.reshape(16, *kernel.shape[2:]).astype(np.float32)


def _num_tiles(side, rate):
  """Tiles of two outputs along a side, of those that are a rate apart."""
  return -(-side // (2 * rate))


def conv2d(inputs, kernel, rates):
  """A convolution of stride 1 that keeps the size.

  Args:
    inputs: float32 [batch, height, width, channels], sides known.
    kernel: float32 [16, channels, filters], see `transform_kernel`.
    rates: atrous rates of height and width.

  Returns:
    float32 [batch, height, width, filters].
  """
  sides = inputs.shape[1:3]
  channels, filters = kernel.shape[1:]
  tiles = [_num_tiles(*pair) for pair in zip(sides, rates, strict=True)]
  (down, across), (rate_y, rate_x) = tiles, rates
  net = tf.pad(
    inputs,
    [
      [0, 0],
      *(
        [rate, (2 * tile + 1) * rate - side]
        for side, tile, rate in zip(sides, tiles, rates, strict=True)
      ),
      [0, 0],
    ],
  )
  # A tile and the next one share two of their four rows; so with columns.
  width = (2 * across + 2) * rate_x * channels
  rows = _transform_inputs(net, down, rate_y * width)
  columns = _transform_inputs(rows, across, rate_x * channels)
  products = tf.matmul(tf.reshape(columns, [16, -1, channels]), kernel)
  outputs = [
    _transform_products(tf.unstack(part))
    for part in _transform_products(
      tf.unstack(tf.reshape(products, [4, 4, -1, filters]))
    )
  ]
  shape = [-1, across, rate_x, filters]
  rows = [
    tf.stack([tf.reshape(outputs[j][i], shape) for j in range(2)], axis=2)
    for i in range(2)
  ]
  size = [2 * tile * rate for tile, rate in zip(tiles, rates, strict=True)]
  shape = [-1, down, rate_y, size[1] * filters]
  net = tf.stack([tf.reshape(row, shape) for row in rows], axis=2)
  net = tf.reshape(net, [-1, *size, filters])
  return net[:, : sides[0], : sides[1]]


def _transform_inputs(net, tiles, stride):
  """Sums of the four rows (or columns) of each tile.

  Args:
    net: its values in memory are [..., tiles + 1, 2, stride].
    tiles: number of tiles.
    stride: number of values from one row to the next.

  Returns:
    [4, ..., tiles, stride].
  """
  pairs = tf.reshape(net, [-1, tiles + 1, 2, stride])
  even, odd = tf.unstack(pairs, axis=2)
  first, third = even[:, :-1], even[:, 1:]
  second, fourth = odd[:, :-1], odd[:, 1:]
  return tf.stack(
    [first - third, second + third, third - second, second - fourth]
  )


def _transform_products(parts):
  """The two outputs of a tile from the four products."""
  first, second, third, fourth = parts
  return first + (second + third), (second - third) - fourth

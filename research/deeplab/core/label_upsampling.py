"""Labels of logits that are smaller than the image."""

import keras
import numpy as np
import tensorflow as tf

from deeplab import slim
from deeplab.core import utils


def argmax(logits):
  """The best class of each pixel.

  Args:
    logits: float32 [batch, height, width, classes].

  Returns:
    int32 [batch, height, width].
  """
  return slim.function(lambda x: tf.argmax(x, -1, tf.int32), logits)


def upsampled_labels(logits, size):
  """The best classes of bilinearly resized logits, without resizing all.

  Between four pixels of one best class every pixel has that class, its
  interpolated logits being means of theirs. Only where the four differ, at the
  boundaries of objects, are logits interpolated and compared.

  Args:
    logits: float32 [batch, h, w, classes].
    size: [height, width] of the labels, integers or a Keras tensor.

  Returns:
    int32 [batch, height, width]: those of `argmax` of the resized logits, but
    for ties within rounding.
  """
  factors = _factors(logits.shape[1:3], size)
  if factors is None:
    return argmax(utils.resize_bilinear(logits, size))
  return slim.function(lambda x: _upsample(x, factors), logits)


def _factors(sides, size):
  """Whole numbers that height and width grow by; None where there are none."""
  if None in sides or keras.backend.is_keras_tensor(size):
    return None
  if any(
    side < 2 or large < side or (large - 1) % (side - 1)
    for side, large in zip(sides, size, strict=True)
  ):
    return None
  factors = [
    (large - 1) // (side - 1) for side, large in zip(sides, size, strict=True)
  ]
  return factors if max(factors) > 1 else None


def _upsample(logits, factors):
  """See `upsampled_labels`.

  A cell is what lies between four pixels, with its upper and left edges. The
  last row and column begin cells too, whose other pixels are copies.
  """
  _, height, width, _ = logits.shape
  shape = [tf.shape(logits)[0], height, width]
  size = [(height - 1) * factors[0] + 1, (width - 1) * factors[1] + 1]
  corners = _corners(tf.argmax(logits, -1, tf.int32))
  labels = corners[0]
  is_mixed = tf.reduce_any([labels != other for other in corners[1:]], axis=0)
  cells = tf.where(is_mixed)
  area = factors[0] * factors[1]
  labels = tf.broadcast_to(labels[..., tf.newaxis], [*shape, area])
  labels = tf.tensor_scatter_nd_update(
    labels, cells, _cell_labels(_corners(logits), cells, factors)
  )
  labels = tf.reshape(labels, [*shape, *factors])
  labels = tf.transpose(labels, [0, 1, 3, 2, 4])
  labels = tf.reshape(
    labels, [shape[0], height * factors[0], width * factors[1]]
  )
  return labels[:, : size[0], : size[1]]


def _corners(values):
  """Values at the upper left, upper right, lower left, lower right of cells.

  Args:
    values: [batch, height, width, ...].

  Returns:
    Four tensors of the same shape.
  """
  rest = [[0, 0]] * (values.shape.rank - 3)
  padded = tf.pad(values, [[0, 0], [0, 1], [0, 1], *rest], 'SYMMETRIC')
  return (
    values,
    padded[:, :-1, 1:],
    padded[:, 1:, :-1],
    padded[:, 1:, 1:],
  )


def _cell_labels(corners, cells, factors):
  """The best classes of the pixels of some cells.

  Args:
    corners: logits at the four corners, [batch, height, width, classes] each.
    cells: int64 [n, 3], indices of the cells.
    factors: [height, width] of a cell.

  Returns:
    int32 [n, height * width].
  """
  classes = corners[0].shape[-1]
  corners = tf.stack([tf.gather_nd(values, cells) for values in corners])
  weights = tf.constant(_weights(factors), corners.dtype)
  values = tf.matmul(weights, tf.reshape(corners, [4, -1]))
  values = tf.reshape(values, [weights.shape[0], -1, classes])
  return tf.transpose(tf.argmax(values, -1, tf.int32))


def _weights(factors):
  """Float array [height * width of a cell, 4], of the corners in its pixels."""
  down, right = np.meshgrid(
    *(np.arange(factor) / factor for factor in factors), indexing='ij'
  )
  weights = [
    (1 - down) * (1 - right),
    (1 - down) * right,
    down * (1 - right),
    down * right,
  ]
  return np.stack([weight.ravel() for weight in weights], axis=1)

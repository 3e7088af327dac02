"""Softmax cross entropy of upsampled logits that are never held as a whole.

At 513x513 pixels and 21 classes the upsampled logits of a batch of four are 88
megabytes, and the loss and its gradient pass over them a dozen times. Here the
rows of an image go by in groups that fit the cache: they are upsampled, their
losses are added up, and their gradient goes back to the logits at once.
"""

import numpy as np
import tensorflow as tf

from deeplab.slim import devices

# Rows of a group, about.
_ROWS = 32

# Fewer pixels in an image are not worth what XLA takes to compile.
_MIN_PIXELS = 128 * 128


def applies(logits, labels):
  """Whether `weighted_sum` takes these, and is faster on this machine.

  Args:
    logits: [batch, h, w, classes].
    labels: [batch, height, width, 1].
  """
  size = labels.shape[1:3]
  return (
    logits.dtype == tf.float32
    and logits.shape.is_fully_defined()
    and labels.shape.is_fully_defined()
    and size[0] * size[1] >= _MIN_PIXELS
    and devices.are_processors()
  )


def weighted_sum(logits, labels, weights):
  """The sum of the weighted losses of all pixels.

  Args:
    logits: float32 [batch, h, w, classes], upsampled with aligned corners.
    labels: int32 [batch, height, width], all of them classes.
    weights: float32 [batch, height, width], without gradient.

  Returns:
    A float32 scalar.
  """

  @tf.custom_gradient
  def total(logits):
    # Each image is an operation of its own: they run at the same time. Tapes
    # do not look into it.
    images = (
      tf.unstack(tf.stop_gradient(value)) for value in (logits, labels, weights)
    )
    losses, gradients = zip(*map(_image, *images), strict=True)
    return tf.add_n(losses), lambda factor: factor * tf.stack(gradients)

  return total(logits)


@tf.function(autograph=False, jit_compile=True)
def _image(logits, labels, weights):
  """Loss of an image, and the gradient of its logits.

  Args:
    logits: float32 [h, w, classes].
    labels: int32 [height, width].
    weights: float32 [height, width].

  Returns:
    A float32 scalar, and float32 [h, w, classes].
  """
  h, w, classes = logits.shape
  height, width = labels.shape
  groups = -(-height // _ROWS)
  rows = -(-height // groups)
  to_width = tf.constant(_resize_matrix(w, width))
  to_height, labels, weights = (
    tf.reshape(
      tf.pad(value, [[0, groups * rows - height], [0, 0]]),
      [groups, rows, value.shape[1]],
    )
    for value in (tf.constant(_resize_matrix(h, height)), labels, weights)
  )
  # Pixels last: everything but the sums over the classes is a plain loop.
  logits = tf.transpose(logits, [2, 1, 0])

  def add_group(i, loss, gradient):
    narrow = tf.einsum('yi,cji->ycj', to_height[i], logits)
    values = tf.reshape(
      tf.matmul(tf.reshape(narrow, [-1, w]), to_width, transpose_b=True),
      [rows, classes, width],
    )
    greatest = tf.reduce_max(values, 1, keepdims=True)
    powers = tf.exp(values - greatest)
    sums = tf.reduce_sum(powers, 1, keepdims=True)
    weight = weights[i][:, tf.newaxis]
    is_label = labels[i][:, tf.newaxis] == tf.range(classes)[:, tf.newaxis]
    of_label = tf.reduce_sum(tf.where(is_label, values, 0.0), 1, keepdims=True)
    loss += tf.reduce_sum((tf.math.log(sums) + greatest - of_label) * weight)
    change = (powers / sums - tf.cast(is_label, tf.float32)) * weight
    narrow = tf.reshape(
      tf.matmul(tf.reshape(change, [-1, width]), to_width), [rows, classes, w]
    )
    gradient += tf.einsum('yi,ycj->cji', to_height[i], narrow)
    return i + 1, loss, gradient

  _, loss, gradient = tf.while_loop(
    lambda i, *_: i < groups,
    add_group,
    (0, tf.constant(0.0), tf.zeros_like(logits)),
  )
  return loss, tf.transpose(gradient, [2, 1, 0])


def _resize_matrix(side, new_side):
  """A bilinear resize of one side as a matrix [new_side, side].

  The numbers are those of TensorFlow's ResizeBilinear.
  """
  scale = np.float32(side - 1) / np.float32(new_side - 1)
  places = np.arange(new_side, dtype=np.float32) * scale
  below = np.minimum(np.floor(places).astype(np.int64), side - 1)
  share = places - below.astype(np.float32)
  matrix = np.zeros((new_side, side), np.float32)
  index = np.arange(new_side)
  matrix[index, below] = 1.0 - share
  matrix[index, np.minimum(below + 1, side - 1)] += share
  return matrix

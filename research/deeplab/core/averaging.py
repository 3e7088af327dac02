"""The mean of the probabilities of several passes over an image."""

import itertools

import keras
import tensorflow as tf

from deeplab import slim
from deeplab.core import utils

# Numbers that are worked on at once: they stay in a processor's cache.
_STRIP_NUMBERS = 2**17

# Strips that are worked on at the same time, on as many processors.
_PARALLEL_STRIPS = 4


def average(images, logits_of, scales, add_flipped_images, size):
  """The mean of the probabilities over scales and mirror images.

  One pass follows the other, so that there is never more than one in memory.

  Args:
    images: float32 [batch, height, width, 3].
    logits_of: function of images and a scale that returns {output: float32
      [batch, h, w, classes]}.
    scales: of the images.
    add_flipped_images: also use the mirror image at each scale.
    size: [height, width] of the images, integers or a Keras tensor.

  Returns:
    {output: float32 [batch, height, width, classes]}.
  """
  flips = (False, True) if add_flipped_images else (False,)
  sums = {}
  for scale, flip in itertools.product(scales, flips):
    inputs = slim.function(_after, images, *sums.values())
    if flip:
      inputs = keras.ops.flip(inputs, axis=2)
    for output, value in logits_of(inputs, scale).items():
      if flip:
        value = keras.ops.flip(value, axis=2)
      value = keras.ops.softmax(utils.resize_bilinear(value, size))
      sums[output] = sums[output] + value if output in sums else value
  passes = len(scales) * len(flips)
  return {output: total / passes for output, total in sums.items()}


def average_by_strips(images, logits_of, scales, add_flipped_images, size):
  """The same as `average`, for speed.

  Of each pass the small logits are kept, and an image and its mirror image go
  through the network as one batch.

  Args:
    images: see `average`.
    logits_of: likewise.
    scales: likewise.
    add_flipped_images: likewise.
    size: likewise.

  Returns:
    See `average`.
  """
  passes = {}
  # What the largest scale leaves free is enough for the others.
  for scale in sorted(scales, reverse=True):
    inputs = slim.function(_after, images, *itertools.chain(*passes.values()))
    if add_flipped_images:
      mirrored = keras.ops.flip(inputs, axis=2)
      inputs = keras.ops.concatenate([inputs, mirrored], axis=0)
    for output, value in logits_of(inputs, scale).items():
      values = [value]
      if add_flipped_images:
        value, mirrored = slim.function(lambda x: tf.split(x, 2), value)
        values = [value, keras.ops.flip(mirrored, axis=2)]
      passes.setdefault(output, []).extend(values)
  return {
    output: mean_probabilities(values, size)
    for output, values in passes.items()
  }


def _after(tensor, *others):
  """A tensor that is there once the others are."""
  with tf.control_dependencies(others):
    return tf.identity(tensor)


def mean_probabilities(logits, size):
  """The mean of the softmaxes of several logits, resized to one size.

  It is made one strip of rows after the other, so that no resized logits nor
  their softmaxes are ever there for the whole image.

  Args:
    logits: list of float32 [batch, h, w, classes], h and w of each its own.
    size: [height, width] of the result, integers or a Keras tensor.

  Returns:
    float32 [batch, height, width, classes].
  """
  if isinstance(size, (tuple, list)):
    return slim.function(lambda *x: _mean(x, size), *logits)
  return slim.function(lambda size, *x: _mean(x, size), size, *logits)


def _mean(logits, size):
  """See `mean_probabilities`; the size may be a tensor."""
  height, width = size[0], size[1]
  batch, classes = tf.shape(logits[0])[0], logits[0].shape[-1]
  rows = tf.maximum(1, _STRIP_NUMBERS // (batch * width * classes))
  strips = -(-height // rows)
  padding = [[0, strips * rows - height], [0, 0]]
  weights = [
    tf.reshape(
      tf.pad(_row_weights(tf.shape(x)[1], height), padding),
      [strips, rows, tf.shape(x)[1]],
    )
    for x in logits
  ]
  # Rows, which are mixed at once, as vectors.
  flat = [
    tf.reshape(x, [batch, tf.shape(x)[1], tf.shape(x)[2] * classes])
    for x in logits
  ]

  def strip(weights):
    total = 0.0
    for rows_of, x, whole in zip(weights, flat, logits, strict=True):
      mixed = tf.reshape(
        tf.matmul(rows_of, x), [batch, rows, tf.shape(whole)[2], classes]
      )
      total += tf.nn.softmax(
        tf.raw_ops.ResizeBilinear(
          images=mixed, size=[rows, width], align_corners=True
        )
      )
    return total / len(logits)

  values = tf.map_fn(
    strip,
    weights,
    parallel_iterations=_PARALLEL_STRIPS,
    fn_output_signature=tf.TensorSpec([None, None, None, classes], tf.float32),
  )
  values = tf.transpose(values, [1, 0, 2, 3, 4])
  values = tf.reshape(values, [batch, strips * rows, width, classes])
  values = values[:, :height]
  static = [None if tf.is_tensor(s) else s for s in (height, width)]
  return tf.ensure_shape(values, [logits[0].shape[0], *static, classes])


def _row_weights(side, large):
  """[large, side]: how a resize, corners aligned, mixes rows."""
  rows = tf.eye(side)[tf.newaxis, :, tf.newaxis]
  return tf.raw_ops.ResizeBilinear(
    images=rows, size=[large, 1], align_corners=True
  )[0, :, 0]

"""The mean of the probabilities of several passes over an image."""

import functools
import itertools

import keras
import tensorflow as tf

from deeplab import slim
from deeplab.core import utils
from deeplab.core.side_by_side import one_by_one

# Parts of the image that are averaged by themselves.
_STRIPS = 8


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
    inputs = slim.function(slim.after, images, *sums.values())
    if flip:
      inputs = keras.ops.flip(inputs, axis=2)
    for output, value in logits_of(inputs, scale).items():
      if flip:
        value = keras.ops.flip(value, axis=2)
      value = keras.ops.softmax(utils.resize_bilinear(value, size))
      sums[output] = sums[output] + value if output in sums else value
  passes = len(scales) * len(flips)
  return {output: total / passes for output, total in sums.items()}


def passes(images, logits_of, scales, add_flipped_images):
  """The small logits of several passes over the images, for speed.

  Each image, mirrored ones too, goes through all scales by itself.

  Args:
    images: see `average`.
    logits_of: likewise.
    scales: likewise.
    add_flipped_images: likewise.

  Returns:
    {output: list of float32 [batch, h, w, classes]}, h and w of each its own.
  """
  if add_flipped_images:
    mirrored = keras.ops.flip(images, axis=2)
    images = keras.ops.concatenate([images, mirrored], axis=0)
  image = keras.Input(images.shape[1:])
  found = {}
  # What the largest scale leaves free is enough for the others.
  for scale in sorted(scales, reverse=True):
    inputs = slim.function(slim.after, image, *itertools.chain(*found.values()))
    for output, value in logits_of(inputs, scale).items():
      found.setdefault(output, []).append(value)
  network = keras.Model(image, found)
  found = slim.function(functools.partial(one_by_one, network), images)
  if not add_flipped_images:
    return found
  return {
    output: list(itertools.chain(*map(_unflipped, values)))
    for output, values in found.items()
  }


def _unflipped(values):
  """Those of images, and those of mirror images mirrored back."""
  value, mirrored = slim.function(lambda x: tf.split(x, 2), values)
  return value, keras.ops.flip(mirrored, axis=2)


def mean_probabilities(logits, size):
  """The mean of the softmaxes of several logits, resized to one size.

  It is made by strips of rows, on as many of them at once as there are
  processors. No resized logits nor their softmaxes are ever there for the whole
  image.

  Args:
    logits: list of float32 [batch, h, w, classes], h and w of each its own.
    size: [height, width] of the result, integers or a Keras tensor.

  Returns:
    float32 [batch, height, width, classes].
  """
  return utils.from_passes(_mean, logits, size)


def _mean(logits, size):
  """See `mean_probabilities`; of tensors."""
  height, width = tf.unstack(size)
  rows = -(-height // _STRIPS)
  weights = [_row_weights(x, height, rows * _STRIPS) for x in logits]
  strips = []
  for first in range(_STRIPS):
    part = slice(first * rows, (first + 1) * rows)
    total = utils.sum_in_turn(
      lambda x, mix, part=part: tf.nn.softmax(
        _resized_rows(x, mix[part], width)
      ),
      logits,
      weights,
    )
    strips.append(total / len(logits))
  return tf.concat(strips, axis=1)[:, :height]


def _row_weights(logits, height, padded):
  """How a resize mixes rows: float32 [padded, h], zeros beyond `height`."""
  rows = tf.eye(tf.shape(logits)[1])[tf.newaxis, :, tf.newaxis]
  weights = tf.raw_ops.ResizeBilinear(
    images=rows, size=[height, 1], align_corners=True
  )[0, :, 0]
  return tf.pad(weights, [[0, padded - height], [0, 0]])


def _resized_rows(logits, weights, width):
  """Some rows of resized logits.

  Args:
    logits: float32 [batch, h, w, classes].
    weights: float32 [rows, h].
    width: that of the result.

  Returns:
    float32 [batch, rows, width, classes].
  """
  batch, height, small, classes = tf.unstack(tf.shape(logits))
  rows = tf.shape(weights)[0]
  flat = tf.reshape(logits, [batch, height, small * classes])
  mixed = tf.reshape(tf.matmul(weights, flat), [batch, rows, small, classes])
  return tf.raw_ops.ResizeBilinear(
    images=mixed, size=[rows, width], align_corners=True
  )

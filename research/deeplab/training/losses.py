"""Losses of the training step."""

import functools
import typing
from collections.abc import Callable

import tensorflow as tf

from deeplab.training import upsampled_loss

# Below this many pixels (none, that is) the loss is zero; official guard
# against a division by zero.
_MIN_PIXELS = 1e-5


def softmax_cross_entropy_loss_for_each_scale(
  scales_to_logits,
  labels,
  num_classes,
  ignore_label,
  loss_weight=1.0,
  upsample_logits=True,
  hard_example_mining_step=0,
  top_k_percent_pixels=1.0,
  global_step=0,
  batch=None,
):
  """Softmax cross entropy of each scale's logits.

  The losses of the pixels are weighted, summed and divided by the number of
  pixels that are not ignored; their weights do not enter the divisor. With
  `top_k_percent_pixels` below 1 only the pixels with the largest losses count,
  and the divisor is the number of those whose loss is not zero. A batch of
  ignored pixels alone has loss 0 and gradient 0.

  Where the images are a part of a batch, `batch` makes the mean over all parts'
  losses the loss of the whole batch: each divides by the number of pixels that
  a part has on average. Which pixels have the largest losses is known of a part
  alone; the divisor is its own then.

  Args:
    scales_to_logits: {name of the scale: float32 [batch, h, w, num_classes]}.
    labels: int32 [batch, height, width, 1].
    num_classes: number of classes.
    ignore_label: label of the pixels that do not count.
    loss_weight: one number for all pixels, or one for each class.
    upsample_logits: resize the logits to the labels' size (True) or the
      labels to the logits' size (False).
    hard_example_mining_step: the share of pixels that count falls linearly
      from 1 to `top_k_percent_pixels` until this step; 0 for no ramp.
    top_k_percent_pixels: share in 0..1 of the pixels that count.
    global_step: integer or integer tensor, number of finished steps.
    batch: a Batch that `labels` are a part of; None for the whole of it.

  Returns:
    {name of the scale: float32 scalar}.
  """
  losses = {}
  for scale, logits in scales_to_logits.items():
    resize = functools.partial(_resize_labels, size=_size(logits))
    scaled_labels = labels if upsample_logits else resize(labels)
    kept = tf.not_equal(scaled_labels, ignore_label)
    # Any class will do where the weight is zero.
    classes = tf.where(kept, scaled_labels, 0)
    weights = _weights(classes, tf.cast(kept, tf.float32), loss_weight)
    takes_all = top_k_percent_pixels == 1.0
    if takes_all and upsample_logits and upsampled_loss.applies(logits, labels):
      total = upsampled_loss.weighted_sum(
        logits, classes[..., 0], weights[..., 0]
      )
    else:
      if upsample_logits:
        logits = tf.raw_ops.ResizeBilinear(
          images=logits, size=_size(labels), align_corners=True
        )
      pixel_losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=tf.reshape(classes, [-1]),
        logits=tf.reshape(logits, [-1, num_classes]),
      ) * tf.reshape(weights, [-1])
      if not takes_all:
        count = _num_hard_pixels(
          tf.size(pixel_losses),
          top_k_percent_pixels,
          hard_example_mining_step,
          global_step,
        )
        pixel_losses = _largest(pixel_losses, count)
        kept = tf.not_equal(pixel_losses, 0.0)
      total = tf.reduce_sum(pixel_losses)
    num_present = tf.reduce_sum(tf.cast(kept, tf.float32))
    if batch is not None and takes_all:
      all_labels = batch.labels if upsample_logits else resize(batch.labels)
      all_kept = tf.cast(tf.not_equal(all_labels, ignore_label), tf.float32)
      num_present = batch.mean(tf.reduce_sum(all_kept) / batch.num_parts)
    losses[scale] = _mean_of_present(total, num_present)
  return losses


class Batch(typing.NamedTuple):
  """The batch that a replica sees in parts.

  Attributes:
    labels: int32 [batch, height, width, 1], those of all parts.
    num_parts: number of the parts, of one size.
    mean: function of a scalar tensor, its mean over the replicas; or one that
      returns it as it is, where each replica has a loss of its own.
  """

  labels: tf.Tensor
  num_parts: int
  mean: Callable


def _resize_labels(labels, size):
  return tf.raw_ops.ResizeNearestNeighbor(
    images=labels, size=size, align_corners=True
  )


def _size(images):
  """[height, width], as integers where they are static."""
  size = images.shape[1:3]
  return size.as_list() if size.is_fully_defined() else tf.shape(images)[1:3]


def _weights(classes, keep_mask, loss_weight):
  """The weight of each pixel's loss.

  Args:
    classes: int32, any shape.
    keep_mask: float32, 1.0 where the pixel is not ignored.
    loss_weight: a number or a list with one for each class.

  Returns:
    float32 of that shape.
  """
  if isinstance(loss_weight, int | float):
    return keep_mask * float(loss_weight)
  return keep_mask * tf.gather(tf.constant(loss_weight, tf.float32), classes)


def _num_hard_pixels(num_pixels, share, ramp_steps, global_step):
  """How many pixels count at this step, in float32 as in the original."""
  num_pixels = tf.cast(num_pixels, tf.float32)
  if ramp_steps:
    ratio = tf.minimum(1.0, tf.cast(global_step, tf.float32) / ramp_steps)
    share = ratio * share + (1.0 - ratio)
  return tf.cast(share * num_pixels, tf.int32)


def _largest(losses, count):
  """The losses in descending order, with zeros after the first `count`.

  Sorting all of them keeps the shape static, which XLA needs, where `count`
  depends on the step.
  """
  losses = tf.sort(losses, direction='DESCENDING')
  return tf.where(tf.range(tf.size(losses)) < count, losses, 0.0)


def _mean_of_present(total, num_present):
  loss = total / tf.maximum(_MIN_PIXELS, num_present)
  return tf.cast(num_present > 0, tf.float32) * loss

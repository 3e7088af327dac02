"""Small pieces that the model and its parts share."""

import functools

import keras
import tensorflow as tf

from deeplab import slim
from deeplab.common import InputError
from deeplab.slim.nets.mobilenet import conv_blocks

# The piecewise linear sigmoid, under its name in the official code.
q_sigmoid = conv_blocks.hard_sigmoid


def scale_dimension(dim, scale):
  """Scales a side so that the corner pixels keep their places.

  Args:
    dim: integer.
    scale: factor, for example 1 / output_stride.

  Returns:
    The integer part of (dim - 1) * scale + 1.
  """
  return int((float(dim) - 1.0) * scale + 1.0)


def scale_size(size, scale):
  """`scale_dimension` of height and width.

  Args:
    size: two integers, or an int32 Keras tensor of shape [2] where the size
      is only known when the network runs.
    scale: factor.

  Returns:
    The same kind as `size`.
  """
  if not keras.backend.is_keras_tensor(size):
    return tuple(scale_dimension(dim, scale) for dim in size)
  # In float64, like the Python floats above.
  return slim.function(
    lambda s: tf.cast((tf.cast(s, tf.float64) - 1.0) * scale + 1.0, tf.int32),
    size,
  )


def spatial_size(images):
  """Height and width: two integers where static, else a Keras tensor [2]."""
  size = images.shape[1:3]
  if None not in size:
    return tuple(size)
  return slim.function(lambda x: tf.shape(x)[1:3], images)


def function_of_size(fn, size, *inputs):
  """Applies fn(*tensors, size) to Keras tensors.

  Args:
    fn: function of TensorFlow tensors.
    size: [height, width], given to `fn` as it is: integers, or a Keras tensor.
    *inputs: Keras tensors.

  Returns:
    Keras tensors of what `fn` returns.
  """
  if keras.backend.is_keras_tensor(size):
    return slim.function(fn, *inputs, size)

  @functools.wraps(fn)  # The name of `fn` is what statistics show.
  def call(*tensors):
    return fn(*tensors, size)

  return slim.function(call, *inputs)


def from_passes(fn, passes, size):
  """Applies fn(passes, size) to Keras tensors.

  It is traced once for all sizes, for each number of passes and of classes.

  Args:
    fn: function of a list of tensors and an int32 tensor [2] that returns a
      tensor [batch, height, width, ...].
    passes: list of Keras tensors, float32 [batch, h, w, classes], h and w of
      each its own.
    size: [height, width], integers or a Keras tensor.

  Returns:
    Keras tensor [batch, height, width, ...].
  """

  @functools.wraps(fn)  # See above.
  def call(*arguments):
    *passes, size = arguments
    batch, _, _, classes = passes[0].shape
    values = _traced(fn, len(passes), classes)(passes, size)
    sides = [None, None] if tf.is_tensor(size) else size
    return tf.ensure_shape(values, [batch, *sides, *values.shape[3:]])

  return function_of_size(call, size, *passes)


def sum_in_turn(fn, passes, *others):
  """The sum of what a function makes of several passes.

  One follows the other, so that there is never more than one in memory.

  Args:
    fn: function of a pass, and what else belongs to it, that returns a tensor.
    passes: list of tensors.
    *others: as many more lists; what they hold of a pass goes to `fn`, too.

  Returns:
    A tensor.
  """
  total = None
  for x, *more in zip(passes, *others, strict=True):
    if total is not None:
      x = slim.after(x, total)
    value = fn(x, *more)
    total = value if total is None else total + value
  return total


@functools.cache
def _traced(fn, count, classes):
  """`fn` of so many passes of any size."""
  passes = [tf.TensorSpec([None, None, None, classes])] * count
  return tf.function(fn, input_signature=[passes, tf.TensorSpec([2], tf.int32)])


def average_pool_crop(features, window, stride, pooling_crop_size, crop_size):
  """Means over windows of the size of a crop, or of a part of one.

  Args:
    features: [batch, height, width, channels].
    window: [height, width] of the windows, in features.
    stride: integer or pair.
    pooling_crop_size: size in pixels that the windows come from.
    crop_size: [height, width] of the images.

  Returns:
    [batch, height', width', channels], of the windows that fit (VALID).

  Raises:
    InputError: none fits.
  """
  sides = features.shape[1:3]
  if any(w > side for w, side in zip(window, sides, strict=True)):
    raise InputError(
      f'image_pooling_crop_size={list(pooling_crop_size)} is larger than the '
      f'images, crop_size={list(crop_size)}.'
    )
  return slim.avg_pool2d(features, window, stride)


def resize_bilinear(images, size):
  """Bilinear resize with aligned corners.

  Args:
    images: floating point [batch, height, width, channels].
    size: [height', width'], integers or a Keras tensor.

  Returns:
    [batch, height', width', channels] of the same type.
  """
  is_known = not keras.backend.is_keras_tensor(size)
  if is_known and tuple(images.shape[1:3]) == tuple(size):
    return images
  return function_of_size(_resize_bilinear, size, images)


def _resize_bilinear(images, size):
  # Its result is float32 whatever it gets, and for other types its gradient
  # has no kernel on some devices.
  resized = tf.raw_ops.ResizeBilinear(
    images=tf.cast(images, tf.float32), size=size, align_corners=True
  )
  return tf.cast(resized, images.dtype)


def resize_nearest(labels, size):
  """Nearest-neighbour resize with aligned corners.

  Args:
    labels: integers [batch, height, width].
    size: [height', width'], integers or a Keras tensor.

  Returns:
    The same type, [batch, height', width'].
  """
  return function_of_size(_resize_nearest, size, labels)


def _resize_nearest(labels, size):
  # As floats, which are exact here: TFLite has no such operation for int32.
  resized = tf.raw_ops.ResizeNearestNeighbor(
    images=tf.cast(labels[..., tf.newaxis], tf.float32),
    size=size,
    align_corners=True,
  )
  return tf.cast(resized[..., 0], labels.dtype)


def split_separable_conv2d(
  inputs,
  filters,
  kernel_size=3,
  rate=1,
  weight_decay=0.00004,
  depthwise_weights_initializer_stddev=0.33,
  pointwise_weights_initializer_stddev=0.06,
  scope=None,
):
  """Depthwise and pointwise convolution with normalisation between them.

  Args:
    inputs: [batch, height, width, channels].
    filters: of the pointwise convolution.
    kernel_size: of the depthwise convolution.
    rate: atrous rate of the depthwise convolution.
    weight_decay: of the pointwise kernel; the depthwise one has none.
    depthwise_weights_initializer_stddev: standard deviation.
    pointwise_weights_initializer_stddev: standard deviation.
    scope: name; '_depthwise' and '_pointwise' are appended.

  Returns:
    [batch, height, width, filters].
  """
  net = slim.separable_conv2d(
    inputs,
    None,
    kernel_size,
    rate=rate,
    weights_initializer=slim.truncated_normal_initializer(
      depthwise_weights_initializer_stddev
    ),
    weights_regularizer=None,
    scope=scope + '_depthwise',
  )
  return slim.conv2d(
    net,
    filters,
    1,
    weights_initializer=slim.truncated_normal_initializer(
      pointwise_weights_initializer_stddev
    ),
    weights_regularizer=slim.l2_regularizer(weight_decay),
    scope=scope + '_pointwise',
  )

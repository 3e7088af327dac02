"""Image and label operations of the input pipeline.

Every resize aligns the corners unless told otherwise, as in the original.
Every random choice is a pure function of its `seed`, so that the augmentation
of an example can be made again; without a seed it is drawn from TensorFlow's
global generator.
"""

import fractions
import re

import numpy as np
import tensorflow as tf

from deeplab import common
from deeplab.core import random_numbers

# What is between the marks is meant for the user; TensorFlow wraps it in the
# name of the operation, the iterator and the node.
_MARKS = ('<<input error: ', '>>')

_RESIZERS = {
  tf.image.ResizeMethod.BILINEAR: tf.raw_ops.ResizeBilinear,
  tf.image.ResizeMethod.NEAREST_NEIGHBOR: tf.raw_ops.ResizeNearestNeighbor,
  tf.image.ResizeMethod.BICUBIC: tf.raw_ops.ResizeBicubic,
  tf.image.ResizeMethod.AREA: tf.raw_ops.ResizeArea,
}


def check_input(value, condition, describe):
  """Passes a tensor on, or fails with a message for the user.

  It works in a tf.data pipeline too; `input_error_text` finds the message in
  the error again.

  Args:
    value: tensor that only makes sense under the condition.
    condition: boolean scalar tensor.
    describe: function without arguments that returns the parts of the
      message, strings and tensors.

  Returns:
    `value`. What is computed from it waits for the check.

  Raises:
    tf.errors.InvalidArgumentError: the condition is false.
  """

  def fail():
    parts = [
      part
      if isinstance(part, str) or part.dtype == tf.string
      else tf.strings.as_string(part)
      for part in describe()
    ]
    message = tf.strings.join([_MARKS[0], *parts, _MARKS[1]])
    tf.raw_ops.Assert(condition=False, data=[message])
    return False

  is_fine = tf.cond(condition, lambda: True, fail)
  with tf.control_dependencies([is_fine]):
    return tf.identity(value)


def input_error_text(error: Exception) -> str | None:
  """The message given to `check_input`, None if the error has another cause."""
  found = re.search(
    re.escape(_MARKS[0]) + '(.*?)' + re.escape(_MARKS[1]),
    str(error),
    re.DOTALL,
  )
  # The Assert operation escapes quotes and backslashes.
  return found and re.sub(r'\\(.)', r'\1', found.group(1))


def flip_dim(tensor_list, prob=0.5, dim=1, seed=None):
  """Randomly flips a dimension of all tensors, or of none.

  Args:
    tensor_list: tensors with the same number of dimensions.
    prob: probability of the flip.
    dim: the dimension to flip, counted from 0.
    seed: int32 or int64 tensor [2].

  Returns:
    A list: the tensors, flipped or not, and a boolean scalar that says which.

  Raises:
    ValueError: a tensor has no dimension `dim`.
  """
  for tensor in tensor_list:
    if not 0 <= dim < tensor.shape.rank:
      raise ValueError(
        f'dim must be a dimension of every tensor. Received: dim={dim}, a '
        f'tensor of shape {tensor.shape}.'
      )
  is_flipped = random_numbers.uniform(seed) <= prob
  outputs = tf.cond(
    is_flipped,
    lambda: [tf.reverse(tensor, [dim]) for tensor in tensor_list],
    lambda: [tf.identity(tensor) for tensor in tensor_list],
  )
  return [*outputs, is_flipped]


def pad_to_bounding_box(
  image, offset_height, offset_width, target_height, target_width, pad_value
):
  """Pads an image with any value, to a size that may be a tensor.

  Args:
    image: [height, width, channels] or [batch, height, width, channels].
    offset_height: rows to add on top.
    offset_width: columns to add on the left.
    target_height: height of the result.
    target_width: width of the result.
    pad_value: what to pad with, a number or a colour [1, 1, channels].

  Returns:
    [target_height, target_width, channels], with the batch in front if the
    image has one, in the image's dtype.

  Raises:
    ValueError: the image has neither 3 nor 4 dimensions, or cannot lie at the
      offset in the target (tf.errors.InvalidArgumentError if that is known
      only when it runs).
  """
  image = tf.convert_to_tensor(image)
  if image.shape.rank not in (3, 4):
    raise ValueError(
      'image must have 3 or 4 dimensions. Received: an image of shape '
      f'{image.shape}.'
    )
  *_, height, width, _ = resolve_shape(image)
  paddings = [
    [offset_height, target_height - offset_height - height],
    [offset_width, target_width - offset_width - width],
    [0, 0],
  ]
  # The original pads image - pad_value with zeros, which rounds the image.
  pad_value = tf.cast(pad_value, image.dtype)
  color = tf.get_static_value(pad_value)
  if image.shape.rank == 4:
    paddings.insert(0, [0, 0])
  if color is not None and np.all(color == np.ravel(color)[0]):
    padded = tf.pad(image, paddings, constant_values=np.ravel(color)[0])
  else:
    padded = _surround(image, paddings, pad_value)
  padded.set_shape(
    [
      *image.shape[:-3],
      tf.get_static_value(target_height),
      tf.get_static_value(target_width),
      image.shape[-1],
    ]
  )
  return padded


def _surround(image, paddings, color):
  """Pads height and width of an image with blocks of a colour.

  Selecting pixel by pixel between image and colour takes several times as long.
  """
  for axis in (-2, -3):
    blocks = []
    for count in paddings[axis]:
      shape = resolve_shape(image)
      shape[axis] = count
      blocks.append(tf.broadcast_to(color, shape))
    image = tf.concat([blocks[0], image, blocks[1]], axis)
  return image


def random_crop(image_list, crop_height, crop_width, seed=None):
  """Crops the same random window out of every image.

  Args:
    image_list: tensors [height, width, channels] of one height and width;
      channels may differ.
    crop_height: height of the window.
    crop_width: width of the window.
    seed: int32 or int64 tensor [2].

  Returns:
    The list of crops [crop_height, crop_width, channels].

  Raises:
    ValueError: the list is empty or an image has not 3 dimensions.
    tf.errors.InvalidArgumentError: the images differ in size or are smaller
      than the window.
  """
  if not image_list:
    raise ValueError('image_list must hold an image. Received: none.')
  for image in image_list:
    if image.shape.rank != 3:
      raise ValueError(
        'every image must have 3 dimensions. Received: an image of shape '
        f'{image.shape}.'
      )
  size = check_same_size(image_list)
  room = check_input(
    size - [crop_height, crop_width],
    tf.reduce_all(size >= [crop_height, crop_width]),
    lambda: [
      f'the crop of {crop_height}x{crop_width} is larger than the image of ',
      *size_text(size),
      '.',
    ],
  )
  row, column = tf.unstack(random_numbers.offset(room, seed))
  crops = []
  for image in image_list:
    crop = image[row : row + crop_height, column : column + crop_width]
    crop.set_shape([crop_height, crop_width, None])
    crops.append(crop)
  return crops


def check_same_size(image_list):
  """Checks that images that are cropped together have one size.

  Args:
    image_list: tensors [height, width, channels].

  Returns:
    The size, int32 [2].

  Raises:
    tf.errors.InvalidArgumentError: they differ; the message is marked, see
      `check_input`.
  """
  size = tf.shape(image_list[0])[:2]
  for image in image_list[1:]:
    other = tf.shape(image)[:2]
    size = check_input(
      size,
      tf.reduce_all(other == size),
      lambda size=size, other=other: [
        'images that are cropped together must have one size. Received: ',
        *size_text(size),
        ' and ',
        *size_text(other),
        '.',
      ],
    )
  return size


def size_text(size):
  """The parts of a message of `check_input` for a tensor [height, width]."""
  return [size[0], 'x', size[1]]


def get_random_scale(min_scale_factor, max_scale_factor, step_size, seed=None):
  """A random scale.

  Args:
    min_scale_factor: smallest scale.
    max_scale_factor: largest scale.
    step_size: distance of the scales to choose from; 0 for any scale from
      min_scale_factor up to, but without, max_scale_factor.
    seed: int32 or int64 tensor [2].

  Returns:
    A float32 scalar.

  Raises:
    common.InputError: min_scale_factor is negative or above max_scale_factor,
      or step_size is negative.
  """
  if not 0 <= min_scale_factor <= max_scale_factor or step_size < 0:
    raise common.InputError(
      'scales need 0 <= min_scale_factor <= max_scale_factor and '
      'scale_factor_step_size >= 0. Received: '
      f'min_scale_factor={min_scale_factor}, '
      f'max_scale_factor={max_scale_factor}, '
      f'scale_factor_step_size={step_size}.'
    )
  if min_scale_factor == max_scale_factor:
    return tf.constant(min_scale_factor, tf.float32)
  if step_size == 0:
    return random_numbers.uniform(
      seed, minval=min_scale_factor, maxval=max_scale_factor
    )
  num_steps = int((max_scale_factor - min_scale_factor) / step_size + 1)
  # linspace, not min + i * step: the last scale is always the largest.
  scales = tf.linspace(
    tf.constant(min_scale_factor, tf.float32), max_scale_factor, num_steps
  )
  return scales[random_numbers.uniform(seed, maxval=num_steps, dtype=tf.int32)]


def scaled_size(size, scale):
  """The size of an image that is scaled by a factor.

  Args:
    size: int32 tensor [2], height and width.
    scale: float or float32 scalar tensor.

  Returns:
    int32 [2], at least 1.
  """
  # float32, as in the original: the truncation depends on it.
  new_size = tf.cast(size, tf.float32) * scale
  return tf.maximum(tf.cast(new_size, tf.int32), 1)


def randomly_scale_image_and_label(image, label=None, scale=1.0):
  """Scales an image and its label by a given, usually random, factor.

  Args:
    image: [height, width, channels].
    label: [height, width, 1] or None; integers are resized by the nearest
      neighbour, floats bilinearly.
    scale: float or float32 scalar tensor.

  Returns:
    The scaled image, float32 unless the scale is the number 1.0, and label.
  """
  if isinstance(scale, (int, float)) and scale == 1.0:
    return image, label
  new_size = scaled_size(tf.shape(image)[:2], scale)
  image = resize_image(image, new_size, tf.image.ResizeMethod.BILINEAR)
  if label is not None:
    label = resize_image(label, new_size, get_label_resize_method(label))
  return image, label


def resolve_shape(tensor, rank=None, scope=None):
  """The shape of a tensor, each side as an integer where it is known.

  Args:
    tensor: the tensor.
    rank: its number of dimensions, if the caller knows it.
    scope: optional name scope.

  Returns:
    A list with an integer, or else an int32 scalar tensor, for each dimension.
  """
  with tf.name_scope(scope or 'resolve_shape'):
    static = tensor.shape if rank is None else tensor.shape.with_rank(rank)
    static = static.as_list()
    if None not in static:
      return static
    dynamic = tf.unstack(tf.shape(tensor))
    return [d if s is None else s for s, d in zip(static, dynamic, strict=True)]


def get_label_resize_method(label):
  """Nearest neighbour for labels that are integers, bilinear for floats."""
  if label.dtype.is_integer:
    return tf.image.ResizeMethod.NEAREST_NEIGHBOR
  return tf.image.ResizeMethod.BILINEAR


def resize_image(image, size, method, align_corners=True):
  """Resizes an image, or a batch of them, the way TensorFlow 1 did.

  Args:
    image: [height, width, channels] or [batch, height, width, channels].
    size: int32 tensor [2], the new height and width.
    method: a tf.image.ResizeMethod: bilinear, nearest, bicubic or area.
    align_corners: whether the centres of the corner pixels stay in place.

  Returns:
    [new_height, new_width, channels], with the batch in front if the image has
    one; float32, for nearest the image's dtype.
  """
  is_batch = image.shape.rank == 4
  resized = _RESIZERS[method](
    images=image if is_batch else image[tf.newaxis],
    size=size,
    align_corners=align_corners,
  )
  return resized if is_batch else resized[0]


def _new_size(shape, min_size, max_size, factor, keep_aspect_ratio):
  """The size that `resize_to_range` gives an image, as an int32 tensor [2].

  The original computes in float32 and loses a pixel where the quotient of two
  integers, times one of them, comes out just below the integer that it is.
  Integers need no such care.
  """
  size = tf.cast(tf.stack(shape[-3:-1]), tf.int64)

  def scaled(side, target):
    """The size when the side becomes the target, a fraction; rounded down."""
    return size * target.numerator // (side * target.denominator)

  if max_size is not None:
    max_size = fractions.Fraction(str(max_size))
    if factor is not None:
      max_size -= (max_size - 1) % factor
    fitted = scaled(tf.reduce_max(size), max_size)
  if min_size is None:
    new_size = fitted
  else:
    min_size = fractions.Fraction(str(min_size))
    new_size = scaled(tf.reduce_min(size), min_size)
    if max_size is not None:
      too_large = tf.reduce_max(new_size) > int(max_size)
      new_size = tf.where(too_large, fitted, new_size)
  new_size = tf.maximum(tf.cast(new_size, tf.int32), 1)
  if factor is not None:
    new_size += (factor - (new_size - 1) % factor) % factor
  if not keep_aspect_ratio:
    new_size = tf.repeat(tf.reduce_max(new_size), 2)
  return new_size


def resize_to_range(
  image,
  label=None,
  min_size=None,
  max_size=None,
  factor=None,
  keep_aspect_ratio=True,
  align_corners=True,
  label_layout_is_chw=False,
  scope=None,
  method=tf.image.ResizeMethod.BILINEAR,
):
  """Resizes an image and its label so that the sides lie in a range.

  A batch of images of one size becomes one again, with labels likewise.

  The smaller side becomes `min_size`, unless the larger one would then exceed
  `max_size`: in that case the larger side becomes `max_size`. The other side
  follows, rounded down. `factor` then makes both sides larger until they are a
  multiple of it plus one.

  Args:
    image: [height, width, channels] or [batch, height, width, channels].
    label: [height, width, channels], or [channels, height, width] with
      label_layout_is_chw; None for none.
    min_size: wanted size of the smaller side, a number or None.
    max_size: bound of the larger side, a number or None; with `factor` the
      next smaller multiple of it plus one counts.
    factor: the sides become a multiple of it plus one; None for any.
    keep_aspect_ratio: False makes the image a square of the larger side.
    align_corners: whether the centres of the corner pixels stay in place.
    label_layout_is_chw: the layout of the label.
    scope: optional name scope.
    method: tf.image.ResizeMethod of the image; the label takes the nearest
      neighbour.

  Returns:
    The list [image, label], the label None if there is none.

  Raises:
    common.InputError: neither min_size nor max_size is given, or one is below
      1.
    ValueError: the image has neither 3 nor 4 dimensions.
  """
  if image.shape.rank not in (3, 4):
    raise ValueError(
      'image must have 3 or 4 dimensions. Received: an image of shape '
      f'{image.shape}.'
    )
  for name, value in (('min_size', min_size), ('max_size', max_size)):
    if value is not None and value < 1:
      raise common.InputError(
        f'{name} must be at least 1 pixel. Received: {name}={value}.'
      )
  if min_size is None and max_size is None:
    raise common.InputError(
      'resize_to_range needs min_size, max_size or both. Received: neither.'
    )
  nearest = tf.image.ResizeMethod.NEAREST_NEIGHBOR
  with tf.name_scope(scope or 'resize_to_range'):
    new_size = _new_size(
      resolve_shape(image),
      min_size,
      max_size,
      factor,
      keep_aspect_ratio,
    )
    image = resize_image(image, new_size, method, align_corners)
    if label is not None and label_layout_is_chw:
      label = tf.transpose(label, [1, 2, 0])
      label = resize_image(label, new_size, nearest, align_corners)
      label = tf.transpose(label, [2, 0, 1])
    elif label is not None:
      label = resize_image(label, new_size, nearest, align_corners)
    return [image, label]

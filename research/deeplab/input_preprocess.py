"""From a decoded image and its label to what the network takes."""

import tensorflow as tf
from absl import logging

from deeplab import common
from deeplab.core import (
  feature_extractor,
  preprocess_utils,
  random_numbers,
  windows,
)

# Probability of mirroring an image and its label while training.
_PROB_OF_FLIP = 0.5

_RANGES = {
  'min_resize_value': common.NOT_NEGATIVE,
  'max_resize_value': common.NOT_NEGATIVE,
  'resize_factor': common.COUNT,
  'min_scale_factor': common.POSITIVE,
  'max_scale_factor': common.POSITIVE,
  'scale_factor_step_size': common.NOT_NEGATIVE,
}


def check_options(options):
  """Checks the numbers among the arguments of `preprocess_image_and_label`.

  Args:
    options: {name of an argument: value}; others are not looked at.

  Raises:
    common.InputError: a value is out of range, or they do not go together.
  """
  common.check_ranges(options, _RANGES)
  smallest = options.get('min_scale_factor', 1.0)
  largest = options.get('max_scale_factor', 1.0)
  if smallest > largest:
    raise common.InputError(
      'min_scale_factor must not be above max_scale_factor. Received: '
      f'min_scale_factor={smallest}, max_scale_factor={largest}.'
    )
  resizes = options.get('min_resize_value') or options.get('max_resize_value')
  if options.get('resize_factor') and not resizes:
    raise common.InputError(
      f'resize_factor={options["resize_factor"]} without min_resize_value and '
      'max_resize_value: nothing would be resized. Give one of them too.'
    )


def preprocess_image_and_label(
  image,
  label,
  crop_height,
  crop_width,
  min_resize_value=None,
  max_resize_value=None,
  resize_factor=None,
  min_scale_factor=1.0,
  max_scale_factor=1.0,
  scale_factor_step_size=0,
  ignore_label=255,
  is_training=True,
  model_variant=None,
  keep_aspect_ratio=True,
  seed=None,
  image_name='',
):
  """Resizes, scales, pads, crops and flips an image and its label.

  Scaling, cropping and flipping are random and happen in training only. Where
  the image ends before the crop does, the image is padded with the backbone's
  mean pixel and the label with `ignore_label`.

  Args:
    image: [height, width, 3], grey levels 0..255 of any dtype; without label
      and training also a batch [batch, height, width, 3], which is then a
      batch of what each image would have become.
    label: integers [height, width, 1], or None if there is none (not in
      training).
    crop_height: height of the result in pixels.
    crop_width: width of the result in pixels.
    min_resize_value: wanted size of the smaller side; see
      `preprocess_utils.resize_to_range`. None or 0 for none.
    max_resize_value: bound of the larger side. None or 0 for none.
    resize_factor: resized sides are a multiple of it plus one, or None.
    min_scale_factor: smallest random scale.
    max_scale_factor: largest random scale.
    scale_factor_step_size: distance of the scales to choose from, 0 for any.
    ignore_label: the label of pixels that count neither in training nor in
      evaluation.
    is_training: whether to augment.
    model_variant: name of the backbone, which determines the mean pixel.
    keep_aspect_ratio: False resizes to a square of the larger side.
    seed: int32 or int64 tensor [2] that determines every random choice; None
      draws from TensorFlow's global generator.
    image_name: string or string tensor for error messages.

  Returns:
    original_image: the image, after resizing if that is asked for.
    processed_image: float32 [crop_height, crop_width, 3], with the batch in
      front if the image has one.
    label: int32 [crop_height, crop_width, 1] or None.

  Raises:
    common.InputError: training without a label, or bad sizes or scales.
    tf.errors.InvalidArgumentError: outside training the image is larger than
      the crop; the message is marked, see `preprocess_utils.check_input`.
  """
  check_options(
    {
      'min_resize_value': min_resize_value,
      'max_resize_value': max_resize_value,
      'resize_factor': resize_factor,
      'min_scale_factor': min_scale_factor,
      'max_scale_factor': max_scale_factor,
      'scale_factor_step_size': scale_factor_step_size,
    }
  )
  if is_training and label is None:
    raise common.InputError(
      'training needs labels, and the examples have none.'
    )
  if model_variant is None:
    logging.warning(
      'No model_variant given: padding with the mean pixel of plain ResNet.'
    )
  original_image = image = tf.convert_to_tensor(image)
  if label is not None:
    label = tf.convert_to_tensor(label)
  if min_resize_value or max_resize_value:
    image, label = preprocess_utils.resize_to_range(
      tf.cast(image, tf.float32),
      label,
      min_size=min_resize_value or None,
      max_size=max_resize_value or None,
      factor=resize_factor,
      keep_aspect_ratio=keep_aspect_ratio,
    )
    original_image = tf.identity(image)

  mirrored = None
  if is_training:
    scale_seed, *seeds = random_numbers.split_seed(seed, 3)
    scale = preprocess_utils.get_random_scale(
      min_scale_factor, max_scale_factor, scale_factor_step_size, scale_seed
    )
    image, label, mirrored = _random_window(
      image, label, scale, [crop_height, crop_width], seeds
    )
  else:
    image = _check_fits(image, crop_height, crop_width, image_name)
  image, label = _pad_to_crop(
    tf.cast(image, tf.float32),
    label,
    crop_height,
    crop_width,
    feature_extractor.mean_pixel(model_variant),
    ignore_label,
    mirrored,
  )
  image.set_shape([*image.shape[:-3], crop_height, crop_width, 3])
  if label is not None:
    label.set_shape([crop_height, crop_width, 1])
  return original_image, image, label


def _random_window(image, label, scale, crop_size, seeds):
  """Scales, crops and flips; the same as padding before that.

  Args:
    image: [height, width, 3] of any dtype.
    label: integers [height, width, 1].
    scale: float32 scalar tensor.
    crop_size: [height, width] of the crop.
    seeds: of the place and of the flip, see `random_numbers.split_seed`.

  Returns:
    The part of the scaled image that is in the crop, float32; that of the
    label; a boolean scalar, whether both were flipped.
  """
  size = preprocess_utils.check_same_size([image, label])
  size = preprocess_utils.scaled_size(size, scale)
  # A crop that is larger than the image begins where the image does.
  window = tf.minimum(size, crop_size)
  offset = random_numbers.offset(size - window, seeds[0])
  return preprocess_utils.flip_dim(
    [
      windows.bilinear(image, size, offset, window),
      windows.nearest(label, size, offset, window),
    ],
    _PROB_OF_FLIP,
    dim=1,
    seed=seeds[1],
  )


def _check_fits(image, crop_height, crop_width, image_name):
  """The image; at evaluation the crop has to hold the whole of it."""
  size = tf.shape(image)[-3:-1]
  needed = tf.maximum(size, [crop_height, crop_width])
  return preprocess_utils.check_input(
    image,
    tf.reduce_all(size <= [crop_height, crop_width]),
    lambda: [
      'image "',
      image_name,
      '" of ',
      *preprocess_utils.size_text(size),
      ' pixels (height x width, after resizing if any) does not fit into the '
      f'crop of {crop_height}x{crop_width}. Make the crop larger, for example '
      '--eval_crop_size=',
      needed[0],
      ',',
      needed[1],
      ' or larger (--vis_crop_size for vis.py, --crop_size for '
      'export_model.py), or shrink the images by --min_resize_value and '
      '--max_resize_value.',
    ],
  )


def _pad_to_crop(
  image, label, crop_height, crop_width, mean_pixel, ignore_label, mirrored
):
  """Pads up to the crop, where smaller; the label becomes int32.

  That is at the bottom and on the right, of flipped images on the left.
  """
  size = tf.shape(image)
  height = tf.maximum(size[-3], crop_height)
  width = tf.maximum(size[-2], crop_width)
  left = 0 if mirrored is None else tf.where(mirrored, width - size[-2], 0)
  image = preprocess_utils.pad_to_bounding_box(
    image, 0, left, height, width, tf.reshape(mean_pixel, [1, 1, 3])
  )
  if label is not None:
    label = preprocess_utils.pad_to_bounding_box(
      tf.cast(label, tf.int32), 0, left, height, width, ignore_label
    )
  return image, label

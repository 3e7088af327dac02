"""Writes a trained network as a TFLite model with eight-bit integers.

The model takes an image of the size of the network, padded by the caller where
the image is smaller, and gives labels: resizing and cropping are left to the
device. A network from quantisation-aware training brings the ranges of its
values along; for any other they are measured on example images.
"""

import itertools
import re
import tempfile

import numpy as np
import tensorflow as tf
from absl import logging

from deeplab import checkpoints, common, inference, input_preprocess
from deeplab.common import InputError
from deeplab.core import preprocess_utils

INPUT_NAME = 'ImageTensor'
OUTPUT_NAME = 'SemanticPredictions'

_RECORD_SUFFIX = '.tfrecord'
_ENCODED_IMAGE = 'image/encoded'


def convert_int8(
  checkpoint_path,
  options,
  calibration_images=None,
  calibration_limit=100,
  image_pyramid=None,
  use_moving_averages=None,
  **resizing,
):
  """Converts a checkpoint.

  Args:
    checkpoint_path: directory, prefix or file of a checkpoint.
    options: ModelOptions with a crop_size.
    calibration_images: pattern of image files, or of TFRecord files in the
      official format; for networks without quantisation-aware training, and
      only for those.
    calibration_limit: number of images to measure at most.
    image_pyramid: scales merged inside the network.
    use_moving_averages: see `checkpoints.restore`.
    **resizing: of the calibration images; see
      `input_preprocess.preprocess_image_and_label`.

  Returns:
    The bytes of a TFLite model from 'ImageTensor', uint8 [1, height, width,
    3], to 'SemanticPredictions', int32 [1, height, width].

  Raises:
    InputError: the checkpoint does not fit, there are no calibration images
      although they are needed, or the other way round.
  """
  _check_calibration(options, calibration_images)
  common.check_ranges(
    {'calibration_limit': calibration_limit},
    {'calibration_limit': common.COUNT},
  )
  predictor = inference.build_predictor(
    options, image_pyramid=image_pyramid, for_converter=True
  )
  report = checkpoints.restore(
    predictor, checkpoint_path, use_moving_averages=use_moving_averages
  )
  logging.info('%s', report)
  with tempfile.TemporaryDirectory() as folder:
    _save(folder, predictor, options)
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = tf.uint8
    if not options.is_quantized:
      examples = list(
        itertools.islice(
          _examples(calibration_images, options, resizing), calibration_limit
        )
      )
      if not examples:
        raise InputError(
          f'--calibration_images={calibration_images}: there is no image in '
          'these files. The ranges of values cannot be measured without one.'
        )
      logging.info('Calibrating on %d images.', len(examples))
      converter.representative_dataset = lambda: iter(examples)
      converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS_INT8
      ]
    return converter.convert()


def _check_calibration(options, pattern):
  if options.is_quantized and pattern:
    raise InputError(
      f'--calibration_images={pattern}: the checkpoint comes from '
      'quantisation-aware training and has its ranges; leave the flag out.'
    )
  if not options.is_quantized and not pattern:
    raise InputError(
      '--export_format=tflite_int8 needs --calibration_images, for example '
      "'images/*.jpg' or 'tfrecord/train-*.tfrecord': the checkpoint does not "
      'come from quantisation-aware training, so that the ranges of its values '
      'have to be measured.'
    )


def _save(folder, predictor, options):
  module = tf.Module()
  module.variables_of_the_network = [v.value for v in predictor.variables]

  @tf.function(
    input_signature=[
      tf.TensorSpec([1, *options.crop_size, 3], tf.float32, name=INPUT_NAME)
    ]
  )
  def label(images):
    if options.is_quantized:
      # Grey levels are what they are; with calibration that is found out.
      images = tf.quantization.fake_quant_with_min_max_args(images, 0.0, 255.0)
    return {OUTPUT_NAME: predictor(images)[common.OUTPUT_TYPE]}

  tf.saved_model.save(module, folder, signatures=label)


# Calibration images.


def _examples(pattern, options, resizing):
  """Inputs of the network as the converter wants them, one by one."""
  height, width = options.crop_size
  for name, image in _images(pattern):
    try:
      _, image, _ = input_preprocess.preprocess_image_and_label(
        image,
        label=None,
        crop_height=height,
        crop_width=width,
        is_training=False,
        model_variant=options.model_variant,
        image_name=name,
        **resizing,
      )
    except tf.errors.InvalidArgumentError as error:
      text = preprocess_utils.input_error_text(error)
      raise InputError(f'--calibration_images={pattern}: {text}') from error
    yield [image[np.newaxis].numpy()]


def _images(pattern):
  """Yields (name, uint8 [height, width, 3])."""
  paths = sorted(tf.io.gfile.glob(pattern))
  if not paths:
    raise InputError(f'--calibration_images={pattern}: no such file.')
  for path in paths:
    try:
      if path.endswith(_RECORD_SUFFIX):
        for index, record in enumerate(tf.data.TFRecordDataset(path)):
          feature = tf.io.FixedLenFeature((), tf.string)
          example = tf.io.parse_single_example(
            record, {_ENCODED_IMAGE: feature}
          )
          yield f'{path}:{index}', _decode(example[_ENCODED_IMAGE])
      else:
        yield path, _decode(tf.io.read_file(path))
    except tf.errors.OpError as error:
      raise InputError(
        f'--calibration_images={pattern}: {path} cannot be read as an image or '
        f'as official records: {_plain(error)}'
      ) from error


def _plain(error):
  """What TensorFlow says, without the names of operations around it."""
  text = str(error).splitlines()[0]
  return re.sub(r'\{\{.*?\}\} ?| \[Op:.*', '', text)


def _decode(encoded):
  return tf.io.decode_image(encoded, channels=3, expand_animations=False)

"""TFLite models: float32, float16 and eight-bit integers.

All take `ImageTensor`, a uint8 image of the size of the network, padded by the
caller where it is smaller, and give `SemanticPredictions`, its labels:
resizing and cropping are left to the device, and one can take another's place.

The converter makes one dilated operation of each atrous convolution, the
depthwise ones included.
"""

import collections
import math
import tempfile
import warnings

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.lite.python.convert import ConverterError
from tensorflow.lite.tools import flatbuffer_utils

from deeplab import atomic_files, common
from deeplab.common import InputError
from deeplab.exporting import images
from deeplab.exporting import network as network_lib
from deeplab.exporting.loaded import Loaded, describe
from deeplab.exporting.network import INPUT_NAME, LABELS


def check_float(network):
  """Refuses what a float model cannot hold."""
  if network.options.is_quantized:
    raise InputError(
      'the checkpoint comes from quantisation-aware training, whose rounding '
      'only --export_format=tflite_int8 keeps. --quantize_delay_step=-1 '
      'exports its weights in float.'
    )


def check_int8(network):
  """Refuses what an eight-bit model cannot hold, or would ignore."""
  source = network.calibration
  if network.averages_probabilities:
    raise InputError(
      '--export_format=tflite_int8 has a single scale and no mirror images: '
      'averaged probabilities do not fit into eight bits.'
    )
  if network.options.is_quantized and source:
    raise InputError(
      f'--calibration_images={source}: the checkpoint comes from '
      'quantisation-aware training and has its ranges; leave the flag out.'
    )
  if not network.options.is_quantized and not source:
    raise InputError(
      '--export_format=tflite_int8 needs --calibration_images, for example '
      "'images/*.jpg' or 'tfrecord/train-*.tfrecord': the checkpoint does not "
      'come from quantisation-aware training, so that the ranges of its values '
      'have to be measured. --export_format=tflite_float needs none.'
    )


def write_float(network, path):
  """Writes a model of float32 weights from a Network."""
  _convert(network, path, tf.uint8, lambda converter: None)


def write_float16(network, path):
  """Writes a model whose weights are float16, half the size."""

  def configure(converter):
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]

  _convert(network, path, tf.uint8, configure)


def write_int8(network, path):
  """Writes a model that computes with eight-bit integers.

  A network from quantisation-aware training brings the ranges of its values
  along; for any other they are measured on example images.
  """

  def configure(converter):
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = tf.uint8
    if not network.options.is_quantized:
      converter.representative_dataset = lambda: _calibration_inputs(network)
      converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS_INT8
      ]

  _convert(network, path, tf.float32, configure)


def _convert(network, path, input_type, configure):
  """Converts and writes.

  Args:
    network: Network.
    path: of the file.
    input_type: type of the image in the function that is converted.
    configure: function that sets the properties of a TFLiteConverter.
  """
  with tempfile.TemporaryDirectory() as folder:
    _save(network, folder, input_type)
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    configure(converter)
    try:
      content = converter.convert()
    except ConverterError as error:
      raise InputError(
        "TFLite's converter refuses this network; saved_model, frozen_graph "
        f'and onnx do not need it. It says: {str(error).splitlines()[0]}'
      ) from error
  atomic_files.write(path, content)


def _save(network, folder, input_type):
  """Writes the SavedModel that the converter reads."""
  predictor = network.converter_predictor
  shape = [1, *network.options.crop_size, 3]

  @tf.function(
    input_signature=[tf.TensorSpec(shape, input_type, name=INPUT_NAME)]
  )
  def label(images):
    images = tf.cast(images, tf.float32)
    if network.options.is_quantized:
      # Calibration measures this range; see _calibration_inputs.
      images = tf.quantization.fake_quant_with_min_max_args(images, 0.0, 255.0)
    return {LABELS: predictor(images)[common.OUTPUT_TYPE]}

  network_lib.save(folder, label, predictor)


def _calibration_inputs(network):
  """Yields inputs of the network as the converter wants them.

  The first image comes once more with a black and a white pixel, so that the
  range of the input is 0 to 255 and its integers are the grey levels.
  """
  count = 0
  for _, _, padded in images.examples(network, network.calibration):
    padded = padded.numpy()
    if not count:
      extremes = padded.copy()
      extremes[0, 0], extremes[-1, -1] = 0, 255
      yield [extremes[np.newaxis]]
    count += 1
    yield [padded[np.newaxis]]
  logging.info('Calibrated on %d images.', count)


def load(path):
  """Loads a TFLite model; returns a Loaded.

  Raises:
    InputError: it takes anything but grey levels.
  """
  with tf.io.gfile.GFile(path, 'rb') as file:
    content = file.read()
  with warnings.catch_warnings():
    # That the interpreter is going to move to a package of its own.
    warnings.simplefilter('ignore')
    interpreter = tf.lite.Interpreter(model_content=content)
  runner = interpreter.get_signature_runner()
  _check_input(path, runner.get_input_details()[INPUT_NAME])
  return Loaded(
    lambda image: runner(**{INPUT_NAME: image}),
    *(
      {
        name: describe(np.dtype(d['dtype']).name, d['shape'].tolist())
        for name, d in details.items()
      }
      for details in (runner.get_input_details(), runner.get_output_details())
    ),
    operations(content),
  )


def _check_input(path, details):
  """Refuses a model for which grey levels would have to be converted."""
  scale, zero_point = details['quantization']
  # A scale of 0 stands for none.
  if zero_point or (scale and not math.isclose(scale, 1, rel_tol=1e-3)):
    raise InputError(
      f'{path} does not take grey levels: its input has the scale {scale} and '
      f'the zero point {zero_point}, not 1 and 0. Export it again.'
    )


def operations(content):
  """Counts the operations of a TFLite model.

  Args:
    content: bytes of the file.

  Returns:
    {name: number}.
  """
  # An interpreter would tell what its delegates made of them.
  model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
  return dict(
    collections.Counter(
      flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
      for graph in model.subgraphs
      for operator in graph.operators
    ).most_common()
  )

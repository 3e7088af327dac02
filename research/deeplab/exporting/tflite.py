"""TFLite models: float32, float16 and eight-bit integers.

All take `ImageTensor`, a uint8 image of the size of the network, padded by the
caller where it is smaller, and give `SemanticPredictions`, its labels:
resizing and cropping are left to the device, and one can take another's place.

The converter makes one dilated operation of each atrous convolution, the
depthwise ones included.
"""

import collections
import itertools
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

_CALIBRATION_FLAG = 'calibration_images'


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
  pattern = network.calibration_images
  if network.averages_probabilities:
    raise InputError(
      '--export_format=tflite_int8 has a single scale and no mirror images: '
      'averaged probabilities do not fit into eight bits.'
    )
  if network.options.is_quantized and pattern:
    raise InputError(
      f'--calibration_images={pattern}: the checkpoint comes from '
      'quantisation-aware training and has its ranges; leave the flag out.'
    )
  if not network.options.is_quantized and not pattern:
    raise InputError(
      '--export_format=tflite_int8 needs --calibration_images, for example '
      "'images/*.jpg' or 'tfrecord/train-*.tfrecord': the checkpoint does not "
      'come from quantisation-aware training, so that the ranges of its values '
      'have to be measured. --export_format=tflite_float needs none.'
    )
  common.check_ranges(
    {'calibration_limit': network.calibration_limit},
    {'calibration_limit': common.COUNT},
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
      examples = _calibration_examples(network)
      converter.representative_dataset = lambda: iter(examples)
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
      # Grey levels are what they are; with calibration that is found out.
      images = tf.quantization.fake_quant_with_min_max_args(images, 0.0, 255.0)
    return {LABELS: predictor(images)[common.OUTPUT_TYPE]}

  network_lib.save(predictor, folder, label)


def _calibration_examples(network):
  """Inputs of the network as the converter wants them."""
  pattern = network.calibration_images
  found = images.read(pattern, _CALIBRATION_FLAG)
  found = itertools.islice(found, network.calibration_limit)
  examples = [
    [padded[np.newaxis].numpy()]
    for _, (_, padded) in images.preprocess(
      network, found, pattern, _CALIBRATION_FLAG
    )
  ]
  if not examples:
    raise InputError(
      f'--calibration_images={pattern}: there is no image in these files. The '
      'ranges of values cannot be measured without one.'
    )
  logging.info('Calibrating on %d images.', len(examples))
  return examples


def load(path):
  """Loads a TFLite model; returns a Loaded."""
  with tf.io.gfile.GFile(path, 'rb') as file:
    content = file.read()
  with warnings.catch_warnings():
    # Of an interpreter in a package of its own, one day.
    warnings.simplefilter('ignore')
    interpreter = tf.lite.Interpreter(model_content=content)
  runner = interpreter.get_signature_runner()
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

"""ONNX models, by tf2onnx; the packages are an extra."""

import collections
import importlib

import tensorflow as tf

from deeplab import atomic_files
from deeplab.common import InputError
from deeplab.exporting import network as network_lib
from deeplab.exporting.loaded import Loaded, describe
from deeplab.exporting.network import INPUT_NAME, LABELS, PROBABILITIES

_PACKAGES = ('onnx', 'onnxruntime', 'tf2onnx')

# Of the operators; onnxruntime 1.12 and later know them.
_OPSET = 17

_SIDES = ('batch', 'height', 'width')


def check(network):
  """Refuses what cannot be converted, or lacks a package."""
  if network.options.is_quantized:
    raise InputError(
      '--export_format=onnx has no form for the rounding of quantisation-aware '
      'training. --quantize_delay_step=-1 exports the weights in float.'
    )
  for package in _PACKAGES:
    _import(package)


def _import(package):
  try:
    return importlib.import_module(package)
  except ImportError as error:
    raise InputError(
      f'--export_format=onnx needs {", ".join(_PACKAGES)}: {error}. Install '
      "them with pip install 'deeplab-keras3[onnx]'."
    ) from error


def write(network, path):
  """Writes an ONNX model of images of any number and size up to the crop.

  Args:
    network: Network.
    path: of the file.
  """
  serve = network_lib.serving_function(network, (LABELS, PROBABILITIES))
  model, _ = _import('tf2onnx').convert.from_function(
    serve, input_signature=serve.input_signature, opset=_OPSET
  )
  for value in [*model.graph.input, *model.graph.output]:
    sides = value.type.tensor_type.shape.dim
    for name, side in zip(_SIDES, sides, strict=False):
      side.dim_param = name
  atomic_files.write(path, model.SerializeToString())


def load(path):
  """Loads an ONNX model; returns a Loaded."""
  with tf.io.gfile.GFile(path, 'rb') as file:
    content = file.read()
  session = _import('onnxruntime').InferenceSession(
    content, providers=['CPUExecutionProvider']
  )
  outputs = [output.name for output in session.get_outputs()]

  def run(image):
    values = session.run(outputs, {INPUT_NAME: image})
    return dict(zip(outputs, values, strict=True))

  graph = _import('onnx').load_from_string(content).graph
  return Loaded(
    run,
    *(
      {value.name: _describe(value) for value in values}
      for values in (session.get_inputs(), session.get_outputs())
    ),
    dict(collections.Counter(n.op_type for n in graph.node).most_common()),
  )


def _describe(value):
  kind = value.type.removeprefix('tensor(').removesuffix(')')
  return describe({'float': 'float32'}.get(kind, kind), value.shape)

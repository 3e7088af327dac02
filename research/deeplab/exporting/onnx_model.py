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

_RESIZES = ('ResizeBilinear', 'ResizeNearestNeighbor')

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
      "them with pip install -e '.[onnx]' in the clone."
    ) from error


def write(network, path):
  """Writes an ONNX model of images of any number and size up to the crop.

  Args:
    network: Network.
    path: of the file.
  """
  serve = network_lib.serving_function(network, (LABELS, PROBABILITIES))
  model, _ = _import('tf2onnx').convert.from_function(
    serve,
    input_signature=serve.input_signature,
    opset=_OPSET,
    custom_op_handlers=dict.fromkeys(_RESIZES, (_convert_resize, [])),
  )
  for value in [*model.graph.input, *model.graph.output]:
    sides = value.type.tensor_type.shape.dim
    for name, side in zip(_SIDES, sides, strict=False):
      side.dim_param = name
  atomic_files.write(path, model.SerializeToString())


def _convert_resize(context, node, unused_name, unused_args):
  """Converts a resize by the size that it has to reach.

  Where sizes are fixed tf2onnx takes their ratio instead, in float32. Its
  product with the old size, rounded down, may be a pixel short: 3 to 5 is one
  such case, 65 to 33 another.
  """
  handlers = _import('tf2onnx.onnx_opset.nn')
  size = node.input[1]
  hidden = context.make_node('Identity', [size]).output[0]
  context.replace_input(node, size, hidden, 1)
  handlers.Resize.version_11(context, node)


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

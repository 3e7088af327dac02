"""Parameters, multiply-adds and activation memory of a network.

The graph of the predictor is walked node by node; nothing is computed. What
is counted, and how, is in docs/model_stats.md.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from deeplab import common, graph, inference, model
from deeplab.common import InputError
from deeplab.slim import keras_layers, quantization

# Parts of the network, in the order in which an image passes them.
PARTS = ('input', 'backbone', 'aspp', 'decoder', 'logits')
_INPUT, _BACKBONE, _ASPP = PARTS[:3]

# Beginnings of the layers' names in the parts that are not the backbone. What
# is neither decoder nor logits is ASPP, or a cell in its place.
_PART_OF_SCOPE = {
  scope: scope if scope in PARTS else _ASPP
  for scope in model.get_extra_layer_scopes()
}


@dataclasses.dataclass(frozen=True)
class LayerStats:
  """One operation of the graph, or several summed.

  Attributes:
    name: scope of the layer; for an operation without variables, that of the
      layers whose output it takes.
    type: kind of operation.
    part: one of PARTS.
    call: 1 for the first call of a layer, 2 for the second, at the next
      scale, and so on.
    output_shape: without the batch; for several outputs, of the first.
    parameters: trainable ones, each counted where it is first used.
    non_trainable_parameters: moving statistics and ranges; likewise.
    multiply_adds: of convolutions, as TensorFlow splits atrous ones.
    direct_multiply_adds: the same without the padding of that split.
    activation_bytes: size of the output, for one image.
  """

  name: str = ''
  type: str = ''
  part: str = ''
  call: int = 1
  output_shape: Sequence[int] = ()
  parameters: int = 0
  non_trainable_parameters: int = 0
  multiply_adds: int = 0
  direct_multiply_adds: int = 0
  activation_bytes: int = 0


# The fields that are summed.
COUNTS = (
  'parameters',
  'non_trainable_parameters',
  'multiply_adds',
  'direct_multiply_adds',
  'activation_bytes',
)


@dataclasses.dataclass(frozen=True)
class ModelStats:
  """What a network holds and costs, for one image.

  Attributes:
    options: the ModelOptions that it was built with.
    eval_scales: scales of the images.
    add_flipped_images: whether each scale counts its mirror image too.
    image_pyramid: scales merged inside the network, or None.
    layers: every operation, in the order in which they run.
    parameter_bytes: of all variables, moving statistics included.
    peak_activation_bytes: most that is alive at once in that order.
  """

  options: common.ModelOptions
  eval_scales: Sequence[float]
  add_flipped_images: bool
  image_pyramid: Sequence[float] | None
  layers: Sequence[LayerStats]
  parameter_bytes: int
  peak_activation_bytes: int

  def total(self, part=None) -> Mapping[str, int]:
    """{count: sum over the layers}, of one part or of all."""
    layers = [row for row in self.layers if part in (None, row.part)]
    return {
      count: sum(getattr(row, count) for row in layers) for count in COUNTS
    }

  @property
  def parameters(self) -> int:
    """Trainable parameters."""
    return self.total()['parameters']

  @property
  def multiply_adds(self) -> int:
    """Multiply-adds of one image."""
    return self.total()['multiply_adds']

  def to_dict(self) -> dict[str, Any]:
    """Plain JSON values: settings, totals, parts and layers."""
    return {
      'options': self.options.to_dict(),
      'eval_scales': list(self.eval_scales),
      'add_flipped_images': self.add_flipped_images,
      'image_pyramid': self.image_pyramid and list(self.image_pyramid),
      'total': {
        **self.total(),
        'parameter_bytes': self.parameter_bytes,
        'peak_activation_bytes': self.peak_activation_bytes,
      },
      'parts': {part: self.total(part) for part in PARTS},
      'layers': [
        {**dataclasses.asdict(row), 'output_shape': list(row.output_shape)}
        for row in self.layers
      ],
    }


def stats(
  options, eval_scales=(1.0,), add_flipped_images=False, image_pyramid=None
):
  """Counts the predictor that evaluation, pictures and export run.

  Args:
    options: ModelOptions with a crop_size.
    eval_scales: scales of the images whose probabilities are averaged.
    add_flipped_images: also use the mirror image at each scale.
    image_pyramid: scales whose logits are merged inside the network.

  Returns:
    ModelStats.

  Raises:
    InputError: there is no crop_size, or the network cannot be built.
  """
  if options.crop_size is None:
    raise InputError(
      'crop_size must be given: multiply-adds and memory depend on it. '
      'Received: crop_size=None. For example, --crop_size=513,513.'
    )
  predictor = inference.build_predictor(
    options, eval_scales, add_flipped_images, image_pyramid
  )
  nodes = graph.nodes_in_order(predictor.outputs)
  return ModelStats(
    options=options,
    eval_scales=tuple(eval_scales),
    add_flipped_images=add_flipped_images,
    image_pyramid=image_pyramid,
    layers=_rows(nodes),
    parameter_bytes=sum(map(_bytes, predictor.variables)),
    peak_activation_bytes=_peak(nodes, predictor.outputs),
  )


# The graph.


def _peak(nodes, outputs):
  """Most bytes of tensors that exist at once.

  A tensor exists from when it is computed until the last node that takes it
  has run; outputs stay. Nothing is computed in place.
  """
  last_use = {}
  for i, node in enumerate(nodes):
    last_use.update((id(tensor), i) for tensor in node.input_tensors)
  last_use.update((id(tensor), len(nodes)) for tensor in outputs)
  alive = peak = 0
  for i, node in enumerate(nodes):
    alive += sum(map(_bytes, node.outputs))
    peak = max(peak, alive)
    # What nobody takes, a second output for example, is gone at once.
    touched = {id(t): t for t in (*node.input_tensors, *node.outputs)}
    alive -= sum(
      _bytes(t) for key, t in touched.items() if last_use.get(key, i) == i
    )
  return peak


def _bytes(tensor):
  """Size of a variable, or of a Keras tensor for one image."""
  shape = (1 if side is None else side for side in tensor.shape)
  return math.prod(shape) * tf.as_dtype(tensor.dtype).size


# The rows.


def _rows(nodes):
  """LayerStats of nodes that are in order."""
  rows = []
  places = {}  # {tensor: (part, scope)}
  calls = {}
  counted = {}  # Variables; layers and their parts share them.
  for node in nodes:
    operation = node.operation
    inputs = [places[id(tensor)] for tensor in node.input_tensors]
    name, part, scope = _place(operation, inputs)
    for tensor in node.outputs:
      places[id(tensor)] = part, scope
    call = calls[id(operation)] = calls.get(id(operation), 0) + 1
    shape = node.outputs[0].shape
    rows.append(
      LayerStats(
        name=name,
        type=_type(operation),
        part=part,
        call=call,
        output_shape=tuple(shape[1:]),
        multiply_adds=_multiply_adds(operation, shape, padded=True),
        direct_multiply_adds=_multiply_adds(operation, shape, padded=False),
        activation_bytes=sum(map(_bytes, node.outputs)),
        **_parameters(operation, counted),
      )
    )
  return rows


def _place(operation, inputs):
  """Name, part and scope of an operation.

  Args:
    operation: layer or operation.
    inputs: (part, scope) of each input.

  Returns:
    The name to show, the part, and the scope for the operations that take
    the output.
  """
  if getattr(operation, 'weights', None):
    if isinstance(operation, quantization.QuantizedConvolution):
      operation = operation.convolution
    name = scope = operation.name.replace('.', '/')
    if not _kernels(operation):
      # Batch norm and the like are inside the scope of a convolution.
      scope = name.rpartition('/')[0] or name
    return name, _part_of(name), scope
  if not inputs:
    return operation.name, _INPUT, ''
  # The farthest part: what merges backbone and decoder belongs to the latter.
  part = max((part for part, _ in inputs), key=PARTS.index)
  scope = _common_scope([scope for _, scope in inputs])
  if not scope or (part != _BACKBONE and _part_of(scope) != part):
    scope = part
  return scope, part, scope


def _part_of(name):
  for scope, part in _PART_OF_SCOPE.items():
    if name.startswith(scope):
      return part
  return _BACKBONE


def _common_scope(scopes):
  parts = zip(*(scope.split('/') for scope in scopes), strict=False)
  same = itertools.takewhile(lambda names: len(set(names)) == 1, parts)
  return '/'.join(names[0] for names in same)


def _type(operation):
  """Kind of an operation; of a Function, the name of what it was made in."""
  if isinstance(operation, keras_layers.Function):
    function = getattr(operation.function, 'func', operation.function)
    name = getattr(function, '__qualname__', type(function).__name__)
    return name.split('.')[0].strip('_')
  return type(operation).__name__


def _parameters(operation, counted):
  """Numbers of elements of the variables that are not among the counted."""
  if not isinstance(operation, keras.layers.Layer):
    return {}
  new = {id(v): v for v in operation.weights if id(v) not in counted}
  counted.update(new)
  return {
    'parameters': _elements(v for v in new.values() if v.trainable),
    'non_trainable_parameters': _elements(
      v for v in new.values() if not v.trainable
    ),
  }


def _elements(variables):
  return sum(math.prod(variable.shape) for variable in variables)


def _multiply_adds(operation, output_shape, padded):
  """Kernel elements times output positions, for each kernel of a layer.

  TensorFlow runs an atrous convolution by splitting the image into rate x
  rate images, padded to a multiple of the rate; `padded` counts that, as the
  published figures do.
  """
  total = 0
  for kernel, rates in _kernels(operation):
    multiples = rates if padded else (1, 1)
    sides = (
      -(-side // multiple) * multiple
      for side, multiple in zip(output_shape[1:3], multiples, strict=True)
    )
    total += math.prod(kernel.shape) * math.prod(sides)
  return total


def _kernels(operation):
  """[(kernel, atrous rates of height and width)] of a convolution."""
  if isinstance(operation, quantization.QuantizedConvolution):
    return [_kernels(operation.convolution)[operation.index]]
  if isinstance(operation, keras_layers.Conv2D):
    return [(operation.kernel, operation.rates)]
  if not isinstance(operation, keras_layers.SeparableConv2D):
    return []
  kernels = [(operation.depthwise_kernel, operation.rates)]
  if operation.filters is not None:
    kernels.append((operation.pointwise_kernel, (1, 1)))
  return kernels

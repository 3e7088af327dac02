"""Receptive fields and feature strides, from the graph of a network.

  network = model.build_model(options)
  print(receptive_field.of_layer(network, 'vgg_16/fc6'))

Every operation on the way from the images is a window (convolution, pooling,
padding), whose kernel size, stride, rate and padding are read from the graph,
or works on each place by itself, which is tried out.
"""

import dataclasses

import keras
import numpy as np

from deeplab import graph
from deeplab.common import InputError
from deeplab.slim import keras_layers, quantization

# Side of the tensors that operations are tried on, odd.
_TRIAL_SIDE = 5

# As `graph.kind` calls them.
_POOLING = ('MaxPool', 'AveragePool')
_PADDING = 'Pad'


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
  """Which pixels a feature depends on; pairs are (height, width).

  Place i of the features depends on pixels i * stride + first to i * stride +
  last; some between may have no influence, where an atrous kernel skips them.

  Attributes:
    stride: pixels from one place to the next.
    first: first pixel that place 0 depends on; negative ones are padding.
    last: the last one.
  """

  stride: tuple[int, int] = (1, 1)
  first: tuple[int, int] = (0, 0)
  last: tuple[int, int] = (0, 0)

  @property
  def size(self) -> tuple[int, int]:
    """Pixels from the first to the last, both included."""
    return tuple(
      last - first + 1
      for first, last in zip(self.first, self.last, strict=True)
    )

  def __str__(self):
    height, width = self.size
    return f'{height} x {width} pixels at a stride of {self.stride[0]}'


def of_layer(network, name):
  """The receptive field of what a layer returns.

  Args:
    network: keras.Model of this package, built for inference.
    name: full scope name of a layer, such as 'vgg_16/fc6'.

  Returns:
    ReceptiveField; of the first call, where the network has several scales.

  Raises:
    InputError: there is no such layer, or an operation on the way is neither
      a window nor works on each place by itself (image pooling, resizing).
  """
  layer_name = str(name).replace('/', '.')
  layers = [layer for layer in network.layers if layer.name == layer_name]
  if not layers:
    there = [
      layer.name.replace('.', '/') for layer in network.layers if layer.weights
    ]
    raise InputError(
      f'the network has no layer {name!r}. Received: name={name!r}. Its layers '
      f'are {", ".join(there[:3])}, ... {there[-1]}.'
    )
  return of_tensor(layers[0]._inbound_nodes[0].outputs[0])


def of_tensor(tensor):
  """The receptive field of a Keras tensor; see `of_layer`.

  Args:
    tensor: [batch, height, width, channels], computed from one keras.Input.

  Returns:
    ReceptiveField.

  Raises:
    InputError: see `of_layer`.
  """
  if not keras.backend.is_keras_tensor(tensor):
    raise InputError(
      f'tensor must be one of a keras.Model. Received: {type(tensor).__name__}.'
    )
  fields = {}
  for node in graph.nodes_in_order([tensor]):
    sources = [graph.node_of(source) for source in node.input_tensors]
    fields[id(node)] = _through(node, [fields[id(n)] for n in sources])
  return fields[id(graph.node_of(tensor))]


def _through(node, inputs):
  """The receptive field of a node's output.

  Args:
    node: of the graph.
    inputs: ReceptiveField of each of its inputs.
  """
  if not inputs:
    return ReceptiveField()
  window = _window(node)
  if window is None:
    _check_works_by_place(node)
    return _union(node, inputs)
  (field,) = inputs
  axes = zip(field.stride, field.first, field.last, *window, strict=True)
  stride, first, last = zip(
    *(
      (
        step * stride,
        first - before * stride,
        last + ((kernel - 1) * rate - before) * stride,
      )
      for stride, first, last, kernel, step, rate, before in axes
    ),
    strict=True,
  )
  return ReceptiveField(stride, first, last)


def _union(node, fields):
  """What depends on any of several receptive fields."""
  strides = {field.stride for field in fields}
  if len(strides) > 1:
    raise InputError(
      f'{node.operation.name} joins features of the strides {sorted(strides)}: '
      'it has no receptive field.'
    )
  first = tuple(map(min, zip(*(field.first for field in fields), strict=True)))
  last = tuple(map(max, zip(*(field.last for field in fields), strict=True)))
  return ReceptiveField(strides.pop(), first, last)


# Windows.


def _window(node):
  """Geometry of a convolution, pooling or padding, else None.

  Returns:
    Kernel sizes, strides, rates and paddings before the first place, each
    (height, width).
  """
  operation = node.operation
  if isinstance(operation, quantization.QuantizedConvolution):
    # Of a separable convolution the second step is 1x1.
    if operation.index:
      return (1, 1), (1, 1), (1, 1), (0, 0)
    operation = operation.convolution
  if isinstance(operation, keras_layers.Conv2D | keras_layers.SeparableConv2D):
    kernel, stride = operation.kernel_size, _pair(operation.stride)
    rate, padding = operation.rates, operation.padding
  elif graph.kind(node) in _POOLING:
    kernel, stride = _pair(operation.pool_size), _pair(operation.strides)
    rate, padding = (1, 1), operation.padding
  elif graph.kind(node) == _PADDING:
    before = [side[0] for side in operation.pad_width]
    return (1, 1), (1, 1), (1, 1), tuple(before[1:3])
  else:
    return None
  before = (0, 0)
  if padding.upper() == 'SAME':
    size = node.input_tensors[0].shape[1:3]
    before = [
      _same_padding(node, *geometry)
      for geometry in zip(size, kernel, stride, rate, strict=True)
    ]
  return kernel, stride, rate, before


def _pair(value):
  return (value, value) if isinstance(value, int) else tuple(value)


def _same_padding(node, size, kernel, stride, rate):
  """TensorFlow's padding before the first place."""
  total = (kernel - 1) * rate
  if stride > 1:
    if size is None:
      raise InputError(
        f'{node.operation.name}: where a strided operation pads depends on the '
        'size of the images. Received: crop_size=None. Give a crop_size.'
      )
    total = max((-(-size // stride) - 1) * stride + total + 1 - size, 0)
  return total // 2


# What is no window.


def _check_works_by_place(node):
  """Tries an operation: no place of the output depends on another's input."""
  sizes = {tensor.shape[1:3] for tensor in (*node.input_tensors, *node.outputs)}
  if len(sizes) == 1 and all(len(t.shape) == 4 for t in node.input_tensors):
    generator = np.random.default_rng(0)
    shape = (1, _TRIAL_SIDE, _TRIAL_SIDE)
    plain = {
      id(tensor): generator.normal(size=(*shape, tensor.shape[-1])) * 3
      for tensor in node.input_tensors
    }
    middle = (0, _TRIAL_SIDE // 2, _TRIAL_SIDE // 2)
    changed = {key: value.copy() for key, value in plain.items()}
    for value in changed.values():
      value[middle] += 1.0
    differs = _run(node, plain) != _run(node, changed)
    if differs.shape[:3] == shape:
      differs[middle] = False
      if not differs.any():
        return
  raise InputError(
    f'{node.operation.name} ({type(node.operation).__name__}) mixes places in '
    'another way than convolutions and poolings do: from there on there is no '
    'receptive field. Ask for an earlier layer, of a network that is not built '
    'for training.'
  )


def _run(node, values):
  """The first output of an operation on {id of its input: array}."""
  args, kwargs = node.arguments.fill_in(
    {
      key: keras.ops.convert_to_tensor(value, 'float32')
      for key, value in values.items()
    }
  )
  with keras.StatelessScope():  # Nothing gathers statistics of the trial.
    outputs = node.operation(*args, **kwargs)
  if isinstance(outputs, (list, tuple)):
    outputs = outputs[0]
  return keras.ops.convert_to_numpy(outputs)

"""The tables of layers that the peers build; plain Python, no framework.

The peers are what one writes without this project: each layer of the framework
as it comes. Sizes are odd, `output_stride * k + 1`, so that symmetric padding
is TensorFlow's SAME.
"""

import typing

NAMES = ('mobilenet_v2', 'resnet_v1_50_beta', 'xception_65')

# Stride of the decoder's features, and rates of ASPP at output stride 16; both
# of the networks in SKIP_LAYERS alone.
DECODER_STRIDE = 4
ATROUS_RATES = (6, 12, 18)
ASPP_FILTERS = 256
DECODER_PROJECTION = 48

IGNORE_LABEL = 255
WEIGHT_DECAY = 0.00004
LEARNING_RATE = 0.0001
MOMENTUM = 0.9
DROPOUT = 0.1

# (decay, epsilon) of batch norm.
HEAD_BATCH_NORM = (0.9997, 1.001e-5)
BATCH_NORM = {
  'mobilenet_v2': (0.997, 1e-3),
  'resnet_v1_50_beta': (0.95, 1.001e-5),
  'xception_65': (0.9997, 1e-3),
}


class Unit(typing.NamedTuple):
  """One block of a backbone, at the output stride asked for.

  Attributes:
    name: official scope.
    filters: of the output; three numbers for Xception.
    stride: 1 or 2.
    rate: atrous rate.
    kind: what else a backbone must know, see the tables.
  """

  name: str
  filters: int | tuple[int, ...]
  stride: int
  rate: int
  kind: int | str


def units(name, output_stride):
  """The blocks of a backbone after its first layers.

  Args:
    name: one of NAMES.
    output_stride: strides beyond it become atrous rates.

  Returns:
    A list of Unit.
  """
  table, stem_stride = {
    'mobilenet_v2': (_mobilenet_v2, 2),
    'resnet_v1_50_beta': (_resnet_50, 4),
    'xception_65': (_xception_65, 2),
  }[name]
  stride, rate, found = stem_stride, 1, []
  for unit, filters, unit_stride, kind in table():
    if stride == output_stride:
      found.append(Unit(unit, filters, 1, rate, kind))
      rate *= unit_stride
    else:
      found.append(Unit(unit, filters, unit_stride, 1, kind))
      stride *= unit_stride
  return found


def _mobilenet_v2():
  """`kind` is the expansion."""
  stages = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
  )
  index = 0
  for expansion, filters, repeats, stride in stages:
    for i in range(repeats):
      suffix = f'_{index}' if index else ''
      name = f'MobilenetV2/expanded_conv{suffix}'
      yield name, filters, 1 if i else stride, expansion
      index += 1


def _resnet_50():
  """The stride is in the last unit of a block; `kind` is the inner depth."""
  for block, repeats in enumerate((3, 4, 6, 3), 1):
    depth = 32 * 2**block
    for i in range(1, repeats + 1):
      name = f'resnet_v1_50/block{block}/unit_{i}/bottleneck_v1'
      yield name, 4 * depth, 2 if i == repeats and block < 4 else 1, depth


def _xception_65():
  """`kind` is that of the shortcut: 'conv', 'sum' or 'none'."""
  rows = [
    ('entry_flow/block1', (128,) * 3, 2, 'conv', 1),
    ('entry_flow/block2', (256,) * 3, 2, 'conv', 1),
    ('entry_flow/block3', (728,) * 3, 2, 'conv', 1),
    ('middle_flow/block1', (728,) * 3, 1, 'sum', 16),
    ('exit_flow/block1', (728, 1024, 1024), 2, 'conv', 1),
    ('exit_flow/block2', (1536, 1536, 2048), 1, 'none', 1),
  ]
  for block, filters, stride, kind, repeats in rows:
    for i in range(1, repeats + 1):
      name = f'xception_65/{block}/unit_{i}/xception_module'
      yield name, filters, stride, kind


# What the decoder takes beside ASPP's result: the layer of stride 4, and its
# channels.
SKIP_LAYERS = {
  'resnet_v1_50_beta': 'resnet_v1_50/block1/unit_2/bottleneck_v1/conv3',
  'xception_65': 'xception_65/entry_flow/block2/unit_1/xception_module/'
  'separable_conv2_pointwise',
}
SKIP_CHANNELS = 256


def atrous_rates(output_stride):
  """The rates of ASPP, which double at output stride 8."""
  return [rate * 16 // output_stride for rate in ATROUS_RATES]

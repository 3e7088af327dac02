"""ResNet v1 and its `_beta` variants.

He et al., Deep Residual Learning for Image Recognition, arXiv:1512.03385.
A `_beta` variant has a stem of 3x3 convolutions in place of the 7x7 one: three
in every published checkpoint, two on request. The stride of a block sits in
its last unit.
"""

import functools

import keras

from deeplab import slim
from deeplab.common import InputError
from deeplab.slim.nets import resnet_utils

# Units of blocks 1 to 4.
_UNITS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


@slim.add_arg_scope
def bottleneck(
  inputs, depth, depth_bottleneck, stride, unit_rate=1, rate=1, scope=None
):
  """1x1, 3x3, 1x1 convolutions and a shortcut.

  Args:
    inputs: [batch, height, width, channels].
    depth: channels of the output.
    depth_bottleneck: channels of the 3x3 convolution.
    stride: of the 3x3 convolution and the shortcut.
    unit_rate: atrous rate of this unit (multi-grid).
    rate: atrous rate of the block, a further factor.
    scope: name, 'bottleneck_v1' by default.

  Returns:
    [batch, ceil(height / stride), ceil(width / stride), depth].
  """
  with slim.variable_scope(scope, 'bottleneck_v1') as name:
    shortcut = _shortcut(inputs, depth, stride)
    residual = slim.conv2d(inputs, depth_bottleneck, 1, scope='conv1')
    residual = resnet_utils.conv2d_same(
      residual,
      depth_bottleneck,
      3,
      stride,
      rate=rate * unit_rate,
      scope='conv2',
    )
    residual = slim.conv2d(
      residual, depth, 1, activation_fn=None, scope='conv3'
    )
    output = slim.quantize(keras.ops.relu(shortcut + residual), 'act_quant')
    return slim.collect_named_output(name, output)


@slim.add_arg_scope
def lite_bottleneck(inputs, depth, stride, unit_rate=1, rate=1, scope=None):
  """Two 3x3 convolutions and a shortcut, both dilated.

  Args:
    inputs: [batch, height, width, channels].
    depth: channels of the output.
    stride: of the second convolution and the shortcut.
    unit_rate: atrous rate of this unit (multi-grid).
    rate: atrous rate of the block, a further factor.
    scope: name, 'lite_bottleneck_v1' by default.

  Returns:
    [batch, ceil(height / stride), ceil(width / stride), depth].
  """
  with slim.variable_scope(scope, 'lite_bottleneck_v1') as name:
    shortcut = _shortcut(inputs, depth, stride)
    rate = rate * unit_rate
    residual = resnet_utils.conv2d_same(
      inputs, depth, 3, 1, rate=rate, scope='conv1'
    )
    with slim.arg_scope([slim.conv2d], activation_fn=None):
      residual = resnet_utils.conv2d_same(
        residual, depth, 3, stride, rate=rate, scope='conv2'
      )
    output = slim.quantize(keras.ops.relu(shortcut + residual), 'act_quant')
    return slim.collect_named_output(name, output)


def _shortcut(inputs, depth, stride):
  if depth == inputs.shape[-1]:
    return resnet_utils.subsample(inputs, stride, 'shortcut')
  return slim.conv2d(
    inputs, depth, 1, stride=stride, activation_fn=None, scope='shortcut'
  )


def root_block(net, root_convs, depth=64):
  """The stem of a `_beta` variant.

  Args:
    net: images [batch, height, width, 3].
    root_convs: 3 for the published stem (depth, depth, 2 * depth filters), 2
      for depth and 2 * depth.
    depth: filters of the first convolution.

  Returns:
    [batch, ceil(height / 2), ceil(width / 2), 2 * depth].
  """
  depths = [depth] * (root_convs - 1) + [2 * depth]
  for i, filters in enumerate(depths):
    net = resnet_utils.conv2d_same(
      net, filters, 3, stride=1 if i else 2, scope=f'conv1_{i + 1}'
    )
  return net


def _blocks(num_layers, multi_grid, num_blocks):
  """The blocks of ResNet-18, 50 or 101; those after block4 are its copies."""
  units = _UNITS[num_layers]
  units += units[-1:] * (num_blocks - len(units))
  multi_grid = multi_grid or [1] * units[-1]
  if len(multi_grid) != units[-1]:
    raise InputError(
      f'multi_grid of resnet_v1_{num_layers} must have {units[-1]} values, one '
      'for each unit of block4 and of its copies. Received: multi_grid='
      f'{list(multi_grid)}.'
    )
  blocks = []
  for i, num_units in enumerate(units):
    rates = multi_grid if i >= 3 else [1] * num_units
    is_last = i == num_blocks - 1
    strides = [1] * (num_units - 1) + [1 if is_last else 2]
    base_depth = 64 * 2 ** min(i, 3)
    if num_layers == 18:
      unit_fn, depths = lite_bottleneck, {'depth': base_depth}
    else:
      unit_fn = bottleneck
      depths = {'depth': 4 * base_depth, 'depth_bottleneck': base_depth}
    arguments = [
      {**depths, 'stride': stride, 'unit_rate': rate}
      for stride, rate in zip(strides, rates, strict=True)
    ]
    blocks.append(resnet_utils.Block(f'block{i + 1}', unit_fn, arguments))
  return blocks


def resnet_v1_beta(
  inputs,
  num_layers,
  root_convs=None,
  is_training=False,
  output_stride=None,
  multi_grid=None,
  num_blocks=4,
  scope=None,
):
  """A ResNet v1 without its classifier.

  Args:
    inputs: [batch, height, width, 3].
    num_layers: 18, 50 or 101.
    root_convs: number of 3x3 convolutions of the stem, None for the 7x7 one.
    is_training: whether batch norm uses batch statistics.
    output_stride: 4, 8, 16, 32, twice as much for each block after the
      fourth, or None for the largest.
    multi_grid: unit rates of block4 and its copies; three values, for ResNet-18
      two.
    num_blocks: 4, or up to 7 for the cascade of v3 (section 3.2).
    scope: name, 'resnet_v1_<num_layers>' by default.

  Returns:
    The features and a dictionary of end points under full scope names.

  Raises:
    InputError: the output stride cannot be reached, or multi_grid has a
      wrong length.
  """
  if output_stride is not None:
    if output_stride % 4:
      raise InputError(
        f'output_stride must be a multiple of 4. Received: {output_stride}.'
      )
    output_stride //= 4
  with (
    slim.variable_scope(scope or f'resnet_v1_{num_layers}'),
    slim.collect_end_points() as end_points,
    slim.arg_scope([slim.batch_norm], is_training=is_training),
  ):
    if root_convs is None:
      net = resnet_utils.conv2d_same(inputs, 64, 7, stride=2, scope='conv1')
    else:
      depth = 16 if num_layers == 18 else 64
      net = root_block(inputs, root_convs, depth)
    net = slim.max_pool2d(net, 3, stride=2, padding='SAME', scope='pool1')
    blocks = _blocks(num_layers, multi_grid, num_blocks)
    net = resnet_utils.stack_blocks_dense(net, blocks, output_stride, 4)
    return net, end_points


def _beta(inputs, num_layers, root_convs=3, **kwargs):
  return resnet_v1_beta(inputs, num_layers, root_convs=root_convs, **kwargs)


resnet_v1_18 = functools.partial(resnet_v1_beta, num_layers=18)
resnet_v1_50 = functools.partial(resnet_v1_beta, num_layers=50)
resnet_v1_101 = functools.partial(resnet_v1_beta, num_layers=101)
resnet_v1_18_beta = functools.partial(_beta, num_layers=18)
resnet_v1_50_beta = functools.partial(_beta, num_layers=50)
resnet_v1_101_beta = functools.partial(_beta, num_layers=101)

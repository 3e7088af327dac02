"""Building blocks of residual networks with a chosen output stride."""

import collections

import keras

from deeplab import slim
from deeplab.common import InputError


class Block(collections.namedtuple('Block', ['scope', 'unit_fn', 'args'])):
  """A residual block.

  Attributes:
    scope: name of the block.
    unit_fn: function that takes a tensor and the arguments of a unit.
    args: one dictionary of arguments for each unit.
  """


def subsample(inputs, factor, scope=None):
  """Every `factor`-th row and column, by a 1x1 max pooling."""
  if factor == 1:
    return inputs
  return slim.max_pool2d(inputs, 1, stride=factor, scope=scope)


def fixed_padding(inputs, kernel_size, rate=1):
  """Zero-pads by what the kernel reaches, whatever the size of the input.

  Args:
    inputs: [batch, height, width, channels].
    kernel_size: integer.
    rate: atrous rate.

  Returns:
    A tensor (kernel_size - 1) * rate larger in height and width.
  """
  total = (kernel_size - 1) * rate
  before = total // 2
  sides = [before, total - before]
  return keras.ops.pad(inputs, [[0, 0], sides, sides, [0, 0]])


def conv2d_same(inputs, num_outputs, kernel_size, stride, rate=1, scope=None):
  """Convolution whose strided output is the subsampled unstrided one.

  TensorFlow's SAME padding depends on the size of the input where the stride
  is more than 1, and shifts features of even sizes by a pixel; explicit
  padding does not.

  Args:
    inputs: [batch, height, width, channels].
    num_outputs: number of filters.
    kernel_size: integer.
    stride: integer.
    rate: atrous rate.
    scope: name.

  Returns:
    [batch, ceil(height / stride), ceil(width / stride), num_outputs].
  """
  if stride > 1:
    inputs = fixed_padding(inputs, kernel_size, rate)
  return slim.conv2d(
    inputs,
    num_outputs,
    kernel_size,
    stride=stride,
    rate=rate,
    padding='VALID' if stride > 1 else 'SAME',
    scope=scope,
  )


def stack_blocks_dense(net, blocks, output_stride=None, stem_stride=1):
  """Stacks blocks; strides beyond `output_stride` become atrous rates.

  Once the product of the strides has reached `output_stride`, every further
  strided unit runs with stride 1 and multiplies the rate of the units after
  it. (The unit itself still runs at the rate so far.)

  Args:
    net: [batch, height, width, channels].
    blocks: list of Block.
    output_stride: wanted ratio of input to output resolution, None for the
      nominal one.
    stem_stride: that of the layers before, for the error message.

  Returns:
    [batch, height / output_stride, width / output_stride, channels'].

  Raises:
    InputError: no prefix of the units has that product of strides.
  """
  current_stride = 1
  reached = [1]
  rate = 1
  for block in blocks:
    with slim.variable_scope(block.scope) as block_name:
      for i, unit in enumerate(block.args):
        with slim.variable_scope(f'unit_{i + 1}'):
          stride = unit.get('stride', 1)
          if current_stride == output_stride:
            net = block.unit_fn(net, rate=rate, **{**unit, 'stride': 1})
            rate *= stride
          else:
            net = block.unit_fn(net, rate=1, **unit)
            current_stride *= stride
            reached.append(current_stride)
      slim.collect_named_output(block_name, net)
  if output_stride is not None and current_stride != output_stride:
    strides = [stem_stride * stride for stride in sorted(set(reached))]
    raise InputError(
      f'the target output_stride cannot be reached: possible are {strides}. '
      f'Received: output_stride={stem_stride * output_stride}.'
    )
  return net


def resnet_arg_scope(
  weight_decay=0.0001,
  batch_norm_decay=0.997,
  batch_norm_epsilon=1e-5,
  batch_norm_scale=True,
  use_weight_standardization=False,
):
  """Opens slim's defaults for ResNets; use in a `with` statement.

  Args:
    weight_decay: of the convolution kernels.
    batch_norm_decay: decay of the moving statistics.
    batch_norm_epsilon: added to the variance.
    batch_norm_scale: whether batch norm has a gamma.
    use_weight_standardization: of all convolutions.

  Returns:
    A context manager.
  """
  return slim.nested_arg_scope(
    (
      [slim.conv2d],
      {
        'weights_regularizer': slim.l2_regularizer(weight_decay),
        'weights_initializer': slim.variance_scaling_initializer(),
        'normalizer_fn': slim.batch_norm,
        'use_weight_standardization': use_weight_standardization,
      },
    ),
    (
      [slim.batch_norm],
      {
        'decay': batch_norm_decay,
        'epsilon': batch_norm_epsilon,
        'scale': batch_norm_scale,
      },
    ),
    ([slim.max_pool2d], {'padding': 'SAME'}),
  )

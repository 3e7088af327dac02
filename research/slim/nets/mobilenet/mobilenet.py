"""The engine of the MobileNets: a list of layers, run at an output stride."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from deeplab import slim
from deeplab.common import InputError
from deeplab.slim.nets.mobilenet import conv_blocks


@dataclasses.dataclass(frozen=True)
class Op:
  """One layer: a function and its arguments.

  Attributes:
    function: `slim.conv2d` or a unit such as `conv_blocks.expanded_conv`.
    arguments: its keyword arguments before the depth multiplier.
  """

  function: Callable
  arguments: Mapping[str, Any]


def op(function, **arguments):
  """An Op; reads better in a table of layers."""
  return Op(function, arguments)


def mobilenet_base(
  inputs,
  spec: Sequence[Op],
  depth_multiplier=1.0,
  divisible_by=8,
  min_depth=8,
  final_endpoint=None,
  output_stride=None,
  scope='Mobilenet',
):
  """Runs a MobileNet without its classifier.

  Once the product of the strides has reached `output_stride`, every further
  stride becomes an atrous rate of the layers after it.

  Args:
    inputs: [batch, height, width, channels].
    spec: the layers.
    depth_multiplier: multiplies the number of channels of every layer.
    divisible_by: the product is rounded to a multiple of this.
    min_depth: least number of channels.
    final_endpoint: name of the last layer to run, for example 'layer_18'.
    output_stride: ratio of input to output resolution, None for the nominal.
    scope: name.

  Returns:
    The output tensor and a dictionary of end points: 'layer_1', ... and,
    for units, 'layer_2/depthwise_output' and the like.

  Raises:
    InputError: the output stride cannot be reached.
  """
  end_points = {}
  net = inputs
  current_stride = 1
  reached = [1]
  rate = 1
  with slim.variable_scope(scope):
    for i, layer in enumerate(spec):
      arguments = dict(layer.arguments)
      arguments['num_outputs'] = conv_blocks.make_divisible(
        arguments['num_outputs'] * depth_multiplier, divisible_by, min_depth
      )
      stride = arguments.pop('stride', 1)
      name = f'layer_{i + 1}'
      unit_end_points = {}
      if layer.function is not slim.conv2d:
        arguments['end_points'] = unit_end_points
      if current_stride == output_stride:
        if rate > 1 and _is_dilatable(layer):
          arguments['rate'] = rate
        net = layer.function(net, stride=1, **arguments)
        rate *= stride
      else:
        net = layer.function(net, stride=stride, **arguments)
        current_stride *= stride
        reached.append(current_stride)
      end_points[name] = net
      for key, value in unit_end_points.items():
        end_points[f'{name}/{key}'] = value
      if name == final_endpoint:
        break
  if output_stride is not None and current_stride != output_stride:
    raise InputError(
      'the target output_stride cannot be reached: it can be one of '
      f'{sorted(set(reached))}. Received: output_stride={output_stride}.'
    )
  return net, end_points


def _is_dilatable(layer):
  """A 1x1 convolution has nothing to dilate."""
  return layer.arguments.get('kernel_size') not in (1, (1, 1))


def training_scope(
  is_training=True, weight_decay=0.00004, stddev=0.09, batch_norm_decay=0.997
):
  """Opens slim's defaults for MobileNets; use in a `with` statement.

  Args:
    is_training: whether batch norm uses batch statistics.
    weight_decay: of the convolution kernels, the depthwise ones excepted.
    stddev: of the truncated normal initialiser.
    batch_norm_decay: decay of the moving statistics.

  Returns:
    A context manager.
  """
  return slim.nested_arg_scope(
    (
      [slim.conv2d, slim.separable_conv2d],
      {
        'weights_initializer': slim.truncated_normal_initializer(stddev),
        'normalizer_fn': slim.batch_norm,
        'activation_fn': keras.ops.relu6,
        'padding': 'SAME',
      },
    ),
    (
      [slim.conv2d],
      {'weights_regularizer': slim.l2_regularizer(weight_decay)},
    ),
    (
      [slim.batch_norm],
      {
        'is_training': is_training,
        'decay': batch_norm_decay,
        'epsilon': 0.001,
        'center': True,
        'scale': True,
      },
    ),
  )

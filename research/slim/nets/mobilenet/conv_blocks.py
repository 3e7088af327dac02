"""The units of the MobileNets: inverted residuals, squeeze-and-excitation.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks,
arXiv:1801.04381, section 3.4; Howard et al., Searching for MobileNetV3,
arXiv:1905.02244, section 5; the fused unit is MobileNet-EdgeTPU's.
"""

import keras
import tensorflow as tf

from deeplab import slim


def make_divisible(value, divisor, min_value=None):
  """Rounds to a multiple of `divisor`, never down by more than a tenth.

  Args:
    value: number of channels, not necessarily an integer.
    divisor: positive integer.
    min_value: lower bound, `divisor` by default.

  Returns:
    An integer.
  """
  if min_value is None:
    min_value = divisor
  rounded = max(min_value, int(value + divisor / 2) // divisor * divisor)
  if rounded < 0.9 * value:
    rounded += divisor
  return rounded


def expand_input_by_factor(factor, divisible_by=8):
  """The number of expanded channels as a function of the input channels."""
  return lambda num_inputs: make_divisible(num_inputs * factor, divisible_by)


def hard_swish(inputs):
  """x * relu6(x + 3) / 6, elementwise."""
  if slim.is_quantized():
    inputs, gate = slim.hard_gate(inputs)
    with slim.variable_scope('hard_swish'):
      net = slim.quantize(inputs * gate, 'mul/activation_Mul_quant')
      return slim.quantize(net * (1.0 / 6.0), 'mul_1/activation_Mul_quant')
  return slim.function(lambda x: x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0), inputs)


def hard_sigmoid(inputs):
  """relu6(x + 3) * 0.16667: that constant, in the place of 1/6, is official."""
  if slim.is_quantized():
    _, gate = slim.hard_gate(inputs)
    return slim.quantize(gate * 0.16667, 'mul/activation_Mul_quant')
  return slim.function(lambda x: tf.nn.relu6(x + 3.0) * 0.16667, inputs)


hard_swish.quantizes_inputs = hard_sigmoid.quantizes_inputs = True


def squeeze_excite(inputs, squeeze_factor=4, divisible_by=8):
  """Scales each channel by a gate computed from the means of all channels.

  Args:
    inputs: [batch, height, width, channels].
    squeeze_factor: the hidden layer has this many times fewer channels,
    divisible_by: rounded to a multiple of this.

  Returns:
    [batch, height, width, channels].
  """
  channels = inputs.shape[-1]
  with slim.variable_scope('squeeze_excite'):
    net = keras.ops.mean(inputs, axis=(1, 2), keepdims=True)
    net = slim.conv2d(
      net,
      make_divisible(channels / squeeze_factor, divisible_by),
      1,
      activation_fn=keras.ops.relu,
      normalizer_fn=None,
    )
    gate = slim.conv2d(
      net, channels, 1, activation_fn=hard_sigmoid, normalizer_fn=None
    )
    return slim.quantize(inputs * gate, 'mul/activation_Mul_quant')


def _project(net, inputs, num_outputs, stride, residual, end_points):
  """Linear 1x1 projection, and the residual where the shapes allow one."""
  net = slim.conv2d(net, num_outputs, 1, activation_fn=None, scope='project')
  if residual and stride == 1 and inputs.shape[-1] == num_outputs:
    net = slim.quantize(net + inputs, 'post_activation_bypass_quant')
  end_points['output'] = net
  return net


@slim.add_arg_scope
def expanded_conv(
  inputs,
  num_outputs,
  expansion_size=None,
  kernel_size=3,
  stride=1,
  rate=1,
  inner_activation_fn=None,
  expansion_transform=None,
  residual=True,
  scope=None,
  end_points=None,
):
  """1x1 expansion, depthwise convolution, linear 1x1 projection, residual.

  Args:
    inputs: [batch, height, width, channels].
    num_outputs: channels of the output.
    expansion_size: function from input channels to expanded channels, six
      times by default; no expansion where it gives no more than the input.
    kernel_size: of the depthwise convolution.
    stride: of the depthwise convolution.
    rate: atrous rate of the depthwise convolution.
    inner_activation_fn: activation of expansion and depthwise convolution,
      None for the one of the argument scope.
    expansion_transform: function of the depthwise output, for example
      `squeeze_excite`, or None.
    residual: whether the inputs are added where the shapes allow it.
    scope: name, 'expanded_conv' by default.
    end_points: dictionary that receives 'expansion_output' (if there is an
      expansion), 'depthwise_output' (before the transform) and 'output'.

  Returns:
    [batch, ceil(height / stride), ceil(width / stride), num_outputs].
  """
  end_points = {} if end_points is None else end_points
  expanded = (expansion_size or expand_input_by_factor(6))(inputs.shape[-1])
  activation = {}
  if inner_activation_fn is not None:
    activation['activation_fn'] = inner_activation_fn
  with slim.variable_scope(scope, 'expanded_conv'):
    net = inputs
    if expanded > inputs.shape[-1]:
      net = slim.conv2d(net, expanded, 1, scope='expand', **activation)
      end_points['expansion_output'] = net
    net = slim.separable_conv2d(
      net,
      None,
      kernel_size,
      stride=stride,
      rate=rate,
      scope='depthwise',
      **activation,
    )
    end_points['depthwise_output'] = net
    if expansion_transform is not None:
      net = expansion_transform(net)
    return _project(net, inputs, num_outputs, stride, residual, end_points)


@slim.add_arg_scope
def fused_conv(
  inputs,
  num_outputs,
  expansion_size=None,
  kernel_size=3,
  stride=1,
  rate=1,
  residual=True,
  scope=None,
  end_points=None,
):
  """An expanded convolution whose expansion and depthwise part are one.

  A full convolution is more work than the two it stands for, and faster on an
  accelerator of matrix products.

  Args:
    inputs: [batch, height, width, channels].
    num_outputs: channels of the output.
    expansion_size: function from input channels to expanded channels, six
      times by default; only the projection is left where it gives no more
      than the input.
    kernel_size: of the expansion.
    stride: of the expansion.
    rate: atrous rate of the expansion.
    residual: whether the inputs are added where the shapes allow it.
    scope: name, 'expanded_conv' by default.
    end_points: dictionary that receives 'expansion_output' (if there is an
      expansion) and 'output'.

  Returns:
    [batch, ceil(height / stride), ceil(width / stride), num_outputs].

  Raises:
    ValueError: there is a stride but no expansion to take it.
  """
  end_points = {} if end_points is None else end_points
  expanded = (expansion_size or expand_input_by_factor(6))(inputs.shape[-1])
  with slim.variable_scope(scope, 'expanded_conv'):
    net = inputs
    if expanded > inputs.shape[-1]:
      net = slim.conv2d(
        net, expanded, kernel_size, stride=stride, rate=rate, scope='expand'
      )
      end_points['expansion_output'] = net
    elif stride > 1:
      raise ValueError(
        f'a fused unit without expansion has no stride. Received: {stride}.'
      )
    return _project(net, inputs, num_outputs, stride, residual, end_points)

"""The expanded convolution, the unit of MobileNet v2.

Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks,
arXiv:1801.04381, section 3.4.
"""

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


@slim.add_arg_scope
def expanded_conv(
  inputs,
  num_outputs,
  expansion_size=None,
  kernel_size=3,
  stride=1,
  rate=1,
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
    scope: name, 'expanded_conv' by default.
    end_points: dictionary that receives 'expansion_output' (if there is an
      expansion), 'depthwise_output' and 'output'.

  Returns:
    [batch, ceil(height / stride), ceil(width / stride), num_outputs].
  """
  end_points = {} if end_points is None else end_points
  expansion_size = expansion_size or expand_input_by_factor(6)
  channels = inputs.shape[-1]
  with slim.variable_scope(scope, 'expanded_conv'):
    net = inputs
    expanded = expansion_size(channels)
    if expanded > channels:
      net = slim.conv2d(net, expanded, 1, scope='expand')
      end_points['expansion_output'] = net
    net = slim.separable_conv2d(
      net, None, kernel_size, stride=stride, rate=rate, scope='depthwise'
    )
    end_points['depthwise_output'] = net
    net = slim.conv2d(net, num_outputs, 1, activation_fn=None, scope='project')
    if stride == 1 and channels == num_outputs:
      net = net + inputs
    end_points['output'] = net
    return net

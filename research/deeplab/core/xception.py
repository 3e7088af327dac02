"""Xception as modified for dense prediction: 41, 65 and 71 layers.

Chen et al., Encoder-Decoder with Atrous Separable Convolution, figure 4
(arXiv:1802.02611), after Chollet, arXiv:1610.02357. Max pooling is replaced by
strided separable convolution; a module is ReLU, depthwise + BN, pointwise +
BN, three times, and only the last block activates after both convolutions.
"""

import functools

import keras

from deeplab import slim
from deeplab.common import InputError
from deeplab.slim.nets import resnet_utils

# Bounded activations are clipped to this, so that they quantise well.
_CLIP_CAP = 6


def separable_conv2d_same(
  inputs,
  num_outputs,
  kernel_size,
  stride,
  rate=1,
  activation_fn=None,
  use_explicit_padding=True,
  scope=None,
):
  """Depthwise, then pointwise convolution, each with its batch norm.

  Args:
    inputs: [batch, height, width, channels].
    num_outputs: filters of the pointwise convolution.
    kernel_size: integer, of the depthwise convolution.
    stride: of the depthwise convolution.
    rate: atrous rate of the depthwise convolution.
    activation_fn: after both, None for none.
    use_explicit_padding: pad strided convolutions by what the kernel reaches
      (aligned features), rather than by TensorFlow's SAME.
    scope: name; '_depthwise' and '_pointwise' are appended.

  Returns:
    [batch, ceil(height / stride), ceil(width / stride), num_outputs].
  """
  padding = 'SAME'
  if stride > 1 and use_explicit_padding:
    inputs = resnet_utils.fixed_padding(inputs, kernel_size, rate)
    padding = 'VALID'
  net = slim.separable_conv2d(
    inputs,
    None,
    kernel_size,
    stride=stride,
    rate=rate,
    padding=padding,
    activation_fn=activation_fn,
    scope=scope + '_depthwise',
  )
  return slim.conv2d(
    net, num_outputs, 1, activation_fn=activation_fn, scope=scope + '_pointwise'
  )


def _clip(inputs):
  return keras.ops.clip(inputs, -_CLIP_CAP, _CLIP_CAP)


@slim.add_arg_scope
def xception_module(
  inputs,
  depth_list,
  skip_connection_type,
  stride,
  unit_rate_list=(1, 1, 1),
  rate=1,
  activation_fn_in_separable_conv=False,
  use_bounded_activation=False,
  scope=None,
):
  """Three separable convolutions and a shortcut.

  Args:
    inputs: [batch, height, width, channels].
    depth_list: filters of the three convolutions.
    skip_connection_type: 'conv' (1x1 with the stride), 'sum' or 'none'.
    stride: of the third convolution and the shortcut.
    unit_rate_list: atrous rates of the three convolutions (multi-grid).
    rate: atrous rate of the block, a further factor.
    activation_fn_in_separable_conv: activate after each convolution, rather
      than once before each separable one.
    use_bounded_activation: ReLU6 and clipping in place of ReLU, and
      TensorFlow's SAME padding.
    scope: name, 'xception_module' by default.

  Returns:
    [batch, ceil(height / stride), ceil(width / stride), depth_list[-1]].
  """
  relu = keras.ops.relu6 if use_bounded_activation else keras.ops.relu
  bound = _clip if use_bounded_activation else lambda x: x
  with slim.variable_scope(scope, 'xception_module') as name:
    residual = inputs
    for i, depth in enumerate(depth_list):
      if activation_fn_in_separable_conv:
        activation_fn = relu
      else:
        residual = relu(residual)
        activation_fn = _clip if use_bounded_activation else None
      residual = separable_conv2d_same(
        residual,
        depth,
        3,
        stride=stride if i == 2 else 1,
        rate=rate * unit_rate_list[i],
        activation_fn=activation_fn,
        use_explicit_padding=not use_bounded_activation,
        scope=f'separable_conv{i + 1}',
      )
    if skip_connection_type == 'none':
      return slim.collect_named_output(name, residual)
    shortcut = inputs
    if skip_connection_type == 'conv':
      shortcut = slim.conv2d(
        inputs,
        depth_list[-1],
        1,
        stride=stride,
        activation_fn=None,
        scope='shortcut',
      )
    outputs = slim.quantize(
      bound(residual) + bound(shortcut), 'add/activation_AddV2_quant'
    )
    if use_bounded_activation:
      outputs = keras.ops.relu6(outputs)
    return slim.collect_named_output(name, outputs)


def _block(scope, depths, skip, num_units=1, stride=1, **kwargs):
  """A block of modules that share their arguments."""
  if isinstance(depths, int):
    depths = [depths] * 3
  unit = {
    'depth_list': depths,
    'skip_connection_type': skip,
    'stride': stride,
    **kwargs,
  }
  return resnet_utils.Block(scope, xception_module, [unit] * num_units)


def _blocks(num_layers, multi_grid):
  """Entry, middle and exit flow of Xception-41, 65 or 71."""
  if num_layers == 71:
    entry = [(128, 2), (256, 1), (256, 2), (728, 1), (728, 2)]
  else:
    entry = [(128, 2), (256, 2), (728, 2)]
  blocks = [
    _block(f'entry_flow/block{i}', depth, 'conv', stride=stride)
    for i, (depth, stride) in enumerate(entry, 1)
  ]
  middle_units = 8 if num_layers == 41 else 16
  return [
    *blocks,
    _block('middle_flow/block1', 728, 'sum', num_units=middle_units),
    _block('exit_flow/block1', [728, 1024, 1024], 'conv', stride=2),
    _block(
      'exit_flow/block2',
      [1536, 1536, 2048],
      'none',
      activation_fn_in_separable_conv=True,
      unit_rate_list=multi_grid,
    ),
  ]


def xception(
  inputs,
  num_layers,
  is_training=False,
  output_stride=None,
  multi_grid=None,
  scope=None,
):
  """Xception without its classifier.

  Args:
    inputs: [batch, height, width, 3].
    num_layers: 41, 65 or 71.
    is_training: whether batch norm uses batch statistics.
    output_stride: 2, 4, 8, 16, 32 or None for 32.
    multi_grid: three unit rates of the last module.
    scope: name, 'xception_<num_layers>' by default.

  Returns:
    The features and a dictionary of end points under full scope names.

  Raises:
    InputError: the output stride cannot be reached, or multi_grid has not
      three values.
  """
  if output_stride is not None:
    if output_stride % 2:
      raise InputError(
        f'output_stride must be a multiple of 2. Received: {output_stride}.'
      )
    output_stride //= 2
  multi_grid = multi_grid or (1, 1, 1)
  if len(multi_grid) != 3:
    raise InputError(
      'multi_grid of Xception must have 3 values. '
      f'Received: multi_grid={list(multi_grid)}.'
    )
  with (
    slim.variable_scope(scope or f'xception_{num_layers}'),
    slim.collect_end_points() as end_points,
    slim.arg_scope([slim.batch_norm], is_training=is_training),
  ):
    net = resnet_utils.conv2d_same(
      inputs, 32, 3, stride=2, scope='entry_flow/conv1_1'
    )
    net = resnet_utils.conv2d_same(
      net, 64, 3, stride=1, scope='entry_flow/conv1_2'
    )
    blocks = _blocks(num_layers, multi_grid)
    net = resnet_utils.stack_blocks_dense(net, blocks, output_stride, 2)
    return net, end_points


xception_41 = functools.partial(xception, num_layers=41)
xception_65 = functools.partial(xception, num_layers=65)
xception_71 = functools.partial(xception, num_layers=71)


def xception_arg_scope(
  weight_decay=0.00004,
  batch_norm_decay=0.9997,
  batch_norm_epsilon=0.001,
  weights_initializer_stddev=0.09,
  use_bounded_activation=False,
):
  """Opens slim's defaults for Xception; use in a `with` statement.

  Args:
    weight_decay: of the convolution kernels, the depthwise ones excepted.
    batch_norm_decay: decay of the moving statistics.
    batch_norm_epsilon: added to the variance.
    weights_initializer_stddev: of the truncated normal initialiser.
    use_bounded_activation: see xception_module.

  Returns:
    A context manager.
  """
  relu = keras.ops.relu6 if use_bounded_activation else keras.ops.relu
  return slim.nested_arg_scope(
    (
      [slim.conv2d, slim.separable_conv2d],
      {
        'weights_initializer': slim.truncated_normal_initializer(
          weights_initializer_stddev
        ),
        'activation_fn': relu,
        'normalizer_fn': slim.batch_norm,
      },
    ),
    (
      [slim.batch_norm],
      {
        'decay': batch_norm_decay,
        'epsilon': batch_norm_epsilon,
        'scale': True,
      },
    ),
    (
      [slim.conv2d],
      {'weights_regularizer': slim.l2_regularizer(weight_decay)},
    ),
    ([xception_module], {'use_bounded_activation': use_bounded_activation}),
  )

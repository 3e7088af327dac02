"""MobileNet v3 (arXiv:1905.02244, tables 1 and 2) and MobileNet-EdgeTPU.

For segmentation the last block of the v3 networks has half the channels
(section 6.4). All of them are rounded to multiples of 8 at any depth.
"""

import dataclasses

import keras

from deeplab import slim
from deeplab.slim.nets.mobilenet import mobilenet
from deeplab.slim.nets.mobilenet.conv_blocks import (
  expand_input_by_factor,
  expanded_conv,
  fused_conv,
  hard_swish,
  squeeze_excite,
)
from deeplab.slim.nets.mobilenet.mobilenet import op, training_scope


def _unit(factor, num_outputs, kernel_size, stride=1, *, swish=False, se=False):
  """One row of the papers' tables: an expanded convolution."""
  return op(
    expanded_conv,
    expansion_size=expand_input_by_factor(factor),
    num_outputs=num_outputs,
    kernel_size=kernel_size,
    stride=stride,
    inner_activation_fn=hard_swish if swish else keras.ops.relu,
    expansion_transform=squeeze_excite if se else None,
  )


def _fused(factor, num_outputs, stride=1):
  return op(
    fused_conv,
    expansion_size=expand_input_by_factor(factor),
    num_outputs=num_outputs,
    kernel_size=3,
    stride=stride,
  )


def _conv(num_outputs, kernel_size, stride=1, activation_fn=hard_swish):
  return op(
    slim.conv2d,
    num_outputs=num_outputs,
    kernel_size=kernel_size,
    stride=stride,
    activation_fn=activation_fn,
  )


def _with_arguments(layer, **arguments):
  return dataclasses.replace(layer, arguments={**layer.arguments, **arguments})


V3_LARGE = (
  _conv(16, 3, 2),
  _unit(1, 16, 3),
  _unit(4, 24, 3, 2),
  _unit(3, 24, 3),
  _unit(3, 40, 5, 2, se=True),
  _unit(3, 40, 5, se=True),
  _unit(3, 40, 5, se=True),
  _unit(6, 80, 3, 2, swish=True),
  _unit(200 / 80, 80, 3, swish=True),
  _unit(184 / 80, 80, 3, swish=True),
  _unit(184 / 80, 80, 3, swish=True),
  _unit(6, 112, 3, swish=True, se=True),
  _unit(6, 112, 3, swish=True, se=True),
  _unit(6, 160, 5, 2, swish=True, se=True),
  _unit(6, 160, 5, swish=True, se=True),
  _unit(6, 160, 5, swish=True, se=True),
  _conv(960, 1),
)

V3_SMALL = (
  _conv(16, 3, 2),
  _unit(1, 16, 3, 2, se=True),
  _unit(72 / 16, 24, 3, 2),
  _unit(88 / 24, 24, 3),
  _unit(4, 40, 5, 2, swish=True, se=True),
  _unit(6, 40, 5, swish=True, se=True),
  _unit(6, 40, 5, swish=True, se=True),
  _unit(3, 48, 5, swish=True, se=True),
  _unit(3, 48, 5, swish=True, se=True),
  _unit(6, 96, 5, 2, swish=True, se=True),
  _unit(6, 96, 5, swish=True, se=True),
  _unit(6, 96, 5, swish=True, se=True),
  _conv(576, 1),
)

V3_EDGETPU = (
  _conv(32, 3, 2, keras.ops.relu),
  _fused(1, 16),
  _fused(8, 32, 2),
  *[_fused(4, 32)] * 3,
  _fused(8, 48, 2),
  *[_fused(4, 48)] * 3,
  _unit(8, 96, 3, 2),
  *[_unit(4, 96, 3)] * 3,
  _with_arguments(_unit(8, 96, 3), residual=False),
  *[_unit(4, 96, 3)] * 3,
  _unit(8, 160, 5, 2),
  *[_unit(4, 160, 5)] * 3,
  _unit(8, 192, 3),
  _conv(1280, 1, 1, keras.ops.relu),
)


def _with_half_last_block(spec, expanded):
  """Halves the outputs of the last layers.

  Args:
    spec: the layers.
    expanded: how many channels each unit of the last block expands to at
      depth 1; one convolution follows them.

  Returns:
    The new layers.
  """
  first = len(spec) - len(expanded) - 1
  layers = list(spec[:first])
  for layer, channels in zip(spec[first:], (*expanded, None), strict=True):
    changed = {'num_outputs': layer.arguments['num_outputs'] // 2}
    if channels is not None:
      factor = channels / layers[-1].arguments['num_outputs']
      changed['expansion_size'] = expand_input_by_factor(factor)
    layers.append(_with_arguments(layer, **changed))
  return tuple(layers)


V3_LARGE_SEG = _with_half_last_block(V3_LARGE, (336, 480, 480))
V3_SMALL_SEG = _with_half_last_block(V3_SMALL, (144, 288, 288))


def mobilenet_base(inputs, spec, scope='MobilenetV3', **kwargs):
  """A MobileNet v3 without its classifier; see mobilenet.mobilenet_base."""
  with slim.arg_scope(
    [slim.conv2d, slim.separable_conv2d], activation_fn=keras.ops.relu
  ):
    return mobilenet.mobilenet_base(inputs, spec, scope=scope, **kwargs)


__all__ = [
  'V3_EDGETPU',
  'V3_LARGE',
  'V3_LARGE_SEG',
  'V3_SMALL',
  'V3_SMALL_SEG',
  'mobilenet_base',
  'training_scope',
]

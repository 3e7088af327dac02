"""MobileNet v2 (arXiv:1801.04381, table 2)."""

from deeplab import slim
from deeplab.slim.nets.mobilenet import mobilenet
from deeplab.slim.nets.mobilenet.conv_blocks import (
  expand_input_by_factor,
  expanded_conv,
)
from deeplab.slim.nets.mobilenet.mobilenet import op, training_scope

V2_SPEC = (
  op(slim.conv2d, stride=2, num_outputs=32, kernel_size=3),
  op(
    expanded_conv,
    expansion_size=expand_input_by_factor(1, divisible_by=1),
    num_outputs=16,
  ),
  op(expanded_conv, stride=2, num_outputs=24),
  op(expanded_conv, stride=1, num_outputs=24),
  op(expanded_conv, stride=2, num_outputs=32),
  op(expanded_conv, stride=1, num_outputs=32),
  op(expanded_conv, stride=1, num_outputs=32),
  op(expanded_conv, stride=2, num_outputs=64),
  op(expanded_conv, stride=1, num_outputs=64),
  op(expanded_conv, stride=1, num_outputs=64),
  op(expanded_conv, stride=1, num_outputs=64),
  op(expanded_conv, stride=1, num_outputs=96),
  op(expanded_conv, stride=1, num_outputs=96),
  op(expanded_conv, stride=1, num_outputs=96),
  op(expanded_conv, stride=2, num_outputs=160),
  op(expanded_conv, stride=1, num_outputs=160),
  op(expanded_conv, stride=1, num_outputs=160),
  op(expanded_conv, stride=1, num_outputs=320),
  op(slim.conv2d, stride=1, num_outputs=1280, kernel_size=1),
)


def mobilenet_base(inputs, depth_multiplier=1.0, scope='MobilenetV2', **kwargs):
  """MobileNet v2 without its classifier; see mobilenet.mobilenet_base."""
  return mobilenet.mobilenet_base(
    inputs, V2_SPEC, depth_multiplier=depth_multiplier, scope=scope, **kwargs
  )


__all__ = ['V2_SPEC', 'mobilenet_base', 'training_scope']

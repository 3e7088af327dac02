"""Convolutions with optional weight standardisation.

Qiao et al., Weight Standardization (arXiv:1903.10520): each filter is brought
to mean 0 and variance 1 before it is used, which helps training with few
images a batch. `slim.conv2d` does this itself on request:

  conv2d_ws.conv2d(net, 64, 3, use_weight_standardization=True)
"""

from deeplab.slim import conv2d
from deeplab.slim.nets.resnet_utils import conv2d_same

__all__ = ['conv2d', 'conv2d_same']

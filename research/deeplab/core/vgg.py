"""VGG-16 as a fully convolutional network, and the head of DeepLab v1 and v2.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image
Recognition (arXiv:1409.1556); Chen et al., Semantic Image Segmentation with
Deep Convolutional Nets and Fully Connected CRFs, sections 3 and 4.3
(arXiv:1412.7062, "v1"), and DeepLab, section 3.2 (arXiv:1606.00915, "v2").
Where the papers leave something open, this is what the models released with
them do. Names are slim's: its vgg_16.ckpt of ImageNet is a checkpoint to start
from.
"""

import re

import keras
import numpy as np

from deeplab import slim
from deeplab.common import InputError
from deeplab.slim.nets import resnet_utils

SCOPE = 'vgg_16'

# Mean pixel of the released models, red, green, blue.
MEAN_RGB = (122.675, 116.669, 104.008)

# Convolutions and their filters between one pooling and the next.
_GROUPS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))

# Of the side branches: channels, and how their kernels begin.
_SIDE_FILTERS = 128
_SIDE_STDDEV = 0.001

_FC = re.compile(rf'({SCOPE}/fc[67])(_\d+)?/(weights|biases)')


def _arg_scope(weight_decay):
  return slim.arg_scope(
    [slim.conv2d], weights_regularizer=slim.l2_regularizer(weight_decay)
  )


def vgg_16(images, output_stride, weight_decay=0.0005):
  """The convolutions and poolings of VGG-16.

  Poolings are 3x3, and a strided one pads a pixel on every side, so that the
  features of images of 8 k + 1 pixels are k + 1 wide and aligned. Once the
  output stride is reached, poolings have stride 1 and the convolutions after
  them the double rate: at output stride 8, as in both papers, that is pool4
  and pool5, and conv5 has rate 2 (v1, section 3.1).

  Args:
    images: [batch, height, width, 3], reduced by MEAN_RGB.
    output_stride: 1, 2, 4, 8, 16 or 32.
    weight_decay: of the kernels.

  Returns:
    pool5 [batch, ceil(height / output_stride), ceil(width / output_stride),
    512], and a dictionary of end points under full scope names: the
    convolutions, the poolings and 'vgg_16/data', the images.

  Raises:
    InputError: the output stride cannot be reached.
  """
  strides = [2**i for i in range(len(_GROUPS) + 1)]
  if output_stride not in strides:
    raise InputError(
      f'the target output_stride cannot be reached: possible are {strides}. '
      f'Received: output_stride={output_stride}.'
    )
  stride = rate = 1
  with (
    _arg_scope(weight_decay),
    slim.variable_scope(SCOPE),
    slim.collect_end_points() as end_points,
  ):
    net = slim.collect_named_output(f'{SCOPE}/data', images)
    for i, (repetitions, filters) in enumerate(_GROUPS, 1):
      net = slim.repeat(
        net, repetitions, slim.conv2d, filters, 3, rate=rate, scope=f'conv{i}'
      )
      if stride == output_stride:
        net = slim.max_pool2d(net, 3, stride=1, padding='SAME')
        rate *= 2
      else:
        # After a ReLU nothing is below the zeros of the padding.
        net = slim.max_pool2d(resnet_utils.fixed_padding(net, 3), 3, stride=2)
        stride *= 2
      slim.collect_named_output(f'{SCOPE}/pool{i}', net)
  return net, end_points


def branches(features, end_points, options, weight_decay, is_training):
  """What takes the logits in v1 and v2: the fully connected layers.

  For each of the `atrous_rates` a branch with fc6, a convolution of that rate,
  and fc7, a 1x1 convolution, each followed by ReLU and dropout. One branch is
  v1 (table 2; "LargeFOV" is 3x3 with rate 12 and 1024 filters at output stride
  8), several are v2's ASPP (section 3.2). Before the fc6 of LargeFOV stands a
  3x3 average pooling, as in the released model; neither the other variants of
  v1 nor v2 have it. An even kernel is padded as much before as after where its
  rate is even, by one less before where it is odd.

  Args:
    features: pool5, [batch, height, width, 512].
    end_points: what `vgg_16` returned.
    options: ModelOptions.
    weight_decay: of the kernels.
    is_training: whether there is dropout.

  Returns:
    A list with [batch, height, width, channels] for each branch.
  """
  rates = options.atrous_rates or [1]
  kernel_size = options.vgg_fc6_kernel_size
  outputs = []
  with _arg_scope(weight_decay), slim.variable_scope(SCOPE):
    if len(rates) == 1 and kernel_size == 3:
      # Caffe counts the padding of one pixel in its means.
      features = resnet_utils.fixed_padding(features, 3)
      features = slim.avg_pool2d(features, 3, stride=1)
    for i, rate in enumerate(rates, 1):
      suffix = f'_{i}' if len(rates) > 1 else ''
      net = features
      for layer, size, layer_rate in ((6, kernel_size, rate), (7, 1, 1)):
        net = slim.conv2d(
          net,
          options.vgg_fc_filters,
          size,
          rate=layer_rate,
          scope=f'fc{layer}{suffix}',
        )
        net = slim.dropout(
          net, is_training=is_training, scope=f'dropout{layer}{suffix}'
        )
      outputs.append(net)
    if options.vgg_side_branches:
      sides = _side_branches(end_points, options.output_stride, is_training)
      outputs = [keras.ops.concatenate([outputs[0], *sides], axis=-1)]
  return outputs


def _side_branches(end_points, output_stride, is_training):
  """v1, section 4.3: from the image and the first four poolings.

  3x3 and 1x1 convolution with 128 filters, ReLU and dropout after each; the
  first has the stride that is left to the output stride.
  """
  sides = []
  for i, name in enumerate(['data'] + [f'pool{i}' for i in range(1, 5)]):
    stride = max(1, output_stride // 2**i)
    net = end_points[f'{SCOPE}/{name}']
    with slim.arg_scope(
      [slim.conv2d],
      weights_initializer=slim.truncated_normal_initializer(_SIDE_STDDEV),
    ):
      net = resnet_utils.conv2d_same(
        net, _SIDE_FILTERS, 3, stride, scope=f'{name}_conv'
      )
      net = slim.dropout(
        net, is_training=is_training, scope=f'dropout_{name}_conv'
      )
      net = slim.conv2d(net, _SIDE_FILTERS, 1, scope=f'{name}_fc')
    sides.append(
      slim.dropout(net, is_training=is_training, scope=f'dropout_{name}_fc')
    )
  return sides


# Starting from other fully connected layers.


def decimate(wanted, stored):
  """Initial values of fc6 and fc7 from larger ones, by decimation.

  v1, section 3.2: fc6 of ImageNet is 7x7 with 4096 filters; every other or
  every third row and column gives 4x4 or 3x3, and of the filters every fourth
  gives 1024. Each branch of v2 begins with the same values.

  Args:
    wanted: {official name: shape} of the variables of a network.
    stored: {official name: (shape, function that returns the value)} of a
      checkpoint.

  Returns:
    {name: (name in the checkpoint, function that returns the value)} of the
    variables that the checkpoint has with another name or a larger shape.
  """
  found = {}
  for name, shape in wanted.items():
    match = _FC.fullmatch(name)
    if not match:
      continue
    source = name if name in stored else f'{match.group(1)}/{match.group(3)}'
    if source not in stored:
      continue
    old_shape, get = stored[source]
    if (source, old_shape) == (name, tuple(shape)) or not _is_part(
      shape, old_shape
    ):
      continue
    found[name] = source, _decimated(get, shape)
  return found


def _is_part(shape, old_shape):
  # What comes in is channels of pool5 for fc6: as many as there are.
  return len(shape) == len(old_shape) and all(
    new <= old for new, old in zip(shape, old_shape, strict=True)
  )


def _decimated(get, shape):
  def get_decimated():
    value = get()
    is_kernel = value.ndim == 4
    for axis, (new, old) in enumerate(zip(shape, value.shape, strict=True)):
      if is_kernel and axis < 2:
        # From edge to edge; of one, the middle.
        places = np.linspace(0, old - 1, new) if new > 1 else [(old - 1) / 2]
        indices = np.rint(places).astype(int)
      else:
        indices = np.arange(new) * old // new
      value = value.take(indices, axis)
    return value

  return get_decimated

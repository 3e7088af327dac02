"""The registry of backbones.

Each variant is one entry: how to build it, its batch norm, how pixels are
scaled, and where the decoder finds its low-level features.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from deeplab import slim
from deeplab.common import InputError
from deeplab.core import nas_network, resnet_v1_beta, vgg, xception
from deeplab.slim.nets import resnet_utils
from deeplab.slim.nets.mobilenet import mobilenet_v2, mobilenet_v3

# Mean of the ImageNet training images, red, green, blue.
_MEAN_RGB = (123.15, 115.90, 103.06)


def _subtract_mean(images, mean):
  images = slim.function(lambda x: x - tf.constant(mean, x.dtype), images)
  return slim.declare_range(images, -max(mean), 255.0 - min(mean))


def _zero_mean_unit_range(images):
  """Maps 0..255 to -1..1."""
  images = slim.declare_range((2.0 / 255.0) * images, 0.0, 2.0)
  return slim.declare_range(images - 1.0, -1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Backbone:
  """One variant.

  Attributes:
    build: function (images, options, is_training, weight_decay, decay) ->
      (features, end points).
    name_scope: first part of the variables' names.
    decoder_end_points: {output stride: name of the end point}.
    batch_norm_decay: official decay of the moving statistics; None where
      there is no batch norm.
    mean_rgb: mean that pixels are reduced by, red, green, blue; None where
      they are mapped to -1..1.
    end_points_have_scope: whether end points are called by full scope names.
    takes_multi_grid: whether the last block has a rate for each unit.
    branches: layers between the features and the logits where there is no ASPP
      with batch norm: function (features, end points, options, weight_decay,
      is_training) -> a list, one feature map for each convolution to logits.
      None where the logits convolutions take the features themselves.
    initial_values: function ({name: shape} that a network has, {name: (shape,
      function that returns the value)} of a checkpoint to start from) ->
      {name: (name in the checkpoint, function that returns the value)} of
      variables that it can make from others. None where it makes none.
  """

  build: Callable
  name_scope: str
  decoder_end_points: Mapping[int, str]
  batch_norm_decay: float | None
  mean_rgb: Sequence[float] | None = None
  end_points_have_scope: bool = True
  takes_multi_grid: bool = True
  branches: Callable | None = None
  initial_values: Callable | None = None

  def decoder_end_point(self, output_stride):
    """The name of the skip feature of that output stride.

    Raises:
      InputError: there is none.
    """
    if output_stride not in self.decoder_end_points:
      strides = sorted(self.decoder_end_points) or 'none'
      raise InputError(
        f'{self.name_scope} has decoder features at the output strides '
        f'{strides}. Received: decoder_output_stride={output_stride}.'
      )
    name = self.decoder_end_points[output_stride]
    return f'{self.name_scope}/{name}' if self.end_points_have_scope else name


def _build_resnet(num_layers, is_beta):
  def build(images, options, is_training, weight_decay, decay):
    with resnet_utils.resnet_arg_scope(
      weight_decay=weight_decay,
      batch_norm_decay=decay,
      batch_norm_epsilon=1e-5,
      use_weight_standardization=options.use_weight_standardization,
    ):
      return resnet_v1_beta.resnet_v1_beta(
        images,
        num_layers,
        root_convs=options.resnet_root_convs if is_beta else None,
        is_training=is_training,
        output_stride=options.output_stride,
        multi_grid=options.multi_grid,
        num_blocks=options.resnet_num_blocks,
      )

  return build


def _build_xception(num_layers):
  def build(images, options, is_training, weight_decay, decay):
    with xception.xception_arg_scope(
      weight_decay=weight_decay,
      batch_norm_decay=decay,
      use_bounded_activation=options.use_bounded_activation,
    ):
      return xception.xception(
        images,
        num_layers,
        is_training=is_training,
        output_stride=options.output_stride,
        multi_grid=options.multi_grid,
      )

  return build


def _build_mobilenet_v2(images, options, is_training, weight_decay, decay):
  # Unless told otherwise, channels are rounded to multiples of 8 only at
  # depth 1, as in the published checkpoints.
  full_depth = options.depth_multiplier == 1.0
  with mobilenet_v2.training_scope(
    is_training=is_training,
    weight_decay=weight_decay,
    batch_norm_decay=decay,
  ):
    return mobilenet_v2.mobilenet_base(
      images,
      depth_multiplier=options.depth_multiplier,
      divisible_by=options.divisible_by or (8 if full_depth else 1),
      min_depth=8 if full_depth else 1,
      final_endpoint='layer_18',
      output_stride=options.output_stride,
    )


def _build_mobilenet_v3(spec, scope):
  def build(images, options, is_training, weight_decay, decay):
    # Channels are rounded to multiples of 8 whatever divisible_by says, as in
    # the original.
    with mobilenet_v3.training_scope(
      is_training=is_training,
      weight_decay=weight_decay,
      batch_norm_decay=decay,
    ):
      return mobilenet_v3.mobilenet_base(
        images,
        spec,
        scope=scope,
        depth_multiplier=options.depth_multiplier,
        output_stride=options.output_stride,
      )

  return build


def _build_vgg(images, options, is_training, weight_decay, decay):
  del is_training, decay  # There is no batch norm.
  return vgg.vgg_16(images, options.output_stride, weight_decay)


def _resnet(num_layers, is_beta):
  if num_layers == 18:
    unit, conv, units = 'lite_bottleneck_v1', 'conv2', (1, 1, 1)
  else:
    unit, conv = 'bottleneck_v1', 'conv3'
    units = (2, 3, 5 if num_layers == 50 else 22)
  return Backbone(
    build=_build_resnet(num_layers, is_beta),
    name_scope=f'resnet_v1_{num_layers}',
    decoder_end_points={
      4 * 2**i: f'block{i + 1}/unit_{unit_number}/{unit}/{conv}'
      for i, unit_number in enumerate(units)
    },
    batch_norm_decay=0.95,
    mean_rgb=None if is_beta else _MEAN_RGB,
  )


def _xception(num_layers):
  blocks = ('entry_flow/block2', 'entry_flow/block3', 'exit_flow/block1')
  if num_layers == 71:
    blocks = ('entry_flow/block3', 'entry_flow/block5', 'exit_flow/block1')
  return Backbone(
    build=_build_xception(num_layers),
    name_scope=f'xception_{num_layers}',
    decoder_end_points={
      4 * 2**i: f'{block}/unit_1/xception_module/separable_conv2_pointwise'
      for i, block in enumerate(blocks)
    },
    batch_norm_decay=0.9997,
  )


def _mobilenet_v3(spec, name_scope='MobilenetV3', decoder_layers=()):
  return Backbone(
    build=_build_mobilenet_v3(spec, name_scope),
    name_scope=name_scope,
    decoder_end_points={
      4 * 2**i: f'layer_{layer}/depthwise_output'
      for i, layer in enumerate(decoder_layers)
    },
    batch_norm_decay=0.997,
    end_points_have_scope=False,
    takes_multi_grid=False,
  )


def _nas(network, name_scope, decoder_end_points):
  return Backbone(
    build=network,
    name_scope=name_scope,
    decoder_end_points={
      4 * 2**i: name for i, name in enumerate(decoder_end_points)
    },
    batch_norm_decay=0.9997,
    end_points_have_scope=False,
    takes_multi_grid=False,
  )


BACKBONES = {
  'mobilenet_edgetpu': _mobilenet_v3(
    mobilenet_v3.V3_EDGETPU, 'MobilenetEdgeTPU'
  ),
  'mobilenet_v2': Backbone(
    build=_build_mobilenet_v2,
    name_scope='MobilenetV2',
    decoder_end_points={
      4: 'layer_4/depthwise_output',
      8: 'layer_7/depthwise_output',
      16: 'layer_14/depthwise_output',
    },
    batch_norm_decay=0.997,
    end_points_have_scope=False,
    takes_multi_grid=False,
  ),
  'mobilenet_v3_large_seg': _mobilenet_v3(
    mobilenet_v3.V3_LARGE_SEG, decoder_layers=(4, 7, 13)
  ),
  'mobilenet_v3_small_seg': _mobilenet_v3(
    mobilenet_v3.V3_SMALL_SEG, decoder_layers=(2, 4, 9)
  ),
  'nas_hnasnet': _nas(
    nas_network.hnasnet, 'hnasnet', ('Cell_2', 'Cell_5', 'Cell_7')
  ),
  'nas_pnasnet': _nas(
    nas_network.pnasnet, 'pnasnet', ('Stem', 'Cell_3', 'Cell_7')
  ),
  'resnet_v1_18': _resnet(18, is_beta=False),
  'resnet_v1_18_beta': _resnet(18, is_beta=True),
  'resnet_v1_50': _resnet(50, is_beta=False),
  'resnet_v1_50_beta': _resnet(50, is_beta=True),
  'resnet_v1_101': _resnet(101, is_beta=False),
  'resnet_v1_101_beta': _resnet(101, is_beta=True),
  'vgg_16': Backbone(
    build=_build_vgg,
    name_scope=vgg.SCOPE,
    decoder_end_points={
      2: 'conv2/conv2_2',
      4: 'conv3/conv3_3',
      8: 'conv4/conv4_3',
      16: 'conv5/conv5_3',
    },
    batch_norm_decay=None,
    mean_rgb=vgg.MEAN_RGB,
    takes_multi_grid=False,
    branches=vgg.branches,
    initial_values=vgg.decimate,
  ),
  'xception_41': _xception(41),
  'xception_65': _xception(65),
  'xception_71': _xception(71),
}


def get_backbone(model_variant):
  """The entry of a variant.

  Raises:
    InputError: there is none of that name.
  """
  if model_variant not in BACKBONES:
    raise InputError(
      f'model_variant must be one of {", ".join(BACKBONES)}. '
      f'Received: {model_variant!r}.'
    )
  return BACKBONES[model_variant]


def mean_pixel(model_variant=None):
  """The pixel that becomes zero in the network: what images are padded with.

  Args:
    model_variant: name of a backbone, or None for the ImageNet mean.

  Returns:
    [red, green, blue] in 0..255.
  """
  mean = _MEAN_RGB
  if model_variant is not None:
    mean = get_backbone(model_variant).mean_rgb
  return [127.5, 127.5, 127.5] if mean is None else list(mean)


def extract_features(
  images,
  options,
  weight_decay=0.0001,
  is_training=False,
  fine_tune_batch_norm=False,
  nas_training_hyper_parameters=None,
):
  """Runs the backbone of `options.model_variant`.

  Args:
    images: float32 [batch, height, width, 3] in 0..255.
    options: ModelOptions.
    weight_decay: of the convolution kernels.
    is_training: whether the network is built for training.
    fine_tune_batch_norm: whether batch norm then uses batch statistics.
    nas_training_hyper_parameters: only looked at by the nas_ variants, for drop
      path:
      {'drop_path_keep_prob': the share of paths that the last cell keeps at
      the end, 'total_training_steps': when that is}; None keeps all. As in the
      original, paths only drop where batch norm uses batch statistics.

  Returns:
    Features [batch, height / output_stride, width / output_stride, channels]
    and a dictionary of end points.

  Raises:
    InputError: the variant is unknown or cannot be built with these options.
  """
  backbone = get_backbone(options.model_variant)
  if backbone.mean_rgb is None:
    images = _zero_mean_unit_range(images)
  else:
    images = _subtract_mean(images, backbone.mean_rgb)
  more = {}
  if options.model_variant.startswith('nas_'):
    more = {'nas_training_hyper_parameters': nas_training_hyper_parameters}
  return backbone.build(
    images,
    options,
    is_training=is_training and fine_tune_batch_norm,
    weight_decay=weight_decay,
    decay=backbone.batch_norm_decay
    if options.batch_norm_decay is None
    else options.batch_norm_decay,
    **more,
  )

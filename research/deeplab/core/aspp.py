"""Atrous spatial pyramid pooling with the image-level feature.

Chen et al., Rethinking Atrous Convolution for Semantic Image Segmentation,
section 3.3 and figure 5 (arXiv:1706.05587).
"""

import keras

from deeplab import slim
from deeplab.core import utils

IMAGE_POOLING_SCOPE = 'image_pooling'
ASPP_SCOPE = 'aspp'
CONCAT_PROJECTION_SCOPE = 'concat_projection'

_BATCH_NORM_DECAY = 0.9997
_BATCH_NORM_EPSILON = 1e-5


def head_arg_scope(
  weight_decay,
  is_training,
  batch_norm_decay=None,
  use_bounded_activation=False,
):
  """Opens slim's defaults for the head; use in a `with` statement.

  Args:
    weight_decay: of the convolution kernels.
    is_training: whether batch norm uses batch statistics.
    batch_norm_decay: of the moving statistics, None for the official value.
    use_bounded_activation: ReLU6 in place of ReLU.

  Returns:
    A context manager.
  """
  relu = keras.ops.relu6 if use_bounded_activation else keras.ops.relu
  return slim.nested_arg_scope(
    (
      [slim.conv2d, slim.separable_conv2d],
      {
        'weights_regularizer': slim.l2_regularizer(weight_decay),
        'activation_fn': relu,
        'normalizer_fn': slim.batch_norm,
      },
    ),
    (
      [slim.batch_norm],
      {
        'is_training': is_training,
        'decay': _BATCH_NORM_DECAY
        if batch_norm_decay is None
        else batch_norm_decay,
        'epsilon': _BATCH_NORM_EPSILON,
        'scale': True,
      },
    ),
  )


def aspp(features, options, weight_decay, is_training, fine_tune_batch_norm):
  """Applies ASPP to the features of the backbone.

  Args:
    features: [batch, height, width, channels].
    options: ModelOptions.
    weight_decay: of the convolution kernels.
    is_training: whether there is dropout after the projection.
    fine_tune_batch_norm: whether batch norm uses batch statistics in training.

  Returns:
    [batch, height, width, aspp_convs_filters], or the concatenated branches
    if `aspp_with_concat_projection` is false.
  """
  with head_arg_scope(
    weight_decay,
    is_training and fine_tune_batch_norm,
    options.batch_norm_decay,
    options.use_bounded_activation,
  ):
    return _aspp(features, options, weight_decay, is_training)


def _aspp(features, options, weight_decay, is_training):
  depth = options.aspp_convs_filters
  gated = options.aspp_with_squeeze_and_excitation
  branches = []
  if options.add_image_level_feature:
    image_feature = _image_level_feature(features, options)
    if not gated:
      branches.append(image_feature)
  branches.append(slim.conv2d(features, depth, 1, scope=f'{ASPP_SCOPE}0'))
  for i, rate in enumerate(options.atrous_rates or [], 1):
    scope = f'{ASPP_SCOPE}{i}'
    if options.aspp_with_separable_conv:
      branch = utils.split_separable_conv2d(
        features, depth, rate=rate, weight_decay=weight_decay, scope=scope
      )
    else:
      branch = slim.conv2d(features, depth, 3, rate=rate, scope=scope)
    branches.append(branch)
  if options.aspp_with_concat_projection:
    net = slim.conv2d(branches, depth, 1, scope=CONCAT_PROJECTION_SCOPE)
    net = slim.dropout(
      net,
      keep_prob=0.9,
      is_training=is_training,
      scope=f'{CONCAT_PROJECTION_SCOPE}_dropout',
    )
  else:
    net = keras.ops.concatenate(branches, axis=-1)
  if options.add_image_level_feature and gated:
    net = slim.quantize(net * image_feature, 'mul/activation_Mul_quant')
  return net


def _image_level_feature(features, options):
  """Image pooling, 1x1 convolution, and a resize to the features' size."""
  scale = 1.0 / options.output_stride
  if options.crop_size:
    pooling_crop = options.image_pooling_crop_size or options.crop_size
    window = utils.scale_size(pooling_crop, scale)
    net = utils.average_pool_crop(
      features,
      window,
      options.image_pooling_stride,
      pooling_crop,
      options.crop_size,
    )
    size = utils.scale_size(options.crop_size, scale)
  else:
    net = keras.ops.mean(features, axis=(1, 2), keepdims=True)
    size = utils.spatial_size(features)
  if options.aspp_with_squeeze_and_excitation:
    sigmoid = keras.ops.sigmoid
    if options.image_se_uses_qsigmoid:
      sigmoid = utils.q_sigmoid
    gate = {'activation_fn': sigmoid, 'normalizer_fn': None}
  else:
    # ReLU even where the other activations are bounded.
    gate = {'activation_fn': keras.ops.relu}
  net = slim.conv2d(
    net, options.aspp_convs_filters, 1, scope=IMAGE_POOLING_SCOPE, **gate
  )
  is_plane = tuple(net.shape[1:3]) == (1, 1)
  if slim.is_folded() and options.aspp_with_concat_projection and is_plane:
    # The projection takes one pixel for a plane.
    return net
  return utils.resize_bilinear(net, size)

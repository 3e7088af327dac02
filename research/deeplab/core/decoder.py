"""The decoder of DeepLab v3+.

Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic
Image Segmentation, section 3.1 and figure 2 (arXiv:1802.02611).
"""

import contextlib

import keras

from deeplab import slim
from deeplab.core import aspp, feature_extractor, utils

DECODER_SCOPE = 'decoder'


def refine_by_decoder(
  features,
  end_points,
  crop_size,
  model_options,
  weight_decay=0.0001,
  is_training=False,
  fine_tune_batch_norm=False,
):
  """Refines features with low-level ones of the backbone (v3+, section 3.1).

  Args:
    features: [batch, height, width, channels].
    end_points: the backbone's dictionary of end points.
    crop_size: [height, width] of the images.
    model_options: ModelOptions; `decoder_output_stride` lists the strides of
      the low-level features, one stage each.
    weight_decay: of the convolution kernels.
    is_training: whether the network is built for training.
    fine_tune_batch_norm: whether batch norm then uses batch statistics.

  Returns:
    [batch, crop height / last stride, crop width / last stride,
    decoder_filters].

  Raises:
    InputError: the backbone has no features of such a stride.
  """
  backbone = feature_extractor.get_backbone(model_options.model_variant)
  filters = model_options.decoder_filters
  projection_filters = model_options.decoder_projection_filters
  if model_options.decoder_use_sum_merge:
    projection_filters = filters
  linear, precision = {}, contextlib.nullcontext()
  if model_options.decoder_output_is_logits:
    precision = slim.compute_dtype(None)
    linear = {'activation_fn': None, 'normalizer_fn': None}
  with (
    aspp.head_arg_scope(
      weight_decay,
      is_training and fine_tune_batch_norm,
      model_options.batch_norm_decay,
      model_options.use_bounded_activation,
    ),
    slim.arg_scope([slim.conv2d, slim.separable_conv2d], **linear),
    slim.variable_scope(DECODER_SCOPE),
    precision,
  ):
    net = features
    for stage, stride in enumerate(model_options.decoder_output_stride):
      # The first stage has no suffix: published checkpoints have one stage.
      suffix = f'_{stage}' if stage else ''
      skip = slim.conv2d(
        end_points[backbone.decoder_end_point(stride)],
        projection_filters,
        1,
        scope=f'feature_projection0{suffix}',
      )
      size = utils.scale_size(crop_size, 1.0 / stride)
      net = utils.resize_bilinear(net, size)
      skip = utils.resize_bilinear(skip, size)
      merge = _merge_by_concat
      if model_options.decoder_use_sum_merge:
        merge = _merge_by_sum
      net = merge(net, skip, model_options, weight_decay, suffix)
    return net


def _merge_by_sum(net, skip, options, weight_decay, suffix):
  """One convolution of the features, plus the skip features."""
  filters = options.decoder_filters
  if options.decoder_output_is_logits:
    net = slim.conv2d(net, filters, 1, scope=f'decoder_conv0{suffix}')
  elif options.decoder_use_separable_conv:
    net = utils.split_separable_conv2d(
      net,
      filters,
      weight_decay=weight_decay,
      scope=f'decoder_split_sep_conv0{suffix}',
    )
  else:
    net = slim.conv2d(net, filters, 3, scope=f'decoder_conv0{suffix}')
  return slim.quantize(net + skip, 'post_activation_bypass_quant')


def _merge_by_concat(net, skip, options, weight_decay, suffix):
  """Concatenation, then 3x3 convolutions, two by default (v3+, table 2)."""
  net = keras.ops.concatenate([net, skip], axis=-1)
  filters, size = options.decoder_filters, options.decoder_kernel_size
  repetitions = options.decoder_num_convs
  if not options.decoder_use_separable_conv or options.decoder_output_is_logits:
    scope = f'decoder_conv0{suffix}'
    return slim.repeat(
      net, repetitions, slim.conv2d, filters, size, scope=scope
    )
  for i in range(repetitions):
    net = utils.split_separable_conv2d(
      net,
      filters,
      kernel_size=size,
      weight_decay=weight_decay,
      scope=f'decoder_conv{i}{suffix}',
    )
  return net

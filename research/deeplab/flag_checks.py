"""Flags of the model that have no effect on a network are refused."""

from absl import logging

from deeplab import cell_config
from deeplab.common import InputError
from deeplab.core import feature_extractor
from deeplab.flags import FLAGS, is_given

# Flags that make up nas_architecture_options; one can change without other
# weights.
NAS_FREE = 'nas_remove_os32_stride'
NAS_FLAGS = (
  'nas_stem_output_num_conv_filters',
  'nas_use_classification_head',
  NAS_FREE,
)

VGG_FLAGS = ('vgg_fc6_kernel_size', 'vgg_fc_filters', 'vgg_side_branches')

# Flags of ASPP, which a dense prediction cell takes the place of.
_ASPP_FLAGS = (
  'add_image_level_feature',
  'image_pooling_stride',
  'aspp_with_separable_conv',
  'aspp_convs_filters',
  'aspp_with_concat_projection',
  'aspp_with_squeeze_and_excitation',
)


def check_model_flags(options):
  """Refuses flags that would be accepted and then ignored.

  Args:
    options: ModelOptions that the flags, and perhaps a checkpoint, gave.

  Returns:
    The same ModelOptions.

  Raises:
    InputError: a flag is given that has no effect on this network.
  """
  if FLAGS.master:
    raise InputError(
      f'--master={FLAGS.master}: TensorFlow has no sessions and no masters any '
      'more; leave it out.'
    )
  variant = options.model_variant
  backbone = feature_extractor.get_backbone(variant)
  rounds_to_8 = 'mobilenet' in variant and options.divisible_by == 8
  for name, applies in (
    ('multi_grid', backbone.takes_multi_grid),
    ('depth_multiplier', 'mobilenet' in variant),
    ('divisible_by', variant == 'mobilenet_v2' or rounds_to_8),
    ('resnet_root_convs', variant.endswith('_beta')),
    ('resnet_num_blocks', variant.startswith('resnet')),
    *((name, variant == 'vgg_16') for name in VGG_FLAGS),
    *((name, variant.startswith('nas_')) for name in NAS_FLAGS),
  ):
    if name in FLAGS and is_given(name) and not applies:
      raise InputError(
        f'--{name}={FLAGS[name].value} has no effect on '
        f'--model_variant={variant}; leave it out.'
      )
  if (
    variant == 'nas_pnasnet'
    and options.output_stride != 32
    and is_given(NAS_FREE)
    and FLAGS[NAS_FREE].value
  ):
    raise InputError(
      f'--{NAS_FREE} has no effect on nas_pnasnet with --output_stride='
      f'{options.output_stride}: it has no stride of 32. Leave it out.'
    )
  _check_head_flags(options)
  if (
    options.atrous_rates
    and not options.aspp_with_batch_norm
    and not backbone.branches
    and options.logits_kernel_size == 1
  ):
    # As in the original; hardly what anybody wants.
    logging.warning(
      'With --aspp_with_batch_norm=false the atrous rates %s are those of the '
      'logits convolutions, and 1x1 convolutions have none: %d equal branches '
      'are summed. The DeepLab v2 head has --logits_kernel_size=3.',
      list(options.atrous_rates),
      len(options.atrous_rates),
    )
  return options


def _check_head_flags(options):
  """Refuses flags of parts that the head does not have."""
  cell = options.dense_prediction_cell_config
  no_aspp = cell and 'a dense prediction cell, which takes the place of ASPP'
  if not options.aspp_with_batch_norm:
    no_aspp = 'no aspp_with_batch_norm, which leaves ASPP out'
  no_pooling = (
    not options.add_image_level_feature and 'no add_image_level_feature'
  )
  pools = cell and cell_config.pools(cell)
  no_gate = not options.aspp_with_squeeze_and_excitation
  no_decoder = not options.decoder_output_stride and 'no decoder_output_stride'
  sums = options.decoder_use_sum_merge and 'decoder_use_sum_merge'
  backbone = feature_extractor.get_backbone(options.model_variant)
  no_branches = (
    options.aspp_with_batch_norm
    and 'aspp_with_batch_norm, which puts ASPP in the place of fc6 and fc7'
  )
  no_norm = (
    backbone.batch_norm_decay is None
    and not options.aspp_with_batch_norm
    and 'a network that has no batch norm'
  )
  for name, reason in (
    *((name, no_aspp) for name in _ASPP_FLAGS),
    *((name, no_branches) for name in VGG_FLAGS),
    ('batch_norm_decay', no_norm),
    # Without ASPP these are the rates of the logits convolutions, or of fc6.
    ('atrous_rates', cell and no_aspp),
    ('image_pooling_crop_size', not pools and (no_aspp or no_pooling)),
    ('image_pooling_stride', no_pooling),
    (
      'dense_prediction_cell_json',
      cell and not options.aspp_with_batch_norm and 'no aspp_with_batch_norm',
    ),
    ('aspp_with_squeeze_and_excitation', no_pooling),
    (
      'image_se_uses_qsigmoid',
      no_gate and 'no aspp_with_squeeze_and_excitation',
    ),
    (
      'logits_kernel_size',
      options.decoder_output_is_logits
      and options.logits_kernel_size != 1
      and 'decoder_output_is_logits',
    ),
    ('decoder_use_separable_conv', no_decoder),
    ('decoder_use_sum_merge', no_decoder),
    ('decoder_filters', no_decoder),
    ('decoder_projection_filters', no_decoder or sums),
    ('decoder_num_convs', no_decoder or sums),
    ('decoder_kernel_size', no_decoder or sums),
  ):
    # To switch off what is not there is no contradiction.
    if reason and is_given(name) and FLAGS[name].value is not False:
      raise InputError(
        f'--{name}={FLAGS[name].value} has no effect with {reason}; leave it '
        'out.'
      )

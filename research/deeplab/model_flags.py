"""The flags of the model that the scripts share, and what they mean together.

Only scripts use this module; everything below them takes plain arguments.
"""

from absl import flags as absl_flags
from absl import logging

from deeplab import common, flag_checks, inference, stored_options
from deeplab.common import InputError
from deeplab.core import dense_prediction_cell
from deeplab.flag_checks import NAS_FLAGS, NAS_FREE
from deeplab.flags import FLAGS, define_list, is_given

# Fields of ModelOptions that can change without other weights.
_FREE_FIELDS = (
  'crop_size',
  'output_stride',
  'merge_method',
  'image_pooling_crop_size',
  'image_pooling_stride',
  'multi_grid',
  'prediction_with_upsampled_logits',
  'label_weights',
  'batch_norm_decay',
  'quantize_delay_step',
)

# Fields that come from flags of the same name.
_MODEL_FLAGS = (
  'atrous_rates',
  'output_stride',
  'merge_method',
  'add_image_level_feature',
  'image_pooling_crop_size',
  'image_pooling_stride',
  'aspp_with_batch_norm',
  'aspp_with_separable_conv',
  'multi_grid',
  'decoder_output_stride',
  'decoder_use_separable_conv',
  'logits_kernel_size',
  'model_variant',
  'depth_multiplier',
  'divisible_by',
  'prediction_with_upsampled_logits',
  'use_bounded_activation',
  'aspp_with_concat_projection',
  'aspp_with_squeeze_and_excitation',
  'aspp_convs_filters',
  'decoder_use_sum_merge',
  'decoder_filters',
  'decoder_output_is_logits',
  'image_se_uses_qsigmoid',
  'label_weights',
  'batch_norm_decay',
  'quantize_delay_step',
  'use_weight_standardization',
  'resnet_num_blocks',
  'decoder_projection_filters',
  'decoder_num_convs',
  'decoder_kernel_size',
  'vgg_fc6_kernel_size',
  'vgg_fc_filters',
  'vgg_side_branches',
)


# Flags of the model and of resizing.


def define_model_flags(output_stride=16):
  """Official flags that set ModelOptions, and the resizing of images.

  Args:
    output_stride: default of --output_stride (official: export has 8).
  """
  absl_flags.DEFINE_string('model_variant', 'mobilenet_v2', 'Backbone.')
  absl_flags.DEFINE_integer(
    'output_stride',
    output_stride,
    'Ratio of input to backbone output resolution.',
  )
  define_list('atrous_rates', None, 'Atrous rates of ASPP.')
  define_list('multi_grid', None, 'Unit rates of the last block.')
  define_list('image_pyramid', None, 'Input scales, logits merged.', float)
  absl_flags.DEFINE_enum(
    'merge_method', 'max', ['max', 'avg'], 'Merges the scales of a pyramid.'
  )
  absl_flags.DEFINE_float('depth_multiplier', 1.0, 'Channels of MobileNet.')
  absl_flags.DEFINE_integer('divisible_by', None, 'Rounds MobileNet channels.')
  absl_flags.DEFINE_enum(
    'resnet_root_convs',
    'auto',
    ['auto', '2', '3'],
    '3x3 convolutions in the stem of a _beta ResNet. auto: as in the '
    'checkpoint (3 in all published ones), 2 when training from scratch.',
  )
  absl_flags.DEFINE_boolean(
    'use_bounded_activation', False, 'ReLU6 and clipping in Xception.'
  )
  absl_flags.DEFINE_boolean(
    'use_weight_standardization', False, 'Of all convolutions of a ResNet.'
  )
  absl_flags.DEFINE_integer(
    'resnet_num_blocks', 4, '4 to 7 blocks of a ResNet: the cascade of v3.'
  )
  absl_flags.DEFINE_integer(
    'vgg_fc6_kernel_size', 3, 'Kernel of fc6 of VGG; 7, 4 or 3 in the paper.'
  )
  absl_flags.DEFINE_integer(
    'vgg_fc_filters', 1024, 'Channels of fc6 and fc7 of VGG.'
  )
  absl_flags.DEFINE_boolean(
    'vgg_side_branches', False, 'Multi-scale prediction of v1.'
  )
  absl_flags.DEFINE_float(
    'batch_norm_decay',
    None,
    'Decay of moving statistics. Unset: the official value of each network.',
  )
  absl_flags.DEFINE_integer(
    'quantize_delay_step',
    -1,
    'Training step from which on weights and activations have eight bits; -1: '
    'never. For a trained network 0 or more means eight bits, and unless given '
    'the checkpoint decides.',
  )
  define_list('label_weights', None, 'Loss weight of each class.', float)
  _define_head_flags()
  _define_resize_flags()
  _define_nas_flags()
  absl_flags.DEFINE_string('master', '', 'Not supported: sessions are no more.')


def _define_head_flags():
  absl_flags.DEFINE_boolean(
    'add_image_level_feature', True, 'Image pooling branch.'
  )
  define_list(
    'image_pooling_crop_size', None, 'Crop size [height, width] for pooling.'
  )
  define_list('image_pooling_stride', [1, 1], 'Stride of image pooling.')
  absl_flags.DEFINE_boolean(
    'aspp_with_batch_norm', True, 'False: DeepLab v2 head.'
  )
  absl_flags.DEFINE_boolean('aspp_with_separable_conv', True, 'Separable ASPP.')
  absl_flags.DEFINE_integer('aspp_convs_filters', 256, 'Channels of ASPP.')
  absl_flags.DEFINE_boolean(
    'aspp_with_concat_projection', True, 'Projection after ASPP.'
  )
  absl_flags.DEFINE_boolean(
    'aspp_with_squeeze_and_excitation', False, 'Image feature as a gate.'
  )
  absl_flags.DEFINE_boolean(
    'image_se_uses_qsigmoid', False, 'Piecewise linear gate.'
  )
  absl_flags.DEFINE_string(
    'dense_prediction_cell_json',
    '',
    'JSON file of a dense prediction cell in the place of ASPP, or the name '
    'of one that comes with this package.',
  )
  define_list(
    'decoder_output_stride',
    None,
    'Output strides of the low-level features of the decoder, descending.',
  )
  absl_flags.DEFINE_boolean(
    'decoder_use_separable_conv', True, 'Separable decoder.'
  )
  absl_flags.DEFINE_boolean(
    'decoder_use_sum_merge', False, 'Sum instead of concatenation.'
  )
  absl_flags.DEFINE_integer('decoder_filters', 256, 'Channels of the decoder.')
  absl_flags.DEFINE_integer(
    'decoder_projection_filters', 48, 'Channels of the low-level features.'
  )
  absl_flags.DEFINE_integer(
    'decoder_num_convs', 2, 'Convolutions of a decoder stage.'
  )
  absl_flags.DEFINE_integer(
    'decoder_kernel_size', 3, 'Kernel of the convolutions of the decoder.'
  )
  absl_flags.DEFINE_boolean(
    'decoder_output_is_logits', False, 'The decoder gives the logits.'
  )
  absl_flags.DEFINE_integer('logits_kernel_size', 1, 'Kernel of the v2 logits.')
  absl_flags.DEFINE_boolean(
    'prediction_with_upsampled_logits',
    True,
    'Argmax after upsampling the logits, rather than before.',
  )


def _define_resize_flags():
  absl_flags.DEFINE_integer('min_resize_value', None, 'Smaller image side.')
  absl_flags.DEFINE_integer(
    'max_resize_value', None, 'Bound of the larger side.'
  )
  absl_flags.DEFINE_integer(
    'resize_factor', None, 'Sides become multiples of this plus one.'
  )
  absl_flags.DEFINE_boolean(
    'keep_aspect_ratio', True, 'Keep the aspect ratio when resizing.'
  )


def _define_nas_flags():
  absl_flags.DEFINE_integer(
    'nas_stem_output_num_conv_filters', 20, 'Channels of the stem of nas_*.'
  )
  absl_flags.DEFINE_boolean(
    'nas_use_classification_head',
    False,
    'Head of an image classification checkpoint on nas_*.',
  )
  absl_flags.DEFINE_boolean(
    'nas_remove_os32_stride',
    False,
    'Take the stride at output stride 32 out of nas_*.',
  )


def define_scale_flags(scales_name='eval_scales'):
  """Scales and mirror images of multi-scale inference."""
  define_list(scales_name, [1.0], 'Scales, for example 0.5,...,1.75.', float)
  absl_flags.DEFINE_boolean(
    'add_flipped_images', False, 'Also average over mirror images.'
  )


def define_moving_average_flag():
  """--use_moving_averages, of scripts that read a trained network."""
  absl_flags.DEFINE_boolean(
    'use_moving_averages',
    None,
    'Take the moving averages of the weights. Unset: where the training kept '
    'them (--moving_average_decay).',
  )


def define_inference_dtype_flag():
  """--inference_dtype, of scripts that run a trained network."""
  absl_flags.DEFINE_enum(
    'inference_dtype',
    inference.DTYPES[0],
    inference.DTYPES,
    'Type that features are computed in. bfloat16 takes about half the time on '
    'processors that have it, such as those with avx512_bf16, and rounds the '
    'labels of a few pixels near boundaries differently.',
  )


# Model options.


def model_options(num_classes, crop_size, checkpoint=None, fallback=None):
  """ModelOptions from the flags and from what lies beside a checkpoint.

  model_options.json, where there is one, gives every value that the command
  line does not. A flag that contradicts it is an error if the weights depend
  on it. Where only --output_stride is given anew, atrous rates grow as the
  stride shrinks, as in the papers.

  Args:
    num_classes: number of classes, or None to take the stored one.
    crop_size: [height, width] or None.
    checkpoint: directory, prefix or file; None when training from scratch.
    fallback: ModelOptions that take the place of a missing model_options.json,
      but give way to the command line; None for the defaults of the flags.

  Returns:
    ModelOptions.

  Raises:
    InputError: a contradiction, or values that cannot be built.
  """
  described = stored_options.load(checkpoint) if checkpoint else None
  stored = described or fallback
  given = {
    name: FLAGS[name].value
    for name in _MODEL_FLAGS
    if stored is None or is_given(name)
  }
  given.update(_cell(stored))
  if checkpoint:
    given.update(_quantization(given, described, checkpoint))
  if num_classes is not None:
    given['outputs_to_num_classes'] = {common.OUTPUT_TYPE: num_classes}
  nas_options = _nas_options(stored)
  if nas_options is not None:
    given['nas_architecture_options'] = nas_options
  if FLAGS.resnet_root_convs != 'auto':
    given['resnet_root_convs'] = int(FLAGS.resnet_root_convs)
  elif stored is None:
    given['resnet_root_convs'] = _auto_root_convs(checkpoint)
  if stored is None:
    return flag_checks.check_model_flags(
      common.ModelOptions(crop_size=crop_size, **given)
    )
  if described is not None:
    logging.info(
      'Model flags taken from %s of %s.', common.MODEL_OPTIONS_FILE, checkpoint
    )
    _check_stored(stored, given, checkpoint)
  _scale_rates(stored, given)
  return flag_checks.check_model_flags(
    stored.replace(crop_size=crop_size, **given)
  )


def _cell(stored):
  """{field: dense prediction cell} if flags say anything about it."""
  if stored is not None and not is_given('dense_prediction_cell_json'):
    return {}
  path = FLAGS.dense_prediction_cell_json
  try:
    cell = dense_prediction_cell.read_config(path) if path else None
  except InputError as error:
    raise InputError(f'--dense_prediction_cell_json={error}') from error
  return {'dense_prediction_cell_config': cell}


def _quantization(given, stored, checkpoint):
  """{field: step} where only the checkpoint's variables say it."""
  if stored is not None:
    is_quantized = stored.is_quantized
  else:
    is_quantized = stored_options.is_quantized(checkpoint)
  if not is_given('quantize_delay_step'):
    return {'quantize_delay_step': 0} if is_quantized and not stored else {}
  if given['quantize_delay_step'] >= 0 and not is_quantized:
    raise InputError(
      f'--quantize_delay_step={FLAGS.quantize_delay_step}: the checkpoint '
      f'{checkpoint} was trained without quantisation and has no ranges of '
      'values. Leave the flag out; or train on from it, with '
      '--tf_initial_checkpoint and another --train_logdir.'
    )
  return {}


def _auto_root_convs(checkpoint):
  if checkpoint is None:
    return 2
  return stored_options.resnet_root_convs(checkpoint) or 2


def _nas_options(stored):
  """nas_architecture_options, as far as flags say anything about them."""
  given = {name: FLAGS[name].value for name in NAS_FLAGS if is_given(name)}
  if given and stored:
    return {**(stored.nas_architecture_options or {}), **given}
  return given or None


def _check_stored(stored, given, checkpoint):
  """No given value contradicts what the stored weights depend on."""
  for name, value in given.items():
    old = getattr(stored, name)
    variant = stored.model_variant
    if _shape_of_weights(variant, name, value) != _shape_of_weights(
      variant, name, old
    ):
      raise InputError(
        f'--{_flag_of(name)} contradicts the checkpoint {checkpoint}: its '
        f'{common.MODEL_OPTIONS_FILE} has {name}={_plain(old)}, received '
        f'{_plain(value)}. The weights depend on it; leave the flag out, or '
        'use another checkpoint.'
      )


def _shape_of_weights(model_variant, field, value):
  """What of a field's value the weights depend on."""
  if field == 'output_stride' and model_variant == 'nas_pnasnet':
    return value  # Its cells have more filters after each stride.
  if field in _FREE_FIELDS:
    return None
  if field == 'atrous_rates':
    return len(value or ())
  if field == 'nas_architecture_options':
    value = {name: FLAGS[name].default for name in NAS_FLAGS} | (value or {})
    del value[NAS_FREE]
  return _plain(value)


def _flag_of(field):
  names = {
    'outputs_to_num_classes': 'dataset or --num_classes',
    'dense_prediction_cell_config': 'dense_prediction_cell_json',
    'nas_architecture_options': ', --'.join(filter(is_given, NAS_FLAGS)),
  }
  return names.get(field, field)


def _plain(value):
  if isinstance(value, dict):
    return dict(value)
  return list(value) if isinstance(value, (list, tuple)) else value


def _scale_rates(stored, given):
  """--output_stride=8 alone, after 16, doubles the rates, and says so."""
  stride = given.get('output_stride', stored.output_stride)
  rates = stored.atrous_rates
  if 'atrous_rates' in given or not rates or stride == stored.output_stride:
    return
  given['atrous_rates'] = stored_options.rates_at(stored, stride)
  logging.info(
    'Trained at output stride %d with atrous rates %s; at output stride %d '
    'the rates are %s.',
    stored.output_stride,
    list(rates),
    stride,
    given['atrous_rates'],
  )

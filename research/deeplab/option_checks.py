"""Which values of ModelOptions can be built, alone and together."""

import dataclasses
import numbers
import types
import typing
from collections.abc import Sequence

from deeplab import cell_config
from deeplab.checking import (
  COUNT,
  NOT_NEGATIVE,
  POSITIVE,
  SHARE,
  Range,
  check,
  check_ranges,
)

# Official fields of ModelOptions that only take their default so far.
_NOT_BUILT = (
  'preprocessed_images_dtype',
  'sync_batch_norm_method',
)

# Keys of nas_architecture_options and what they are where not given.
NAS_ARCHITECTURE_DEFAULTS = {
  'nas_stem_output_num_conv_filters': 20,
  'nas_use_classification_head': False,
  'nas_remove_os32_stride': False,
}

# TensorFlow takes sizes of images as 32-bit integers.
_SIDE = Range(1, 2**31 - 1, whole=True)

# What the numbers among the fields of ModelOptions may be.
_RANGES = {
  'atrous_rates': COUNT,
  'output_stride': COUNT,
  'image_pooling_stride': COUNT,
  'multi_grid': COUNT,
  'decoder_output_stride': COUNT,
  'logits_kernel_size': COUNT,
  'depth_multiplier': POSITIVE,
  'divisible_by': COUNT,
  'aspp_convs_filters': COUNT,
  'decoder_filters': COUNT,
  'resnet_num_blocks': Range(4, 7, whole=True),
  'decoder_projection_filters': COUNT,
  'decoder_num_convs': COUNT,
  'decoder_kernel_size': COUNT,
  'vgg_fc6_kernel_size': COUNT,
  'vgg_fc_filters': COUNT,
  'label_weights': NOT_NEGATIVE,
  'batch_norm_decay': SHARE,
  # Steps are 64-bit integers.
  'quantize_delay_step': Range(-1, 2**63 - 1, whole=True),
}


def _is_a(value, hint):
  """Whether a value is of the kind that a type hint names."""
  if typing.get_origin(hint) is types.UnionType:
    return any(_is_a(value, option) for option in typing.get_args(hint))
  if hint is bool or not isinstance(value, bool):
    kind = typing.get_origin(hint) or hint
    kind = {int: numbers.Integral, float: numbers.Real}.get(kind, kind)
    return isinstance(value, kind) and (
      kind is not Sequence or not isinstance(value, str)
    )
  return False


def _check_size(name, value):
  """[height, width], both positive."""
  check(
    (value is None and name != 'image_pooling_stride')
    or (len(value or ()) == 2 and all(side in _SIDE for side in value)),
    f'{name} must be two positive integers, height and width. '
    f'Received: {name}={value}.',
  )


def validate(options):
  """Raises InputError where a value of ModelOptions cannot be built."""
  for name, hint in typing.get_type_hints(type(options)).items():
    value = getattr(options, name)
    check(
      _is_a(value, hint),
      f'{name} must be of the kind {getattr(hint, "__name__", hint)}. '
      f'Received: {name}={value!r}.',
    )
  check(
    options.outputs_to_num_classes
    and all(n in COUNT for n in options.outputs_to_num_classes.values())
    and all(n and isinstance(n, str) for n in options.outputs_to_num_classes),
    'outputs_to_num_classes must name at least one output with one class or '
    f'more. Received: {dict(options.outputs_to_num_classes or {})}.',
  )
  for name in (
    'crop_size',
    'image_pooling_crop_size',
    'image_pooling_stride',
  ):
    _check_size(name, getattr(options, name))
  check(
    options.merge_method in ('max', 'avg'),
    f"merge_method must be 'max' or 'avg'. Received: {options.merge_method!r}.",
  )
  check_ranges(vars(options), _RANGES)
  decoder = options.decoder_output_stride
  check(
    not decoder or sorted(decoder, reverse=True) == list(decoder),
    f'decoder_output_stride must be in descending order. Received: {decoder}.',
  )
  check(
    options.resnet_root_convs in (2, 3),
    f'resnet_root_convs must be 2 or 3. Received: {options.resnet_root_convs}.',
  )
  for field in dataclasses.fields(options):
    check(
      field.name not in _NOT_BUILT
      or getattr(options, field.name) == field.default,
      f'{field.name} is not supported by this version. Received: '
      f'{getattr(options, field.name)!r}.',
    )
  _check_nas(options)
  _check_head(options)
  _check_cell(options)
  _check_vgg(options)
  check(
    not options.use_weight_standardization
    or options.model_variant.startswith('resnet'),
    'use_weight_standardization applies to ResNet. Received: '
    f'model_variant={options.model_variant!r}.',
  )
  check(
    options.resnet_num_blocks == 4
    or options.model_variant.startswith('resnet'),
    'resnet_num_blocks applies to ResNet. Received: '
    f'resnet_num_blocks={options.resnet_num_blocks}, '
    f'model_variant={options.model_variant!r}.',
  )


def _check_nas(options):
  """The keys and values of nas_architecture_options."""
  received = options.nas_architecture_options
  if received is None:
    return
  unknown = sorted(set(received) - set(NAS_ARCHITECTURE_DEFAULTS), key=str)
  check(
    not unknown,
    'nas_architecture_options has the keys '
    f'{sorted(NAS_ARCHITECTURE_DEFAULTS)}. Received: {unknown}.',
  )
  for name, default in NAS_ARCHITECTURE_DEFAULTS.items():
    value = received.get(name, default)
    is_bool = isinstance(default, bool)
    check(
      isinstance(value, bool) if is_bool else value in COUNT,
      f'{name} must be {"True or False" if is_bool else COUNT}. '
      f'Received: {name}={value!r}.',
    )


def _check_cell(options):
  """The dense prediction cell, and what it needs."""
  cell = options.dense_prediction_cell_config
  if cell is None:
    return
  fault = cell_config.find_fault(cell)
  check(fault is None, f'dense_prediction_cell_config: {fault}')
  check(
    options.output_stride <= 16 or not options.aspp_with_batch_norm,
    'a dense prediction cell needs an output_stride of at most 16, the one '
    f'that its rates are given for. Received: {options.output_stride}.',
  )


def _check_vgg(options):
  """The fully connected layers of VGG, the head of v1 and v2."""
  has_head = (
    options.model_variant == 'vgg_16' and not options.aspp_with_batch_norm
  )
  for field in dataclasses.fields(options):
    value = getattr(options, field.name)
    check(
      has_head or not field.name.startswith('vgg_') or value == field.default,
      f'{field.name} applies to model_variant=vgg_16 with aspp_with_batch_norm='
      f'False. Received: {field.name}={value}, model_variant='
      f'{options.model_variant!r}, aspp_with_batch_norm='
      f'{options.aspp_with_batch_norm}.',
    )
  rates = options.atrous_rates or [1]
  check(
    not options.vgg_side_branches or len(rates) == 1,
    'vgg_side_branches join fc7 of VGG where it has one branch: that is at '
    f'most one of atrous_rates. Received: atrous_rates={options.atrous_rates}.',
  )
  for name, is_idle in (
    ('decoder_output_stride', not options.decoder_output_stride),
    ('decoder_output_is_logits', not options.decoder_output_is_logits),
    ('logits_kernel_size', options.logits_kernel_size == 1),
  ):
    check(
      is_idle or not has_head,
      f'{name} does not go with model_variant=vgg_16 and '
      'aspp_with_batch_norm=False: 1x1 convolutions of fc7 give the logits. '
      f'Leave it out. Received: {name}={getattr(options, name)}.',
    )


def _check_head(options):
  """The options of the ASPP, the decoder and the logits fit together."""
  if options.has_aspp_gate:
    check(
      options.aspp_with_concat_projection or not options.atrous_rates,
      'aspp_with_squeeze_and_excitation with several ASPP branches needs '
      'aspp_with_concat_projection: the gate has aspp_convs_filters channels. '
      f'Received: atrous_rates={options.atrous_rates}.',
    )
  if options.decoder_output_is_logits:
    _check_decoder_output(options)
  elif options.aspp_with_batch_norm or not options.atrous_rates:
    check(
      options.logits_kernel_size == 1,
      'logits_kernel_size must be 1 unless aspp_with_batch_norm is false and '
      'atrous_rates are given (the DeepLab v2 head). Received: '
      f'{options.logits_kernel_size}.',
    )
  weights = options.label_weights
  if weights is not None:
    for output, classes in options.outputs_to_num_classes.items():
      check(
        len(weights) == classes,
        f'label_weights must hold one weight for each of the {classes} '
        f'classes of output {output!r}. Received: {len(weights)} weights.',
      )


def _check_decoder_output(options):
  """What is taken for logits has a channel for each class."""
  if not options.decoder_output_stride:
    return  # The features themselves: known when the network is built.
  for output, classes in options.outputs_to_num_classes.items():
    check(
      options.decoder_filters == classes,
      'decoder_output_is_logits needs decoder_filters equal to the number of '
      f'classes. Received: decoder_filters={options.decoder_filters}, '
      f'{classes} classes of output {output!r}.',
    )

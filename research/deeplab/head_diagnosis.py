"""What head a checkpoint has, from the names and shapes of its variables."""

import dataclasses
import itertools
import re

from deeplab import common
from deeplab.core import dense_prediction_cell, vgg

# First parts of the names of variables that no backbone has.
_HEAD = re.compile(
  r'^(logits|image_pooling|aspp\d+(_depthwise|_pointwise)?|concat_projection'
  r'|decoder|meta_architecture)$'
)


def is_head_scope(scope):
  """Whether variables whose names begin with this scope are the head's."""
  return bool(_HEAD.match(scope))


def head_fields(stored, skips):
  """ModelOptions fields of ASPP, decoder and logits.

  Args:
    stored: {official name: shape} of the variables of a checkpoint.
    skips: {output stride: channels} of the backbone's features for decoders.

  Returns:
    {field: value} without defaults, {} if there is no head; and the names of
    the fields that the variables only hint at. Atrous rates are those at
    output stride 16, unless there is an output_stride.
  """
  guessed = []
  fields = {
    **_aspp_fields(stored, guessed),
    **_decoder_fields(stored, skips, guessed),
  }
  own = {}
  outputs = {}
  for name, shape in stored.items():
    match = re.fullmatch(r'logits/(.+?)/weights', name)
    if match:
      outputs[match.group(1)] = shape
  # Branches of DeepLab v2 are called after the output, _1, _2 and so on.
  main = {
    name: shape
    for name, shape in outputs.items()
    if re.sub(r'_\d+$', '', name) == name
    or re.sub(r'_\d+$', '', name) not in outputs
  }
  if main:
    fields['outputs_to_num_classes'] = {
      name: shape[-1] for name, shape in main.items()
    }
    fields['logits_kernel_size'] = next(iter(main.values()))[0]
    branches = len(outputs) // len(main)
    if branches > 1:
      fields['atrous_rates'] = _rates(branches)
      guessed.append('atrous_rates')
    if 'aspp0/weights' not in stored and not _is_cell(stored):
      fields['aspp_with_batch_norm'] = False
      own = _vgg_fields(stored, guessed)
  elif fields.get('decoder_output_is_logits'):
    fields['outputs_to_num_classes'] = {
      common.OUTPUT_TYPE: fields['decoder_filters']
    }
  else:
    # Without logits it is no segmentation network, whatever else is there.
    return {}, []
  # The output stride stays: its default is not that of the scripts.
  return _without_defaults(fields) | own, list(dict.fromkeys(guessed))


def _without_defaults(fields):
  return {
    field.name: fields[field.name]
    for field in dataclasses.fields(common.ModelOptions)
    if field.name in fields and fields[field.name] != field.default
  }


def _rates(count):
  """The rates of the papers at output stride 16."""
  return [6 * (i + 1) for i in range(count)]


def _vgg_fields(stored, guessed):
  """Fields of fc6 and fc7, at the output stride of v1 and v2."""
  kernels = [
    shape
    for name, shape in stored.items()
    if re.fullmatch(rf'{vgg.SCOPE}/fc6(_\d+)?/weights', name)
  ]
  if not kernels:
    return {}
  guessed += ['output_stride', 'atrous_rates']
  kernel_size, *_, filters = kernels[0]
  rates = _rates(len(kernels))
  if len(kernels) == 1:
    # LargeFOV, else the first rate of v1's table 2.
    rates = [12] if kernel_size == 3 else [4]
  return {
    'output_stride': 8,
    'atrous_rates': rates,
    **_without_defaults(
      {
        'vgg_fc6_kernel_size': kernel_size,
        'vgg_fc_filters': filters,
        'vgg_side_branches': f'{vgg.SCOPE}/data_conv/weights' in stored,
      }
    ),
  }


def _is_cell(stored):
  return any(name.startswith('meta_architecture/') for name in stored)


def _aspp_fields(stored, guessed):
  if _is_cell(stored):
    guessed.append('dense_prediction_cell_config')
    return {'dense_prediction_cell_config': _cell(stored)}
  if 'aspp0/weights' not in stored:
    return {}
  branches = {
    match.group(1): bool(match.group(2))
    for match in (re.match(r'aspp([1-9]\d*)(_depthwise)?/', n) for n in stored)
    if match
  }
  fields = {
    'aspp_convs_filters': stored['aspp0/weights'][-1],
    'add_image_level_feature': 'image_pooling/weights' in stored,
    # The gate has a bias, the branch batch norm.
    'aspp_with_squeeze_and_excitation': 'image_pooling/biases' in stored,
    'aspp_with_concat_projection': 'concat_projection/weights' in stored,
  }
  if fields['aspp_with_squeeze_and_excitation']:
    guessed += ['image_se_uses_qsigmoid', 'image_pooling_stride']
  if branches:
    fields['aspp_with_separable_conv'] = any(branches.values())
    fields['atrous_rates'] = _rates(len(branches))
    guessed.append('atrous_rates')
  return fields


def _cell(stored):
  """A cell with the stored variables: the published one, if it may be it.

  Neither rates nor, beyond the number of channels, inputs can be seen.
  """
  kernels = []
  while True:
    scope = f'meta_architecture/branch{len(kernels)}'
    depthwise = stored.get(f'{scope}_depthwise/depthwise_weights')
    if depthwise is None and f'{scope}/weights' not in stored:
      break
    kernels.append(1 if depthwise is None else depthwise[0])
  published = dense_prediction_cell.read_config(
    dense_prediction_cell.PUBLISHED_CELL
  )
  if kernels == [operation['kernel'] for operation in published]:
    return published
  return [
    {'op': 'conv', 'kernel': kernel, 'rate': [1, 1], 'input': min(i, 1) - 1}
    for i, kernel in enumerate(kernels)
  ]


def _decoder_fields(stored, skips, guessed):
  projections = {
    int(match.group(1) or 0): stored[name][2]
    for name in stored
    if (
      match := re.fullmatch(
        r'decoder/feature_projection0(?:_(\d+))?/weights', name
      )
    )
  }
  if not projections:
    return {}
  strides = [
    list(choice)
    for choice in itertools.combinations(
      sorted(skips, reverse=True), len(projections)
    )
    if [skips[stride] for stride in choice]
    == [projections[stage] for stage in sorted(projections)]
  ]
  if len(strides) != 1:
    guessed.append('decoder_output_stride')
  fields = {
    # The finest resolution, where several would do.
    'decoder_output_stride': strides[-1] if strides else [4],
    'decoder_output_is_logits': 'decoder/feature_projection0/biases' in stored,
  }
  for scope, separable, convs in (
    ('decoder_split_sep_conv0_pointwise', True, None),
    ('decoder_conv0_pointwise', True, r'decoder_conv\d+_pointwise'),
    (
      'decoder_conv0/decoder_conv0_1',
      False,
      r'decoder_conv0/decoder_conv0_\d+',
    ),
    ('decoder_conv0', False, None),
  ):
    weights = stored.get(f'decoder/{scope}/weights')
    if weights:
      fields['decoder_filters'] = weights[-1]
      fields['decoder_use_sum_merge'] = convs is None
      if not fields['decoder_output_is_logits']:
        fields['decoder_use_separable_conv'] = separable
      if convs:
        fields.update(_conv_fields(stored, scope, convs))
      break
  return fields


def _conv_fields(stored, first, pattern):
  """Fields of the convolutions after a concatenation in the decoder.

  Args:
    stored: {official name: shape}.
    first: scope of the first one.
    pattern: regular expression of the scopes of all in its stage.
  """
  pattern = re.compile(f'decoder/{pattern}/weights')
  depthwise = first.replace('_pointwise', '_depthwise')
  kernel = stored.get(f'decoder/{depthwise}/depthwise_weights') or stored.get(
    f'decoder/{first}/weights'
  )
  return {
    'decoder_num_convs': sum(bool(pattern.fullmatch(n)) for n in stored),
    'decoder_kernel_size': kernel[0],
    'decoder_projection_filters': stored['decoder/feature_projection0/weights'][
      -1
    ],
  }

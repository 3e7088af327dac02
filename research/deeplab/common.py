"""What every part shares: item names, model options and the error type.

Nothing here reads command-line flags; `deeplab.flags` turns flags into the
values of this module.
"""

import dataclasses
import json
import math
import numbers
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab import cell_config

# The name of the output that holds semantic segmentation.
OUTPUT_TYPE = 'semantic'

# Keys of a sample, as in the official data generator.
LABELS_CLASS = 'labels_class'
IMAGE = 'image'
HEIGHT = 'height'
WIDTH = 'width'
IMAGE_NAME = 'image_name'
LABEL = 'label'
ORIGINAL_IMAGE = 'original_image'

# The split that carries no labels.
TEST_SET = 'test'

# File written beside checkpoints; see ModelOptions.to_json.
MODEL_OPTIONS_FILE = 'model_options.json'

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


class InputError(ValueError):
  """The user's input is at fault: the message alone says what and the cure.

  The command-line scripts print it without a traceback and exit with 1.
  """


def _check(condition, message):
  if not condition:
    raise InputError(message)


@dataclasses.dataclass(frozen=True)
class Range:
  """The finite numbers from `low` to `high`, both included.

  Attributes:
    low: the smallest number.
    high: the largest one.
    above: whether `low` itself is left out.
    whole: whether only integers count.
  """

  low: float = 0
  high: float = math.inf
  above: bool = False
  whole: bool = False

  def __contains__(self, value):
    kind = numbers.Integral if self.whole else numbers.Real
    return (
      isinstance(value, kind)
      and not isinstance(value, bool)
      and math.isfinite(value)
      and self.low <= value <= self.high
      and not (self.above and value == self.low)
    )

  def __str__(self):
    kind = 'an integer, ' if self.whole else 'a finite number, '
    low = f'above {self.low}' if self.above else f'at least {self.low}'
    high = '' if self.high == math.inf else f' and at most {self.high}'
    return kind + low + high


NOT_NEGATIVE = Range()
POSITIVE = Range(above=True)
COUNT = Range(1, whole=True)
SHARE = Range(0, 1)


def check_ranges(values: Mapping[str, Any], ranges: Mapping[str, Range]):
  """Checks numbers, and every item of lists of numbers.

  Args:
    values: {name: number, sequence of numbers, or None for none}; names
      without a range are not looked at.
    ranges: {name: what its numbers may be}.

  Raises:
    InputError: a number is not in its range, or not a number.
  """
  for name, allowed in ranges.items():
    value = values.get(name)
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    for item in value if is_list else [] if value is None else [value]:
      _check(
        item in allowed,
        f'{"each value of " if is_list else ""}{name} must be {allowed}. '
        f'Received: {name}={list(value) if is_list else value!r}.',
      )


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
  _check(
    (value is None and name != 'image_pooling_stride')
    or (len(value or ()) == 2 and all(side in _SIDE for side in value)),
    f'{name} must be two positive integers, height and width. '
    f'Received: {name}={value}.',
  )


def _validate(options):
  """Raises InputError where a value of ModelOptions cannot be built."""
  for name, hint in typing.get_type_hints(type(options)).items():
    value = getattr(options, name)
    _check(
      _is_a(value, hint),
      f'{name} must be of the kind {getattr(hint, "__name__", hint)}. '
      f'Received: {name}={value!r}.',
    )
  _check(
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
  _check(
    options.merge_method in ('max', 'avg'),
    f"merge_method must be 'max' or 'avg'. Received: {options.merge_method!r}.",
  )
  check_ranges(vars(options), _RANGES)
  decoder = options.decoder_output_stride
  _check(
    not decoder or sorted(decoder, reverse=True) == list(decoder),
    f'decoder_output_stride must be in descending order. Received: {decoder}.',
  )
  _check(
    options.resnet_root_convs in (2, 3),
    f'resnet_root_convs must be 2 or 3. Received: {options.resnet_root_convs}.',
  )
  for field in dataclasses.fields(options):
    _check(
      field.name not in _NOT_BUILT
      or getattr(options, field.name) == field.default,
      f'{field.name} is not supported by this version. Received: '
      f'{getattr(options, field.name)!r}.',
    )
  _check_nas(options)
  _check_head(options)
  _check_cell(options)
  _check(
    not options.use_weight_standardization
    or options.model_variant.startswith('resnet'),
    'use_weight_standardization applies to ResNet. Received: '
    f'model_variant={options.model_variant!r}.',
  )


def _check_nas(options):
  """The keys and values of nas_architecture_options."""
  received = options.nas_architecture_options
  if received is None:
    return
  unknown = sorted(set(received) - set(NAS_ARCHITECTURE_DEFAULTS), key=str)
  _check(
    not unknown,
    'nas_architecture_options has the keys '
    f'{sorted(NAS_ARCHITECTURE_DEFAULTS)}. Received: {unknown}.',
  )
  for name, default in NAS_ARCHITECTURE_DEFAULTS.items():
    value = received.get(name, default)
    is_bool = isinstance(default, bool)
    _check(
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
  _check(fault is None, f'dense_prediction_cell_config: {fault}')
  _check(
    options.output_stride <= 16 or not options.aspp_with_batch_norm,
    'a dense prediction cell needs an output_stride of at most 16, the one '
    f'that its rates are given for. Received: {options.output_stride}.',
  )


def _check_head(options):
  """The options of the ASPP, the decoder and the logits fit together."""
  if options.has_aspp_gate:
    _check(
      options.aspp_with_concat_projection or not options.atrous_rates,
      'aspp_with_squeeze_and_excitation with several ASPP branches needs '
      'aspp_with_concat_projection: the gate has aspp_convs_filters channels. '
      f'Received: atrous_rates={options.atrous_rates}.',
    )
  if options.decoder_output_is_logits:
    _check_decoder_output(options)
  elif options.aspp_with_batch_norm or not options.atrous_rates:
    _check(
      options.logits_kernel_size == 1,
      'logits_kernel_size must be 1 unless aspp_with_batch_norm is false and '
      'atrous_rates are given (the DeepLab v2 head). Received: '
      f'{options.logits_kernel_size}.',
    )
  weights = options.label_weights
  if weights is not None:
    for output, classes in options.outputs_to_num_classes.items():
      _check(
        len(weights) == classes,
        f'label_weights must hold one weight for each of the {classes} '
        f'classes of output {output!r}. Received: {len(weights)} weights.',
      )


def _check_decoder_output(options):
  """What is taken for logits has a channel for each class."""
  if not options.decoder_output_stride:
    return  # The features themselves: known when the network is built.
  for output, classes in options.outputs_to_num_classes.items():
    _check(
      options.decoder_filters == classes,
      'decoder_output_is_logits needs decoder_filters equal to the number of '
      f'classes. Received: decoder_filters={options.decoder_filters}, '
      f'{classes} classes of output {output!r}.',
    )


@dataclasses.dataclass(frozen=True)
class ModelOptions:
  """Everything a DeepLab network depends on.

  Field names and defaults are the official ones; the fields after the blank
  line are additions of this port. Sizes are [height, width].

  Attributes:
    outputs_to_num_classes: number of classes of each output, for example
      {'semantic': 21}.
    crop_size: size of the images that the network takes, or None for any
      (image pooling is then a global mean).
    atrous_rates: rates of the ASPP branches, None for none.
    output_stride: ratio of input to backbone output resolution.
    merge_method: 'max' or 'avg' over the scales of an image pyramid.
    add_image_level_feature: whether ASPP has the image pooling branch.
    image_pooling_crop_size: crop size that sets the pooling window; crop_size
      if None.
    image_pooling_stride: stride of the image pooling.
    aspp_with_batch_norm: False builds the DeepLab v2 head: no projection, the
      logits of all branches summed.
    aspp_with_separable_conv: atrous separable convolution in ASPP.
    multi_grid: unit rates of the last block (ResNet, Xception).
    decoder_output_stride: output strides of the skip features the decoder
      refines with, in descending order; None for no decoder.
    decoder_use_separable_conv: separable convolutions in the decoder.
    logits_kernel_size: kernel size of the logits convolution.
    model_variant: name of the backbone.
    depth_multiplier: channel multiplier of MobileNet.
    divisible_by: MobileNet channels are rounded to multiples of this.
    prediction_with_upsampled_logits: argmax after upsampling the logits
      (True) or before.
    use_bounded_activation: ReLU6 and clipping in Xception, ASPP and decoder.
    aspp_with_concat_projection: 1x1 projection after the concatenation.
    aspp_with_squeeze_and_excitation: the image-level feature gates the ASPP
      output instead of being concatenated.
    aspp_convs_filters: channels of each ASPP branch.
    decoder_use_sum_merge: sum, instead of concatenation, in the decoder.
    decoder_filters: channels of the decoder.
    decoder_output_is_logits: the decoder's output is the logits; without a
      decoder the features are.
    image_se_uses_qsigmoid: piecewise linear sigmoid in that gate.
    label_weights: weight of each class in the loss, None for 1.
    batch_norm_decay: decay of every batch norm's moving statistics; None
      keeps each network's official value.
    dense_prediction_cell_config: the operations of a dense prediction cell,
      which takes the place of ASPP; see `cell_config.find_fault`.
    nas_architecture_options: of the nas_ variants, any of
      'nas_stem_output_num_conv_filters' (20), 'nas_use_classification_head'
      (False) and 'nas_remove_os32_stride' (False).
    preprocessed_images_dtype, sync_batch_norm_method: official fields of
      parts that are not built yet; anything but the default is refused.

    quantize_delay_step: training step from which on the network computes as
      if with eight bits; -1 for never. Where it is 0 or more, evaluation is
      quantised.
    resnet_root_convs: number of 3x3 convolutions (2 or 3) in the stem of the
      `_beta` ResNets; every published checkpoint has 3.
    use_weight_standardization: of all convolutions of a ResNet. The original
      has the code, and no flag for it.
  """

  outputs_to_num_classes: Mapping[str, int]
  crop_size: Sequence[int] | None = None
  atrous_rates: Sequence[int] | None = None
  output_stride: int = 8
  merge_method: str = 'max'
  add_image_level_feature: bool = True
  image_pooling_crop_size: Sequence[int] | None = None
  image_pooling_stride: Sequence[int] = (1, 1)
  aspp_with_batch_norm: bool = True
  aspp_with_separable_conv: bool = True
  multi_grid: Sequence[int] | None = None
  decoder_output_stride: Sequence[int] | None = None
  decoder_use_separable_conv: bool = True
  logits_kernel_size: int = 1
  model_variant: str = 'mobilenet_v2'
  depth_multiplier: float = 1.0
  divisible_by: int | None = None
  prediction_with_upsampled_logits: bool = True
  use_bounded_activation: bool = False
  aspp_with_concat_projection: bool = True
  aspp_with_squeeze_and_excitation: bool = False
  aspp_convs_filters: int = 256
  decoder_use_sum_merge: bool = False
  decoder_filters: int = 256
  decoder_output_is_logits: bool = False
  image_se_uses_qsigmoid: bool = False
  label_weights: Sequence[float] | None = None
  batch_norm_decay: float | None = None
  preprocessed_images_dtype: str = 'float32'
  dense_prediction_cell_config: Sequence[Mapping[str, Any]] | None = None
  nas_architecture_options: Mapping[str, Any] | None = None
  sync_batch_norm_method: str = 'None'

  quantize_delay_step: int = -1
  resnet_root_convs: int = 3
  use_weight_standardization: bool = False

  def __post_init__(self):
    _validate(self)

  @property
  def is_quantized(self) -> bool:
    """Whether the network computes as if with eight bits."""
    return self.quantize_delay_step >= 0

  @property
  def has_aspp_gate(self) -> bool:
    """Whether the image-level feature gates the output of ASPP."""
    return (
      self.aspp_with_squeeze_and_excitation
      and self.add_image_level_feature
      and self.aspp_with_batch_norm
      and self.dense_prediction_cell_config is None
    )

  def replace(self, **changes) -> 'ModelOptions':
    """A copy with some fields changed."""
    return dataclasses.replace(self, **changes)

  def to_dict(self) -> dict[str, Any]:
    """Field names and plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(self), default=list))

  def to_json(self) -> str:
    """The text of model_options.json."""
    return json.dumps(self.to_dict(), indent=2) + '\n'

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> 'ModelOptions':
    """Inverse of `to_dict`.

    Raises:
      InputError: a key is unknown or a value is not acceptable.
    """
    if not isinstance(values, Mapping):
      raise InputError(f'model options must be an object, not {values!r}.')
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
      raise InputError(f'model options have no field named {unknown}.')
    if 'outputs_to_num_classes' not in values:
      raise InputError('model options lack outputs_to_num_classes.')
    return cls(**values)

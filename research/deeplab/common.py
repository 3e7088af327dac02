"""What every part shares: item names, model options and the error type.

Nothing here reads command-line flags; `deeplab.flags` turns flags into the
values of this module.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab import option_checks

# Part of this module's interface, wherever they are written.
from deeplab.checking import COUNT as COUNT
from deeplab.checking import NOT_NEGATIVE as NOT_NEGATIVE
from deeplab.checking import POSITIVE as POSITIVE
from deeplab.checking import SHARE as SHARE
from deeplab.checking import InputError as InputError
from deeplab.checking import Range as Range
from deeplab.checking import check_ranges as check_ranges
from deeplab.option_checks import (
  NAS_ARCHITECTURE_DEFAULTS as NAS_ARCHITECTURE_DEFAULTS,
)

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
      logits of all branches summed; on vgg_16 a branch has fc6 and fc7, and
      one alone is v1.
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
    resnet_num_blocks: 4 to 7 blocks of a ResNet; block5 to block7 are copies
      of block4 (v3, section 3.2).
    decoder_projection_filters: channels that the decoder reduces low-level
      features to (v3+, table 1).
    decoder_num_convs: convolutions of each decoder stage (v3+, table 2).
    decoder_kernel_size: their size (v3+, table 2).
    vgg_fc6_kernel_size: of the first fully connected layer of VGG as a
      convolution: 7, 4 or 3 in v1, table 2; its rates are `atrous_rates`.
    vgg_fc_filters: channels of the two fully connected layers.
    vgg_side_branches: two further layers each from the image and the first
      four poolings (v1, section 4.3, "multi-scale prediction").
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
  resnet_num_blocks: int = 4
  decoder_projection_filters: int = 48
  decoder_num_convs: int = 2
  decoder_kernel_size: int = 3
  vgg_fc6_kernel_size: int = 3
  vgg_fc_filters: int = 1024
  vgg_side_branches: bool = False

  def __post_init__(self):
    option_checks.validate(self)

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

"""What is known of a published checkpoint."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab import common
from deeplab.datasets import dataset_info

SEGMENTATION = 'segmentation'
BACKBONE = 'backbone'


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """One published measurement.

  Attributes:
    output_stride: of the network.
    miou: mean intersection over union in percent.
    split: 'val', or 'test' for the figure of a test server.
    scales: input scales whose probabilities were averaged.
    flips: whether mirror images were averaged too.
    multiply_adds: in 1e9, None if not published.
    pixel_accuracy: in percent, None if not published.
  """

  output_stride: int
  miou: float
  split: str = 'val'
  scales: Sequence[float] = (1.0,)
  flips: bool = False
  multiply_adds: float | None = None
  pixel_accuracy: float | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
  """One published checkpoint.

  Attributes:
    name: the name in the zoo.
    url: where the archive is.
    pretraining: data sets it was trained on, in order.
    fields: ModelOptions fields other than their defaults; for a segmentation
      network as it was trained.
    kind: SEGMENTATION, or BACKBONE for the start of a training.
    dataset: name of the last data set, one of dataset_info.BUILTIN; None for a
      backbone.
    crop_size: [height, width] that images are padded to in evaluation.
    longest_side: images are first resized to this longest side, None for not.
    quantized: whether the weights are those of quantisation-aware training.
    evaluations: what was published.
    size_mb: size of the archive in MB, None if not published.
    top_1: accuracy in percent of the ImageNet classification network.
    sha256: of the archive, None if not known.
  """

  name: str
  url: str
  pretraining: Sequence[str]
  fields: Mapping[str, Any]
  kind: str = SEGMENTATION
  dataset: str | None = None
  crop_size: Sequence[int] = (513, 513)
  longest_side: int | None = None
  quantized: bool = False
  evaluations: Sequence[Evaluation] = ()
  size_mb: float | None = None
  top_1: float | None = None
  sha256: str | None = None

  @property
  def variant(self):
    """The name of the backbone."""
    return self.fields['model_variant']

  @property
  def archive(self):
    """The file name of the archive."""
    return self.url.rsplit('/', 1)[1]

  @property
  def info(self):
    """The DatasetInfo of the data set; None for a backbone."""
    return dataset_info.BUILTIN[self.dataset] if self.dataset else None

  def model_options(self):
    """The ModelOptions that model_options.json gets.

    A backbone has no head; its options have one class and are of use only to
    build the backbone.
    """
    return common.ModelOptions(
      outputs_to_num_classes={
        common.OUTPUT_TYPE: self.info.num_classes if self.info else 1
      },
      crop_size=list(self.crop_size),
      quantize_delay_step=0 if self.quantized else -1,
      **self.fields,
    )

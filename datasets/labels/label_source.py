"""What all kinds of labels have in common, for build_image_folder_data.py."""

import abc
import dataclasses
from collections.abc import Sequence

import numpy as np

from deeplab.common import InputError
from deeplab.datasets.dataset_info import DatasetInfo
from deeplab.datasets.labels.class_table_files import ClassTable


@dataclasses.dataclass(frozen=True)
class Classes:
  """What labels are translated with.

  Attributes:
    table: the classes.
    info: the same, for messages.
    ignores_unknown: whether what is not in the table is ignored; else it is
      refused.
  """

  table: ClassTable
  info: DatasetInfo
  ignores_unknown: bool = False

  @property
  def unknown_label(self) -> int | None:
    """The label of what is not in the table, None to refuse it."""
    return self.table.ignore_label if self.ignores_unknown else None

  def label(self, name: str, where: str) -> int:
    """The label of a class by its name.

    Args:
      name: as it stands in an annotation.
      where: the annotation, for messages.

    Raises:
      InputError: the table has no such class.
    """
    labels = self.table.label_of_name
    if name in labels:
      return labels[name]
    if self.ignores_unknown:
      return self.table.ignore_label
    raise InputError(
      f'{where} has the class {name!r}, which is not in {self.table.source}: '
      f'{list(labels)}. Add it there, correct the label, or ignore such '
      'labels: --unknown=ignore.'
    )


class LabelSource(abc.ABC):
  """The labels of one kind in a folder.

  Attributes:
    paths: {name of an image: file of its label}.
    has_background: whether what no shape covers is a class of its own.
    is_indexed: whether a JSON file tells the images of the labels; else labels
      have the names of their images.
  """

  paths: dict[str, str]
  has_background = False
  is_indexed = False

  @abc.abstractmethod
  def find_classes(self, names: Sequence[str]) -> ClassTable:
    """The classes that occur, if the user gives no table.

    Args:
      names: the images that are converted.

    Raises:
      InputError: the labels do not tell, or a file is not acceptable.
    """

  @abc.abstractmethod
  def decode(
    self, name: str, size: tuple[int, int], classes: Classes
  ) -> np.ndarray:
    """The labels of an image.

    Args:
      name: of the image.
      size: its (height, width).
      classes: the classes.

    Returns:
      uint8 [height, width].

    Raises:
      InputError: the file is not acceptable.
    """


def check_size(found, size, where):
  """Raises InputError unless annotations are made for the size of the image.

  Args:
    found: (height, width) in the annotation.
    size: (height, width) of the image.
    where: the annotation.
  """
  if tuple(found) != tuple(size):
    raise InputError(
      f'{where} is for an image of {found[0]} x {found[1]} pixels (height x '
      f'width), but the image has {size[0]} x {size[1]}. They must have one '
      'size: annotate the image again, or restore its size. Sides that are '
      'interchanged come from the EXIF orientation: see '
      '--apply_exif_rotation.'
    )

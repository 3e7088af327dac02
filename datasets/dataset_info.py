"""What a data set is: its classes, their names and colours, its splits.

Every converter writes `dataset_info.json` beside its TFRecord files, and
whoever reads the records takes classes, ignore label and colours from there.
A data set of one's own therefore needs no edit of source. The official data
sets are built in, for records converted by other code.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence

import tensorflow as tf

from deeplab import atomic_files, input_files
from deeplab.common import InputError
from deeplab.datasets import class_tables

# The file that holds a DatasetInfo, beside the TFRecord files.
FILE_NAME = 'dataset_info.json'

# The official default of --dataset.
DEFAULT_NAME = 'pascal_voc_seg'


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
  """Describes a segmentation data set.

  Attributes:
    name: name of the data set.
    num_classes: number of classes, background included; labels are
      0..num_classes-1.
    ignore_label: label value, 0..255, of pixels that count neither in the loss
      nor in the evaluation.
    class_names: one name for each class; class_0, class_1, ... if empty.
    colors: one [red, green, blue], 0..255, for each class; the PASCAL colour
      map if empty.
    splits: number of examples of each split.
  """

  name: str
  num_classes: int
  ignore_label: int = 255
  class_names: Sequence[str] = ()
  colors: Sequence[Sequence[int]] = ()
  splits: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    _check_numbers(self)
    names = self.class_names or [f'class_{i}' for i in range(self.num_classes)]
    colors = self.colors or class_tables.pascal_colormap(self.num_classes)
    # A frozen dataclass sets its normalised fields through `object`.
    object.__setattr__(self, 'class_names', list(names))
    object.__setattr__(self, 'colors', [list(color) for color in colors])
    object.__setattr__(self, 'splits', dict(self.splits))
    _check_tables(self)

  def replace(self, **changes) -> 'DatasetInfo':
    """A copy with some fields changed."""
    return dataclasses.replace(self, **changes)

  def save(self, folder: str) -> str:
    """Writes dataset_info.json into `folder`, which is made if missing.

    Args:
      folder: the folder of the TFRecord files.

    Returns:
      Path of the file.

    Raises:
      InputError: it cannot be written.
    """
    path = os.path.join(folder, FILE_NAME)
    text = json.dumps(dataclasses.asdict(self), indent=1)
    atomic_files.write(path, f'{text}\n')
    return path


def _is_int(value):
  return isinstance(value, int) and not isinstance(value, bool)


def _require(condition, info, field, expected):
  if not condition:
    raise InputError(
      f'data set {info.name!r}: {field} must be {expected}. '
      f'Received: {field}={getattr(info, field)!r}.'
    )


def _check_numbers(info):
  """Checks the fields that the defaults of the others are derived from."""
  _require(info.name and isinstance(info.name, str), info, 'name', 'a text')
  _require(
    _is_int(info.num_classes) and 1 <= info.num_classes <= 256,
    info,
    'num_classes',
    'an integer from 1 to 256',
  )
  _require(
    _is_int(info.ignore_label) and 0 <= info.ignore_label <= 255,
    info,
    'ignore_label',
    'an integer from 0 to 255',
  )


def _check_tables(info):
  """Checks names, colours and splits."""
  count = info.num_classes
  _require(
    len(info.class_names) == count
    and all(isinstance(name, str) for name in info.class_names),
    info,
    'class_names',
    f'{count} texts, one for each class',
  )
  _require(
    len(info.colors) == count
    and all(
      len(color) == 3 and all(_is_int(v) and 0 <= v <= 255 for v in color)
      for color in info.colors
    ),
    info,
    'colors',
    f'{count} lists [red, green, blue] of integers from 0 to 255',
  )
  _require(
    all(_is_int(n) and n >= 0 for n in info.splits.values()),
    info,
    'splits',
    'a count of examples for each split',
  )


def load(path_or_folder: str) -> DatasetInfo:
  """Reads a dataset_info.json.

  Args:
    path_or_folder: the file, or the folder that holds it.

  Returns:
    The DatasetInfo. Missing names and colours are filled in.

  Raises:
    InputError: there is no such file, or it does not describe a data set.
  """
  path = path_or_folder
  if tf.io.gfile.isdir(path):
    path = os.path.join(path, FILE_NAME)
  input_files.check_regular(path)
  try:
    with tf.io.gfile.GFile(path) as source:
      text = source.read()
  except (OSError, tf.errors.OpError) as error:
    reason = str(error).partition('\n')[0]
    raise InputError(f'cannot read {path}: {reason}.') from error
  except UnicodeDecodeError as error:
    raise InputError(f'{path} is not a text file in UTF-8: {error}.') from error
  values = input_files.parse_json(text, path)
  known = {field.name for field in dataclasses.fields(DatasetInfo)}
  if not isinstance(values, dict) or not {'name', 'num_classes'} <= set(values):
    hint = ''
    if isinstance(values, dict) and 'moduleName' in values:
      hint = (
        ' It was written by TFDS: give --dataset=tfds:NAME, and as '
        '--dataset_dir the folder that holds NAME/VERSION.'
      )
    raise InputError(
      f'{path} must hold a JSON object with at least name and num_classes.'
      f'{hint}'
    )
  unknown = sorted(set(values) - known)
  if unknown:
    raise InputError(
      f'{path} has unknown keys {unknown}; known are {sorted(known)}.'
    )
  try:
    return DatasetInfo(**values)
  except InputError as error:
    raise InputError(f'{path}: {error}') from error
  except (TypeError, AttributeError, ValueError) as error:
    raise InputError(
      f'{path}: a value is of another kind than expected: {error}. class_names '
      'is a list of texts, colors one of [red, green, blue], splits an object '
      'of counts.'
    ) from error


BUILTIN = {
  info.name: info
  for info in (
    DatasetInfo(
      name='pascal_voc_seg',
      num_classes=21,
      class_names=class_tables.PASCAL_VOC_NAMES,
      splits={'train': 1464, 'train_aug': 10582, 'trainval': 2913, 'val': 1449},
    ),
    DatasetInfo(
      name='cityscapes',
      num_classes=19,
      class_names=class_tables.CITYSCAPES_NAMES,
      colors=class_tables.CITYSCAPES_COLORS,
      splits={
        'train_fine': 2975,
        'train_coarse': 22973,
        'trainval_fine': 3475,
        'trainval_coarse': 23473,
        'val_fine': 500,
        'test_fine': 1525,
      },
    ),
    # Class 0 is what the annotators left out; it is also the ignore label.
    DatasetInfo(
      name='ade20k',
      num_classes=151,
      ignore_label=0,
      class_names=class_tables.ADE20K_NAMES,
      colors=class_tables.ADE20K_COLORS,
      splits={'train': 20210, 'val': 2000},
    ),
    DatasetInfo(
      name='coco_stuff',
      num_classes=171,
      class_names=class_tables.COCO_STUFF_NAMES,
      splits={'train': 118287, 'val': 5000},
    ),
  )
}


def is_path(dataset: str) -> bool:
  """Whether --dataset means a folder, or a file, rather than a name.

  Args:
    dataset: what the user gave. Names of built-in data sets, and of those of
      TFDS, are names even where a folder is called so.
  """
  # It builds upon this module.
  from deeplab.datasets import tfds_data

  if dataset in BUILTIN or tfds_data.is_name(dataset):
    return False
  return '/' in dataset or os.sep in dataset or tf.io.gfile.exists(dataset)


def resolve(
  dataset_name: str | None = None, dataset_dir: str | None = None
) -> DatasetInfo:
  """Finds the description of a data set.

  Args:
    dataset_name: name the user gave, None for none.
    dataset_dir: folder of the TFRecord files, None for none.

  Returns:
    For the name 'tfds:...' what `tfds_data` says. Else what dataset_info.json
    in `dataset_dir` says, where there is one; else the built-in data set of
    that name (pascal_voc_seg when no name was given).

  Raises:
    InputError: the name contradicts dataset_info.json, or is not known.
  """
  # It builds upon this module.
  from deeplab.datasets import tfds_data

  if tfds_data.is_name(dataset_name):
    return tfds_data.open_data(dataset_name, dataset_dir).info
  path = os.path.join(dataset_dir, FILE_NAME) if dataset_dir else None
  if path and tf.io.gfile.exists(path):
    info = load(path)
    if dataset_name is not None and dataset_name != info.name:
      raise InputError(
        f'--dataset={dataset_name}, but {path} describes the data set '
        f'{info.name!r}. Leave --dataset out, or give the folder of '
        f'{dataset_name!r} as --dataset_dir.'
      )
    return info
  name = DEFAULT_NAME if dataset_name is None else dataset_name
  if name not in BUILTIN:
    where = f' in {dataset_dir}' if dataset_dir else ''
    raise InputError(
      f'unknown data set --dataset={name}: it is not one of '
      f'{sorted(BUILTIN)}, and there is no {FILE_NAME}{where}. Convert it '
      'with a script of datasets/, which writes that file, or write the file '
      'by hand (name, num_classes, ignore_label, class_names, colors).'
    )
  return BUILTIN[name]

r"""Converts Cityscapes to TFRecord files.

  python datasets/build_cityscapes_data.py --cityscapes_root=cityscapes \
    --output_dir=tfrecord

The folder holds leftImg8bit/ and gtFine/ as they are unpacked, and gtCoarse/
for the coarse splits. Labels are *_labelTrainIds.png where they are there,
else *_labelIds.png, whose ids become train ids here: nothing has to be run
before.

The masks of the test split hold nothing, unless somebody has filled them; its
records then have no labels.
"""

import dataclasses
import functools
import glob
import os

import numpy as np
from absl import flags

from deeplab import flags as deeplab_flags
from deeplab.common import InputError
from deeplab.datasets import build_data, dataset_info, image_files
from deeplab.datasets.build_data import Example
from deeplab.datasets.class_tables import TRAIN_ID_OF_ID
from deeplab.datasets.dataset_info import DatasetInfo

INFO = dataset_info.BUILTIN['cityscapes']

# The official number.
_NUM_SHARDS = 10

_IMAGE_FOLDER = 'leftImg8bit'
_IMAGE_ENDING = '_leftImg8bit.png'
_FINE = 'gtFine'
_COARSE = 'gtCoarse'
_TEST_SPLIT = 'test_fine'

# {split: (kind of labels, folders)}.
_SPLITS = {
  'train_fine': (_FINE, ('train',)),
  'val_fine': (_FINE, ('val',)),
  'trainval_fine': (_FINE, ('train', 'val')),
  _TEST_SPLIT: (_FINE, ('test',)),
  'train_coarse': (_COARSE, ('train', 'train_extra')),
  'trainval_coarse': (_COARSE, ('train', 'train_extra', 'val')),
}

_decode_label_ids = functools.partial(
  image_files.decode_ids, label_of_id=TRAIN_ID_OF_ID
)


def _find_label(root, kind, folder, city, name):
  """The mask of an image: its path, None for none, and how to decode it."""
  stem = os.path.join(root, kind, folder, city, f'{name}_{kind}')
  for ending, decode in (
    ('_labelTrainIds.png', None),
    ('_labelIds.png', _decode_label_ids),
  ):
    if os.path.isfile(stem + ending):
      return stem + ending, decode
  if folder == 'test':
    return None, None
  raise InputError(
    f'there is neither {stem}_labelTrainIds.png nor {stem}_labelIds.png. '
    f'Unpack {kind} into --cityscapes_root={root}.'
  )


def _find_folder(root, kind, folder):
  """The examples of one folder, sorted by city and name."""
  images = os.path.join(root, _IMAGE_FOLDER, folder)
  build_data.check_folder(images, f'<city>/*{_IMAGE_ENDING}')
  pattern = os.path.join(glob.escape(images), '*', f'*{_IMAGE_ENDING}')
  examples = []
  for path in sorted(glob.glob(pattern)):
    city = os.path.basename(os.path.dirname(path))
    name = os.path.basename(path)[: -len(_IMAGE_ENDING)]
    label, decode = _find_label(root, kind, folder, city, name)
    examples.append(Example(name, path, label, decode))
  if not examples:
    raise InputError(f'{images} has no images <city>/*{_IMAGE_ENDING}.')
  return examples


def _holds_classes(example):
  """Whether an example has a label with pixels that count."""
  if example.label_path is None:
    return False
  decode = example.decode_label or functools.partial(
    image_files.decode_ids,
    label_of_id={value: value for value in TRAIN_ID_OF_ID.values()},
  )
  return bool(np.any(decode(example.label_path) != INFO.ignore_label))


def find_examples(cityscapes_root: str, split: str) -> list[Example]:
  """Finds the files of a split.

  Args:
    cityscapes_root: folder of leftImg8bit/, gtFine/ and gtCoarse/.
    split: an official name, such as 'train_fine'.

  Returns:
    The examples in the original's order, named as there, such as
    'aachen_000000_000019'. Those of 'test_fine' have labels only if the masks
    of all of them hold classes.

  Raises:
    InputError: a folder or a mask is missing.
  """
  kind, folders = _SPLITS[split]
  examples = []
  for folder in folders:
    examples += _find_folder(cityscapes_root, kind, folder)
  if split == _TEST_SPLIT and not all(map(_holds_classes, examples)):
    examples = [
      dataclasses.replace(example, label_path=None) for example in examples
    ]
  return examples


def _available_splits(root):
  """The splits whose folders are there."""

  def is_there(kind, folder):
    images = os.path.join(root, _IMAGE_FOLDER, folder)
    labels = os.path.join(root, kind, folder)
    has_labels = os.path.isdir(labels) or folder == 'test'
    return os.path.isdir(images) and has_labels

  splits = [
    split
    for split, (kind, folders) in _SPLITS.items()
    if all(is_there(kind, folder) for folder in folders)
  ]
  if not splits:
    raise InputError(
      f'--cityscapes_root={root} has no split: expected folders such as '
      f'{_IMAGE_FOLDER}/train and {_FINE}/train in it.'
    )
  return splits


def convert(
  cityscapes_root: str, output_dir: str, splits: list[str] | None = None
) -> DatasetInfo:
  """Converts Cityscapes.

  Args:
    cityscapes_root: folder of leftImg8bit/, gtFine/ and gtCoarse/.
    output_dir: folder that the TFRecord files go into.
    splits: official names, None for all whose folders are there.

  Returns:
    The data set with the number of examples of each split.

  Raises:
    InputError: a split is unknown, or a file is missing or not acceptable.
  """
  unknown = sorted(set(splits or ()) - set(_SPLITS))
  if unknown:
    raise InputError(
      f'--splits={",".join(splits)}: {unknown} are no splits of Cityscapes. '
      f'Expected some of {list(_SPLITS)}.'
    )
  examples = {
    split: find_examples(cityscapes_root, split)
    for split in splits or _available_splits(cityscapes_root)
  }
  return build_data.convert(examples, output_dir, INFO, num_shards=_NUM_SHARDS)


def _define_flags():
  flags.DEFINE_string(
    'cityscapes_root',
    './cityscapes',
    'Folder of leftImg8bit/, gtFine/ and, for coarse splits, gtCoarse/.',
  )
  flags.DEFINE_string(
    'output_dir', './tfrecord', 'Folder that the TFRecord files go into.'
  )
  deeplab_flags.define_list(
    'splits',
    None,
    f'What to convert, some of {", ".join(_SPLITS)}; everything whose folders '
    'are there if not given.',
    convert=str,
  )


def main():
  """Converts what the flags name."""
  values = flags.FLAGS
  info = convert(values.cityscapes_root, values.output_dir, values.splits)
  print(f'{info.name}: {info.splits} in {values.output_dir}')


if __name__ == '__main__':
  _define_flags()
  deeplab_flags.run(main)

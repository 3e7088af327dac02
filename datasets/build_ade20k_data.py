r"""Converts ADE20K, with its 150 classes of scene parsing, to TFRecord files.

  python datasets/build_ade20k_data.py --ade20k_root=ADEChallengeData2016 \
    --output_dir=tfrecord

The root holds images/{training,validation}/*.jpg and
annotations/{training,validation}/*.png; a split whose folders are missing is
left out. The official flags name the folders one by one instead. Labels are
0..150; 0 is what the annotators left out, and is the ignore label.
"""

import os
import random
from collections.abc import Mapping

from absl import flags

from deeplab import flags as deeplab_flags
from deeplab.common import InputError
from deeplab.datasets import build_data, dataset_info, paired_folders
from deeplab.datasets.dataset_info import DatasetInfo

FLAGS = flags.FLAGS

INFO = dataset_info.BUILTIN['ade20k']

# {split: its folder in the official layout}.
_FOLDERS = {'train': 'training', 'val': 'validation'}
_OFFICIAL_ROOT = './ADE20K/ADEChallengeData2016'


def convert(
  folders: Mapping[str, tuple[str, str]], output_dir: str
) -> DatasetInfo:
  """Converts some splits.

  Args:
    folders: {split: (folder of the images, folder of the masks)}.
    output_dir: folder that the TFRecord files go into.

  Returns:
    The data set with the number of examples of each split.

  Raises:
    InputError: a file is missing or not acceptable.
  """
  splits = {
    split: paired_folders.find_examples(*pair)
    for split, pair in folders.items()
  }
  if 'train' in splits:
    # The files are sorted by scene, and training shuffles neighbours only. The
    # original has another order each time.
    random.Random(0).shuffle(splits['train'])
  return build_data.convert(splits, output_dir, INFO)


def _folder(flag, kind, folder):
  """The folder of a flag; unless it is given, that of --ade20k_root."""
  if FLAGS.ade20k_root is None or deeplab_flags.is_given(flag):
    return FLAGS[flag].value
  return os.path.join(FLAGS.ade20k_root, kind, folder)


def _folders_of_flags():
  """What `convert` takes: folders that are given, and others that exist."""
  folders = {}
  for split, folder in _FOLDERS.items():
    kinds = {
      f'{split}_image_folder': 'images',
      f'{split}_image_label_folder': 'annotations',
    }
    pair = tuple(_folder(flag, kind, folder) for flag, kind in kinds.items())
    is_wanted = any(map(deeplab_flags.is_given, kinds))
    if is_wanted or any(map(os.path.isdir, pair)):
      folders[split] = pair
  if not folders:
    root = FLAGS.ade20k_root or _OFFICIAL_ROOT
    raise InputError(
      f'there are no images in {root}: expected images/training, '
      'annotations/training, images/validation and annotations/validation in '
      'it. Give --ade20k_root=<folder of ADEChallengeData2016>.'
    )
  return folders


def _define_flags():
  flags.DEFINE_string(
    'ade20k_root',
    None,
    'The folder ADEChallengeData2016; the four flags of single folders win.',
  )
  for split, folder in _FOLDERS.items():
    flags.DEFINE_string(
      f'{split}_image_folder',
      f'{_OFFICIAL_ROOT}/images/{folder}',
      f'Folder of the images of the split {split}.',
    )
    flags.DEFINE_string(
      f'{split}_image_label_folder',
      f'{_OFFICIAL_ROOT}/annotations/{folder}',
      f'Folder of the masks of the split {split}.',
    )
  flags.DEFINE_string(
    'output_dir',
    './ADE20K/tfrecord',
    'Folder that the TFRecord files go into.',
  )


def main():
  """Converts what the flags name."""
  info = convert(_folders_of_flags(), FLAGS.output_dir)
  print(f'{info.name}: {info.splits} in {FLAGS.output_dir}')


if __name__ == '__main__':
  _define_flags()
  deeplab_flags.run(main)

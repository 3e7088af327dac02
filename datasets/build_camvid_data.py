r"""Converts CamVid, in the split and the layout of SegNet, to TFRecord files.

  python datasets/build_camvid_data.py --camvid_root=CamVid \
    --output_dir=tfrecord

The folder holds train.txt, train/ and trainannot/, and the same for val and
test. Masks are grey images: classes 0..10, and 11 for void, which is written
as the ignore label 255.
"""

import os

from absl import flags

from deeplab import flags as deeplab_flags
from deeplab.common import InputError
from deeplab.datasets import build_data, class_tables
from deeplab.datasets.dataset_info import DatasetInfo

_SPLITS = ('train', 'val', 'test')
_VOID = 11

INFO = DatasetInfo(
  name='camvid',
  num_classes=11,
  ignore_label=255,
  class_names=class_tables.CAMVID_NAMES,
  colors=class_tables.CAMVID_COLORS,
)


def _name_of_line(line):
  """The name in a line of SegNet's own lists: two paths; or a plain name."""
  return os.path.basename(line.split()[0])


def convert(camvid_root: str, output_dir: str) -> DatasetInfo:
  """Converts the splits that are there.

  Args:
    camvid_root: folder of train.txt, train/, trainannot/ and so on.
    output_dir: folder that the TFRecord files go into.

  Returns:
    The data set with the number of examples of each split.

  Raises:
    InputError: a file is missing or not acceptable.
  """
  splits = {}
  for split in _SPLITS:
    path = os.path.join(camvid_root, f'{split}.txt')
    if os.path.exists(path):
      splits[split] = build_data.find_examples(
        path,
        os.path.join(camvid_root, split),
        os.path.join(camvid_root, f'{split}annot'),
        parse=_name_of_line,
      )
  if not splits:
    raise InputError(
      f'--camvid_root={camvid_root} is missing or has none of train.txt, '
      'val.txt and test.txt.'
    )
  return build_data.convert(
    splits, output_dir, INFO, label_map={_VOID: INFO.ignore_label}
  )


def _define_flags():
  flags.DEFINE_string(
    'camvid_root', './CamVid', 'Folder of train.txt, train/, trainannot/, ...'
  )
  flags.DEFINE_string(
    'output_dir', './tfrecord', 'Folder that the TFRecord files go into.'
  )


def main():
  """Converts what the flags name."""
  values = flags.FLAGS
  info = convert(values.camvid_root, values.output_dir)
  print(f'{info.name}: {info.splits} in {values.output_dir}')


if __name__ == '__main__':
  _define_flags()
  deeplab_flags.run(main)

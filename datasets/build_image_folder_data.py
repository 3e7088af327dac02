r"""Converts photographs and labels of one's own to TFRecord files.

  python datasets/build_image_folder_data.py --image_folder=photos \
    --label_folder=masks --class_table=classes.csv --output_dir=mydata

Labels are masks (indices, palettes, or colours that --class_table explains),
LabelMe's JSON files, or JSON files in the formats of COCO. The images are
split at random (--val_fraction, --test_fraction), by lists (--list_folder), or
not at all (--split). Everything is checked before anything is written; what
`--dataset=mydata` needs afterwards is in the folder.
"""

import dataclasses
import os
import shlex
import threading
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags

from deeplab import common
from deeplab import flags as deeplab_flags
from deeplab.common import InputError
from deeplab.datasets import (
  build_data,
  dataset_info,
  folder_examples,
  folder_flags,
  image_folders,
)
from deeplab.datasets.dataset_info import DatasetInfo
from deeplab.datasets.folder_examples import Options

# Images in a shard, above the smallest number of shards.
_PER_SHARD = 500


def _check_old_splits(output_dir, splits):
  """Refuses a random split beside other splits, which may have its images."""
  path = os.path.join(output_dir, dataset_info.FILE_NAME)
  if not os.path.exists(path):
    return
  old = set(dataset_info.load(path).splits) - set(splits)
  old = [split for split in old if build_data.find_shards(output_dir, split)]
  if old:
    raise InputError(
      f'--output_dir={output_dir} holds the splits {sorted(old)} of an earlier '
      f'conversion, whose images may now be in {list(splits)}. Give another '
      'folder, or empty this one.'
    )


def _counting(example, pixels, lock):
  """The example; its labels are counted in `pixels` when they are decoded."""
  if not example.decode_label:
    return example

  def decode(path):
    labels = example.decode_label(path)
    counts = np.bincount(labels.ravel(), minlength=len(pixels))
    with lock:
      pixels[:] += counts
    return labels

  return dataclasses.replace(example, decode_label=decode)


def convert(
  image_folder: str,
  label_folder: str,
  output_dir: str,
  name: str | None = None,
  options: Options | None = None,
  num_shards: int | None = None,
) -> tuple[DatasetInfo, dict[str, np.ndarray], list[str]]:
  """Converts the images and labels of two folders.

  Args:
    image_folder: folder of the images; subfolders count.
    label_folder: folder of the labels, or COCO's JSON file.
    output_dir: folder that the TFRecord files go into.
    name: of the data set; that of `output_dir` if None.
    options: how to find, read and split them.
    num_shards: files of each split; None for a number that fits.

  Returns:
    The data set with the number of examples of each split;
    {split: number of pixels of each label, int64 [256]} of the splits of this
    conversion; and the names of images that are in none of them.

  Raises:
    InputError: a file is missing or not acceptable; nothing is written then.
  """
  options = options or Options()
  common.check_ranges(
    {'num_shards': num_shards}, {'num_shards': build_data.NUM_SHARDS_RANGE}
  )
  name = name or os.path.basename(os.path.abspath(output_dir))
  found = folder_examples.find(image_folder, label_folder, name, options)
  if not (options.list_folder or options.split):
    _check_old_splits(output_dir, found.splits)
  pixels = {split: np.zeros(256, np.int64) for split in found.splits}
  lock = threading.Lock()
  examples = {
    split: [_counting(example, pixels[split], lock) for example in members]
    for split, members in found.splits.items()
  }
  most = max(map(len, examples.values()))
  shards = num_shards or max(build_data.NUM_SHARDS, -(-most // _PER_SHARD))
  info = build_data.convert(examples, output_dir, found.info, num_shards=shards)
  return info, pixels, found.left_out


def summary(
  info: DatasetInfo,
  pixels: Mapping[str, np.ndarray],
  left_out: Sequence[str],
) -> str:
  """What was converted, as a table.

  Args:
    info: the data set.
    pixels: see `convert`.
    left_out: names of images that were not converted.

  Returns:
    Lines: the splits, and the share of each class in the pixels.
  """
  names = {label: name for label, name in enumerate(info.class_names)}
  if any(counts[info.ignore_label] for counts in pixels.values()):
    names.setdefault(info.ignore_label, '(ignored)')
  width = max(map(len, names.values()))
  lines = [
    f'{info.name}: {info.num_classes} classes',
    *(f'{split:>12} {count} images' for split, count in info.splits.items()),
  ]
  if left_out:
    lines.append(f'{"in no split":>12} {image_folders.listing(left_out)}')
  lines.append(
    f'label {"class":<{width}} {"colour":<11}'
    + ''.join(f' {split:>9}' for split in pixels)
  )
  for label, name in names.items():
    color = info.colors[label] if label < info.num_classes else ()
    line = f'{label:5} {name:<{width}} {" ".join(map(str, color)):<11}'
    for counts in pixels.values():
      share = counts[label] / max(counts.sum(), 1)
      line += f' {share:>9.2%}' if counts[label] else f' {"-":>9}'
    lines.append(line)
  return '\n'.join(lines)


# The script.


def _define_flags():
  folder_flags.define()
  flags.DEFINE_string(
    'output_dir', None, 'Folder that the TFRecord files go into.'
  )
  flags.DEFINE_string(
    'dataset_name',
    None,
    'Name of the data set; that of --output_dir if not given.',
  )
  flags.DEFINE_integer(
    'num_shards', None, 'Files of each split; a fitting number if not given.'
  )


def _training_command(info, output_dir):
  """The command that comes next."""
  # A folder that is called like a published data set is meant as a folder.
  folder = output_dir
  if folder in dataset_info.BUILTIN:
    folder = os.path.join(os.curdir, folder)
  words = ['python', 'train.py', f'--dataset={folder}']
  if 'train' not in info.splits:
    words.append(f'--train_split={next(iter(info.splits))}')
  return shlex.join([*words, '--train_logdir=train'])


def main():
  """Converts what the flags name."""
  values = flags.FLAGS
  result = convert(
    values.image_folder,
    values.label_folder,
    values.output_dir,
    values.dataset_name,
    folder_flags.options(),
    values.num_shards,
  )
  print(summary(*result))
  print(f'Next:\n  {_training_command(result[0], values.output_dir)}')


if __name__ == '__main__':
  _define_flags()
  deeplab_flags.require('image_folder', 'label_folder', 'output_dir')
  deeplab_flags.run(main)

"""Writes segmentation data sets as TFRecord files, in the official schema.

Every converter of this folder finds its images and masks and hands them to
`convert`, which writes `<split>-00000-of-00004.tfrecord` and so on, and
dataset_info.json beside them. Files are written under temporary names, and
renamed when everything is converted.
"""

import contextlib
import dataclasses
import functools
import glob
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm

from deeplab import common, input_files
from deeplab.common import InputError
from deeplab.datasets import (
  dataset_info,
  image_files,
  in_threads,
  records,
  shard_files,
)
from deeplab.datasets.dataset_info import DatasetInfo

# Keys of a record; see `records` for those that are read again.
_FORMAT_KEY = 'image/format'
_HEIGHT_KEY = 'image/height'
_WIDTH_KEY = 'image/width'
_CHANNELS_KEY = 'image/channels'
_LABEL_FORMAT_KEY = 'image/segmentation/class/format'

# The official number of shards of PASCAL VOC and ADE20K.
NUM_SHARDS = 4

# Their numbers in the names of files have five digits.
NUM_SHARDS_RANGE = common.Range(1, 99999, whole=True)

# Extensions of images, in the order they are looked for.
IMAGE_EXTENSIONS = ('jpg', 'jpeg', 'png', 'bmp', 'tif', 'tiff', 'webp')


@dataclasses.dataclass(frozen=True)
class Example:
  """An image and its mask, before conversion.

  Attributes:
    name: the name the record gets.
    image_path: a file as `image_files.read_image` takes it.
    label_path: a mask as `image_files.read_label` takes it, None for an image
      without labels.
    decode_label: for labels of another kind: decode_label(label_path) returns
      them as uint8 [height, width], or raises InputError. `label_map` and the
      check of the values follow as for a mask.
    apply_exif_rotation: see `image_files.read_image`; the masks of published
      data sets are drawn on the pixels as they are stored.
  """

  name: str
  image_path: str
  label_path: str | None = None
  decode_label: Callable[[str], np.ndarray] | None = None
  apply_exif_rotation: bool | None = None


def read_list(
  path: str, parse: Callable[[str], str] | None = None
) -> dict[str, int]:
  """Reads the names in a list file, one a line; blank lines do not count.

  Args:
    path: the file.
    parse: function from a line to its name, None where lines are names.

  Returns:
    {name: number of its line, from 1}, in the order of the file. Extensions
    of images are cut off.

  Raises:
    InputError: the file cannot be read, is empty, or repeats a name.
  """
  lines = input_files.read_text(path).splitlines()
  names = {}
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    name = parse(line.strip()) if parse else line.strip()
    stem, extension = os.path.splitext(name)
    if extension.lstrip('.').lower() in IMAGE_EXTENSIONS:
      name = stem
    if name in names:
      raise InputError(
        f'{path}, line {number}: {name!r} is already in line {names[name]}. '
        'Remove one of the two.'
      )
    names[name] = number
  if not names:
    raise InputError(f'{path} names no images.')
  return names


def find_lists(list_folder: str) -> dict[str, str]:
  """Finds the list files of a folder.

  Args:
    list_folder: the folder.

  Returns:
    {split: path of <split>.txt}, sorted.

  Raises:
    InputError: there are none, or a name is no printable text.
  """
  paths = sorted(glob.glob(os.path.join(glob.escape(list_folder), '*.txt')))
  if not paths:
    raise InputError(
      f'{list_folder} is missing or has no list files: expected <split>.txt '
      '(train.txt, val.txt, ...), with one image name a line.'
    )
  splits = {os.path.splitext(os.path.basename(path))[0]: path for path in paths}
  for split, path in splits.items():
    if not split.isprintable():
      raise InputError(
        f'{path!r}: files of the split would be called {split!r}, which is no '
        'plain text. Rename the list.'
      )
  return splits


def check_folder(folder: str, what: str):
  """Raises InputError unless `folder` exists.

  Args:
    folder: the folder.
    what: what it should hold, for the message.
  """
  if not os.path.isdir(folder):
    raise InputError(f'there is no folder {folder}. Expected {what} in it.')


def find_examples(
  list_path: str,
  image_folder: str,
  label_folder: str,
  image_format: str | None = None,
  parse: Callable[[str], str] | None = None,
) -> list[Example]:
  """Finds the files that a list names.

  Args:
    list_path: the list file, <split>.txt.
    image_folder: folder of <name>.jpg, .png and so on.
    label_folder: folder of <name>.png.
    image_format: extension of the images, None for whichever exists.
    parse: see `read_list`.

  Returns:
    The examples, in the order of the list. Those of the split 'test' have no
    label where there is no such file.

  Raises:
    InputError: a folder or a file is missing.
  """
  check_folder(image_folder, 'images')
  split = os.path.splitext(os.path.basename(list_path))[0]
  needs_labels = split != common.TEST_SET
  if needs_labels:
    check_folder(label_folder, 'label masks')
  extensions = [image_format] if image_format else IMAGE_EXTENSIONS
  examples = []
  for name, line in read_list(list_path, parse).items():
    images = [
      os.path.join(image_folder, f'{name}.{extension}')
      for extension in extensions
    ]
    label = os.path.join(label_folder, f'{name}.png')
    image = next(filter(os.path.isfile, images), None)
    has_label = os.path.isfile(label)
    missing = ' or '.join(images) if not image else label
    if not image or (needs_labels and not has_label):
      raise InputError(
        f'{list_path}, line {line}: there is no {missing}. Lists hold one '
        'image name a line; check the folders and the list.'
      )
    examples.append(Example(name, image, label if has_label else None))
  return examples


def _bytes_feature(value):
  return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _int_feature(value):
  return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def image_seg_to_tfexample(
  image_data: bytes,
  filename: str,
  height: int,
  width: int,
  seg_data: bytes | None,
  image_format: str = 'jpeg',
) -> tf.train.Example:
  """Makes a record.

  Args:
    image_data: the encoded image.
    filename: the image's name.
    height: its height in pixels.
    width: its width in pixels.
    seg_data: the encoded label, a PNG; None for none.
    image_format: 'jpeg' or 'png', what `image_data` is.

  Returns:
    The record.
  """
  feature = {
    records.IMAGE_KEY: _bytes_feature(image_data),
    records.NAME_KEY: _bytes_feature(filename.encode()),
    _FORMAT_KEY: _bytes_feature(image_format.encode()),
    _HEIGHT_KEY: _int_feature(height),
    _WIDTH_KEY: _int_feature(width),
    _CHANNELS_KEY: _int_feature(3),
  }
  if seg_data is not None:
    feature[records.LABEL_KEY] = _bytes_feature(seg_data)
    feature[_LABEL_FORMAT_KEY] = _bytes_feature(b'png')
  return tf.train.Example(features=tf.train.Features(feature=feature))


def make_record(
  example: Example,
  info: DatasetInfo,
  label_map: Mapping[int, int] | None = None,
) -> tf.train.Example:
  """Reads, checks and packs one image and its mask.

  Args:
    example: the files.
    info: the data set.
    label_map: see `image_files.read_label`.

  Returns:
    The record.

  Raises:
    InputError: a file is not acceptable, or the sizes differ.
  """
  for path in filter(None, (example.image_path, example.label_path)):
    input_files.check_name(path)
  image = image_files.read_image(
    example.image_path, example.apply_exif_rotation
  )
  label = None
  if example.label_path:
    if example.decode_label:
      label = image_files.encode_label(
        example.decode_label(example.label_path),
        info,
        label_map,
        example.label_path,
      )
    else:
      label = image_files.read_label(example.label_path, info, label_map)
    if (label.height, label.width) != (image.height, image.width):
      raise InputError(
        f'{example.image_path} has {image.height} x {image.width} pixels '
        f'(height x width), but its label {example.label_path} has '
        f'{label.height} x {label.width}. They must have one size.'
      )
  return image_seg_to_tfexample(
    image.data,
    example.name,
    image.height,
    image.width,
    label.data if label else None,
    image.format,
  )


def find_shards(folder: str, split: str) -> list[str]:
  """Names of the shards of a split in a folder, sorted.

  Args:
    folder: the folder.
    split: the split.
  """
  matches = map(shard_files.NAME.fullmatch, input_files.list_folder(folder))
  return sorted(
    match[0] for match in matches if match and match['split'] == split
  )


def _serialize(record):
  """The bytes of a record; the same ones every time, keys in order."""
  return record.SerializeToString(deterministic=True)


def _known_splits(output_dir, info):
  """Splits of the same data set that are already in a folder.

  Returns:
    {split: number of examples}.
  """
  path = os.path.join(output_dir, dataset_info.FILE_NAME)
  if not os.path.exists(path):
    return {}
  old = dataset_info.load(path)
  if old.replace(splits={}) != info.replace(splits={}):
    raise InputError(
      f'--output_dir={output_dir} already holds the data set {old.name!r}, '
      f'which differs from {info.name!r} in its name or classes. Give '
      'another folder, or empty this one.'
    )
  return {
    split: count
    for split, count in old.splits.items()
    if find_shards(output_dir, split)
  }


def _write_split(folder, split, examples, num_shards, make):
  """Writes the shards of one split: contiguous, equal but for the last ones.

  Returns:
    The names of the files.
  """
  per_shard = -(-len(examples) // num_shards)
  names = [
    f'{split}-{shard:05d}-of-{num_shards:05d}.tfrecord'
    for shard in range(num_shards)
  ]
  progress = tqdm.tqdm(total=len(examples), desc=split, unit='image')
  with (
    progress,
    contextlib.closing(in_threads.in_threads(make, examples)) as made,
  ):
    for name in names:
      with tf.io.TFRecordWriter(os.path.join(folder, name)) as writer:
        for record in itertools.islice(made, per_shard):
          writer.write(_serialize(record))
          progress.update()
  return names


@contextlib.contextmanager
def _temporary_folder(output_dir):
  """A folder in `output_dir` that is gone afterwards, whatever happens.

  If `output_dir` had to be made and nothing was put into it, it goes too.
  """
  is_new = not os.path.isdir(output_dir)
  os.makedirs(output_dir, exist_ok=True)
  folder = tempfile.mkdtemp(prefix='.converting-', dir=output_dir)
  try:
    yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)
    if is_new and not os.listdir(output_dir):
      os.rmdir(output_dir)


def convert(
  splits: Mapping[str, Sequence[Example]],
  output_dir: str,
  info: DatasetInfo,
  label_map: Mapping[int, int] | None = None,
  num_shards: int = NUM_SHARDS,
  make: Callable[[Any], tf.train.Example] | None = None,
) -> DatasetInfo:
  """Writes the shards of several splits, and dataset_info.json.

  Either everything is converted, or `output_dir` stays as it was. Earlier
  shards of the splits are replaced; other splits of the same data set stay.

  Args:
    splits: the examples of each split.
    output_dir: folder of the TFRecord files, made if missing.
    info: the data set; its `splits` do not matter.
    label_map: see `image_files.read_label`.
    num_shards: number of files of each split.
    make: for examples of another kind, make(example) returns the record, or
      raises InputError. Several threads call it.

  Returns:
    `info` with the numbers of examples of all splits in `output_dir`.

  Raises:
    InputError: a file is not acceptable, or `output_dir` holds another data
      set or cannot be written.
  """
  common.check_ranges(
    {'num_shards': num_shards}, {'num_shards': NUM_SHARDS_RANGE}
  )
  counts = _known_splits(output_dir, info)
  if make is None:
    make = functools.partial(make_record, info=info, label_map=label_map)
  new = []
  try:
    with _temporary_folder(output_dir) as folder:
      for split, examples in splits.items():
        new += _write_split(folder, split, examples, num_shards, make)
        counts[split] = len(examples)
      old = [
        name for split in splits for name in find_shards(output_dir, split)
      ]
      for name in new:
        os.replace(os.path.join(folder, name), os.path.join(output_dir, name))
      info = info.replace(splits=dict(sorted(counts.items())))
      info.save(output_dir)
      # Whatever stops the program, there are the old records or the new ones.
      for name in set(old) - set(new):
        os.remove(os.path.join(output_dir, name))
  except (OSError, tf.errors.OpError) as error:
    raise InputError(
      f'cannot write into --output_dir={output_dir}: {error}'
    ) from error
  return info

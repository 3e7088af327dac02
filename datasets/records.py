"""TFRecord shards: finding them, counting and checking their records.

A split is stored as `<split>-00000-of-00004.tfrecord` and so on. Each record
is a tf.train.Example with the keys of `build_data`.
"""

import collections
import dataclasses
import os
import re
import struct
from collections.abc import Iterator, Sequence

import tensorflow as tf
from google.protobuf import message

from deeplab.common import InputError
from deeplab.core.preprocess_utils import (
  check_input,
  input_error_text,
  size_text,
)

IMAGE_KEY = 'image/encoded'
NAME_KEY = 'image/filename'
LABEL_KEY = 'image/segmentation/class/encoded'

_SHARD_NAME = re.compile(
  r'(?P<split>.+)-(?P<index>\d{5})-of-(?P<total>\d{5})(\.\w+)?'
)

# What TensorFlow raises about data. The last one comes instead of the first
# where the message quotes bytes of the data that are no text.
DATA_ERRORS = (
  tf.errors.InvalidArgumentError,
  tf.errors.DataLossError,
  UnicodeDecodeError,
)

# A record is its length, the length's checksum, the data, the data's checksum.
_LENGTH = struct.Struct('<Q')
_CHECKSUM = struct.Struct('<I')
_HEADER_BYTES = _LENGTH.size + _CHECKSUM.size

# Where a PNG file keeps its bit depth and its colour type, and the colour
# types in which a pixel is one grey level (with alpha or without).
_PNG_DEPTH = 24
_PNG_COLOR_TYPE = 25
_PNG_GREY_TYPES = (0, 4)


@dataclasses.dataclass(frozen=True)
class Shard:
  """One file of records.

  Attributes:
    path: the file.
    num_records: how many records it holds.
    num_bytes: its size.
  """

  path: str
  num_records: int
  num_bytes: int


def find_shards(dataset_dir: str, split_name: str) -> list[str]:
  """Finds the files of a split.

  Args:
    dataset_dir: folder of the TFRecord files.
    split_name: name of the split.

  Returns:
    Their paths, in the order of their numbers.

  Raises:
    InputError: the folder is missing or empty, or the split has no files, or
      not all of them are there.
  """
  if not dataset_dir or not tf.io.gfile.isdir(dataset_dir):
    raise InputError(
      f'--dataset_dir={dataset_dir}: there is no such folder. Give the folder '
      'of the TFRecord files; the scripts of datasets/ write them.'
    )
  splits = collections.defaultdict(dict)
  for name in tf.io.gfile.listdir(dataset_dir):
    shard = _SHARD_NAME.fullmatch(name)
    if shard:
      key = shard['split'], int(shard['total'])
      splits[key][int(shard['index'])] = os.path.join(dataset_dir, name)
  totals = [total for split, total in splits if split == split_name]
  if not totals:
    there = sorted({split for split, _ in splits}) or 'no splits at all'
    raise InputError(
      f'--dataset_dir={dataset_dir} has no shards of the split '
      f'{split_name!r} ({split_name}-00000-of-00004.tfrecord and so on). '
      f'It has {there}.'
    )
  if len(totals) > 1:
    raise InputError(
      f'--dataset_dir={dataset_dir} has shards of the split {split_name!r} '
      f'from several conversions, of {sorted(totals)} shards. Remove those '
      'that are out of date.'
    )
  return _complete(splits[split_name, totals[0]], split_name, totals[0])


def _complete(paths, split_name, total):
  """The paths in order, if every one of `total` is there."""
  missing = sorted(set(range(total)) - set(paths))
  if missing:
    folder = os.path.dirname(next(iter(paths.values())))
    names = ', '.join(
      f'{split_name}-{index:05d}-of-{total:05d}' for index in missing
    )
    raise InputError(
      f'{folder} has only {len(paths)} of {total} shards of the split '
      f'{split_name!r}. Missing: {names}. Convert the data set again.'
    )
  return [paths[index] for index in sorted(paths)]


def _crc32c_table():
  """Remainders of all bytes for the Castagnoli polynomial."""
  table = list(range(256))
  for _ in range(8):
    table = [(v >> 1) ^ (0x82F63B78 if v & 1 else 0) for v in table]
  return table


_CRC32C_TABLE = _crc32c_table()


def _masked_crc32c(data):
  """The checksum that TFRecord files keep of some bytes."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc = _CRC32C_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
  crc ^= 0xFFFFFFFF
  return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _broken(path, index, what):
  return InputError(
    f'{path}: record {index} (counted from 0) {what}. Convert the data set '
    'again, or restore the file.'
  )


def record_offsets(path: str) -> Iterator[int]:
  """Where the records of a file begin, by their headers; no data are read.

  Args:
    path: the file.

  Yields:
    The place of each record in bytes, once its header and its length are known
    to be good.

  Raises:
    InputError: a header is not one, the file ends within a record, or it
      cannot be read.
  """
  try:
    yield from _offsets(path, tf.io.gfile.stat(path).length)
  except (OSError, tf.errors.OpError) as error:
    raise InputError(f'{path} cannot be read: {error}') from error


def _offsets(path, num_bytes):
  """What `record_offsets` yields, of a file of that many bytes."""
  # Python's own files seek ten times faster; gfile knows remote ones.
  opener = open if os.path.exists(path) else tf.io.gfile.GFile
  index = offset = 0
  with opener(path, 'rb') as file:
    while offset < num_bytes:
      file.seek(offset)
      header = file.read(_HEADER_BYTES)
      if len(header) < _HEADER_BYTES:
        raise _broken(path, index, 'is cut off')
      (checksum,) = _CHECKSUM.unpack_from(header, _LENGTH.size)
      if _masked_crc32c(header[: _LENGTH.size]) != checksum:
        raise _broken(path, index, f'has a corrupt header at byte {offset}')
      (length,) = _LENGTH.unpack_from(header)
      end = offset + _HEADER_BYTES + length + _CHECKSUM.size
      if end > num_bytes:
        raise _broken(
          path,
          index,
          f'is cut off: the file has {num_bytes} bytes, the record ends at '
          f'{end}',
        )
      yield offset
      index, offset = index + 1, end


def scan_shard(path: str) -> Shard:
  """Counts the records of a file by their headers; no data are read.

  Args:
    path: the file.

  Returns:
    The shard.

  Raises:
    InputError: see `record_offsets`.
  """
  num_records = sum(1 for _ in record_offsets(path))
  return Shard(path, num_records, tf.io.gfile.stat(path).length)


def scan(dataset_dir: str, split_name: str) -> list[Shard]:
  """Finds and counts the shards of a split, all of which may not be empty.

  Args:
    dataset_dir: folder of the TFRecord files.
    split_name: name of the split.

  Returns:
    The shards in order, empty ones among them.

  Raises:
    InputError: see `find_shards` and `scan_shard`, or there are no records.
  """
  shards = [scan_shard(path) for path in find_shards(dataset_dir, split_name)]
  if not any(shard.num_records for shard in shards):
    raise InputError(
      f'--dataset_dir={dataset_dir}: the split {split_name!r} is empty; its '
      f'{len(shards)} shards hold no records. Convert the data set again.'
    )
  return shards


def has_labels(shards: Sequence[Shard]) -> bool:
  """Whether the first record of the first shard that has one has a label.

  Args:
    shards: the shards.

  Returns:
    Whether it does.

  Raises:
    InputError: the record is corrupt.
  """
  path = next(shard.path for shard in shards if shard.num_records)
  try:
    (serialized,) = tf.data.TFRecordDataset(path).take(1)
    features = tf.train.Example.FromString(serialized.numpy()).features.feature
  except tf.errors.DataLossError as error:
    raise _broken(path, 0, 'is corrupt') from error
  except message.DecodeError as error:
    raise _broken(path, 0, 'is not a tf.train.Example') from error
  return any(features[LABEL_KEY].bytes_list.value)


def parse_example(serialized, with_label: bool):
  """Decodes one record and checks that image and label fit together.

  Args:
    serialized: string scalar, a tf.train.Example.
    with_label: whether the label is read.

  Returns:
    image: uint8 [height, width, 3].
    label: uint8 [height, width, 1], None without label.
    name: string scalar, the image's name.

  Raises:
    tf.errors.InvalidArgumentError: a check failed (the message is marked, see
      `preprocess_utils.check_input`), or nothing could be decoded.
  """
  features = tf.io.parse_single_example(
    serialized,
    {
      key: tf.io.FixedLenFeature([], tf.string, default_value='')
      for key in (IMAGE_KEY, NAME_KEY, LABEL_KEY)
    },
  )
  name = features[NAME_KEY]
  image = _decode(features[IMAGE_KEY], 3, 'image', name)
  if not with_label:
    return image, None, name
  label = _decode_label(features[LABEL_KEY], name)
  image_size = tf.shape(image)[:2]
  label_size = tf.shape(label)[:2]
  label = check_input(
    label,
    tf.reduce_all(image_size == label_size),
    lambda: [
      'image "',
      name,
      '" has ',
      *size_text(image_size),
      ' pixels (height x width), but its label has ',
      *size_text(label_size),
      '. They must have one size; correct the label and convert again.',
    ],
  )
  return image, label, name


def _byte(content, position):
  """One byte of a string scalar, as an integer; the string must reach so far.

  Substr fails beyond the end, hence the padding.
  """
  padded = tf.strings.join([content, '\0' * (position + 1)])
  return tf.io.decode_raw(tf.strings.substr(padded, position, 1), tf.uint8)[0]


def _is_png(content):
  return tf.strings.substr(content, 0, 4) == b'\x89PNG'


def _decode(content, channels, kind, name):
  """Decodes JPEG or PNG, whichever it is, to uint8."""
  is_jpeg = tf.io.is_jpeg(content)
  content = check_input(
    content,
    is_jpeg | _is_png(content),
    lambda: [
      f'the {kind} of "',
      name,
      '" is neither JPEG nor PNG, but ',
      tf.strings.length(content),
      ' bytes of something else. Convert the data set again.',
    ],
  )
  content = check_input(
    content,
    is_jpeg | (_byte(content, _PNG_DEPTH) <= 8),
    lambda: [
      f'the {kind} of "',
      name,
      '" is a PNG of 16 bits, of which 8 would be lost. Convert it to 8 bits.',
    ],
  )
  return tf.cond(
    is_jpeg,
    lambda: tf.io.decode_jpeg(content, channels),
    lambda: tf.io.decode_png(content, channels),
  )


def _decode_label(content, name):
  """Decodes a label; coloured files pass only if every pixel is grey."""
  color_type = _byte(content, _PNG_COLOR_TYPE)
  is_grey = tf.reduce_any(color_type == tf.constant(_PNG_GREY_TYPES, tf.uint8))

  def decode_color():
    label = _decode(content, 3, 'label', name)
    label = check_input(
      label,
      tf.reduce_all(label == label[..., :1]),
      lambda: [
        'the label of "',
        name,
        '" is a colour image. Labels are grey levels, one a class; palette '
        'images are turned into them by the converters of datasets/.',
      ],
    )
    return label[..., :1]

  return tf.cond(
    _is_png(content) & ~is_grey,
    decode_color,
    lambda: _decode(content, 1, 'label', name),
  )


def check_labels(label, name, num_classes: int, ignore_label: int):
  """Checks that every label is a class or `ignore_label`.

  Args:
    label: uint8 tensor of any shape.
    name: string scalar, the image's name.
    num_classes: labels are 0..num_classes-1.
    ignore_label: the label that is no class.

  Returns:
    `label`.

  Raises:
    tf.errors.InvalidArgumentError: they are not; the message is marked.
  """
  values = tf.cast(label, tf.int32)
  is_bad = (values >= num_classes) & (values != ignore_label)

  def describe():
    bad = tf.sort(tf.unique(tf.boolean_mask(values, is_bad))[0])
    return [
      'the label of "',
      name,
      '" holds ',
      tf.strings.reduce_join(tf.strings.as_string(bad), separator=', '),
      f'. Expected the classes 0..{num_classes - 1} and the ignore label '
      f'{ignore_label}. Correct the label, or num_classes in '
      'dataset_info.json.',
    ]

  return check_input(label, ~tf.reduce_any(is_bad), describe)


def find_fault(shards: Sequence[Shard], with_label: bool) -> str | None:
  """Reads all records one by one until one fails.

  Args:
    shards: the shards.
    with_label: whether labels are read.

  Returns:
    What is wrong, naming file, record and image; None if nothing is.
  """
  for shard in shards:
    index = 0
    try:
      for serialized in tf.data.TFRecordDataset(shard.path):
        fault = _fault_of(serialized, with_label)
        if fault:
          return f'{shard.path}: record {index} (counted from 0): {fault}'
        index += 1
    except tf.errors.DataLossError:
      return str(_broken(shard.path, index, 'is corrupt or cut off'))
  return None


def _fault_of(serialized, with_label):
  """Why a record cannot be decoded; None if it can."""
  try:
    parse_example(serialized, with_label)
  except DATA_ERRORS as error:
    return input_error_text(error) or _decoding_fault(serialized)
  return None


def _decoding_fault(serialized):
  """What a record is whose decoding fails without a message of ours."""
  keys = {
    NAME_KEY: tf.io.FixedLenFeature([], tf.string, default_value=''),
  }
  try:
    name = tf.io.parse_single_example(serialized, keys)[NAME_KEY]
  except DATA_ERRORS:
    return 'it is not a tf.train.Example. Convert the data set again.'
  name = name.numpy().decode(errors='replace')
  return (
    f'the image "{name}" or its label is damaged and cannot be decoded. '
    'Replace the file and convert the data set again.'
  )

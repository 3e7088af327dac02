"""Files of records: those of a split, counting their records, reading them."""

import collections
import dataclasses
import os
import re
import struct
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from deeplab import input_files
from deeplab.common import InputError

# The name of the file of a part of a split.
NAME = re.compile(r'(?P<split>.+)-(?P<index>\d{5})-of-(?P<total>\d{5})(\.\w+)?')

# A record is its length, the length's checksum, the data, the data's checksum.
_LENGTH = struct.Struct('<Q')
_CHECKSUM = struct.Struct('<I')
_HEADER_BYTES = _LENGTH.size + _CHECKSUM.size


@dataclasses.dataclass(frozen=True)
class Shard:
  """A file of records, or a part of one.

  Attributes:
    path: the file.
    num_records: how many records are read.
    num_bytes: their size.
    first: number of the first of them in the file.
  """

  path: str
  num_records: int
  num_bytes: int
  first: int = 0

  def part(self, first: int, num_records: int) -> 'Shard':
    """Some of the records.

    Args:
      first: how many are left out before them.
      num_records: how many there are.

    Returns:
      The shard; its size is an estimate.
    """
    num_bytes = self.num_bytes * num_records // self.num_records
    return Shard(self.path, num_records, num_bytes, self.first + first)


def _shards_of_splits(dataset_dir):
  """{(split, number of its shards): {number of a shard: path}}."""
  if not dataset_dir or not tf.io.gfile.isdir(dataset_dir):
    raise InputError(
      f'--dataset_dir={dataset_dir}: there is no such folder. Give the folder '
      'of the TFRecord files; the scripts of datasets/ write them.'
    )
  splits = collections.defaultdict(dict)
  for name in input_files.list_folder(dataset_dir):
    shard = NAME.fullmatch(name)
    if shard:
      key = shard['split'], int(shard['total'])
      splits[key][int(shard['index'])] = os.path.join(dataset_dir, name)
  return splits


def find_splits(dataset_dir: str) -> list[str]:
  """Names of the splits that a folder has shards of.

  Args:
    dataset_dir: the folder.

  Returns:
    The names, sorted.

  Raises:
    InputError: there is no such folder, or it has none.
  """
  splits = sorted({split for split, _ in _shards_of_splits(dataset_dir)})
  if not splits:
    raise InputError(
      f'--dataset_dir={dataset_dir} holds no shards (<split>-00000-of-00004'
      '.tfrecord and so on). Give the folder of the TFRecord files.'
    )
  return splits


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
  splits = _shards_of_splits(dataset_dir)
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
  paths = _complete(splits[split_name, totals[0]], split_name, totals[0])
  for path in paths:
    input_files.check_regular(path)
  return paths


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


def broken(path: str, index: int, what: str) -> InputError:
  """The error that a record is broken.

  Args:
    path: the file.
    index: number of the record in it.
    what: what is wrong with it.

  Returns:
    The error.
  """
  return InputError(
    f'{path}: record {index} (counted from 0) {what}. Make the records again, '
    'or restore the file.'
  )


def _offsets(path, num_bytes):
  """Yields where each record of a file of that many bytes begins."""
  # Python's own files seek ten times faster; gfile knows remote ones.
  opener = open if os.path.exists(path) else tf.io.gfile.GFile
  index = offset = 0
  with opener(path, 'rb') as file:
    while offset < num_bytes:
      file.seek(offset)
      header = file.read(_HEADER_BYTES)
      if len(header) < _HEADER_BYTES:
        raise broken(path, index, 'is cut off')
      (checksum,) = _CHECKSUM.unpack_from(header, _LENGTH.size)
      if _masked_crc32c(header[: _LENGTH.size]) != checksum:
        raise broken(path, index, f'has a corrupt header at byte {offset}')
      (length,) = _LENGTH.unpack_from(header)
      end = offset + _HEADER_BYTES + length + _CHECKSUM.size
      if end > num_bytes:
        raise broken(
          path,
          index,
          f'is cut off: the file has {num_bytes} bytes, the record ends at '
          f'{end}',
        )
      yield offset
      index, offset = index + 1, end


def scan(path: str) -> Shard:
  """Counts the records of a file by their headers; no data are read.

  Args:
    path: the file.

  Returns:
    The shard.

  Raises:
    InputError: a header is not one, the file ends within a record, or it
      cannot be read.
  """
  try:
    num_bytes = tf.io.gfile.stat(path).length
    num_records = sum(1 for _ in _offsets(path, num_bytes))
  except (OSError, tf.errors.OpError) as error:
    raise InputError(f'{path} cannot be read: {error}') from error
  return Shard(path, num_records, num_bytes)


def columns(shards: Sequence[Shard]) -> tuple[np.ndarray, ...]:
  """The arguments of `read` for several shards, as columns of a table.

  Args:
    shards: the shards.

  Returns:
    path, first, num_records: arrays with an entry for each shard.
  """
  return (
    np.array([shard.path for shard in shards]),
    np.array([shard.first for shard in shards], np.int64),
    np.array([shard.num_records for shard in shards], np.int64),
  )


def read(path, first, num_records) -> tf.data.Dataset:
  """The records of a shard, in order.

  Args:
    path: the file; this and the others may be tensors.
    first: number of the first record.
    num_records: how many are read.

  Returns:
    Pairs of string scalars: what identifies the record, the name of the file
    and the number in it (as TFDS does it: FILE__NUMBER), and the record.
  """
  file_name = tf.strings.split(path, os.sep)[-1]

  def identify(number, record):
    return tf.strings.join([file_name, tf.strings.as_string(number)], '__'), (
      record
    )

  records = tf.data.TFRecordDataset(path).skip(first).take(num_records)
  return records.enumerate(first).map(identify)


def read_all(shards: Sequence[Shard]) -> tf.data.Dataset:
  """The records of several shards, one shard after the other.

  Args:
    shards: the shards.

  Returns:
    See `read`.
  """
  return tf.data.Dataset.from_tensor_slices(columns(shards)).flat_map(read)

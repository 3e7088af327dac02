"""Damage to TFRecord files, and to records with right checksums."""

import gzip
import io
import re
import struct

import numpy as np
import tensorflow as tf
from fuzz import image_mutations
from fuzz.file_mutations import BYTE_CHANGES, in_bytes, one_bit
from fuzz.text_mutations import odd_text_for
from PIL import Image

from deeplab.datasets import records, shard_files

_KEYS = (records.IMAGE_KEY, records.LABEL_KEY, records.NAME_KEY)

_ODD_BYTES = (b'', b'\xff\xfe', b'a/b', b'a' * 5000, b'x\ny', b'.', b'0' * 255)


def _read(path):
  """The records of a whole file."""
  data, found, place = path.read_bytes(), [], 0
  while place < len(data):
    (length,) = struct.unpack_from('<Q', data, place)
    found.append(data[place + 12 : place + 12 + length])
    place += length + 16
  return found


def _write(path, serialized):
  with tf.io.TFRecordWriter(str(path)) as writer:
    for one in serialized:
      writer.write(one)


def in_record(change):
  """The mutation of a file from a change of one of its records' bytes."""

  def mutate(path, rng):
    serialized = _read(path)
    place = rng.randrange(len(serialized))
    serialized[place] = change(serialized[place], rng)
    _write(path, serialized)

  mutate.__name__ = f'record_{change.__name__}'
  return mutate


def in_example(change):
  """The same from a change of its features, {key: tf.train.Feature}."""

  def changed(serialized, rng):
    example = tf.train.Example.FromString(serialized)
    change(example.features.feature, rng)
    return example.SerializeToString(deterministic=True)

  changed.__name__ = change.__name__
  return in_record(changed)


def _set(feature, key, *values):
  """Puts texts, integers or numbers in the place of a feature."""
  kinds = {bytes: 'bytes_list', int: 'int64_list', float: 'float_list'}
  new = tf.train.Feature()
  if values:
    getattr(new, kinds[type(values[0])]).value.extend(values)
  feature[key].CopyFrom(new)


def _get(feature, key):
  return feature[key].bytes_list.value[0]


def feature_lost(feature, rng):
  del feature[rng.choice(_KEYS)]


def feature_of_another_kind(feature, rng):
  values = rng.choice([(1,), (0.5,), (1, 2), (1.0,) * 3, ()])
  _set(feature, rng.choice(_KEYS), *values)


def feature_twice(feature, rng):
  key = rng.choice(_KEYS)
  _set(feature, key, *[_get(feature, key)] * 2)


def feature_empty(feature, rng):
  _set(feature, rng.choice(_KEYS), b'')


def features_exchanged(feature, rng):
  one, other = rng.sample(_KEYS, 2)
  first, second = _get(feature, one), _get(feature, other)
  _set(feature, one, second)
  _set(feature, other, first)


def features_of_strangers(feature, rng):
  for key in ('image/height', 'image/format', 'strange', ''):
    _set(feature, key, rng.choice([-1, 1 << 62, b'\xff', 1e300]))


def odd_name(feature, rng):
  _set(
    feature, _KEYS[2], rng.choice([odd_text_for(rng), rng.choice(_ODD_BYTES)])
  )


def image_changed(feature, rng):
  data = _get(feature, records.IMAGE_KEY)
  _set(feature, records.IMAGE_KEY, image_mutations.change(data, rng))


def label_changed(feature, rng):
  data = _get(feature, records.LABEL_KEY)
  _set(feature, records.LABEL_KEY, image_mutations.change(data, rng))


def label_out_of_range(feature, rng):
  data = io.BytesIO(_get(feature, records.LABEL_KEY))
  pixels = np.array(Image.open(data))
  pixels.flat[rng.randrange(pixels.size)] = rng.choice([3, 21, 200, 254])
  with io.BytesIO() as output:
    Image.fromarray(pixels).save(output, 'PNG')
    _set(feature, records.LABEL_KEY, output.getvalue())


def label_all_ignored(feature, rng):
  data = image_mutations.one_value(_get(feature, records.LABEL_KEY), rng)
  _set(feature, records.LABEL_KEY, data)


_EXAMPLES = (
  *(feature_lost, feature_lost, feature_of_another_kind, feature_twice),
  *(feature_empty, features_exchanged, features_of_strangers, odd_name),
  *(odd_name, label_out_of_range, label_all_ignored),
  *(image_changed,) * 8,
  *(label_changed,) * 8,
)


# Files.


def length_changed(data, rng):
  """The length of the first record, which has a checksum."""
  return one_bit(data[:8], rng) + data[8:]


def length_of_good_checksum(data, rng):
  """A header that is right, of a record that is longer than the file."""
  length = struct.pack('<Q', rng.choice([0, 1 << 20, 1 << 40, (1 << 64) - 1]))
  checksum = shard_files._masked_crc32c(length)
  return length + struct.pack('<I', checksum) + data[12:]


def checksum_changed(data, rng):
  """That of the last record."""
  return data[:-4] + one_bit(data[-4:], rng)


def compressed(data, rng):
  del rng
  return gzip.compress(data)


def no_records(path, rng):
  del rng
  path.write_bytes(b'')


def records_repeated(path, rng):
  _write(path, _read(path) * rng.randint(2, 3))


def another_number(path, rng):
  """A file of another conversion, or a number too high, or too much."""
  names = ('00009-of-00002', '00001-of-00003', '99999-of-99999', '0-of-2')
  path.rename(path.with_name(f'train-{rng.choice(names)}.tfrecord'))


def beside_another(path, rng):
  name = re.sub(r'-of-\d+', f'-of-0000{rng.randint(3, 9)}', path.name)
  path.with_name(name).write_bytes(path.read_bytes())


RECORDS = (
  *map(in_example, _EXAMPLES),
  *map(in_record, BYTE_CHANGES),
  *map(
    in_bytes,
    (length_changed, length_of_good_checksum, checksum_changed, compressed),
  ),
  *(no_records, records_repeated, another_number, beside_another),
)

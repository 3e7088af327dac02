"""Images and labels to be checked, one by one, from shards or from files.

What cannot be read becomes a fault, and reading goes on behind it.
"""

import dataclasses
import functools
import hashlib
import io
import itertools
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from google.protobuf import message
from PIL import Image

from deeplab import input_files
from deeplab.common import InputError
from deeplab.core.preprocess_utils import input_error_text
from deeplab.datasets import build_data, image_files, records
from deeplab.datasets.dataset_info import DatasetInfo

# Kinds of faults.
UNREADABLE = 'unreadable'
SIZES = 'sizes'
BAD_LABEL = 'bad_label'
NO_LABEL = 'no_label'

# Names of Pillow's modes, for people.
_MODES = {
  '1': 'black and white',
  'L': 'grey',
  'P': 'palette',
  'RGBA': 'RGB with alpha',
  'LA': 'grey with alpha',
  'I;16': 'grey of 16 bits',
}

# The colour type of a PNG file without colours.
_PNG_GREY = 0

# The length of a record stands before it, in a header; a checksum behind it.
_LENGTH = struct.Struct('<Q')
_AROUND_RECORD = 16


@dataclasses.dataclass(frozen=True)
class Sample:
  """A small copy of an image and its label, to be looked at.

  Attributes:
    name: of the image, or its place if it has none.
    place: where the image is.
    image: uint8 [height, width, 3].
    label: uint8 [height, width].
    illegal: label values of the whole image that are neither a class nor
      ignored.
  """

  name: str
  place: str
  image: np.ndarray
  label: np.ndarray
  illegal: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Picture:
  """An image and its label, as far as they could be read.

  Attributes:
    where: the file, and the number of the record in it.
    name: of the image; empty if it is not known.
    kind: format and pixels of the image's file, such as 'JPEG, grey'.
    image: uint8 [height, width, 3], None if it cannot be read.
    label: uint8 [height, width], None if it cannot be read or is not there.
    counts: int64 [256], number of pixels of each label value, None without
      label.
    size: (height, width) of the image, None if it cannot be read.
    digest: equal for images of equal pixels, None without image.
    has_few_bits: whether the label's file has grey pixels of less than 8 bits,
      which decoders spread over 0..255.
    faults: pairs of a kind and a text.
    sample: a small copy, None if none is needed.
  """

  where: str
  name: str = ''
  kind: str = ''
  image: np.ndarray | None = None
  label: np.ndarray | None = None
  counts: np.ndarray | None = None
  size: tuple[int, int] | None = None
  digest: bytes | None = None
  has_few_bits: bool = False
  faults: Sequence[tuple[str, str]] = ()
  sample: Sample | None = None

  @property
  def place(self) -> str:
    """Where it is, for a message."""
    stem = os.path.splitext(os.path.basename(self.where))[0]
    is_said = not self.name or self.name == stem
    return self.where if is_said else f'{self.where} "{self.name}"'


# What a thread calls for a Picture.
Job = Callable[[], Picture]


def _with_pixels(picture, image, label):
  """The picture with its pixels and what is known of them."""
  digest = hashlib.blake2b(str(image.shape).encode(), digest_size=16)
  digest.update(np.ascontiguousarray(image))
  return dataclasses.replace(
    picture,
    image=image,
    size=image.shape[:2],
    digest=digest.digest(),
    label=label,
    counts=None if label is None else np.bincount(label.ravel(), minlength=256),
  )


def _header(source):
  """Kind and (height, width) of an image, without decoding it.

  Args:
    source: the file: its path, or its bytes.

  Returns:
    The kind, 'unknown' where it is not an image; the size, then None.
  """
  try:
    if isinstance(source, bytes):
      source = io.BytesIO(source)
    else:
      input_files.check_regular(source)
    with Image.open(source) as image:
      mode = _MODES.get(image.mode, image.mode)
      return f'{image.format}, {mode}', (image.height, image.width)
  except Exception:  # Whoever decodes it says what is wrong.
    return 'unknown', None


# From shards.


@dataclasses.dataclass(frozen=True)
class Part:
  """Records of a file, which may be broken.

  Attributes:
    path: the file.
    first: number of the first record.
    num_records: how many there are, None for all from there on.
  """

  path: str
  first: int = 0
  num_records: int | None = None


def shard_jobs(
  parts: Sequence[Part], record_format: records.RecordFormat = records.OFFICIAL
) -> Iterator[Job]:
  """Jobs for all records of some files.

  Args:
    parts: the files.
    record_format: what the records are.

  Yields:
    A job for each record, also for those that are corrupt.
  """
  # As a graph, which threads run side by side.
  parse = tf.function(
    functools.partial(records.parse_example, record_format=record_format)
  )
  decode = functools.partial(_decode_record, record_format, parse)
  for part in parts:
    path, index = part.path, part.first
    end = None if part.num_records is None else index + part.num_records
    try:
      for serialized in itertools.islice(_read_shard(path), index, end):
        where = f'{path}: record {index}'
        index += 1
        yield functools.partial(decode, where, serialized)
    except (OSError, tf.errors.OpError) as error:
      reason = str(error).partition('\n')[0]
      where = f'{path}: record {index} and all behind it'
      yield functools.partial(_unreadable, where, f'{reason}.')


def _read_shard(path):
  """Yields the bytes of each record, None for one that is corrupt.

  Raises:
    tf.errors.OpError, OSError: what is behind the last record is none.
  """
  offset = 0
  try:
    for serialized in tf.data.TFRecordDataset(path):
      serialized = serialized.numpy()
      offset += _AROUND_RECORD + len(serialized)
      yield serialized
  except tf.errors.DataLossError:
    # TensorFlow goes no further in this file.
    yield from _read_one_by_one(path, offset)


def _read_one_by_one(path, offset):
  """What `_read_shard` yields from a place on, each from a file of its own."""
  size = tf.io.gfile.stat(path).length
  with (
    tempfile.TemporaryDirectory() as folder,
    tf.io.gfile.GFile(path, 'rb') as file,
  ):
    copy = os.path.join(folder, 'record')
    while offset < size:
      file.seek(offset)
      header = file.read(_LENGTH.size).ljust(_LENGTH.size, b'\0')
      (length,) = _LENGTH.unpack(header)
      end = offset + _AROUND_RECORD + length
      if not length or end > size:
        raise OSError(
          f'the file has {size} bytes, and at {offset} there is no whole '
          'record: it is cut off, or its header is corrupt'
        )
      with open(copy, 'wb') as single:
        single.write(header + file.read(end - offset - len(header)))
      yield _only_record(copy)
      offset = end


def _only_record(path):
  """The record of a file of one, None if it is corrupt."""
  try:
    (serialized,) = tf.data.TFRecordDataset(path)
  except tf.errors.DataLossError:
    return None
  return serialized.numpy()


def _unreadable(where, text):
  return _faulty(Picture(where), UNREADABLE, text)


def _decode_record(record_format, parse, where, serialized):
  """The Picture of a record; `serialized` is None for one that is corrupt."""
  if serialized is None:
    return _unreadable(where, 'its checksum does not fit its data.')
  try:
    features = tf.train.Example.FromString(serialized).features.feature
  except message.DecodeError:
    return _unreadable(where, 'it is not a tf.train.Example.')
  name, image, label = (
    b''.join(features[key or ''].bytes_list.value[:1])
    for key in (
      record_format.name_key,
      record_format.image_key,
      record_format.label_key,
    )
  )
  kind, size = _header(image)
  picture = Picture(
    where,
    name.decode(errors='replace'),
    kind,
    has_few_bits=_has_few_bits(label) and record_format.label_map is None,
  )
  label_size = _header(label)[1]
  try:
    image, label, _ = parse(tf.constant(serialized), bool(label))
  except records.DATA_ERRORS as error:
    differs = size and label_size and size != label_size
    text = input_error_text(error) or (
      'the image or its label is damaged and cannot be decoded.'
    )
    return _faulty(picture, SIZES if differs else UNREADABLE, text)
  if label is None:
    picture = _faulty(picture, NO_LABEL, 'has no label.')
  else:
    label = label.numpy()[..., 0]
  return _with_pixels(picture, image.numpy(), label)


def _has_few_bits(label):
  return (
    len(label) > records.PNG_COLOR_TYPE
    and label[records.PNG_COLOR_TYPE] == _PNG_GREY
    and label[records.PNG_DEPTH] < 8
  )


def _faulty(picture, kind, text):
  return dataclasses.replace(picture, faults=(*picture.faults, (kind, text)))


# From files.


def file_jobs(
  examples: Sequence[build_data.Example], info: DatasetInfo
) -> Iterator[Job]:
  """Jobs for images and masks that are not converted yet.

  Args:
    examples: the files.
    info: the data set, for the colours of coloured masks.

  Yields:
    A job for each example.
  """
  for example in examples:
    yield functools.partial(_decode_files, example, info)


def _decode_files(example, info):
  """The Picture of an image's and a mask's file."""
  # A name that is no text can be neither printed nor written.
  where = os.fsencode(example.image_path).decode(errors='replace')
  picture = Picture(where, example.name)
  image = label = None
  try:
    input_files.check_name(example.image_path)
    kind, _ = _header(example.image_path)
    picture = dataclasses.replace(picture, kind=kind)
    encoded = image_files.read_image(
      example.image_path, example.apply_exif_rotation
    )
    with Image.open(io.BytesIO(encoded.data)) as opened:
      image = np.asarray(opened.convert('RGB'))
  except InputError as error:
    picture = _faulty(picture, UNREADABLE, _without(error, example.image_path))
  if example.label_path is None:
    picture = _faulty(picture, NO_LABEL, 'has no label.')
  else:
    try:
      label = _decode_mask(example, info)
    except InputError as error:
      # Whoever decodes a label may want the size of the image.
      if image is not None or not str(error).startswith(example.image_path):
        picture = _faulty(picture, BAD_LABEL, str(error))
  if image is None:
    return picture
  if label is not None and label.shape != image.shape[:2]:
    text = (
      f'has {image.shape[0]} x {image.shape[1]} pixels (height x width), but '
      f'its label {example.label_path} has {label.shape[0]} x '
      f'{label.shape[1]}. They must have one size.'
    )
    return _faulty(picture, SIZES, text)
  return _with_pixels(picture, image, label)


def _decode_mask(example, info):
  if example.decode_label:
    return example.decode_label(example.label_path)
  return image_files.decode_label(example.label_path, info)


def _without(error, path):
  """What an error says of a file, without its name."""
  return str(error).removeprefix(f'{path} ')

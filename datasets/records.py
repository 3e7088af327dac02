"""The records of a split: finding, decoding and checking them.

A split is stored as `<split>-00000-of-00004.tfrecord` and so on. Each record
is a tf.train.Example with the keys of `build_data`. Those of other code may
have other keys and labels: see `RecordFormat`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from google.protobuf import message

from deeplab.common import TEST_SET, InputError
from deeplab.core.preprocess_utils import (
  check_input,
  input_error_text,
  size_text,
)
from deeplab.datasets import shard_files
from deeplab.datasets.shard_files import Shard as Shard

IMAGE_KEY = 'image/encoded'
NAME_KEY = 'image/filename'
LABEL_KEY = 'image/segmentation/class/encoded'

# What TensorFlow raises about data. The last one comes instead of the first
# where the message quotes bytes of the data that are no text.
DATA_ERRORS = (
  tf.errors.InvalidArgumentError,
  tf.errors.DataLossError,
  UnicodeDecodeError,
)

# Where a PNG file keeps its bit depth and its colour type, and the colour
# types in which a pixel is one grey level (with alpha or without).
PNG_DEPTH = 24
PNG_COLOR_TYPE = 25
_PNG_GREY_TYPES = (0, 4)


@dataclasses.dataclass(frozen=True)
class RecordFormat:
  """Where a record keeps what, and what its labels mean.

  Attributes:
    image_key: key of the encoded image.
    label_key: key of the encoded label.
    name_key: key of the image's name, None if it has none.
    label_map: {label in the record: label} with every label that may occur;
      None for labels that are what they mean.
    classes_in: where the number of classes comes from, for messages.
  """

  image_key: str = IMAGE_KEY
  label_key: str = LABEL_KEY
  name_key: str | None = NAME_KEY
  # A graph is traced for each format, which it has to be hashable for.
  label_map: Mapping[int, int] | None = dataclasses.field(
    default=None, hash=False
  )
  classes_in: str = 'num_classes in dataset_info.json'


OFFICIAL = RecordFormat()


@dataclasses.dataclass(frozen=True)
class Split:
  """Where the examples of a split are.

  Attributes:
    shards: the files in order, empty ones among them.
    folder: the folder of the files.
    record_format: what the records are.
    has_labels: whether they have labels, all of them.
  """

  shards: Sequence[Shard]
  folder: str
  record_format: RecordFormat
  has_labels: bool


def scan(dataset_dir: str, split_name: str) -> list[Shard]:
  """Finds and counts the shards of a split, all of which may not be empty.

  Args:
    dataset_dir: folder of the TFRecord files.
    split_name: name of the split.

  Returns:
    The shards in order, empty ones among them.

  Raises:
    InputError: see `find_shards` and `scan` of `shard_files`, or there are no
      records.
  """
  shards = [
    shard_files.scan(path)
    for path in shard_files.find_shards(dataset_dir, split_name)
  ]
  if not any(shard.num_records for shard in shards):
    raise InputError(
      f'--dataset_dir={dataset_dir}: the split {split_name!r} is empty; its '
      f'{len(shards)} shards hold no records. Convert the data set again.'
    )
  return shards


def has_labels(
  shards: Sequence[Shard], record_format: RecordFormat = OFFICIAL
) -> bool:
  """Whether all records have a label.

  Args:
    shards: the shards.
    record_format: what the records are.

  Returns:
    Whether they do; reading ends at the first that does not.

  Raises:
    InputError: a record is corrupt.
  """
  for shard in shards:
    index = shard.first
    try:
      for _, serialized in shard_files.read_all([shard]):
        record = tf.train.Example.FromString(serialized.numpy())
        label = record.features.feature[record_format.label_key]
        if not any(label.bytes_list.value):
          return False
        index += 1
    except tf.errors.DataLossError as error:
      raise shard_files.broken(shard.path, index, 'is corrupt') from error
    except message.DecodeError as error:
      what = 'is not a tf.train.Example'
      raise shard_files.broken(shard.path, index, what) from error
  return True


def find_split(dataset_dir: str, split_name: str) -> Split:
  """Finds a split that a converter has written.

  Converters let images of the split 'test' go without label, so that every
  record of it is looked at; of other splits, which may be large, only the
  first one.

  Args:
    dataset_dir: folder of the TFRecord files.
    split_name: name of the split.

  Returns:
    The split.

  Raises:
    InputError: see `scan` and `has_labels`.
  """
  shards = scan(dataset_dir, split_name)
  looked_at = shards if split_name == TEST_SET else [first_record(shards)]
  return Split(shards, dataset_dir, OFFICIAL, has_labels(looked_at))


def first_record(shards: Sequence[Shard]) -> Shard:
  """The part of a shard that is the first record of all.

  Args:
    shards: the shards, not all of them empty.

  Returns:
    A shard of one record.
  """
  return next(shard for shard in shards if shard.num_records).part(0, 1)


def parse_example(
  serialized,
  with_label: bool,
  record_format: RecordFormat = OFFICIAL,
  record_id='',
):
  """Decodes one record and checks that image and label fit together.

  Args:
    serialized: string scalar, a tf.train.Example.
    with_label: whether the label is read.
    record_format: where it keeps what.
    record_id: string scalar, the name of an image without one.

  Returns:
    image: uint8 [height, width, 3].
    label: uint8 [height, width, 1], None without label.
    name: string scalar, the image's name.

  Raises:
    tf.errors.InvalidArgumentError: a check failed (the message is marked, see
      `preprocess_utils.check_input`), or nothing could be decoded.
  """
  keys = [record_format.image_key, record_format.label_key]
  features = tf.io.parse_single_example(
    serialized, {key: _optional_text() for key in keys}
  )
  name = _parse_name(serialized, record_format, record_id)
  image = _decode(features[record_format.image_key], 3, 'image', name)
  if not with_label:
    return image, None, name
  label = check_input(
    features[record_format.label_key],
    features[record_format.label_key] != '',
    lambda: ['the label of "', name, '" is missing. Make the records again.'],
  )
  label = _decode_label(label, name)
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
      '. They must have one size; correct the label and make the records '
      'again.',
    ],
  )
  if record_format.label_map is not None:
    label = _map_labels(label, name, record_format.label_map)
  return image, label, name


def _optional_text():
  return tf.io.FixedLenFeature([], tf.string, default_value='')


def _parse_name(serialized, record_format, record_id):
  """The name in a record, `record_id` where it has none."""
  key = record_format.name_key
  if key is None:
    return tf.convert_to_tensor(record_id)
  name = tf.io.parse_single_example(serialized, {key: _optional_text()})[key]
  return tf.where(name == '', record_id, name)


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
      ' bytes of something else. Make the records again from such files.',
    ],
  )
  content = check_input(
    content,
    is_jpeg | (_byte(content, PNG_DEPTH) <= 8),
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
  color_type = _byte(content, PNG_COLOR_TYPE)
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


def _refuse_labels(label, is_bad, name, expected):
  """`label`, unless `is_bad` is true of a pixel: the labels there are named."""

  def describe():
    bad = tf.sort(
      tf.unique(tf.boolean_mask(tf.cast(label, tf.int32), is_bad))[0]
    )
    texts = tf.strings.as_string(bad)
    return [
      'the label of "',
      name,
      '" holds ',
      tf.strings.reduce_join(texts, separator=', '),
      f'. Expected {expected}',
    ]

  return check_input(label, ~tf.reduce_any(is_bad), describe)


def _map_labels(label, name, label_map):
  """The labels that those of a record stand for; others are refused."""
  table = np.zeros(256, np.uint8)
  table[list(label_map)] = list(label_map.values())
  is_known = np.isin(np.arange(256), list(label_map))
  label = _refuse_labels(
    label,
    ~tf.gather(is_known, tf.cast(label, tf.int32)),
    name,
    f'one of {sorted(label_map)}. Correct the label and make the records '
    'again.',
  )
  return tf.gather(table, tf.cast(label, tf.int32))


def check_labels(
  label,
  name,
  num_classes: int,
  ignore_label: int,
  classes_in: str = OFFICIAL.classes_in,
):
  """Checks that every label is a class or `ignore_label`.

  Args:
    label: uint8 tensor of any shape.
    name: string scalar, the image's name.
    num_classes: labels are 0..num_classes-1.
    ignore_label: the label that is no class.
    classes_in: see `RecordFormat`.

  Returns:
    `label`.

  Raises:
    tf.errors.InvalidArgumentError: they are not; the message is marked.
  """
  values = tf.cast(label, tf.int32)
  return _refuse_labels(
    label,
    (values >= num_classes) & (values != ignore_label),
    name,
    f'the classes 0..{num_classes - 1} and the ignore label {ignore_label}. '
    f'Correct the label, or {classes_in}.',
  )


def find_fault(
  shards: Sequence[Shard],
  with_label: bool,
  record_format: RecordFormat = OFFICIAL,
) -> str | None:
  """Reads all records one by one until one fails.

  Args:
    shards: the shards.
    with_label: whether labels are read.
    record_format: what the records are.

  Returns:
    What is wrong, naming file, record and image; None if nothing is.
  """
  for shard in shards:
    index = shard.first
    try:
      for record_id, serialized in shard_files.read_all([shard]):
        fault = None
        try:
          parse_example(serialized, with_label, record_format, record_id)
        except DATA_ERRORS as error:
          fault = fault_text(error, serialized, record_format, record_id)
        if fault:
          return f'{shard.path}: record {index} (counted from 0): {fault}'
        index += 1
    except tf.errors.DataLossError:
      what = 'is corrupt or cut off'
      return str(shard_files.broken(shard.path, index, what))
  return None


def fault_text(
  error, serialized, record_format: RecordFormat = OFFICIAL, record_id=''
) -> str:
  """Why a record could not be decoded.

  Args:
    error: one of DATA_ERRORS, which `parse_example` raised.
    serialized: the record, and as for `parse_example` the following.
    record_format: where it keeps what.
    record_id: the name of an image without one.

  Returns:
    The text.
  """
  text = input_error_text(error)
  if text is not None:
    return text
  try:
    name = _parse_name(serialized, record_format, record_id)
  except DATA_ERRORS:
    return 'it is not a tf.train.Example. Make the records again.'
  name = name.numpy().decode(errors='replace')
  return (
    f'the image "{name}" or its label is damaged and cannot be decoded. '
    'Replace the file and make the records again.'
  )

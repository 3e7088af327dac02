"""Data sets of TensorFlow Datasets (TFDS), as they lie on disk.

`tfds:oxford_iiit_pet` names one, wherever a data set is asked for. What TFDS
has prepared are TFRecord files; they are read as our own are, and only the
keys and the meaning of the labels differ. Nothing is downloaded here.
"""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from deeplab.common import InputError
from deeplab.datasets import class_tables, dataset_info, records, shard_files
from deeplab.datasets.dataset_info import DatasetInfo

PREFIX = 'tfds:'

_FORM = (
  'tfds:NAME[/CONFIG][:VERSION][,image=FEATURE][,label=FEATURE][,num_classes=N]'
)
_NAME = re.compile(r'\w+(/[\w.+-]+)?(:[\d.*]+)?')
_OPTIONS = ('image', 'label', 'num_classes')

# Features that name an image, the first of them that is there.
_NAME_FEATURES = ('file_name', 'filename', 'image/filename', 'image_id', 'id')

# In names of features that are masks, although they have three channels.
_MASK_WORDS = re.compile('mask|label|segm|annotation')


@dataclasses.dataclass(frozen=True)
class _Known:
  """What TFDS does not tell about a data set.

  Attributes:
    info: the classes.
    image: feature of the image.
    label: feature of the mask.
    label_map: {value of the mask: label}.
    unlabelled: splits whose masks hold nothing.
  """

  info: DatasetInfo
  image: str
  label: str
  label_map: Mapping[int, int]
  unlabelled: Sequence[str] = ()


_KNOWN = {
  'oxford_iiit_pet': _Known(
    info=DatasetInfo(
      name='oxford_iiit_pet',
      num_classes=3,
      class_names=['pet', 'background', 'outline'],
      colors=[[128, 0, 0], [0, 0, 0], [224, 224, 192]],
    ),
    image='image',
    label='segmentation_mask',
    label_map={1: 0, 2: 1, 3: 2},
  ),
  'cityscapes': _Known(
    info=dataset_info.BUILTIN['cityscapes'],
    image='image_left',
    label='segmentation_label',
    label_map=class_tables.TRAIN_ID_OF_ID,
    unlabelled=('test',),
  ),
}

# Names that promise what they do not hold.
_UNFIT = {
  'voc': 'it holds boxes and no masks. Convert PASCAL VOC with '
  'datasets/build_voc2012_data.py',
  'scene_parse150': 'its masks are those of instances, not of the 150 classes. '
  'Convert ADE20K with datasets/build_ade20k_data.py',
}


@dataclasses.dataclass(frozen=True)
class _Request:
  """A name of a data set, taken apart."""

  text: str
  name: str
  image: str | None = None
  label: str | None = None
  num_classes: int | None = None

  def error(self, message):
    return InputError(f'--dataset={self.text}: {message}')


def is_name(dataset_name: str | None) -> bool:
  """Whether a name of a data set means one of TFDS."""
  return dataset_name is not None and dataset_name.startswith(PREFIX)


def builder_name(dataset_name: str) -> str:
  """What TFDS calls a data set.

  Args:
    dataset_name: 'tfds:' and so on.

  Returns:
    Such as 'cityscapes/semantic_segmentation:1.0.0'.

  Raises:
    InputError: the name is not of the form, or that of data without masks.
  """
  return _parse(dataset_name).name


def _parse(text):
  """The _Request of a name."""
  prefix, name = text[: len(PREFIX)], text[len(PREFIX) :]
  name, *options = name.split(',')
  values = dict(option.partition('=')[::2] for option in options)
  count = values.get('num_classes', '1')
  if (
    prefix != PREFIX
    or not _NAME.fullmatch(name)
    or len(values) < len(options)
    or not set(values) <= set(_OPTIONS)
    or not all(values.values())
    or not (count.isdecimal() and 1 <= int(count) <= 256)
  ):
    raise InputError(
      f'--dataset={text} is not of the form {_FORM}, with 1 to 256 classes.'
    )
  if 'num_classes' in values:
    values['num_classes'] = int(count)
  request = _Request(text, name, **values)
  reason = _UNFIT.get(re.split('[/:]', name)[0])
  if reason:
    raise request.error(f'{reason}.')
  return request


def _open_builder(request, data_dir):
  """What TFDS knows of a data set that it has prepared."""
  # It takes a while to import.
  from tensorflow_datasets.core import read_only_builder, registered

  try:
    # Not by its code, which would look for the newest version in the network.
    return read_only_builder.builder_from_files(
      request.name, data_dir=data_dir and os.path.expanduser(data_dir)
    )
  except registered.DatasetNotFoundError as error:
    raise request.error(_not_there(request, data_dir)) from error
  # Its files are read by code of many kinds.
  except Exception as error:
    reason = str(error).strip().partition('\n')[0]
    raise request.error(
      f'TFDS cannot read it: {type(error).__name__}: {reason}. Prepare it '
      'again.'
    ) from error


def _not_there(request, data_dir):
  """The message that a data set is not prepared."""
  from tensorflow_datasets.core.utils import file_utils

  folders = [os.fspath(f) for f in file_utils.list_data_dirs(data_dir)]
  base = re.split('[/:]', request.name)[0]
  there = []
  for folder in folders:
    for pattern in ('*/*', '*/*/*'):
      files = tf.io.gfile.glob(os.path.join(folder, pattern, 'features.json'))
      there += [os.path.relpath(os.path.dirname(f), folder) for f in files]
  own = [path for path in there if path.split(os.sep)[0] == base]
  option = f' --data_dir={data_dir}' if data_dir else ''
  return (
    f'TFDS has not prepared it in {" or ".join(folders)} (--dataset_dir). '
    f'Prepared are {sorted(own or there) or "no data sets"}. Prepare it with '
    f'`tfds build {request.name}{option}`, or by '
    f'`python datasets/build_tfds_data.py --dataset={PREFIX}{request.name} '
    '--download`.'
  )


def _flat_features(features, prefix=''):
  """{path of a feature: feature}; paths are keys of the records as well."""
  import tensorflow_datasets as tfds

  if not isinstance(features, tfds.features.FeaturesDict):
    return {}
  flat = {}
  for name, feature in sorted(features.items()):
    if isinstance(feature, tfds.features.FeaturesDict):
      flat |= _flat_features(feature, f'{prefix}{name}/')
    else:
      flat[prefix + name] = feature
  return flat


def _image_features(features):
  """Those of `_flat_features` that are images of 8 bits, gray or RGB."""
  import tensorflow_datasets as tfds

  return {
    path: feature
    for path, feature in features.items()
    if isinstance(feature, tfds.features.Image)
    and feature.np_dtype == np.uint8
    and feature.shape[-1] in (1, 3)
  }


def _is_mask(path, feature):
  """Whether a feature looks like a mask rather than like a photograph."""
  return feature.shape[-1] == 1 or bool(_MASK_WORDS.search(path))


def _choose(request, kind, features, candidates):
  """The name of the feature that is the image or the label."""
  images = _image_features(features)
  wanted = getattr(request, kind)
  if wanted in images:
    return wanted
  if wanted is None and len(candidates) == 1:
    return candidates[0]
  what = f'there is no {kind} {wanted!r}'
  if wanted is None:
    what = f'{candidates or "none"} of its features may be the {kind}'
  kinds = {path: type(feature).__name__ for path, feature in features.items()}
  raise request.error(
    f'{what}. Of its features {kinds}, images of 8 bits are {sorted(images)}. '
    f'Say which one it is: --dataset={PREFIX}{request.name},{kind}=FEATURE.'
  )


class Data:
  """A data set that TFDS has prepared.

  Attributes:
    info: the dataset_info.DatasetInfo.
    record_format: what its records are.
  """

  def __init__(self, dataset_name: str, data_dir: str | None = None):
    """Finds it and chooses its features.

    Args:
      dataset_name: 'tfds:' and so on.
      data_dir: folder of the data sets of TFDS, None for its own default.

    Raises:
      InputError: there is no such data set, it has no image and mask, or the
        number of classes is not known.
    """
    self._request = request = _parse(dataset_name)
    self._builder = _open_builder(request, data_dir)
    self._features = _flat_features(self._builder.info.features)
    known = _KNOWN.get(self._builder.name)
    if known and request.image is None and known.image in self._features:
      request = dataclasses.replace(request, image=known.image)
    if known and request.label is None and known.label in self._features:
      request = dataclasses.replace(request, label=known.label)
    images = _image_features(self._features)
    masks = [path for path in images if _is_mask(path, images[path])]
    photographs = [path for path in images if path not in masks]
    label = _choose(request, 'label', self._features, masks)
    # What is known are the classes of one mask.
    self._known = known if known and known.label == label else None
    self.record_format = records.RecordFormat(
      image_key=_choose(request, 'image', self._features, photographs),
      label_key=label,
      name_key=self._name_feature(),
      label_map=self._known and self._known.label_map,
      classes_in=f'num_classes in --dataset={dataset_name}',
    )
    self.info = self._describe(images[label])

  def _name_feature(self):
    import tensorflow_datasets as tfds

    return next(
      (
        name
        for name in _NAME_FEATURES
        if isinstance(self._features.get(name), tfds.features.Text)
      ),
      None,
    )

  def _describe(self, mask):
    """The DatasetInfo, by the feature of the mask."""
    request = self._request
    splits = self._builder.info.splits
    counts = {name: split.num_examples for name, split in splits.items()}
    # Of a tfds.features.LabeledImage, which need not know it either.
    number = getattr(mask, 'num_classes', None)
    names = () if number is None else mask.names
    info = self._known and self._known.info
    if info:
      number = info.num_classes
    if number is None and request.num_classes is None:
      raise request.error(
        'TFDS does not say how many classes the mask '
        f'{self.record_format.label_key!r} has. Say it: --dataset='
        f'{request.text},num_classes=N, for masks of 0..N-1 and 255 for pixels '
        'that do not count.'
      )
    if request.num_classes not in (None, number) and number is not None:
      raise request.error(
        f'num_classes={request.num_classes}, but it has {number}. Leave '
        'num_classes out.'
      )
    return (
      info.replace(splits=counts)
      if info
      else DatasetInfo(
        name=self._builder.name,
        num_classes=number or request.num_classes,
        class_names=names,
        splits=counts,
      )
    )

  @property
  def is_tfrecord(self) -> bool:
    """Whether it lies in TFRecord files; TFDS has other formats too."""
    return self._builder.info.file_format.value == 'tfrecord'

  def _instructions(self, split_name):
    """What TFDS would read of which file."""
    from tensorflow_datasets.core.splits import ReadInstruction

    splits = self._builder.info.splits
    try:
      parts = ReadInstruction.from_spec(split_name).to_absolute(dict(splits))
      instructions = splits[split_name].file_instructions
    except (ValueError, KeyError, AssertionError) as error:
      reason = str(error).strip().splitlines()[-1].rstrip('.')
      raise self._request.error(
        f'it has no split {split_name!r}: {reason}. It has {sorted(splits)}, '
        "and parts and sums of them, such as 'train[:90%]' and 'train+test'."
      ) from error
    # TFDS takes a part that ends one before it begins for all that follows.
    is_empty = any(
      None not in (p.to, p.from_) and p.to <= p.from_ for p in parts
    )
    if is_empty or not instructions:
      raise self._request.error(f'the split {split_name!r} is empty.')
    return instructions

  def split(self, split_name: str) -> records.Split:
    """Finds the records of a split.

    Args:
      split_name: name of a split, or what TFDS has for its parts, such as
        'train[:90%]'.

    Returns:
      The split.

    Raises:
      InputError: there is no such split, it is empty, its files are not those
        that TFDS wrote, or they are no TFRecord files.
    """
    if not self.is_tfrecord:
      raise self._request.error(
        f'its files are of the format {self._builder.info.file_format.value}, '
        'which cannot be read in any order and from any place on. Convert it '
        'with datasets/build_tfds_data.py, or prepare it as tfrecord.'
      )
    shards = [_shard(item) for item in self._instructions(split_name)]
    return records.Split(
      shards,
      os.fspath(self._builder.data_dir),
      self.record_format,
      self.has_masks(split_name)
      and records.has_labels(
        [records.first_record(shards)], self.record_format
      ),
    )

  def has_masks(self, split_name: str) -> bool:
    """Whether the masks of a split hold anything."""
    names = re.findall(r'[\w-]+(?=\[|\s*\+|$)', split_name)
    unlabelled = self._known.unlabelled if self._known else ()
    return not set(names) & set(unlabelled)

  def read(self, split_name: str) -> tuple[int, tf.data.Dataset]:
    """The records of a split, in order, whatever the format of the files.

    Args:
      split_name: as for `split`.

    Returns:
      Their number, and the records as of `shard_files.read`.

    Raises:
      InputError: see `split`.
    """
    if self.is_tfrecord:
      shards = self.split(split_name).shards
      count = sum(shard.num_records for shard in shards)
      return count, shard_files.read_all(shards)
    from tensorflow_datasets.core import decode

    self._instructions(split_name)
    source = self._builder.as_data_source(
      split_name, deserialize_method=decode.DeserializeMethod.RAW_BYTES
    )
    text = tf.TensorSpec([], tf.string)
    return len(source), tf.data.Dataset.from_generator(
      lambda: ((f'{split_name}__{i}', source[i]) for i in range(len(source))),
      output_signature=(text, text),
    )


def _shard(instruction):
  """The Shard of a part of a file, which must be as TFDS wrote it."""
  shard = shard_files.scan(instruction.filename)
  if shard.num_records != instruction.examples_in_shard:
    raise InputError(
      f'{shard.path} has {shard.num_records} records, but TFDS wrote '
      f'{instruction.examples_in_shard}. Prepare the data set again.'
    )
  return shard.part(instruction.skip, instruction.take)


def open_data(dataset_name: str, data_dir: str | None = None) -> Data:
  """Opens a data set: see `Data`."""
  return Data(dataset_name, data_dir)

r"""Converts a data set of TensorFlow Datasets (TFDS) to TFRecord files.

  python datasets/build_tfds_data.py --dataset=tfds:oxford_iiit_pet \
    --splits='train=train[:90%],val=train[90%:]' --output_dir=tfrecord

train.py, eval.py and vis.py read what TFDS has prepared as it is, with
--dataset=tfds:NAME. Conversion is for files of other formats than tfrecord,
for another number of shards, and for whoever wants to edit names and colours
of the classes in dataset_info.json. Images keep their bytes.

--download has TFDS download and prepare the data set first, where it has not
done so yet.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence

import tensorflow as tf
from absl import flags

from deeplab import common
from deeplab import flags as deeplab_flags
from deeplab.common import InputError
from deeplab.datasets import build_data, records, tfds_data
from deeplab.datasets.dataset_info import DatasetInfo

_SPLIT = re.compile(r'(?P<name>[\w-]+)(=(?P<part>.+))?')

_PNG = b'\x89PNG'


class _Examples:
  """The records of a split, each with what identifies it."""

  def __init__(self, data: tfds_data.Data, part: str):
    self.has_labels = data.has_masks(part)
    self._part = part
    self._count, self._dataset = data.read(part)

  def __len__(self):
    return self._count

  def __iter__(self) -> Iterator[tuple['_Examples', str, bytes]]:
    try:
      for record_id, serialized in self._dataset:
        yield self, record_id.numpy().decode(), serialized.numpy()
    except tf.errors.OpError as error:
      reason = error.message.partition('\n')[0]
      raise InputError(
        f'a record of the split {self._part!r} cannot be read: {reason}. '
        'Prepare the data set again.'
      ) from error


def _make_record(example, data):
  """The record of an example, whose labels are mapped and checked."""
  examples, record_id, serialized = example
  form = data.record_format
  try:
    image, label, name = records.parse_example(
      serialized, examples.has_labels, form, record_id
    )
    if label is not None:
      info = data.info
      label = records.check_labels(
        label, name, info.num_classes, info.ignore_label, form.classes_in
      )
      label = tf.io.encode_png(label).numpy()
  except records.DATA_ERRORS as error:
    fault = records.fault_text(error, serialized, form, record_id)
    raise InputError(f'{record_id}: {fault}') from error
  name, extension = os.path.splitext(name.numpy().decode())
  if extension.lstrip('.').lower() not in build_data.IMAGE_EXTENSIONS:
    name += extension
  features = tf.train.Example.FromString(serialized).features.feature
  (content,) = features[form.image_key].bytes_list.value
  return build_data.image_seg_to_tfexample(
    content,
    name,
    *image.shape[:2],
    label,
    'png' if content.startswith(_PNG) else 'jpeg',
  )


def _parse_splits(texts, data):
  """{name: part} of the flag; of all splits if there is none."""
  if texts is None:
    return {name: name for name in data.info.splits}
  splits = {}
  for text in texts:
    match = _SPLIT.fullmatch(text)
    if match is None or match['name'] in splits:
      raise InputError(
        f'--splits: {text!r} is not a new name, alone or followed by what it '
        "stands for in TFDS. Expected for example 'train=train[:90%]'."
      )
    splits[match['name']] = match['part'] or match['name']
  return splits


def download(dataset: str, dataset_dir: str | None = None):
  """Has TFDS download and prepare a data set, unless it has done so.

  Args:
    dataset: 'tfds:NAME'.
    dataset_dir: data_dir of TFDS, None for its own default.

  Raises:
    InputError: TFDS does not know it, or fails.
  """
  # It takes a while to import.
  import tensorflow_datasets as tfds

  name = tfds_data.builder_name(dataset)
  try:
    builder = tfds.builder(
      name, data_dir=dataset_dir and os.path.expanduser(dataset_dir)
    )
    builder.download_and_prepare()
  # Code of many kinds runs here, that of the data set among it.
  except Exception as error:
    reason = ' '.join(str(error).split())
    raise InputError(
      f'--dataset={dataset}: TFDS cannot prepare it: {type(error).__name__}: '
      f'{reason}'
    ) from error


def convert(
  dataset: str,
  output_dir: str,
  dataset_dir: str | None = None,
  splits: Sequence[str] | None = None,
  num_shards: int = build_data.NUM_SHARDS,
) -> DatasetInfo:
  """Converts splits of a data set that TFDS has prepared.

  Args:
    dataset: 'tfds:NAME', see `tfds_data`.
    output_dir: folder that the TFRecord files go into.
    dataset_dir: data_dir of TFDS, None for its own default.
    splits: texts NAME or NAME=PART, such as 'val=train[90%:]'; None for all
      splits of the data set.
    num_shards: number of files of each split.

  Returns:
    The data set with the number of examples of each split.

  Raises:
    InputError: the data set is not there, a record is not acceptable, or the
      files cannot be written.
  """
  data = tfds_data.open_data(dataset, dataset_dir)
  parts: Mapping[str, str] = _parse_splits(splits, data)
  return build_data.convert(
    {name: _Examples(data, part) for name, part in parts.items()},
    output_dir,
    data.info,
    num_shards=num_shards,
    make=lambda example: _make_record(example, data),
  )


def _define_flags():
  flags.DEFINE_string(
    'dataset',
    None,
    'tfds:NAME[/CONFIG][:VERSION][,image=FEATURE][,label=FEATURE]'
    '[,num_classes=N].',
  )
  flags.DEFINE_string(
    'dataset_dir', None, "data_dir of TFDS; unset: TFDS's own default."
  )
  flags.DEFINE_string(
    'output_dir', './tfrecord', 'Folder that the TFRecord files go into.'
  )
  deeplab_flags.define_list(
    'splits',
    None,
    'NAME or NAME=PART of each split, as in train=train[:90%],val=train[90%:]; '
    'unset: all splits that TFDS has.',
    str,
  )
  flags.DEFINE_integer(
    'num_shards', build_data.NUM_SHARDS, 'Number of files of each split.'
  )
  flags.DEFINE_boolean(
    'download', False, 'Have TFDS download and prepare the data set first.'
  )
  deeplab_flags.require('dataset')


def main():
  """Converts what the flags name."""
  values = flags.FLAGS
  common.check_ranges(
    {'--num_shards': values.num_shards},
    {'--num_shards': build_data.NUM_SHARDS_RANGE},
  )
  if values.download:
    download(values.dataset, values.dataset_dir)
  info = convert(
    values.dataset,
    values.output_dir,
    values.dataset_dir,
    values.splits,
    values.num_shards,
  )
  print(f'{info.name}: {info.splits} in {values.output_dir}')


if __name__ == '__main__':
  _define_flags()
  deeplab_flags.run(main)

"""A short look at the data before a training begins.

What would fail after minutes or hours fails at once, and what is strange is
said. `check_dataset.py` looks at everything.
"""

import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from deeplab.common import InputError
from deeplab.datasets import data_generator, shard_files
from deeplab.datasets.checks import check_findings
from deeplab.datasets.checks.check_suggestions import covering
from deeplab.datasets.checks.check_tally import NUM_VALUES, illegal_values

# Images that are looked at, and the seconds after which no more are.
_MOST_IMAGES = 32
_MOST_SECS = 2.0

# With a smaller share of image in the average crop, crops are mostly padding.
_LEAST_FILLED = 0.25


def quick_check(
  dataset: data_generator.Dataset,
  crop_size: Sequence[int],
  output_stride: int,
  resizes: bool = False,
):
  """Looks at some images of a data set, and warns of what is strange.

  These are the first record of every shard, then the second ones and so on, up
  to 32; after two seconds no further ones.

  Args:
    dataset: the data set, which must have labels.
    crop_size: [height, width] of the training crops in pixels.
    output_stride: of the network.
    resizes: whether images are resized before they are cropped.

  Raises:
    InputError: a record cannot be decoded, a label holds a value that is no
      class, or every pixel is ignored.
  """
  info = dataset.info
  pixels = np.zeros(NUM_VALUES, np.int64)
  occurrences = np.zeros(NUM_VALUES, np.int64)
  filled = []
  deadline = None
  with data_generator.clear_errors(dataset):
    for size, label, name in _examples(dataset):
      counts = np.bincount(label.numpy().ravel(), minlength=NUM_VALUES)
      _check_values(counts, name, dataset)
      pixels += counts
      occurrences += counts > 0
      inside = np.minimum(size.numpy(), crop_size)
      filled.append(inside.prod() / np.prod(crop_size))
      # What goes before the first one takes its time once.
      deadline = deadline or time.monotonic() + _MOST_SECS
      if time.monotonic() > deadline:
        break
  if pixels.sum() == pixels[info.ignore_label]:
    raise InputError(
      f'{dataset.where}: every pixel of the {len(filled)} labels that were '
      f'looked at is ignored (label {info.ignore_label}): there is nothing to '
      'learn. '
      'Correct the labels, or ignore_label in dataset_info.json. '
      '--check_dataset=false trains all the same.'
    )
  for text in check_findings.suspicions(pixels, occurrences, info):
    logging.warning('Of %d labels that were looked at: %s', len(filled), text)
  if len(filled) == dataset.num_examples:
    missing = np.flatnonzero(pixels[: info.num_classes] == 0)
    if missing.size:
      names = ', '.join(info.class_names[label] for label in missing)
      logging.info('Classes that never occur: %s.', names)
  _look_at_crop(crop_size, output_stride, 1.0 if resizes else np.mean(filled))


def _examples(dataset):
  """(height, width), label and name of the images that are looked at."""
  shards = [shard for shard in dataset.shards if shard.num_records]
  shards = shards[:: -(-len(shards) // _MOST_IMAGES)]
  of_each = -(-_MOST_IMAGES // len(shards))

  def read(path, first, num_records):
    return shard_files.read(path, first, tf.minimum(num_records, of_each))

  def decode(record_id, serialized):
    image, label, name = dataset.parse(record_id, serialized)
    return tf.shape(image)[:2], label, name

  columns = tf.data.Dataset.from_tensor_slices(shard_files.columns(shards))
  records = columns.interleave(read, cycle_length=len(shards), block_length=1)
  return records.take(_MOST_IMAGES).map(
    decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
  )


def _check_values(counts, name, dataset):
  """Raises InputError if a label holds what is no class."""
  info = dataset.info
  illegal = illegal_values(counts, info)
  if not illegal.size:
    return
  causes = check_findings.suspicions(counts, counts > 0, info)
  values = ', '.join(map(str, illegal))
  raise InputError(
    f'{dataset.where}: the label of '
    f'"{name.numpy().decode(errors="replace")}" holds {values}. '
    f'Expected the classes 0..{info.num_classes - 1} and the ignore label '
    f'{info.ignore_label}. {"".join(f"{cause} " for cause in causes)}Correct '
    'the labels, or the number of classes. datasets/check_dataset.py lists '
    'all such labels.'
  )


def _look_at_crop(crop_size, output_stride, filled):
  """Says what is strange about the size of the crops."""
  if filled < _LEAST_FILLED:
    logging.warning(
      '--train_crop_size=%s is far larger than the images: on average %.0f %% '
      'of a crop would be padding. datasets/check_dataset.py suggests a size.',
      ','.join(map(str, crop_size)),
      100 * (1 - filled),
    )
  aligned = [covering(side, output_stride) for side in crop_size]
  if aligned != list(crop_size):
    logging.info(
      'Crops of a multiple of the output stride plus one align best: '
      '--train_crop_size=%s rather than %s.',
      ','.join(map(str, aligned)),
      ','.join(map(str, crop_size)),
    )

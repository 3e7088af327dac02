"""Reads the TFRecord shards of a split as batches, on tf.data.

The order of the examples and their augmentation are a pure function of (seed,
step): a run that is stopped and started again at step k with `start_step=k`
sees what it would have seen.
"""

import contextlib
import re

import tensorflow as tf

from deeplab import common, input_preprocess
from deeplab.core import preprocess_utils
from deeplab.datasets import dataset_info, records

# Keys of a batch beyond those in `common`: the size of the image before it was
# padded to the crop.
RESIZED_HEIGHT = 'resized_height'
RESIZED_WIDTH = 'resized_width'

# The buffer of undecoded records that are shuffled: the official number at
# least, more while they are small.
_MIN_SHUFFLE_RECORDS = 100
_MAX_SHUFFLE_RECORDS = 1024
_SHUFFLE_BYTES = 1 << 28

# Shards that the shuffled records of one moment come from.
_OPEN_SHARDS = 16


class Dataset:
  """The examples of one split, preprocessed and batched.

  Attributes:
    info: the `dataset_info.DatasetInfo`.
    num_of_classes: number of classes.
    ignore_label: label of the pixels that do not count.
    num_examples: number of records in the shards.
    has_labels: whether batches hold `label`; never for the split 'test'.
  """

  def __init__(
    self,
    dataset_name,
    split_name,
    dataset_dir,
    batch_size,
    crop_size,
    min_resize_value=None,
    max_resize_value=None,
    resize_factor=None,
    min_scale_factor=1.0,
    max_scale_factor=1.0,
    scale_factor_step_size=0,
    model_variant=None,
    num_readers=1,
    is_training=False,
    should_shuffle=False,
    should_repeat=False,
    *,
    keep_aspect_ratio=True,
    seed=0,
  ):
    """Finds the shards, counts their records and checks the arguments.

    Args:
      dataset_name: name of the data set; None takes what dataset_info.json in
        dataset_dir says.
      split_name: name of the split.
      dataset_dir: folder of the TFRecord files.
      batch_size: examples a batch.
      crop_size: [height, width] in pixels that images are padded to and, in
        training, cropped to.
      min_resize_value: wanted size of the smaller side, None for no resizing;
        see `preprocess_utils.resize_to_range`.
      max_resize_value: bound of the larger side or None.
      resize_factor: resized sides are a multiple of it plus one, or None.
      min_scale_factor: smallest random scale in training.
      max_scale_factor: largest random scale in training.
      scale_factor_step_size: distance of these scales, 0 for any between.
      model_variant: name of the backbone, for the mean pixel to pad with.
      num_readers: shards that are read at the same time when shuffling.
      is_training: whether to augment; every batch is then full.
      should_shuffle: whether to shuffle shards and records anew each epoch.
      should_repeat: whether epochs follow each other without end.
      keep_aspect_ratio: False resizes to squares.
      seed: integer that determines order and augmentation.

    Raises:
      common.InputError: the data set, the split or its shards are not there
        or broken, or an argument is out of range.
    """
    common.check_ranges(
      {'batch_size': batch_size, 'num_readers': num_readers},
      {'batch_size': common.COUNT, 'num_readers': common.COUNT},
    )
    if len(crop_size) != 2 or min(crop_size) < 1:
      raise common.InputError(
        'crop_size must be two positive integers, height and width. '
        f'Received: {list(crop_size)}.'
      )
    self.shards = records.scan(dataset_dir, split_name)
    self.info = dataset_info.resolve(dataset_name, dataset_dir)
    self.num_of_classes = self.info.num_classes
    self.ignore_label = self.info.ignore_label
    self.num_examples = sum(shard.num_records for shard in self.shards)
    self.has_labels = split_name != common.TEST_SET and records.has_labels(
      self.shards
    )
    if is_training and not self.has_labels:
      raise common.InputError(
        f'training needs labels, but the split {split_name!r} in '
        f'--dataset_dir={dataset_dir} has none.'
      )
    self.split_name = split_name
    self.dataset_dir = dataset_dir
    self.batch_size = batch_size
    self.num_readers = num_readers
    self.is_training = is_training
    self.should_shuffle = should_shuffle
    self.should_repeat = should_repeat
    self.seed = seed
    self._preprocessing = {
      'crop_height': crop_size[0],
      'crop_width': crop_size[1],
      'min_resize_value': min_resize_value,
      'max_resize_value': max_resize_value,
      'resize_factor': resize_factor,
      'min_scale_factor': min_scale_factor,
      'max_scale_factor': max_scale_factor,
      'scale_factor_step_size': scale_factor_step_size,
      'ignore_label': self.ignore_label,
      'is_training': is_training,
      'model_variant': model_variant,
      'keep_aspect_ratio': keep_aspect_ratio,
    }
    input_preprocess.check_options(self._preprocessing)

  def as_dataset(self, start_step: int = 0) -> tf.data.Dataset:
    """The batches from number `start_step` on.

    Skipped examples are not decoded, and no more than one epoch of their
    records is read.

    Args:
      start_step: number of batches that were already seen.

    Returns:
      A tf.data.Dataset of dictionaries:
        image: float32 [batch, crop_height, crop_width, 3] in 0..255.
        label: int32 [batch, crop_height, crop_width, 1], if has_labels.
        image_name: string [batch].
        height, width: int64 [batch], of the image in the record.
        resized_height, resized_width: int32 [batch], outside training: of the
          image after resizing, before padding.
        original_image: [1, resized_height, resized_width, 3], outside training
          if the batch size is 1: uint8, or float32 if resized.
    """
    seen = start_step * self.batch_size
    epoch = seen // self.num_examples if self.should_repeat else 0
    skipped = seen - epoch * self.num_examples
    last_epoch = tf.int64.max if self.should_repeat else 1

    def examples(number):
      skip = tf.where(number == epoch, tf.constant(skipped, tf.int64), 0)
      return self._epoch(number).skip(skip)

    dataset = tf.data.Dataset.range(epoch, last_epoch).flat_map(examples)
    dataset = dataset.enumerate(seen)
    dataset = dataset.map(
      self._sample, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    dataset = dataset.batch(
      self.batch_size, drop_remainder=self.is_training or self.should_repeat
    )
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    options = tf.data.Options()
    # Files cannot be dealt out to workers, since an epoch shuffles them.
    options.experimental_distribute.auto_shard_policy = (
      tf.data.experimental.AutoShardPolicy.DATA
    )
    return dataset.with_options(options)

  def get_one_shot_iterator(self):
    """An iterator over `as_dataset()`."""
    return iter(self.as_dataset())

  def iterate(self, batches=None):
    """Yields batches, with errors in the data turned into InputError.

    Args:
      batches: what to iterate over: `as_dataset(...)`, that data set as
        tf.distribute distributes it, or an iterator. `as_dataset()` if None.

    Yields:
      The batches.

    Raises:
      common.InputError: a record, image or label is broken.
    """
    iterator = iter(self.as_dataset() if batches is None else batches)
    while True:
      with clear_errors(self):
        batch = next(iterator, None)
      if batch is None:
        return
      yield batch

  def _epoch(self, number):
    """The serialized examples of an epoch, a scalar tensor, in its order."""
    paths = [shard.path for shard in self.shards if shard.num_records]
    if not self.should_shuffle:
      return tf.data.TFRecordDataset(paths)
    # Shuffling also depends on the global seed. In this graph, which is only
    # this function's, it is a constant.
    tf.compat.v1.set_random_seed(1)
    seeds = tf.stack([tf.constant(self.seed, tf.int64), number])
    order_seed, record_seed = preprocess_utils.split_seed(seeds, 2)
    order = tf.random.experimental.stateless_shuffle(
      tf.range(len(paths)), order_seed, alg='philox'
    )
    cycle = min(len(paths), _OPEN_SHARDS)
    dataset = tf.data.Dataset.from_tensor_slices(tf.gather(paths, order))
    dataset = dataset.interleave(
      tf.data.TFRecordDataset,
      cycle_length=cycle,
      num_parallel_calls=min(cycle, self.num_readers),
      deterministic=True,
    )
    return dataset.shuffle(
      self._shuffle_records(), record_seed[0], reshuffle_each_iteration=False
    )

  def _shuffle_records(self):
    """Size of the shuffle buffer in records."""
    size = sum(shard.num_bytes for shard in self.shards) / self.num_examples
    wanted = max(_MIN_SHUFFLE_RECORDS, int(_SHUFFLE_BYTES / size))
    return min(wanted, _MAX_SHUFFLE_RECORDS, self.num_examples)

  def _sample(self, index, serialized):
    """Example number `index` of the stream, preprocessed."""
    image, label, name = records.parse_example(serialized, self.has_labels)
    if label is not None:
      label = records.check_labels(
        label, name, self.num_of_classes, self.ignore_label
      )
    size = tf.shape(image, tf.int64)
    original_image, image, label = input_preprocess.preprocess_image_and_label(
      image,
      label,
      **self._preprocessing,
      seed=tf.stack([tf.constant(self.seed, tf.int64), index]),
      image_name=name,
    )
    sample = {
      common.IMAGE: image,
      common.IMAGE_NAME: name,
      common.HEIGHT: size[0],
      common.WIDTH: size[1],
    }
    if label is not None:
      sample[common.LABEL] = label
    if not self.is_training:
      resized = tf.shape(original_image)
      sample[RESIZED_HEIGHT] = resized[0]
      sample[RESIZED_WIDTH] = resized[1]
      # Images of several sizes cannot be stacked.
      if self.batch_size == 1:
        sample[common.ORIGINAL_IMAGE] = original_image
    return sample


@contextlib.contextmanager
def clear_errors(dataset: Dataset):
  """Turns TensorFlow's errors about the data into InputError.

  Args:
    dataset: where the batches come from; its shards are searched for the
      broken record if the error does not say which one it is.

  Raises:
    common.InputError: a record, image or label is broken.
  """
  try:
    yield
  except records.DATA_ERRORS as error:
    text = preprocess_utils.input_error_text(error)
    # Searching takes a while: not for errors of the network.
    if text is None and (
      isinstance(error, UnicodeDecodeError)
      or re.search(r'Iterator\w*GetNext', str(error))
    ):
      text = records.find_fault(dataset.shards, dataset.has_labels)
    if text is None:
      raise
    raise common.InputError(text) from error

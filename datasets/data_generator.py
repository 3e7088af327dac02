"""Reads the TFRecord shards of a split as batches, on tf.data.

The order of the examples and their augmentation are a pure function of (seed,
step), and of the place among several input pipelines: a run that is stopped
and started again at step k with `start_step=k` sees what it would have seen.
Only the tf.data service gives batches in the order in which they become ready.
"""

import contextlib
import re

import tensorflow as tf

from deeplab import common, input_preprocess
from deeplab.core import preprocess_utils, random_numbers
from deeplab.datasets import (
  dataset_info,
  read_errors,
  records,
  service_client,
  shard_files,
  sharding,
  tfds_data,
)

# Keys of a batch beyond those in `common`: the size of the image before it was
# padded to the crop.
RESIZED_HEIGHT = 'resized_height'
RESIZED_WIDTH = 'resized_width'

# The buffer of undecoded records that are shuffled: the official number at
# least, more while they are small.
_MIN_SHUFFLE_RECORDS, _MAX_SHUFFLE_RECORDS = 100, 1024
_SHUFFLE_BYTES = 1 << 28

# Before each attempt to read again.
_WAITS = read_errors.waits(3)

# Shards that the shuffled records of one moment come from, and batches that
# wait for whoever takes them.
_OPEN_SHARDS, _PREFETCHED = 16, 2


class Dataset:
  """The examples of one split, preprocessed and batched.

  Attributes:
    info: the `dataset_info.DatasetInfo`.
    num_of_classes: number of classes.
    ignore_label: label of the pixels that do not count.
    num_examples: number of records in the shards.
    dataset_dir: folder of the shards.
    has_labels: whether batches hold `label`: where all records of the split
      have one, see `records.find_split`.
    names_results: False, as the results of images are numbered; see
      `evaluation.photos.Photos`.
  """

  names_results = False

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
    shard_by=None,
    data_service=None,
    data_service_job='',
  ):
    """Finds the shards, counts their records and checks the arguments.

    Args:
      dataset_name: name of the data set; None takes what dataset_info.json in
        dataset_dir says. 'tfds:NAME' is one that TFDS has prepared, see
        `tfds_data`.
      split_name: name of the split; for TFDS also parts, as 'train[:90%]'.
      dataset_dir: folder of the TFRecord files; for TFDS its data_dir, None
        for its own default.
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
      shard_by: what several input pipelines share among them: 'files',
        'records', or None for what suits the shards; see `sharding.plan`.
      data_service: address of the dispatcher of a tf.data service, such as
        'grpc://host:5000', that makes the batches; None makes them here. Only
        where epochs repeat. Workers take whole epochs in turn, several at the
        same time, so that batches come in no reproducible order, and a run
        that goes on does not see exactly what it has not seen yet. The
        examples of an epoch in the hands of a worker that dies are lost. If
        the dispatcher or all workers go away later on, TensorFlow waits for
        them without a bound.
      data_service_job: whoever gives the same text (and arguments) shares the
        batches; the hosts of a run give one text, another run another one.

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
    if tfds_data.is_name(dataset_name):
      data = tfds_data.open_data(dataset_name, dataset_dir)
      self.info, split = data.info, data.split(split_name)
    else:
      self.info = dataset_info.resolve(dataset_name, dataset_dir)
      split = records.find_split(dataset_dir, split_name)
    self.shards = split.shards
    self.dataset_dir = split.folder
    self.has_labels = split.has_labels
    self._record_format = split.record_format
    self.num_of_classes = self.info.num_classes
    self.ignore_label = self.info.ignore_label
    self.num_examples = sum(shard.num_records for shard in self.shards)
    if is_training and not self.has_labels:
      raise common.InputError(
        f'training needs labels, but the split {split_name!r} in '
        f'{self.dataset_dir} has none, or not for every image.'
      )
    self.split_name = split_name
    self.batch_size = batch_size
    self.num_readers = num_readers
    self.is_training = is_training
    self.should_shuffle = should_shuffle
    self.should_repeat = should_repeat
    self.seed = seed
    self.shard_by = shard_by
    sharding.check(0, 1, shard_by)
    self.data_service = data_service
    self.data_service_job = data_service_job
    if data_service is not None:
      service_client.check(data_service, should_repeat, shard_by)
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

  @property
  def where(self) -> str:
    """Folder and split, for messages about an image."""
    return f'{self.dataset_dir}, split {self.split_name!r}'

  def _plan(self, part, num_parts):
    """The sharding.Plan of one of several input pipelines."""
    if self.data_service is not None:
      sharding.check(part, num_parts, None)
      part, num_parts = 0, 1
    return sharding.plan(
      self.shards, part, num_parts, self.shard_by, self.should_repeat
    )

  def describe_sharding(self, part: int = 0, num_parts: int = 1) -> str:
    """What one of several input pipelines reads, for the log.

    Args:
      part: number of the pipeline, from 0.
      num_parts: number of pipelines.

    Returns:
      Such as 'by files: 8 of 16 here' or 'by records, 2 shards are too few for
      4 pipelines'.

    Raises:
      common.InputError: see `as_dataset`.
    """
    plan = self._plan(part, num_parts)
    if self.data_service is None:
      return plan.text
    return f'by the tf.data service at {self.data_service}'

  def as_dataset(
    self, start_step: int = 0, part: int = 0, num_parts: int = 1
  ) -> tf.data.Dataset:
    """The batches from number `start_step` on.

    Skipped examples are not decoded, and no more than one epoch of their
    records is read.

    Of several input pipelines, say one on each host, each makes an equal share
    of every batch. By records, joining the shares of a step in the order of
    the pipelines gives the batch of a single pipeline. By files, each pipeline
    has its own files and goes through them in its own epochs; without
    repetition the pipelines can then have different numbers of batches.
    `describe_sharding` says which it is. With a tf.data service all pipelines
    take shares from a common stream, whatever their `part`.

    Args:
      start_step: number of batches that were already seen.
      part: number of this input pipeline, from 0.
      num_parts: number of input pipelines.

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
      `batch` is batch_size / num_parts.

    Raises:
      common.InputError: part or num_parts is out of range, the batch cannot be
        shared equally, files are to be shared and are too few, or the tf.data
        service does not answer.
    """
    plan = self._plan(part, num_parts)
    if self.batch_size % num_parts:
      raise common.InputError(
        f'batch_size={self.batch_size} must be a multiple of the number of '
        f'input pipelines (hosts), num_parts={num_parts}. Give a batch size '
        f'such as {-(-self.batch_size // num_parts) * num_parts}.'
      )
    dataset = self._stream(plan, start_step)
    dataset = dataset.map(
      self._sample, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    dataset = dataset.batch(
      self.batch_size // num_parts, drop_remainder=self._only_full_batches()
    )
    options = tf.data.Options()
    # A tuned iterator may take a minute to end: its thread misses the signal.
    options.autotune.enabled = False
    # A share must not be shared again. Files cannot be dealt out by
    # TensorFlow, since an epoch shuffles them.
    is_share = num_parts > 1 or self.data_service is not None
    policies = tf.data.experimental.AutoShardPolicy
    policy = policies.OFF if is_share else policies.DATA
    options.experimental_distribute.auto_shard_policy = policy
    if self.data_service is not None:
      dataset = service_client.distribute(
        dataset.with_options(options), self.data_service, self._service_job()
      )
    return dataset.prefetch(_PREFETCHED).with_options(options)

  def _only_full_batches(self):
    return self.is_training or self.should_repeat

  def _service_job(self):
    """What the batches that a tf.data service shares out depend on."""
    return [
      self.data_service_job,
      self.dataset_dir,
      self._record_format,
      self.split_name,
      self.seed,
      self.should_shuffle,
      sorted(self._preprocessing.items()),
    ]

  def _stream(self, plan, start_step):
    """Pairs of the number of an example and its record (with what identifies
    it, see `shard_files.read`), of one pipeline.

    The number is that of the example among all that are ever seen: pipelines
    and epochs never have one in common, and it does not depend on where
    reading began.
    """
    per_step = self.batch_size // plan.num_streams
    seen = start_step * per_step
    epoch = seen // plan.num_examples if self.should_repeat else 0
    skipped = seen - epoch * plan.num_examples
    last_epoch = tf.int64.max if self.should_repeat else 1

    def examples(number):
      skip = tf.where(number == epoch, tf.constant(skipped, tf.int64), 0)
      first = number * self.num_examples + plan.first_example
      return self._epoch(number, plan).enumerate(first).skip(skip)

    dataset = tf.data.Dataset.range(epoch, last_epoch).flat_map(examples)
    if plan.num_slices == 1:
      return dataset
    # All pipelines have to end at the same step if batches have to be full.
    end = tf.int64.max
    if not self.should_repeat and self._only_full_batches():
      end = plan.num_examples // self.batch_size * self.batch_size

    def is_own(number, _):
      row = number % self.batch_size
      slice_of_row = row // (self.batch_size // plan.num_slices)
      return (slice_of_row == plan.slice) & (number < end)

    return dataset.filter(is_own)

  def get_one_shot_iterator(self):
    """An iterator over `as_dataset()`."""
    return iter(self.as_dataset())

  def iterate(self, batches=None, retry=None, *, waits=_WAITS):
    """Yields batches, with errors in the data turned into InputError.

    Where reading fails for a reason that may pass (see
    `read_errors.is_passing`), it waits and goes on at the batch that failed,
    in so far as it can be made again: `retry` says how.

    Args:
      batches: what to iterate over: `as_dataset(...)`, that data set as
        tf.distribute distributes it, or an iterator. `as_dataset()` if None.
      retry: retry(n) returns what to iterate over where n batches were yielded
        already. If None, `as_dataset` where `batches` is None; else the first
        failure is the last.
      waits: seconds to wait before each new attempt; one more failure in a row
        ends the iteration.

    Yields:
      The batches.

    Raises:
      common.InputError: a record, image or label is broken, or reading failed
        too often in a row.
    """
    if batches is None:
      batches = self.as_dataset()
      retry = retry or self.as_dataset
    patience = read_errors.Patience(self.shards, waits if retry else ())
    iterator = None
    count = 0
    while True:
      try:
        if iterator is None:
          iterator = iter(retry(count) if patience.failures else batches)
        with clear_errors(self):
          batch = next(iterator, None)
      except tf.errors.OpError as error:
        iterator = None
        patience.bear(error)
        continue
      patience.succeeded()
      if batch is None:
        return
      yield batch
      count += 1

  def find_fault(self) -> str | None:
    """What is wrong with the first broken record; None if none is broken."""
    return records.find_fault(self.shards, self.has_labels, self._record_format)

  def _epoch(self, number, plan):
    """The records of an epoch (a scalar tensor) of a stream, in its order."""
    if not self.should_shuffle:
      return shard_files.read_all(plan.shards)
    # Shuffling also depends on the global seed. In this graph, which is only
    # this function's, it is a constant.
    tf.compat.v1.set_random_seed(1)
    order_number = number * plan.num_streams + plan.stream
    seeds = tf.stack([tf.constant(self.seed, tf.int64), order_number])
    order_seed, record_seed = random_numbers.split_seed(seeds, 2)
    order = tf.random.experimental.stateless_shuffle(
      tf.range(len(plan.shards)), order_seed, alg='philox'
    )
    cycle = min(len(plan.shards), _OPEN_SHARDS)
    columns = shard_files.columns(plan.shards)
    dataset = tf.data.Dataset.from_tensor_slices(
      tuple(tf.gather(column, order) for column in columns)
    )
    dataset = dataset.interleave(
      shard_files.read,
      cycle_length=cycle,
      num_parallel_calls=min(cycle, self.num_readers),
      deterministic=True,
    )
    return dataset.shuffle(
      _shuffle_records(plan), record_seed[0], reshuffle_each_iteration=False
    )

  def parse(self, record_id, serialized):
    """Decodes a record as it is, without preprocessing.

    Args:
      record_id: string scalar, what identifies it: see `shard_files.read`.
      serialized: string scalar, the record.

    Returns:
      image, label (None if there are none) and name: see
      `records.parse_example`.
    """
    return records.parse_example(
      serialized, self.has_labels, self._record_format, record_id
    )

  def _sample(self, index, record):
    """Example number `index` of the stream, preprocessed."""
    image, label, name = self.parse(*record)
    if label is not None:
      label = records.check_labels(
        label,
        name,
        self.num_of_classes,
        self.ignore_label,
        self._record_format.classes_in,
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


def _shuffle_records(plan):
  """Size of the shuffle buffer in records."""
  size = sum(shard.num_bytes for shard in plan.shards) / plan.num_examples
  wanted = max(_MIN_SHUFFLE_RECORDS, int(_SHUFFLE_BYTES / size))
  return min(wanted, _MAX_SHUFFLE_RECORDS, plan.num_examples)


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
      text = dataset.find_fault()
    elif text is not None:
      text = f'{dataset.where}: {text}'
    if text is None:
      raise
    raise common.InputError(text) from error

"""From JPEG records to augmented batches, and what a training waits for them.

Settings: `batch`, `size` of the crops, `batches_per_call`, `steps`.
"""

import json
import os
import subprocess
import sys
import tempfile

from benchmarks.artifacts import ROOT
from benchmarks.case import Task

_MIN_SCALE, _MAX_SCALE, _SCALE_STEP = 0.5, 2.0, 0.25

# Steps while the graph is built and buffers fill.
_SKIPPED_STEPS = 3


def _task(batches, context):
  """A Task that takes some batches off an endless data set."""
  iterator = iter(batches)
  count = context.settings['batches_per_call']

  def call():
    for _ in range(count):
      next(iterator)

  return Task(call, count * context.settings['batch'])


def dataset(context):
  """`data_generator.Dataset` with the options of train.py."""
  from deeplab.datasets import data_generator

  size = context.settings['size']
  data = data_generator.Dataset(
    dataset_name=None,
    split_name='train',
    dataset_dir=_records(context),
    batch_size=context.settings['batch'],
    crop_size=[size, size],
    min_scale_factor=_MIN_SCALE,
    max_scale_factor=_MAX_SCALE,
    scale_factor_step_size=_SCALE_STEP,
    model_variant='mobilenet_v2',
    num_readers=2,
    is_training=True,
    should_shuffle=True,
    should_repeat=True,
  )
  return _task(_with_threads(data.as_dataset(), context), context)


def _records(context):
  """The folder of the TFRecord files."""
  return os.path.join(context.artifacts['data'], 'tfrecord')


def _with_threads(batches, context):
  if context.threads is None:
    return batches
  import tensorflow as tf

  options = tf.data.Options()
  options.threading.private_threadpool_size = context.threads
  return batches.with_options(options)


def plain_tf_data(context):
  """The same augmentation as one writes it on tf.data."""
  import tensorflow as tf

  size, batch = context.settings['size'], context.settings['batch']
  keys = ('image/encoded', 'image/segmentation/class/encoded')
  features = {key: tf.io.FixedLenFeature([], tf.string) for key in keys}
  num_scales = round((_MAX_SCALE - _MIN_SCALE) / _SCALE_STEP) + 1

  def sample(record):
    parsed = tf.io.parse_single_example(record, features)
    image = tf.cast(tf.io.decode_jpeg(parsed[keys[0]], 3), tf.float32)
    label = tf.cast(tf.io.decode_png(parsed[keys[1]], 1), tf.float32)
    steps = tf.random.uniform([], 0, num_scales, tf.int32)
    scale = _MIN_SCALE + _SCALE_STEP * tf.cast(steps, tf.float32)
    sides = tf.cast(scale * tf.cast(tf.shape(image)[:2], tf.float32), tf.int32)
    image = tf.image.resize(image, sides) - 127.5
    label = tf.image.resize(label, sides, 'nearest') - 255
    both = tf.concat([image, label], 2)
    missing = tf.maximum(size - sides, 0)
    both = tf.pad(both, [[0, missing[0]], [0, missing[1]], [0, 0]])
    both = tf.image.random_crop(both, [size, size, 4])
    both = tf.image.random_flip_left_right(both)
    return both[..., :3] + 127.5, tf.cast(both[..., 3:] + 255, tf.int32)

  files = tf.io.gfile.glob(os.path.join(_records(context), 'train-*'))
  batches = tf.data.TFRecordDataset(files).cache().shuffle(1000).repeat()
  batches = batches.map(sample, tf.data.AUTOTUNE).batch(batch)
  return _task(
    _with_threads(batches.prefetch(tf.data.AUTOTUNE), context), context
  )


def training(context):
  """A run of train.py, whose log says what it waited for."""
  lines = []

  def times():
    lines.extend(_train(context)[_SKIPPED_STEPS:])
    return [line['input_secs'] + line['compute_secs'] for line in lines]

  def facts():
    waited = sum(line['input_secs'] for line in lines)
    total = waited + sum(line['compute_secs'] for line in lines)
    return {'waiting': waited / total}

  return Task(units=context.settings['batch'], times=times, facts=facts)


def _train(context):
  """The lines of train_log.jsonl, one for each step."""
  settings = context.settings
  with tempfile.TemporaryDirectory() as folder:
    command = [
      *(sys.executable, str(ROOT / 'train.py')),
      f'--train_logdir={folder}',
      f'--dataset_dir={_records(context)}',
      f'--train_crop_size={settings["size"]},{settings["size"]}',
      f'--train_batch_size={settings["batch"]}',
      f'--training_number_of_steps={settings["steps"] + _SKIPPED_STEPS}',
      '--output_stride=16',
      '--log_steps=1',
      # Summaries of all variables belong to no step.
      '--save_summaries_secs=100000',
      '--nocheck_dataset',
    ]
    # Its messages go to the log of this process.
    subprocess.run(command, check=True, stdout=sys.stderr)
    with open(os.path.join(folder, 'train_log.jsonl')) as file:
      return [json.loads(line) for line in file]

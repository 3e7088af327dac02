"""Tiny shards for tests of the input."""

import hashlib
import json

import numpy as np
import tensorflow as tf

from deeplab.datasets import data_generator, records

NUM_CLASSES = 3


def example(number, label=None):
  """A serialized record named by its number, of noise of 40x48 pixels."""
  noise = np.random.default_rng(number)
  image = noise.integers(0, 256, [40, 48, 3], np.uint8)
  if label is None:
    label = noise.integers(0, NUM_CLASSES, [40, 48, 1], np.uint8)
  values = {
    records.NAME_KEY: str(number).encode(),
    records.IMAGE_KEY: tf.io.encode_png(image).numpy(),
    records.LABEL_KEY: tf.io.encode_png(label).numpy(),
  }
  feature = {
    key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    for key, value in values.items()
  }
  features = tf.train.Features(feature=feature)
  return tf.train.Example(features=features).SerializeToString()


def write(folder, counts, bad=()):
  """Writes shards of these numbers of records, numbered through from 0.

  The labels of the records in `bad` are out of range.
  """
  number = 0
  for index, count in enumerate(counts):
    name = f'train-{index:05d}-of-{len(counts):05d}.tfrecord'
    with tf.io.TFRecordWriter(str(folder / name)) as writer:
      for _ in range(count):
        label = np.full([40, 48, 1], 7, np.uint8) if number in bad else None
        writer.write(example(number, label))
        number += 1
  info = {'name': 'mine', 'num_classes': NUM_CLASSES, 'ignore_label': 255}
  (folder / 'dataset_info.json').write_text(json.dumps(info))
  return str(folder)


def make(folder, batch_size, crop_size=(17, 17), **arguments):
  """A Dataset of these shards; a training one if not told otherwise."""
  settings = {
    'is_training': True,
    'should_shuffle': True,
    'should_repeat': True,
    'min_scale_factor': 0.5,
    'max_scale_factor': 2.0,
    'model_variant': 'mobilenet_v2',
  }
  return data_generator.Dataset(
    None, 'train', folder, batch_size, crop_size, **(settings | arguments)
  )


def rows(batch):
  """[(number, checksum of image and label)] of the examples of a batch."""
  columns = (batch[key].numpy() for key in ('image_name', 'image', 'label'))
  return [
    (int(name), hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest())
    for name, image, label in zip(*columns, strict=True)
  ]

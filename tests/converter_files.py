"""Small files for converters, and what converters wrote."""

import io
import subprocess
import sys

import numpy as np
import tensorflow as tf
from conftest import ROOT
from PIL import Image

from deeplab.datasets import data_generator


def write_image(path, shape=(6, 8), seed=0):
  """Writes noise as a JPEG or PNG file."""
  pixels = np.random.default_rng(seed).integers(0, 256, [*shape, 3], np.uint8)
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)


def write_mask(path, labels):
  """Writes a grey PNG."""
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.asarray(labels, np.uint8)).save(path)


def read_records(folder, split):
  """The records of a split, as {key: value}, in the order of the shards."""
  records = []
  for path in sorted(folder.glob(f'{split}-?????-of-?????.tfrecord')):
    for serialized in tf.data.TFRecordDataset(str(path)):
      features = tf.train.Example.FromString(serialized.numpy()).features
      record = {}
      for key, feature in features.feature.items():
        (value,) = getattr(feature, feature.WhichOneof('kind')).value
        record[key.removeprefix('image/')] = value
      records.append(record)
  return records


def names(records):
  """The names of records."""
  return [record['filename'].decode() for record in records]


def labels(record):
  """The labels of a record, uint8 [height, width]."""
  encoded = io.BytesIO(record['segmentation/class/encoded'])
  return np.asarray(Image.open(encoded))


def check_readable(folder, name, split):
  """Reads a split as eval.py does, and returns the labels that occur."""
  dataset = data_generator.Dataset(
    name, split, str(folder), batch_size=1, crop_size=(65, 65)
  )
  found = set()
  for batch in dataset.as_dataset():
    found |= set(np.unique(batch['label']).tolist())
  assert found <= {*range(dataset.num_of_classes), dataset.ignore_label}
  return found


def run(script, *arguments):
  """Runs a converter; returns its process."""
  return subprocess.run(
    [sys.executable, str(ROOT / 'datasets' / script), *arguments],
    capture_output=True,
    text=True,
    check=False,
  )

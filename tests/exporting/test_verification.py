"""The comparison of what was written with the network."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from deeplab import export
from deeplab.common import InputError
from deeplab.exporting import formats, images
from deeplab.exporting.network import LABELS


def test_report_of_all_formats(exported):
  report = json.loads((exported.folder / export.REPORT_FILE).read_text())
  assert report['images'] == 'generated' and report['num_images'] == 2
  assert list(report['formats']) == list(export.FORMATS)
  for name, entry in report['formats'].items():
    assert entry['equal_labels'] >= formats.FORMATS[name].least_equal
    assert entry['megabytes'] > 0.01
    takes_crop = formats.FORMATS[name].takes_crop
    assert ('max_probability_difference' in entry) != takes_crop
    if not takes_crop:
      assert entry['max_probability_difference'] < 1e-4
  assert report['formats']['tflite_int8']['operations']['CONV_2D'] > 30
  assert report['formats']['saved_model']['inputs'] == {
    'ImageTensor': 'uint8 [?, ?, ?, 3]'
  }
  folder = str(exported.folder)
  assert exported.written == [
    folder,
    *(os.path.join(folder, f.file) for f in formats.FORMATS.values() if f.file),
    os.path.join(folder, export.TEXT_GRAPH_FILE),
    os.path.join(folder, export.REPORT_FILE),
  ]
  assert all(os.path.exists(path) for path in exported.written)


def _shift(monkeypatch, name, share):
  """Makes a format label a share of the pixels wrongly."""
  right = formats.FORMATS[name]

  def load(path):
    loaded = right.load(path)

    def run(image):
      outputs = {k: np.array(v) for k, v in loaded.run(image).items()}
      labels = outputs[LABELS]
      wrong = np.random.default_rng(0).random(labels.shape) < share
      return {**outputs, LABELS: np.where(wrong, labels + 1, labels)}

    return loaded._replace(run=run)

  monkeypatch.setitem(
    formats.FORMATS, name, dataclasses.replace(right, load=load)
  )


@pytest.mark.parametrize('name', ['saved_model', 'frozen_graph', 'onnx'])
def test_what_differs_is_not_written(exported, tmp_path, monkeypatch, name):
  _shift(monkeypatch, name, 0.01)
  folder = tmp_path / 'out'
  arguments = (exported.checkpoint, str(folder), exported.options)
  with pytest.raises(InputError, match=rf'{name}: on 9[89]\.\d*% of the'):
    export.export(*arguments, formats=[name], verify=True)
  assert not list(tmp_path.iterdir())


def test_eight_bits_on_images_of_the_users(exported, tmp_path, monkeypatch):
  _shift(monkeypatch, 'tflite_int8', 0.6)
  messages = []
  monkeypatch.setattr(
    logging, 'warning', lambda text, *values: messages.append(text % values)
  )
  for pattern in (None, exported.photos):
    path = tmp_path / 'model.tflite'
    written = export.export(
      exported.checkpoint,
      str(path),
      exported.options,
      calibration_images=exported.photos,
      verify=True,
      verify_images=pattern,
    )
    assert written == [str(path), f'{path}.export_report.json']
    assert sorted(os.listdir(tmp_path)) == sorted(
      map(os.path.basename, written)
    )
  (message,) = [m for m in messages if 'tflite_int8' in m]
  assert exported.photos in message


def test_records_and_limit(exported, tmp_path, testdata):
  path = tmp_path / 'graph.pb'
  export.export(
    exported.checkpoint,
    str(path),
    exported.options,
    verify=True,
    verify_images=str(testdata / 'voc_tfrecord' / 'val-*.tfrecord'),
    verify_limit=1,
    max_resize_value=65,
  )
  report = json.loads((tmp_path / 'graph.pb.export_report.json').read_text())
  assert report['num_images'] == 1
  assert report['formats']['frozen_graph']['equal_labels'] > 0.999


@pytest.mark.parametrize('size', [(9, 17), (65, 97), (512, 512)])
def test_generated_images(size):
  first, second = (list(images.generate(size)) for _ in range(2))
  assert first[0][1].shape == (*size, 3)
  assert first[1][1].shape < first[0][1].shape
  for (_, image), (_, again) in zip(first, second, strict=True):
    np.testing.assert_array_equal(image, again)
    assert image.dtype == np.uint8 and image.std() > 5


@pytest.mark.parametrize(
  'verify_images, limit, message',
  [
    ('nowhere/*.jpg', 10, '--verify_images=nowhere.*no such file'),
    ('{}/empty.tfrecord', 10, 'there is no image'),
    ('{}/large.png', 10, r'large\.png.*does not fit'),
    ('{}/text.jpg', 10, r'text\.jpg cannot be read'),
    (None, 0, 'verify_limit must be'),
  ],
)
def test_bad_images(exported, tmp_path, verify_images, limit, message):
  large = tf.zeros([70, 70, 3], tf.uint8)
  (tmp_path / 'large.png').write_bytes(tf.io.encode_png(large).numpy())
  (tmp_path / 'text.jpg').write_text('no image')
  (tmp_path / 'empty.tfrecord').touch()
  path = tmp_path / 'graph.pb'
  with pytest.raises(InputError, match=message):
    export.export(
      exported.checkpoint,
      str(path),
      exported.options,
      verify=True,
      verify_images=verify_images and verify_images.format(tmp_path),
      verify_limit=limit,
    )
  assert not path.exists()


def _export(repository, exported, *arguments):
  return subprocess.run(
    [
      sys.executable,
      str(repository / 'export_model.py'),
      f'--checkpoint_path={exported.checkpoint}',
      *arguments,
    ],
    capture_output=True,
    text=True,
  )


def test_the_script_verifies(repository, exported, tmp_path):
  path = tmp_path / 'model.tflite'
  done = _export(
    repository,
    exported,
    '--crop_size=65,97',
    f'--export_path={path}',
    '--export_format=tflite_float',
    f'--verify_images={exported.photos}',
  )
  assert done.returncode == 0, done.stderr
  assert 'tflite_float' in done.stderr and 'labels equal' in done.stderr
  report = json.loads(
    (tmp_path / f'{path.name}.export_report.json').read_text()
  )
  assert report['num_images'] == 1


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--verify_limit=3'], '--verify_limit=3 has no effect without'),
    (['--verify=false', '--verify_images=*.jpg'], 'no effect without --verify'),
  ],
)
def test_flags_without_effect(
  repository, exported, tmp_path, arguments, message
):
  done = _export(
    repository, exported, f'--export_path={tmp_path / "out"}', *arguments
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert message in done.stderr
  assert not list(tmp_path.iterdir())

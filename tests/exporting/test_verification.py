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
from PIL import Image

from deeplab import export, inference
from deeplab.common import InputError
from deeplab.exporting import formats, images, verification
from deeplab.exporting import network as network_lib
from deeplab.exporting.network import LABELS, LOGITS, PROBABILITIES


def test_report_of_all_formats(exported):
  report = json.loads((exported.folder / export.REPORT_FILE).read_text())
  # Those of the calibration, as no others were given.
  assert report['images'] == exported.photos[0] and report['num_images'] == 1
  assert report['padding'] == [128, 128, 128]
  assert 1 / 3 <= report['largest_class_share'] <= 1
  assert list(report['formats']) == list(export.FORMATS)
  for name, entry in report['formats'].items():
    assert entry['equal_labels'] >= formats.FORMATS[name].least_equal
    assert 0.01 < entry['megabytes'] < 20
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


# What is wrong with a model, as a function of its outputs.


def _wrong_labels(share):
  def change(outputs):
    labels = outputs[LABELS]
    wrong = np.random.default_rng(0).random(labels.shape) < share
    return {**outputs, LABELS: np.where(wrong, labels + 1, labels)}

  return change


def _wrong_probabilities(amount):
  return lambda outputs: {
    **outputs,
    PROBABILITIES: outputs[PROBABILITIES] + np.float32(amount),
  }


def _swap(outputs):
  return {name: values[::-1] for name, values in outputs.items()}


@pytest.fixture(scope='module')
def network(exported):
  return network_lib.Network(exported.checkpoint, exported.options)


@pytest.fixture(scope='module')
def reference(network):
  return verification._Reference(network)


@pytest.fixture
def verify(exported, network, reference, monkeypatch):
  """verify(name, change, photos=..., signature=...) of an exported format."""

  def changed(run, change):
    return lambda images: change(
      {name: np.array(value) for name, value in run(images).items()}
    )

  def run(name, change, photos=True, signature=None):
    right = formats.FORMATS[name]

    def load(path):
      loaded = right.load(path)
      if signature is None:
        return loaded._replace(run=changed(loaded.run, change))
      wrong = changed(loaded.signatures[signature], change)
      return loaded._replace(signatures={**loaded.signatures, signature: wrong})

    monkeypatch.setattr(verification, '_Reference', lambda unused: reference)
    monkeypatch.setitem(
      formats.FORMATS, name, dataclasses.replace(right, load=load)
    )
    source = images.Source('verify_images', exported.photos, 10)
    return verification.verify(
      network,
      {name: str(exported.folder / right.file)},
      source if photos else None,
    )

  return run


@pytest.mark.parametrize(
  'name, change, message',
  [
    ('saved_model', _wrong_labels(0.01), r'on 9[89]\.\d*% of the'),
    ('frozen_graph', _wrong_labels(0.01), r'on 9[89]\.\d*% of the'),
    ('onnx', _wrong_labels(0.01), r'on 9[89]\.\d*% of the'),
    ('tflite_float', _wrong_labels(0.005), r'on 99\.\d*% of the'),
    ('tflite_float16', _wrong_labels(0.005), r'on 99\.\d*% of the'),
    ('tflite_int8', _wrong_labels(0.3), r'on [67]\d\.\d*% of the'),
    ('saved_model', _wrong_probabilities(0.01), 'probabilities differ by 1.0e'),
    ('frozen_graph', _wrong_probabilities(0.01), 'differ by 1.0e-02'),
    ('onnx', _wrong_probabilities(0.01), 'probabilities differ by 1.0e-02'),
    ('frozen_graph', _wrong_probabilities(np.nan), 'are not all finite'),
    ('onnx', _wrong_probabilities(np.inf), 'are not all finite'),
    ('onnx', _swap, 'a batch of two'),
  ],
)
def test_what_differs_is_refused(verify, name, change, message):
  with pytest.raises(InputError, match=message):
    verify(name, change)


@pytest.mark.parametrize('signature', ['labels', 'encoded'])
def test_every_signature_is_run(verify, signature):
  with pytest.raises(InputError, match=f'signature {signature}: on 9'):
    verify('saved_model', _wrong_labels(0.05), signature=signature)


def test_logits_are_looked_at(verify):
  def change(outputs):
    return {LOGITS: outputs[LOGITS] * 1.5}

  with pytest.raises(InputError, match='signature logits: probabilities'):
    verify('saved_model', change, signature='logits')


def test_a_network_whose_probabilities_are_not_finite(
  reference, network, verify, monkeypatch
):
  monkeypatch.setattr(
    reference,
    'on_images',
    lambda batch, *unused: {
      LABELS: np.zeros(batch.shape[:3], np.int32),
      PROBABILITIES: np.full([*batch.shape[:3], 3], np.nan, np.float32),
    },
  )
  with pytest.raises(InputError, match='of the network are not all finite'):
    verify('frozen_graph', lambda outputs: outputs)


def test_eight_bits_on_generated_images(verify):
  """They are none of those that the ranges were measured on."""
  report = verify('tflite_int8', _wrong_labels(0.6), photos=False)
  assert report['images'] == 'generated' and report['num_images'] == 2
  assert report['formats']['tflite_int8']['equal_labels'] < 0.6


def test_eight_bits_that_are_suspicious(verify, exported, monkeypatch):
  messages = []
  monkeypatch.setattr(
    logging, 'warning', lambda text, *values: messages.append(text % values)
  )
  verify('tflite_int8', _wrong_labels(0.1))
  assert any('tflite_int8' in m and exported.photos[0] in m for m in messages)


def test_a_preprocessing_that_is_not_that_of_evaluation(
  exported, tmp_path, monkeypatch
):
  """What goes into the graph is not what it is compared with."""
  right = network_lib.Network.preprocess

  def preprocess(self, image):
    inside, padded = right(self, image)
    return inside, padded[..., ::-1]

  monkeypatch.setattr(network_lib.Network, 'preprocess', preprocess)
  with pytest.raises(InputError, match='frozen_graph: '):
    export.export(
      exported.checkpoint,
      str(tmp_path / 'graph.pb'),
      exported.options,
      verify=True,
      verify_images=exported.photos,
    )
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('share, said', [(0.999, True), (0.5, False)])
def test_one_class_alone_shows_little(share, said):
  report = {
    'num_images': 2,
    'images': 'generated',
    'largest_class_share': share,
    'formats': {},
  }
  text = verification.as_text(report)
  assert ('99.90% of the labels are of one class' in text) == said


def test_records_and_limit(exported, tmp_path, testdata):
  path = tmp_path / 'graph.pb'
  export.export(
    exported.checkpoint,
    str(path),
    exported.options,
    verify=True,
    verify_images=[str(testdata / 'voc_tfrecord' / 'val-*.tfrecord')],
    verify_limit=1,
    max_resize_value=65,
  )
  report = json.loads((tmp_path / 'graph.pb.export_report.json').read_text())
  assert report['num_images'] == 1
  assert report['formats']['frozen_graph']['equal_labels'] > 0.999


def test_photographs_of_all_kinds(network, tmp_path):
  """Upright, of a folder, in natural order, none larger than the crop."""
  exif = Image.Exif()
  exif[0x0112] = 6  # To be turned by 90 degrees.
  large = Image.fromarray(np.full([400, 300, 3], 7, np.uint8))
  large.save(tmp_path / '10 [a].jpg', exif=exif)
  Image.fromarray(np.full([20, 30], 9, np.uint8)).save(tmp_path / '9.tif')
  source = images.Source('verify_images', [str(tmp_path)], 5)
  small, shrunk = images.examples(network, source)
  assert small[0].shape == (20, 30, 3) and tuple(small[1]) == (20, 30)
  # 300x400 into 65x97.
  assert shrunk[0].shape[:2] == tuple(shrunk[1]) == (65, 87)
  assert shrunk[2].shape == (65, 97, 3)


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
    (['nowhere/*.jpg'], 10, '--verify_images=nowhere.*no such file'),
    (['{}/empty.tfrecord'], 10, 'there is no image'),
    (['{}/text.jpg'], 10, r'--verify_images=.*text\.jpg is not an image'),
    (['{}/large.png'], 0, 'verify_limit'),
    (None, 0, 'verify_limit'),
  ],
)
def test_bad_images(
  exported, tmp_path, monkeypatch, verify_images, limit, message
):
  """They are found before anything is built."""
  monkeypatch.delattr(inference, 'build_predictor')
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
      verify_images=verify_images
      and [pattern.format(tmp_path) for pattern in verify_images],
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
    f'--verify_images={exported.photos[0]}',
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

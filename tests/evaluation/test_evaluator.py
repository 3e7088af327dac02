"""Evaluation of a stand-in network on three small images."""

import dataclasses
import json
import math
import os
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf

import recipe
from deeplab import checkpoints, common, inference, model
from deeplab.common import InputError
from deeplab.core import dense_crf
from deeplab.datasets import data_generator, dataset_info
from deeplab.evaluation import (
  evaluator,
  image_scores,
  metrics,
  prediction,
  trimap,
)

_TESTDATA = pathlib.Path(__file__).parents[1] / 'testdata'
_GOLDEN = np.load(_TESTDATA / 'e2e_predictions.npz')
_NAMES = ('2007_000006', '2007_000007', '2007_000008')


def _dataset(batch_size=1, crop_size=(129, 129), **options):
  return data_generator.Dataset(
    'pascal_voc_seg',
    'val',
    str(_TESTDATA / 'voc_tfrecord'),
    batch_size,
    crop_size,
    model_variant='mobilenet_v2',
    **options,
  )


def _key(name, config='single'):
  return f'eval__{config}__{name}__prediction'


class _Golden:
  """Predicts what the original network predicted, one image after another."""

  def __init__(self, config):
    self._labels = [_GOLDEN[_key(name, config)] for name in _NAMES]
    self._next = 0

  def __call__(self, images):
    first, self._next = self._next, (self._next + len(images)) % len(_NAMES)
    return np.stack(self._labels[first : first + len(images)])


@pytest.mark.parametrize('batch_size', [1, 2, 3])
@pytest.mark.parametrize('config', ['single', 'multiscale_flip', 'resize'])
def test_confusion_equals_the_original(config, batch_size):
  golden = json.loads((_TESTDATA / 'eval_confusion.json').read_text())[config]
  dataset = _dataset(batch_size)
  if config == 'resize':
    dataset = _dataset(
      batch_size,
      (97, 97),
      min_resize_value=97,
      max_resize_value=97,
      resize_factor=16,
    )
  matrix = evaluator.evaluate(_Golden(config), dataset)
  np.testing.assert_array_equal(matrix.counts, golden['confusion'])
  assert matrix.num_images == 3


def test_a_crop_smaller_than_an_image_is_refused():
  with pytest.raises(InputError, match=r'(?s)2007_00000[67].*12[09]'):
    evaluator.evaluate(_Golden('single'), _dataset(crop_size=(100, 100)))


def test_a_split_without_labels_is_refused():
  dataset = _dataset()
  dataset.has_labels = False
  with pytest.raises(InputError, match='--eval_split=val has no labels'):
    evaluator.evaluate(_Golden('single'), dataset)


def _events(folder):
  """{(tag, step): value} of all event files of a folder."""
  values = {}
  for path in tf.io.gfile.glob(os.path.join(folder, 'events.out.*')):
    for event in tf.compat.v1.train.summary_iterator(path):
      for value in event.summary.value:
        scalar = float(tf.make_ndarray(value.tensor))
        values[value.tag, event.step] = scalar
  return values


def test_results_as_json_and_events(tmp_path):
  matrix = metrics.ConfusionMatrix(3)
  matrix.update(np.array([[0, 0, 1, 1]]), np.array([[0, 2, 1, 1]]))
  writer = tf.summary.create_file_writer(str(tmp_path))
  values = evaluator.write_results(
    matrix,
    str(tmp_path),
    writer,
    7,
    'model.ckpt-7',
    'miou_1.0',
    ['a', 'b', 'c'],
  )
  stored = json.loads((tmp_path / 'miou_7.json').read_text())
  assert stored == values
  assert stored == json.loads((tmp_path / 'miou_latest.json').read_text())
  assert stored['miou'] == pytest.approx(0.5)
  assert stored['checkpoint'] == 'model.ckpt-7' and stored['step'] == 7
  assert [row['iou'] for row in stored['classes']] == [0.5, 1.0, 0.0]
  assert stored['scalars']['eval/miou_1.0_class_2'] is None
  events = _events(tmp_path)
  assert events['eval/miou_1.0_overall', 7] == pytest.approx(0.5)
  assert events['eval/miou_1.0_class_1', 7] == pytest.approx(1.0)
  assert math.isnan(events['eval/miou_1.0_class_2', 7])
  assert (tmp_path / 'confusion_7.png').read_bytes().startswith(b'\x89PNG')
  assert not list(tmp_path.glob('*.tmp'))


@pytest.mark.parametrize('batch_size', [1, 3])
def test_trimap_of_padded_images(batch_size):
  """Images of several sizes, padded to the crop with the ignore label."""
  found = trimap.Trimap(21, 255, [1, 4, 15])
  matrix = evaluator.evaluate(_Golden('single'), _dataset(batch_size), found)
  assert found.num_images == 3
  np.testing.assert_array_equal(found.whole().counts, matrix.counts)
  plain = trimap.Trimap(21, 255, [1, 4, 15])
  predict = _Golden('single')
  sizes = set()
  for batch in _dataset().iterate():
    height, width = batch['original_image'].shape[1:3]
    labels, predictions = batch['label'].numpy(), predict(batch['image'])
    sizes.add((height, width))
    plain.update(labels[:, :height, :width], predictions[:, :height, :width])
  assert len(sizes) == 3
  assert trimap.to_dict(found) == trimap.to_dict(plain)


@pytest.mark.parametrize('batch_size', [1, 2])
def test_scores_of_images(batch_size):
  scores = image_scores.ImageScores(21)
  matrix = evaluator.evaluate(
    _Golden('single'), _dataset(batch_size), scores=scores
  )
  counts = scores.counts()
  assert counts.names.tolist() == list(_NAMES)
  np.testing.assert_array_equal(
    counts.intersections.sum(axis=0), np.diag(matrix.counts)
  )
  # One image alone.
  alone = metrics.ConfusionMatrix(21, 255)
  batch = list(_dataset().iterate())[1]
  alone.update(batch['label'].numpy(), _GOLDEN[_key(_NAMES[1])][None])
  assert counts.miou()[1] == pytest.approx(alone.mean_iou())


class _Stub:
  """In the place of prediction.Predictor."""

  def __init__(self, *unused, **unused_too):
    self._golden = _Golden('single')

  def restore(self, unused_prefix):
    return 7

  def __call__(self, images):
    return self._golden(images)


def _trimap_job(monkeypatch, make_dataset):
  monkeypatch.setattr(prediction, 'Predictor', _Stub)
  monkeypatch.setattr(
    prediction, 'checkpoint_paths', lambda *unused: iter(['run/model.ckpt-7'])
  )
  options = common.ModelOptions({'semantic': 21})
  return prediction.Job('run', make_dataset, lambda *unused: options, [129] * 2)


def test_trimap_as_table_json_events_and_plot(tmp_path, monkeypatch, capsys):
  job = _trimap_job(monkeypatch, lambda unused: _dataset())
  values = evaluator.run(job, str(tmp_path), [2, 5], 'void')
  expected = trimap.Trimap(21, 255, [2, 5], 'void')
  evaluator.evaluate(_Golden('single'), _dataset(), expected)
  assert values['trimap'] == trimap.to_dict(expected)
  assert json.loads((tmp_path / 'miou_7.json').read_text()) == values
  stored = json.loads((tmp_path / 'trimap_7.json').read_text())
  assert stored['trimap'] == values['trimap']
  assert stored['step'] == 7 and stored['class_names'][20] == 'tvmonitor'
  two, five = values['trimap']['bands']
  assert two['num_pixels'] < five['num_pixels']
  events = _events(tmp_path)
  assert events['trimap/miou_1.0_width_5', 7] == pytest.approx(five['miou'])
  assert (tmp_path / 'trimap_7.png').read_bytes().startswith(b'\x89PNG')
  assert not list(tmp_path.glob('*.tmp'))
  printed = capsys.readouterr().out
  assert trimap.to_table(values['trimap']) in printed
  last = printed.splitlines()[-1]
  assert last.startswith(f'mIoU {values["miou"]:.4f} ')
  for name in last.partition(', beside it ')[2].split(', '):
    assert (tmp_path / name).is_file()


def test_a_fault_of_a_picture_is_a_warning(
  tmp_path, monkeypatch, capsys, caplog
):
  # As if it were not installed.
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  job = _trimap_job(monkeypatch, lambda unused: _dataset())
  values = evaluator.run(job, str(tmp_path), [2])
  assert json.loads((tmp_path / 'miou_7.json').read_text()) == values
  events = _events(tmp_path)
  assert ('eval/miou_1.0_overall', 7) in events
  assert ('trimap/miou_1.0_width_2', 7) in events
  assert not list(tmp_path.glob('*.png'))
  for name in ('confusion_7.png', 'trimap_7.png'):
    assert f'{name} is not drawn: ' in caplog.text
  # Nor is it said to be there.
  assert (
    capsys.readouterr()
    .out.splitlines()[-1]
    .endswith(
      'miou_7.json, beside it images_7.csv, images_7.npz, trimap_7.json'
    )
  )


class _Unlabelled:
  """A data set of one image, all of it ignored."""

  num_of_classes, ignore_label, num_examples = 21, 255, 1
  has_labels, split_name = True, 'val'
  info = dataset_info.DatasetInfo('unlabelled', 21)

  def iterate(self):
    yield {
      common.IMAGE: tf.zeros([1, 129, 129, 3]),
      common.LABEL: tf.fill([1, 129, 129, 1], 255),
      common.IMAGE_NAME: tf.constant(['town']),
      data_generator.RESIZED_HEIGHT: tf.constant([129]),
      data_generator.RESIZED_WIDTH: tf.constant([129]),
    }


def test_ignored_labels_are_an_error_after_the_rest(
  tmp_path, monkeypatch, capsys
):
  job = _trimap_job(monkeypatch, lambda unused: _Unlabelled())
  with pytest.raises(InputError, match=r'--eval_split=val .*have the ignore'):
    evaluator.run(job, str(tmp_path), [2, 5])
  stored = json.loads((tmp_path / 'miou_7.json').read_text())
  assert stored['num_images'] == 1 and stored['num_pixels'] == 0
  assert 'trimap' not in stored
  assert not list(tmp_path.glob('trimap*'))
  assert 'confusions' not in capsys.readouterr().out


def test_the_parameters_of_the_crf_are_written(tmp_path, monkeypatch):
  job = _trimap_job(monkeypatch, lambda unused: _dataset())
  assert evaluator.run(job, str(tmp_path))['crf'] is None
  crf = dense_crf.Parameters(w1=5)
  values = evaluator.run(dataclasses.replace(job, crf=crf), str(tmp_path))
  assert values['crf'] == dataclasses.asdict(crf)
  assert json.loads((tmp_path / 'miou_7.json').read_text()) == values
  # A curve of its own.
  assert values['tag'] == 'miou_1.0_crf'
  assert ('eval/miou_1.0_crf_overall', 7) in _events(tmp_path)


def test_trimap_options_are_checked_first(tmp_path):
  job = prediction.Job('run', None, None, [129, 129])
  with pytest.raises(InputError, match='ascending'):
    evaluator.run(job, str(tmp_path / 'logs'), [5, 2])
  assert not (tmp_path / 'logs').exists()


def test_run_follows_training(tmp_path, monkeypatch, capsys):
  """Two checkpoints: the network is built once, both steps are written."""
  prefixes = {'run/model.ckpt-1': 'single', 'run/model.ckpt-2': 'resize'}
  built = []

  class Stub:
    def __init__(self, options, crop_size, *unused, **unused_too):
      built.append((options, crop_size))

    def restore(self, prefix):
      self._golden = _Golden(
        {'single': 'single', 'resize': 'multiscale_flip'}[prefixes[prefix]]
      )
      return int(prefix[-1])

    def __call__(self, images):
      return self._golden(images)

  monkeypatch.setattr(prediction, 'Predictor', Stub)
  monkeypatch.setattr(
    prediction, 'checkpoint_paths', lambda *unused: iter(prefixes)
  )
  options = common.ModelOptions({'semantic': 21})
  variants = []

  def make_dataset(model_variant):
    variants.append(model_variant)
    return _dataset(2)

  job = prediction.Job('run', make_dataset, lambda *unused: options, [129, 129])
  values = evaluator.run(job, str(tmp_path))
  assert built == [(options, [129, 129])]
  assert variants == [None, 'mobilenet_v2']
  golden = json.loads((_TESTDATA / 'eval_confusion.json').read_text())
  assert {step for _, step in _events(tmp_path)} == {1, 2}
  first = json.loads((tmp_path / 'miou_1.json').read_text())
  assert first['miou'] == pytest.approx(golden['single']['miou'])
  assert values['miou'] == pytest.approx(golden['multiscale_flip']['miou'])
  assert json.loads((tmp_path / 'miou_latest.json').read_text()) == values
  printed = capsys.readouterr().out
  assert 'step 2' in printed
  assert printed.count('tvmonitor ') >= 2 and printed.count(' mIoU ') == 2
  assert printed.splitlines()[-1] == (
    f'mIoU {values["miou"]:.4f} (miou_1.0) of 3 images at step 2: '
    f'{tmp_path}/miou_2.json, beside it confusion_2.png, images_2.csv, '
    'images_2.npz'
  )
  assert 'Largest confusions:\n  ' in printed


def test_evaluation_within_a_training(tmp_path, monkeypatch):
  """Builds once; gives what eval.py gives, and writes it to the same files."""
  options = common.ModelOptions(
    {'semantic': 21},
    crop_size=[65, 65],
    output_stride=16,
    depth_multiplier=0.35,
    aspp_convs_filters=8,
  )
  variables = checkpoints.named_variables(model.build_model(options))
  recipe.assign(variables)
  bias = 'logits/semantic/biases'
  variables[bias].assign(100.0 * np.arange(21))
  average = {f'{bias}/ExponentialMovingAverage': -100.0 * np.arange(21)}
  prefixes = [
    checkpoints.save(str(tmp_path / 'run'), step, {**variables, **more})
    for step, more in ((1, {}), (2, average))
  ]
  built = []
  build = inference.build_predictor
  monkeypatch.setattr(
    inference,
    'build_predictor',
    lambda *arguments, **more: built.append(1) or build(*arguments, **more),
  )
  evaluation = evaluator.Evaluation(
    options, _dataset(2), [129, 129], str(tmp_path / 'eval')
  )
  found = [evaluation.evaluate(prefix) for prefix in prefixes]
  assert built == [1]
  assert {step for _, step in _events(tmp_path / 'eval')} == {1, 2}
  # The average of the biases favours the first class.
  favoured = [
    np.sum(values['confusion_matrix'], axis=0).argmax() for values in found
  ]
  assert favoured == [20, 0]
  job = prediction.Job(
    prefixes[1],
    lambda unused: _dataset(2),
    lambda *unused: options.replace(crop_size=[129, 129]),
    [129, 129],
  )
  assert evaluator.run(job, str(tmp_path / 'script')) == found[1]
  assert found[1]['output_stride'] == 16
  for name in ('miou_2.json', 'miou_latest.json'):
    assert (tmp_path / 'eval' / name).read_bytes() == (
      tmp_path / 'script' / name
    ).read_bytes()


def test_what_an_evaluation_within_a_training_is_given(tmp_path, monkeypatch):
  given = []

  class Stub(_Stub):
    def __init__(self, *arguments, **more):
      super().__init__()
      given.append((*arguments, more))

  monkeypatch.setattr(prediction, 'Predictor', Stub)
  options = common.ModelOptions({'semantic': 21}, crop_size=[65, 65])
  evaluation = evaluator.Evaluation(
    options,
    _dataset(),
    (129, 129),
    str(tmp_path),
    image_pyramid=[0.5, 1.0],
    use_moving_averages=False,
    strategy='devices',
  )
  more = {
    'image_pyramid': [0.5, 1.0],
    'use_moving_averages': False,
    'strategy': 'devices',
  }
  options = options.replace(crop_size=[129, 129])
  assert given == [(options, (129, 129), more)]
  # Another step than that of the file, if one is given.
  values = evaluation.evaluate('run/model.ckpt-7', step=8)
  assert values['step'] == 8 and (tmp_path / 'miou_8.json').exists()
  assert evaluation.evaluate('run/model.ckpt-7')['step'] == 7


def test_an_error_before_evaluation_leaves_no_events(tmp_path):
  def make_dataset(_):
    raise InputError('no data')

  job = prediction.Job('run', make_dataset, None, [129, 129])
  with pytest.raises(InputError, match='no data'):
    evaluator.run(job, str(tmp_path))
  assert not list(tmp_path.iterdir())


def test_a_log_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').touch()
  job = prediction.Job('run', None, None, [129, 129])
  with pytest.raises(InputError, match='file/eval cannot be written to'):
    evaluator.run(job, str(tmp_path / 'file' / 'eval'))

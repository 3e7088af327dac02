"""Metrics against the original's figures and against a plain definition."""

import json
import math
import pathlib

import numpy as np
import pytest

from deeplab.common import InputError
from deeplab.evaluation import metrics

_TESTDATA = pathlib.Path(__file__).parents[1] / 'testdata'


def _load(name):
  return json.loads((_TESTDATA / name).read_text())


def _from_counts(counts):
  """A ConfusionMatrix fed with one row of pixels that has these counts."""
  counts = np.asarray(counts)
  pixels = np.repeat(np.arange(counts.size), counts.ravel())[None]
  matrix = metrics.ConfusionMatrix(len(counts), ignore_label=255)
  matrix.update(pixels // len(counts), pixels % len(counts))
  return matrix


@pytest.mark.parametrize('config', ['single', 'multiscale_flip', 'resize'])
def test_miou_equals_the_original(config):
  golden = _load('eval_confusion.json')[config]
  matrix = _from_counts(golden['confusion'])
  np.testing.assert_array_equal(matrix.counts, golden['confusion'])
  assert matrix.mean_iou() == pytest.approx(golden['miou'], rel=1e-12)


@pytest.mark.parametrize('config', ['os16', 'os8', 'os8msf'])
def test_original_mean_counts_predicted_but_absent_classes(config):
  """The rule of `mean_iou`, from the original's own figures on real images.

  18 classes have labels; at output stride 8 a 19th is predicted somewhere.
  """
  golden = _load('voc_val30_miou.json')[config]
  values = [golden[f'class_{i}'] for i in range(21)]
  classes = sum(v for v in values if v is not None) / golden['overall']
  assert classes == pytest.approx(18 if config == 'os16' else 19, abs=1e-5)


def test_definitions():
  # Class 2 is predicted but absent, class 3 occurs nowhere.
  matrix = _from_counts([[6, 1, 1, 0], [2, 4, 0, 0], [0] * 4, [0] * 4])
  np.testing.assert_allclose(
    matrix.class_iou(), [6 / 10, 4 / 7, 0, np.nan], rtol=1e-15
  )
  np.testing.assert_allclose(
    matrix.class_accuracy(), [6 / 8, 4 / 6, np.nan, np.nan], rtol=1e-15
  )
  assert matrix.mean_iou() == pytest.approx((6 / 10 + 4 / 7 + 0) / 3)
  assert matrix.mean_accuracy() == pytest.approx((6 / 8 + 4 / 6) / 2)
  assert matrix.pixel_accuracy() == pytest.approx(10 / 14)


def test_batches_do_not_matter():
  rng = np.random.default_rng(0)
  labels = rng.choice([0, 1, 2, 255], (6, 5, 7, 1)).astype(np.int32)
  predictions = rng.integers(0, 3, (6, 5, 7))
  whole = metrics.ConfusionMatrix(3, 255)
  whole.update(labels, predictions)
  parts = metrics.ConfusionMatrix(3, 255)
  for first, last in ((4, 6), (0, 1), (1, 4)):
    parts.update(labels[first:last], predictions[first:last])
  np.testing.assert_array_equal(whole.counts, parts.counts)
  assert whole.num_images == parts.num_images == 6
  assert whole.counts.sum() == (labels != 255).sum()
  whole.reset()
  assert not whole.counts.any() and whole.num_images == 0


def test_an_ignore_label_inside_the_range():
  matrix = metrics.ConfusionMatrix(3, ignore_label=0)
  matrix.update(np.array([[0, 1, 2, 2]]), np.array([[1, 1, 0, 2]]))
  np.testing.assert_array_equal(
    matrix.counts, [[0, 0, 0], [0, 1, 0], [1, 0, 1]]
  )


def test_labels_outside_the_range_name_image_and_values():
  matrix = metrics.ConfusionMatrix(3, ignore_label=255)
  labels = np.array([[0, 1, 255], [7, 2, 9]])
  with pytest.raises(InputError, match=r"'town'.* outside 0\.\.2 or 255: 7, 9"):
    matrix.update(labels, np.zeros((2, 3), int), [b'sea', b'town'])
  assert not matrix.counts.any()
  with pytest.raises(InputError, match='number 1 '):
    matrix.update(labels, np.zeros((2, 3), int))
  with pytest.raises(InputError, match=r'prediction values .*: 3\.'):
    matrix.update(np.zeros((1, 2), int), np.array([[3, 0]]))


def test_negative_labels_are_refused():
  matrix = metrics.ConfusionMatrix(3)
  with pytest.raises(InputError, match=r'0\.\.2: -1'):
    matrix.update(np.array([[-1]]), np.array([[0]]))


@pytest.mark.parametrize('wrong', ['labels', 'predictions'])
def test_labels_are_integers(wrong):
  values = {'labels': np.zeros((1, 2, 2), int)}
  values['predictions'] = values['labels']
  values[wrong] = np.full((1, 2, 2), 0.5)
  with pytest.raises(InputError, match=f'{wrong} must be integers, not float'):
    metrics.ConfusionMatrix(2).update(**values)


def test_sizes_must_agree():
  matrix = metrics.ConfusionMatrix(3)
  with pytest.raises(ValueError, match='same number of pixels'):
    matrix.update(np.zeros((1, 2, 2), int), np.zeros((1, 2, 3), int))


def test_no_pixels():
  matrix = metrics.ConfusionMatrix(2, 255)
  matrix.update(np.full((1, 2, 2), 255), np.zeros((1, 2, 2), int))
  assert math.isnan(matrix.mean_iou())
  assert math.isnan(matrix.pixel_accuracy())
  values = metrics.to_dict(matrix)
  assert values['miou'] is None and values['num_images'] == 1
  json.dumps(values, allow_nan=False)


def test_official_tags():
  assert metrics.predictions_tag() == 'miou_1.0'
  assert (
    metrics.predictions_tag([0.5, 1, 1.75], True) == 'miou_0.5_1.0_1.75_flipped'
  )
  matrix = _from_counts([[3, 1], [0, 0]])
  scalars = metrics.official_scalars(matrix, 'miou_1.0')
  assert list(scalars) == [
    'eval/miou_1.0_overall',
    'eval/miou_1.0_class_0',
    'eval/miou_1.0_class_1',
  ]
  assert scalars['eval/miou_1.0_overall'] == pytest.approx(0.375)
  assert scalars['eval/miou_1.0_class_0'] == pytest.approx(0.75)
  assert math.isnan(scalars['eval/miou_1.0_class_1'])


def test_dictionary_and_table():
  matrix = _from_counts([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
  values = metrics.to_dict(matrix, ['sky', 'road', 'car'])
  assert json.loads(json.dumps(values, allow_nan=False)) == values
  assert values['classes'][2]['name'] == 'car'
  assert values['classes'][2]['iou'] is None
  assert values['classes'][1]['iou'] == pytest.approx(0.8)
  assert values['confusion_matrix'][0] == [3, 1, 0]
  lines = metrics.to_table(matrix, ['sky', 'road', 'car']).splitlines()
  assert lines[2].split() == ['0', 'sky', '0.7500', '0.7500', '0.5000']
  assert lines[4].split() == ['2', 'car', '-', '-', '0.0000']
  assert lines[-3].split() == ['mIoU', '0.7750']


def test_what_each_image_of_a_batch_counts():
  rng = np.random.default_rng(0)
  labels = rng.choice([0, 1, 2, 255], (3, 5, 7))
  # Nothing of the second image counts.
  labels[1] = 255
  predictions = rng.integers(0, 3, (3, 5, 7))
  matrix = metrics.ConfusionMatrix(3, 255)
  found = matrix.update(labels, predictions)
  for counts, label, prediction in zip(found, labels, predictions, strict=True):
    alone = metrics.ConfusionMatrix(3, 255)
    alone.update(label[None], prediction[None])
    np.testing.assert_array_equal(counts, alone.counts)
  assert not found[1].any()
  np.testing.assert_array_equal(sum(found), matrix.counts)


def test_mean_ious_are_those_of_matrices():
  matrices = [
    _from_counts([[6, 1, 1, 0], [2, 4, 0, 0], [0] * 4, [0] * 4]),
    _from_counts([[3, 0], [1, 2]]),
  ]
  for matrix in matrices:
    right = np.diag(matrix.counts)
    unions = matrix.label_pixels + matrix.predicted_pixels - right
    found = metrics.mean_ious(np.stack([right] * 2), np.stack([unions] * 2))
    assert found == pytest.approx([matrix.mean_iou()] * 2, rel=1e-15)
  assert np.isnan(metrics.mean_ious(np.zeros(3), np.zeros(3)))


def test_largest_confusions():
  matrix = _from_counts([[60, 10, 30], [5, 0, 0], [0, 1, 999]])
  found = metrics.largest_confusions(matrix, ['pole', 'tree', 'sky'], 3)
  assert [str(item) for item in found] == [
    'tree is taken for pole in 100.0% of its pixels (5)',
    'pole is taken for sky in 30.0% of its pixels (30)',
    'pole is taken for tree in 10.0% of its pixels (10)',
  ]
  # No more than there are; a class without labels has none.
  assert len(metrics.largest_confusions(matrix, limit=9)) == 4
  assert metrics.largest_confusions(_from_counts([[3, 0], [0, 0]])) == []
  assert metrics.largest_confusions(metrics.ConfusionMatrix(2)) == []

"""Panoptic quality: the original's figures, and a plain loop over segments."""

import fractions
import itertools

import numpy as np
import pytest

from deeplab.common import InputError
from deeplab.evaluation import base_metric, panoptic_quality


def grid(text):
  """uint16 [height, width] of the digits of words."""
  return np.array([list(map(int, word)) for word in text.split()], np.uint16)


_LABELS = grid('111111 111111 112221 122221 111111 111111')
_GOOD = grid('111111 111111 122221 122211 111111 111111')
_BAD = grid('111111 111111 111221 111221 111221 111111')
_NONE = np.zeros([6, 6], np.uint16)


def _metric(num_categories=1, ignored_label=2, instances=16, offset=16):
  return panoptic_quality.PanopticQuality(
    num_categories, ignored_label, instances, offset
  )


def _assert_totals(metric, iou, tp, fn, fp):
  np.testing.assert_allclose(metric.iou_per_class, iou, rtol=1e-15)
  np.testing.assert_array_equal(metric.tp_per_class, tp)
  np.testing.assert_array_equal(metric.fn_per_class, fn)
  np.testing.assert_array_equal(metric.fp_per_class, fp)


# The figures of the original's tests.


def test_a_perfect_match():
  instances = grid('111111 122221 122221 122221 122111 121111')
  metric = _metric()
  assert metric.compare_and_accumulate(_NONE, instances, _NONE, instances) == 1
  _assert_totals(metric, [2.0], [2], [0], [0])
  np.testing.assert_array_equal(metric.result_per_category(), [1.0])


def test_all_wrong():
  predicted = grid('000000 010010 011110 011110 000000 000000')
  metric = _metric(num_categories=2, instances=1)
  assert (
    metric.compare_and_accumulate(1 - predicted, _NONE, predicted, _NONE) == 0
  )
  _assert_totals(metric, [0, 0], [0, 0], [1, 1], [1, 1])


def test_matches_are_above_half_an_iou():
  metric = _metric()
  metric.compare_and_accumulate(_NONE, _LABELS, _NONE, _GOOD)
  _assert_totals(metric, [28 / 30 + 6 / 8], [2], [0], [0])
  assert metric.result() == pytest.approx((28 / 30 + 6 / 8) / 2, rel=1e-15)
  metric.reset()
  metric.compare_and_accumulate(_NONE, _LABELS, _NONE, _BAD)
  _assert_totals(metric, [27 / 32], [1], [1], [1])
  assert metric.result() == pytest.approx(27 / 64, rel=1e-15)


def test_exactly_half_is_no_match():
  metric = _metric()
  metric.compare_and_accumulate(grid('00'), grid('11'), grid('00'), grid('12'))
  _assert_totals(metric, [0], [0], [1], [2])


_CATEGORIES = grid('111111 111111 122122 122122 111111 111111')
_RIGHT = grid('000000 000000 000011 000011 000000 000000')
_LEFT = grid('000000 000000 011000 011000 000000 000000')


def test_one_segment_predicted_as_two():
  metric = _metric(3, ignored_label=0, instances=10, offset=100)
  metric.compare_and_accumulate(_CATEGORIES, _NONE, _CATEGORIES, _RIGHT)
  _assert_totals(metric, [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 2])
  np.testing.assert_array_equal(metric.result_per_category(), [0, 1, 0])
  assert metric.result() == 0.5


def test_the_order_of_instances_does_not_matter():
  metric = _metric(3, ignored_label=0, instances=10, offset=100)
  metric.compare_and_accumulate(_CATEGORIES, _LEFT, _CATEGORIES, _RIGHT)
  _assert_totals(metric, [0, 1, 2], [0, 1, 2], [0] * 3, [0] * 3)
  assert metric.result() == 1


def test_merging_adds_images():
  good, bad, both = _metric(), _metric(), _metric()
  for _ in range(2):
    good.compare_and_accumulate(_NONE, _LABELS, _NONE, _GOOD)
    bad.compare_and_accumulate(_NONE, _LABELS, _NONE, _BAD)
  for predicted in (_GOOD, _BAD) * 2:
    both.compare_and_accumulate(_NONE, _LABELS, _NONE, predicted)
  before = bad.iou_per_class.copy()
  good.merge(bad)
  _assert_totals(good, [2 * (28 / 30 + 6 / 8) + 2 * (27 / 32)], [6], [2], [2])
  assert good.result() == pytest.approx(0.63177083, abs=1e-8)
  assert both.result() == pytest.approx(good.result(), rel=1e-15)
  np.testing.assert_array_equal(bad.iou_per_class, before)


# A plain loop over all pairs of segments.


def _segments(categories, instances):
  """{(category, instance): mask}."""
  return {
    (int(c), int(i)): (categories == c) & (instances == i)
    for c, i in itertools.product(np.unique(categories), np.unique(instances))
    if ((categories == c) & (instances == i)).any()
  }


def plain_panoptic_quality(images, num_categories, ignored_label):
  """(iou, tp, fn, fp) of each category but the ignored one, in fractions."""
  totals = np.full((4, num_categories), fractions.Fraction(0))
  for gt_categories, gt_instances, categories, instances in images:
    gt = _segments(gt_categories, gt_instances)
    pred = _segments(categories, instances)
    nowhere = np.zeros(gt_categories.shape, bool)
    void = gt.get((ignored_label, 0), nowhere)
    ignored = gt_categories == ignored_label
    found_gt, found_pred = set(), set()
    for (g, g_mask), (p, p_mask) in itertools.product(gt.items(), pred.items()):
      if g[0] != p[0] or g[0] == ignored_label:
        continue
      both = int((g_mask & p_mask).sum())
      union = int((g_mask | (p_mask & ~void)).sum())
      if 2 * both > union:
        totals[:2, g[0]] += [fractions.Fraction(both, union), 1]
        found_gt.add(g)
        found_pred.add(p)
    for g in gt.keys() - found_gt:
      if g[0] != ignored_label:
        totals[2, g[0]] += 1
    for p in pred.keys() - found_pred:
      mostly = 2 * (pred[p] & ignored).sum() > pred[p].sum()
      if p[0] != ignored_label and not mostly:
        totals[3, p[0]] += 1
  return totals


def random_images(seed, num_categories, ignored_label, count=6):
  """Blocky label maps, the prediction a shifted and spotted ground truth."""
  rng = np.random.default_rng(seed)
  labels = [*range(num_categories - 1), ignored_label]
  images = []
  for _ in range(count):
    height, width = rng.integers(1, 5, 2)
    layout = (
      rng.choice(labels, (height, width)),
      rng.integers(0, 4, (height, width)),
    )
    gt = [np.kron(part, np.ones((5, 6), int)) for part in layout]
    predicted = [np.roll(part, rng.integers(0, 4), axis=1) for part in gt]
    spots = rng.random(gt[0].shape) < rng.choice([0, 0.1, 0.9])
    predicted[0] = np.where(spots, rng.choice(labels), predicted[0])
    predicted[1] = np.where(spots, rng.integers(0, 4), predicted[1])
    images.append((*gt, *predicted))
  return images


@pytest.mark.parametrize('ignored_label', [0, 2, 4, 9])
@pytest.mark.parametrize('seed', range(8))
def test_equals_a_plain_loop(seed, ignored_label):
  """Void, crowds, absent categories; the label inside and out of the range."""
  images = random_images(seed, 5, ignored_label)
  metric = _metric(5, ignored_label, instances=4, offset=1000)
  for image in images:
    metric.compare_and_accumulate(*image)
  iou, tp, fn, fp = plain_panoptic_quality(images, 5, ignored_label)
  counts = np.arange(5) != ignored_label
  np.testing.assert_allclose(
    metric.iou_per_class[counts], iou[counts].astype(float), rtol=1e-14
  )
  for name, plain in (('tp', tp), ('fn', fn), ('fp', fp)):
    found = getattr(metric, f'{name}_per_class')
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found[counts], plain[counts].astype(int))
  valid = counts & (tp + fn + fp > 0)
  np.testing.assert_array_equal(metric.valid_categories(), valid)
  pq = [iou[i] / (tp[i] + (fn[i] + fp[i]) / 2) for i in np.flatnonzero(valid)]
  assert metric.result() == pytest.approx(float(sum(pq) / len(pq)), rel=1e-14)


# Void and crowds.


def test_predictions_mostly_on_void_or_crowd_are_not_false():
  metric = _metric(3, ignored_label=0, instances=4, offset=12)
  metric.compare_and_accumulate(
    grid('0000001111'),
    grid('0001110000'),  # Void, then a crowd.
    grid('2222222222'),
    grid('1100000112'),
  )
  # Of instance 0, 4 of 5 pixels are ignored; of 1, 2 of 4; of 2, none.
  np.testing.assert_array_equal(metric.fp_per_class, [0, 0, 2])
  np.testing.assert_array_equal(metric.fn_per_class, [0, 1, 0])


def test_half_on_void_is_a_false_positive():
  metric = _metric(3, ignored_label=0, instances=4, offset=12)
  metric.compare_and_accumulate(
    grid('0022'), grid('0000'), grid('1111'), grid('0000')
  )
  np.testing.assert_array_equal(metric.fp_per_class, [0, 1, 0])
  metric.reset()
  metric.compare_and_accumulate(
    grid('0002'), grid('0000'), grid('1111'), grid('0000')
  )
  np.testing.assert_array_equal(metric.fp_per_class, [0, 0, 0])


def test_void_leaves_the_union_but_a_crowd_does_not():
  metric = _metric(2, ignored_label=0, instances=4, offset=8)
  zeros = grid('0000')
  metric.compare_and_accumulate(grid('0011'), zeros, grid('1111'), zeros)
  assert metric.iou_per_class[1] == 1
  metric.reset()
  metric.compare_and_accumulate(grid('0111'), grid('1000'), grid('1111'), zeros)
  assert metric.iou_per_class[1] == 0.75


def test_the_row_of_the_ignored_label_is_the_original_one():
  """Void leaves the union of void with void too, so that IoU may exceed 1."""
  metric = _metric(2, ignored_label=0, instances=4, offset=8)
  zeros = grid('000000')
  metric.compare_and_accumulate(grid('000011'), zeros, grid('000111'), zeros)
  np.testing.assert_allclose(metric.iou_per_class, [3 / 1, 2 / 2])
  np.testing.assert_array_equal(metric.valid_categories(), [False, True])


def test_images_of_void_and_of_no_pixels():
  metric = _metric(2, ignored_label=0)
  assert metric.compare_and_accumulate(_NONE, _NONE, _NONE, _NONE) == 0
  empty = np.zeros([0, 5], np.uint8)
  assert metric.compare_and_accumulate(empty, empty, empty, empty) == 0
  assert not metric.valid_categories().any()
  assert metric.detailed_results() == {
    'All': {'pq': 0, 'sq': 0, 'rq': 0, 'n': 0}
  }


# Results.


def test_things_and_stuff():
  metric = _metric(3, ignored_label=0, instances=10, offset=100)
  metric.compare_and_accumulate(_CATEGORIES, _NONE, _CATEGORIES, _RIGHT)
  results = metric.detailed_results(is_thing=[False, False, True])
  one = {'pq': 1, 'sq': 1, 'rq': 1, 'n': 1}
  none = {'pq': 0, 'sq': 0, 'rq': 0, 'n': 1}
  assert results['Stuff'] == one and results['Things'] == none
  assert results['All'] == {'pq': 0.5, 'sq': 0.5, 'rq': 0.5, 'n': 2}
  with pytest.raises(InputError, match='3 entries'):
    metric.detailed_results(is_thing=[True])


def test_the_table(capsys):
  metric = _metric()
  metric.compare_and_accumulate(_NONE, _LABELS, _NONE, _GOOD)
  metric.print_detailed_results(is_thing=[True])
  assert capsys.readouterr().out.splitlines() == [
    '+--------+------+------+-------+---+',
    '|        |   PQ |   SQ |    RQ | N |',
    '+--------+------+------+-------+---+',
    '| All    | 84.2 | 84.2 | 100.0 | 1 |',
    '| Things | 84.2 | 84.2 | 100.0 | 1 |',
    '| Stuff  |  0.0 |  0.0 |   0.0 | 0 |',
    '+--------+------+------+-------+---+',
  ]
  metric.print_detailed_results(print_digits=5)
  assert '84.167' in capsys.readouterr().out


# Large and wrong labels.


def test_labels_beyond_32_bits():
  """201 categories of 2000 instances: 402000 * 402000 pairs."""
  labels = np.array([[200, 199, 5]], np.uint8)
  instances = np.array([[1999, 1999, 7]], np.uint16)
  metric = _metric(201, 0, instances=2000, offset=402000)
  metric.compare_and_accumulate(labels, instances, labels, instances)
  np.testing.assert_array_equal(
    np.flatnonzero(metric.tp_per_class), [5, 199, 200]
  )
  assert metric.result() == 1


def test_runs():
  values, lengths = base_metric.label_runs(grid('1122 2333'))
  np.testing.assert_array_equal(values, [1, 2, 3])
  np.testing.assert_array_equal(lengths, [2, 3, 3])


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({0: grid('00')}, 'groundtruth_category_array and groundtruth_instance'),
    ({0: grid('00'), 1: grid('00')}, r'\(1, 2\) and \(6, 6\)'),
    ({2: _NONE + 7}, r'prediction has categories outside 0\.\.2: \[7\]'),
    ({0: _NONE + 3}, r'ground truth has categories outside 0\.\.2: \[3\]'),
    ({1: _NONE - 1.0}, 'groundtruth_instance_array must hold integers'),
    ({3: _NONE.astype(int) - 1}, 'Received: -1'),
    ({3: _NONE + 100}, r'predicted panoptic label \(here 100\)'),
  ],
)
def test_wrong_labels(change, message):
  metric = _metric(3, ignored_label=0, instances=10, offset=100)
  arrays = [change.get(i, _NONE) for i in range(4)]
  with pytest.raises(InputError, match=message):
    metric.compare_and_accumulate(*arrays)
  assert not metric.tp_per_class.any() and not metric.fp_per_class.any()


def test_wrong_settings():
  with pytest.raises(InputError, match='max_instances_per_category must be'):
    _metric(instances=0)
  with pytest.raises(InputError, match='ignored_label must be an integer'):
    _metric(ignored_label=None)
  with pytest.raises(InputError, match='cannot be merged'):
    _metric().merge(_metric(instances=8))

"""Parsing covering: the original's figures, and a plain loop over segments."""

import fractions
import itertools

import numpy as np
import pytest

from deeplab.common import InputError
from deeplab.evaluation import panoptic_quality, parsing_covering


def grid(text):
  """uint16 [height, width] of the digits of words."""
  return np.array([list(map(int, word)) for word in text.split()], np.uint16)


_NONE = np.zeros([6, 6], np.uint16)


# The figures of the original's tests, which give panoptic labels as instances.


def test_a_perfect_match():
  instances = grid('222222 244442 244442 244442 244222 242222')
  metric = parsing_covering.ParsingCovering(3, 2, 2, 16, False)
  assert metric.compare_and_accumulate(_NONE, instances, _NONE, instances) == 1
  np.testing.assert_array_equal(metric.weighted_iou_per_class, [0, 21, 0])
  np.testing.assert_array_equal(metric.gt_area_per_class, [0, 21, 0])
  np.testing.assert_array_equal(metric.result_per_category(), [0, 1, 0])


def test_all_wrong():
  labels = grid('000000 010010 011110 011110 000000 000000')
  metric = parsing_covering.ParsingCovering(2, 0, 1, 16, False)
  assert metric.compare_and_accumulate(_NONE, labels, _NONE, 1 - labels) == 0
  np.testing.assert_array_equal(metric.weighted_iou_per_class, [0, 0])
  np.testing.assert_array_equal(metric.gt_area_per_class, [0, 10])


# A plain loop over all pairs of segments.


def _segments(categories, instances, counts):
  """{(category, instance): mask among the pixels that count}."""
  segments = {}
  for label in itertools.product(np.unique(categories), np.unique(instances)):
    mask = (categories == label[0]) & (instances == label[1]) & counts
    if mask.any():
      segments[label] = mask
  return segments


def _plain(images, num_categories, ignored_label, normalize):
  """(weighted IoU, area) of each category in fractions."""
  totals = np.full((2, num_categories), fractions.Fraction(0))
  for gt_categories, gt_instances, categories, instances in images:
    counts = gt_categories != ignored_label
    pred = _segments(categories, instances, counts)
    for gt, mask in _segments(gt_categories, gt_instances, counts).items():
      best = max(
        (
          fractions.Fraction(int((mask & p).sum()), int((mask | p).sum()))
          for label, p in pred.items()
          if label[0] == gt[0]
        ),
        default=0,
      )
      area = fractions.Fraction(int(mask.sum()), mask.size if normalize else 1)
      totals[:, gt[0]] += [area * best, area]
  return totals


def _random_image(rng, labels):
  shape = rng.integers(1, 12, 2)
  image = []
  for values in (labels, range(3)):
    gt = rng.choice(values, shape)
    spots = rng.random(shape) < 0.3
    image += [gt, np.where(spots, rng.choice(values, shape), gt)]
  return image[0], image[2], image[1], image[3]


@pytest.mark.parametrize('normalize', [True, False])
@pytest.mark.parametrize('ignored_label', [0, 2, 4, 9])
@pytest.mark.parametrize('seed', range(4))
def test_equals_a_plain_loop(seed, ignored_label, normalize):
  """Void, crowds, absent categories; the label inside and out of the range."""
  rng = np.random.default_rng(seed)
  labels = [*range(4), ignored_label]
  images = [_random_image(rng, labels) for _ in range(4)]
  metric, other = (
    parsing_covering.ParsingCovering(5, ignored_label, 3, 99, normalize)
    for _ in range(2)
  )
  for index, image in enumerate(images):
    (metric, other)[index % 2].compare_and_accumulate(*image)
  metric.merge(other)
  weighted, area = _plain(images, 5, ignored_label, normalize)
  np.testing.assert_allclose(
    metric.weighted_iou_per_class, weighted.astype(float), rtol=1e-13
  )
  np.testing.assert_allclose(
    metric.gt_area_per_class, area.astype(float), rtol=1e-13
  )
  valid = np.flatnonzero(area)
  np.testing.assert_array_equal(
    np.flatnonzero(metric.valid_categories()), valid
  )
  mean = float(sum(weighted[valid] / area[valid]) / len(valid))
  assert metric.result() == pytest.approx(mean, rel=1e-13)


def test_normalisation_weighs_images_alike():
  """A large image that is wrong against a small one that is right."""
  results = []
  for normalize in (True, False):
    metric = parsing_covering.ParsingCovering(3, 0, 2, 8, normalize)
    for size, category in ((2, 1), (4, 2)):
      ones = np.ones([size, size], int)
      metric.compare_and_accumulate(ones, ones * 0, ones * category, ones * 0)
    results.append(metric.result())
  assert results == [1 / 2, 4 / 20]


def test_the_ignored_part_of_a_prediction_is_no_part_of_its_union():
  metric = parsing_covering.ParsingCovering(2, 0, 2, 8, False)
  instances = grid('0100')  # Void, then a crowd.
  metric.compare_and_accumulate(
    grid('0011'), instances, grid('1111'), grid('0000')
  )
  assert metric.result() == 1


def test_images_of_void_and_of_no_pixels():
  metric = parsing_covering.ParsingCovering(2, 0, 2, 8)
  empty = np.zeros([0, 5], int)
  assert metric.compare_and_accumulate(_NONE, _NONE, _NONE, _NONE) == 0
  assert metric.compare_and_accumulate(empty, empty, empty, empty) == 0
  assert metric.detailed_results([False, True])['Things'] == {'pc': 0, 'n': 0}


def test_the_table(capsys):
  metric = parsing_covering.ParsingCovering(2, 0, 2, 8)
  zeros = grid('0000')
  metric.compare_and_accumulate(grid('1111'), zeros, grid('1110'), zeros)
  metric.print_detailed_results([False, True], print_digits=2)
  assert capsys.readouterr().out.splitlines()[1:6] == [
    '|        | PC | N |',
    '+--------+----+---+',
    '| All    | 75 | 1 |',
    '| Things | 75 | 1 |',
    '| Stuff  |  0 | 0 |',
  ]


def test_only_alike_metrics_merge():
  metric = parsing_covering.ParsingCovering(2, 0, 2, 8)
  for other in (
    parsing_covering.ParsingCovering(2, 0, 2, 8, False),
    panoptic_quality.PanopticQuality(2, 0, 2, 8),
  ):
    with pytest.raises(InputError, match='cannot be merged'):
      metric.merge(other)

"""Trimaps against a plain search for boundaries around every pixel."""

import itertools
import json

import numpy as np
import pytest

from deeplab.common import InputError
from deeplab.evaluation import metrics, trimap

_WIDTHS = (1, 2, 3, 5, 9, 30)


def _maps(seed=0, num_classes=4, ignored=255, shape=(23, 31)):
  """A label map with large and small regions, and predictions."""
  rng = np.random.default_rng(seed)
  coarse = rng.choice([*range(num_classes), ignored], (5, 7))
  labels = np.kron(coarse, np.ones((5, 5), int))[: shape[0], : shape[1]]
  places = rng.random(labels.shape)
  labels[places < 0.01] = ignored
  labels[places > 0.99] = num_classes - 1
  return labels, rng.integers(0, num_classes, shape)


def _distance(labels, ignored, boundary, y, x):
  """Chessboard distance of one pixel to the nearest boundary, or infinity."""
  found = [
    max(abs(y - row), abs(x - column))
    for row, column in itertools.product(*map(range, labels.shape))
    if (boundary != 'classes' and ignored[row, column])
    or (
      boundary != 'void'
      and not ignored[row, column]
      and labels[row, column] != labels[y, x]
    )
  ]
  return min(found, default=np.inf)


@pytest.mark.parametrize('boundary', trimap.BOUNDARIES)
@pytest.mark.parametrize('seed', [0, 1])
def test_bands_equal_a_plain_search(boundary, seed):
  labels, _ = _maps(seed, shape=(14, 19))
  ignored = labels == 255
  bands = trimap.bands(labels, ignored, _WIDTHS, boundary)
  seen = set()
  for y, x in np.argwhere(~ignored):
    distance = _distance(labels, ignored, boundary, y, x)
    assert bands[y, x] == sum(width < distance for width in _WIDTHS)
    seen.add(int(bands[y, x]))
  assert len(seen) > 2


def test_void_is_the_dilation_of_the_papers():
  """The published code dilates void by a square of 2 w + 1 pixels."""
  ndimage = pytest.importorskip('scipy.ndimage')
  labels, _ = _maps()
  ignored = labels == 255
  bands = trimap.bands(labels, ignored, _WIDTHS, 'void')
  for index, width in enumerate(_WIDTHS):
    dilated = ndimage.maximum_filter(
      ignored, 2 * width + 1, mode='constant', cval=False
    )
    np.testing.assert_array_equal(
      (bands <= index) & ~ignored, dilated & ~ignored
    )


def test_a_contour_in_the_middle_of_a_rim():
  row = np.array([[0] * 6 + [255] * 5 + [1] * 6])
  ignored = row == 255
  expected = {
    # From the outside: 6 pixels away from the rim, ..., 1.
    'any': [5, 4, 3, 2, 1, 0],
    'void': [5, 4, 3, 2, 1, 0],
    # Across the rim.
    'classes': [10, 9, 8, 7, 6, 5],
  }
  for boundary, left in expected.items():
    bands = trimap.bands(row, ignored, range(1, 12), boundary)
    assert bands[0, :6].tolist() == left
    assert bands[0, -6:].tolist() == left[::-1]


@pytest.mark.parametrize('boundary', trimap.BOUNDARIES)
@pytest.mark.parametrize('num_classes', [4, 255, 300])
def test_counts_of_all_widths(boundary, num_classes):
  void = 1000
  labels, predictions = _maps(2, num_classes, void)
  found = trimap.Trimap(num_classes, void, _WIDTHS, boundary)
  found.update(labels[None], predictions[None])
  ignored = labels == void
  bands = trimap.bands(labels, ignored, _WIDTHS, boundary)
  for index, matrix in enumerate(found.matrices()):
    near = metrics.ConfusionMatrix(num_classes, void)
    near.update(np.where(bands <= index, labels, void)[None], predictions[None])
    np.testing.assert_array_equal(matrix.counts, near.counts)
    assert matrix.counts.dtype == np.int64 and matrix.num_images == 1
  whole = metrics.ConfusionMatrix(num_classes, void)
  whole.update(labels[None], predictions[None])
  np.testing.assert_array_equal(found.whole().counts, whole.counts)


def test_an_ignore_label_among_the_classes():
  # As in ADE20K: 0 is ignored, and labels and predictions reach 2.
  found = trimap.Trimap(3, 0, [1], 'void')
  found.update(np.array([[[1, 1, 0, 0, 2, 2]]]), np.full((1, 1, 6), 1))
  np.testing.assert_array_equal(
    found.matrices()[0].counts, [[0, 0, 0], [0, 1, 0], [0, 1, 0]]
  )


def test_padding_is_neither_boundary_nor_counted():
  sizes = [(23, 31), (14, 19), (23, 8)]
  labels = np.full((3, 25, 40, 1), 255)
  # Out of range, as what a network says of padding may be anything.
  predictions = np.full((3, 25, 40), 99)
  plain = trimap.Trimap(4, 255, _WIDTHS)
  for index, (height, width) in enumerate(sizes):
    one, two = (values[:height, :width] for values in _maps(index))
    labels[index, :height, :width, 0] = one
    predictions[index, :height, :width] = two
    plain.update(one[None], two[None])
  padded = trimap.Trimap(4, 255, _WIDTHS)
  padded.update(labels, predictions, sizes=sizes)
  for one, two in zip(plain.matrices(), padded.matrices(), strict=True):
    np.testing.assert_array_equal(one.counts, two.counts)
  assert padded.num_images == 3


@pytest.mark.parametrize('boundary', trimap.BOUNDARIES)
def test_the_border_of_an_image_is_no_boundary(boundary):
  labels = np.full((1, 12, 12), 255)
  labels[:, :8, :9] = 2
  found = trimap.Trimap(3, 255, [1, 20], boundary)
  found.update(labels, np.zeros((1, 12, 12), int), sizes=[(8, 9)])
  assert found.is_empty() and found.whole().counts.sum() == 72
  with pytest.raises(InputError, match='trimap of up to 20 pixels: none of'):
    trimap.to_dict(found)


def test_batches_do_not_matter():
  labels, predictions = map(
    np.stack, zip(*(_maps(seed) for seed in range(4)), strict=True)
  )
  whole = trimap.Trimap(4, 255, _WIDTHS)
  whole.update(labels, predictions)
  parts = trimap.Trimap(4, 255, _WIDTHS)
  for first, last in ((3, 4), (0, 1), (1, 3)):
    parts.update(labels[first:last], predictions[first:last])
  assert trimap.to_dict(whole) == trimap.to_dict(parts)


# Bad input.


@pytest.mark.parametrize(
  ('widths', 'message'),
  [
    ([], r'ascending .*Received: trimap_widths=\.'),
    (None, 'must be a list of integers. Received: None'),
    (5, 'must be a list of integers. Received: 5'),
    ([3, 2], r'ascending .*1,2,\.\.\.,40.*=3,2\.'),
    ([1, 2, 2], r'each of them once.*=1,2,2\.'),
    ([1, 1] * 9, r'Received: trimap_widths=1(,1){9},\.\.\.\.$'),
    ([0, 1], r'at least 1.*\[0, 1\]'),
    ([-2], 'at least 1'),
    ([1.5], 'an integer'),
  ],
)
def test_widths_are_checked(widths, message):
  with pytest.raises(InputError, match=message):
    trimap.Trimap(3, 255, widths)


def test_any_number_of_widths():
  # More than 16 bits can count.
  found = trimap.Trimap(2, 255, range(1, 70000))
  labels = np.array([[[0, 0, 1, 1]]])
  found.update(labels, labels)
  last = found.matrices()[-1]
  assert last.counts.sum() == 4 and found.matrices()[0].counts.sum() == 2


def test_the_boundary_is_checked():
  with pytest.raises(InputError, match=r"any, void, classes\..*'edges'"):
    trimap.Trimap(3, 255, [1], 'edges')


def test_sizes_must_agree():
  found = trimap.Trimap(3, 255, [1])
  with pytest.raises(InputError, match=r'\[1, 4, 5\] and \[1, 5, 4\]'):
    found.update(np.zeros((1, 4, 5), int), np.zeros((1, 5, 4), int))
  with pytest.raises(InputError, match='of 4x6 pixels has labels of 4x5'):
    found.update(*np.zeros((2, 1, 4, 5), int), sizes=[(4, 6)])
  for height in (0, -1):
    with pytest.raises(InputError, match='nor the image empty'):
      found.update(*np.zeros((2, 1, 4, 5), int), sizes=[(height, 5)])
  for count in (1, 3):
    with pytest.raises(InputError, match=f'{count} sizes, 2 images'):
      found.update(*np.zeros((2, 2, 4, 5), int), sizes=[(4, 5)] * count)


def test_labels_outside_the_range_name_the_image():
  labels = np.zeros((2, 3, 3), int)
  labels[1, 2, 2] = 7
  found = trimap.Trimap(3, 255, [1])
  with pytest.raises(InputError, match=r"'town' has label .*0\.\.2 or 255: 7"):
    found.update(labels, np.zeros((2, 3, 3), int), [b'sea', b'town'])
  with pytest.raises(InputError, match=r"'sea' has prediction .*: 3"):
    found.update(labels * 0, labels * 0 + 3, [b'sea', b'town'])


def test_nothing_in_a_trimap():
  with pytest.raises(InputError, match='there are none'):
    trimap.to_dict(trimap.Trimap(2, 255, iter([1, 2])))
  ignored = trimap.Trimap(2, 255, [1, 2])
  ignored.update(np.full((1, 3, 3), 255), np.zeros((1, 3, 3), int))
  with pytest.raises(InputError, match='all of their pixels have the ignore'):
    trimap.to_dict(ignored)
  rimless = trimap.Trimap(2, 255, [1, 2], 'void')
  rimless.update(np.eye(3, dtype=int)[None], np.zeros((1, 3, 3), int))
  error = rimless.empty_error('--eval_split=val')
  assert 'labels of --eval_split=val' in str(error)
  assert '--trimap_boundary=any' in str(error)


# Output.


def test_dictionary_and_table():
  row = np.array([[[0] * 4 + [255] * 2 + [1] * 4]])
  found = trimap.Trimap(3, 255, [2, 3, 6], 'classes')
  found.update(row, np.array([[[0] * 3 + [1] * 7]]))
  values = trimap.to_dict(found)
  assert json.loads(json.dumps(values, allow_nan=False)) == values
  empty, three, six = values['bands']
  assert empty == {
    'width': 2,
    'num_pixels': 0,
    'miou': None,
    'pixel_accuracy': None,
    'mean_accuracy': None,
    'class_iou': [None] * 3,
    'num_classes': 0,
  }
  # One pixel of each class, both predicted as 1.
  assert three['num_pixels'] == 2 and three['class_iou'] == [0, 0.5, None]
  assert three['miou'] == 0.25 and three['num_classes'] == 2
  assert six['num_pixels'] == 8
  assert six['pixel_accuracy'] == pytest.approx(7 / 8)
  assert six['mean_accuracy'] == pytest.approx((3 / 4 + 1) / 2)
  assert values['whole_image'] == {
    name: value for name, value in six.items() if name != 'width'
  }
  lines = trimap.to_table(values).splitlines()
  assert lines[2].split() == ['2', '0', '0', '-', '-']
  assert lines[3].split() == ['3', '2', '2', '0.2500', '0.5000']
  assert lines[-2].split() == ['all', '8', '2', '0.7750', '0.8750']
  assert 'within 2 pixels of a boundary (classes)' in lines[-1]

"""Polygons, lines and run lengths: which pixels they cover."""

import numpy as np
import pytest

from deeplab.datasets.labels import shape_masks


def _box(left, top, right, bottom):
  return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _whole(region, height, width):
  """The mask of a region in the image."""
  box, part = region
  mask = np.zeros((height, width), bool)
  assert mask[box].shape == part.shape
  mask[box] = part
  return mask


@pytest.mark.parametrize(
  'box, columns, rows',
  [
    ((1, 2, 4, 5), (1, 4), (2, 5)),
    # As pycocotools does it.
    ((1.3, 1.7, 4.6, 4.4), (1, 5), (2, 4)),
    ((-9, -9, 99, 99), (0, 8), (0, 6)),
    ((2, 2, 2.4, 5), (0, 0), (0, 0)),
  ],
)
def test_boxes(box, columns, rows):
  expected = np.zeros((6, 8), bool)
  expected[slice(*rows), slice(*columns)] = True
  for points in (_box(*box), _box(*box)[::-1]):
    mask = _whole(shape_masks.fill_polygon(points, 6, 8), 6, 8)
    np.testing.assert_array_equal(mask, expected)


def test_polygons_agree_with_the_winding_of_each_pixel():
  noise = np.random.default_rng(0)
  for _ in range(20):
    points = noise.uniform(-5, 45, (7, 2))
    expected = np.zeros((40, 30), bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
      y, x = np.mgrid[:40, :30] + 0.5
      crosses = (x0 <= x) != (x1 <= x)
      with np.errstate(divide='ignore', invalid='ignore'):
        expected ^= crosses & (y0 + (x - x0) * (y1 - y0) / (x1 - x0) < y)
    mask = _whole(shape_masks.fill_polygon(points, 40, 30), 40, 30)
    assert (mask != expected).mean() < 1e-3


def test_neighbours_share_no_pixel_and_leave_none_out():
  middle = [4.2, 3.7]
  corners = _box(0, 0, 8, 6)
  count = sum(
    _whole(
      shape_masks.fill_polygon(np.array([middle, a, b]), 6, 8), 6, 8
    ).astype(int)
    for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)
  )
  np.testing.assert_array_equal(count, np.ones((6, 8)))


def test_lines():
  y, x = np.mgrid[:9, :12] + 0.5
  disc = _whole(shape_masks.draw_line(np.array([[4.0, 4.0]]), 3, 9, 12), 9, 12)
  np.testing.assert_array_equal(disc, np.hypot(x - 4, y - 4) <= 3)
  bent = np.array([[2.0, 2.0], [9.0, 2.0], [9.0, 20.0]])
  line = _whole(shape_masks.draw_line(bent, 1, 9, 12), 9, 12)
  expected = np.zeros((9, 12), bool)
  expected[1:3, 2:10] = expected[2:, 8:10] = True
  # The round ends.
  expected[1:3, 1] = expected[1, 9] = True
  np.testing.assert_array_equal(line, expected)


def test_lines_agree_with_the_distance_of_each_pixel():
  noise = np.random.default_rng(0)
  y, x = np.mgrid[:40, :30] + 0.5
  for _ in range(30):
    (x0, y0), (x1, y1) = points = noise.uniform(-5, 45, (2, 2))
    radius = noise.uniform(0.1, 9)
    square = (x1 - x0) ** 2 + (y1 - y0) ** 2
    place = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / square
    place = place.clip(0, 1)
    distance = np.hypot(x - x0 - place * (x1 - x0), y - y0 - place * (y1 - y0))
    mask = _whole(shape_masks.draw_line(points, radius, 40, 30), 40, 30)
    np.testing.assert_array_equal(mask, distance <= radius)


def test_regions_are_as_small_as_their_shapes():
  """Large photographs hold many small shapes."""
  size = (3000, 4000)
  begin = np.array([1000.0, 2000.0])
  square = begin + [[0, 0], [40, 0], [40, 40], [0, 40]]
  for region in (
    shape_masks.fill_polygon(square, *size),
    shape_masks.draw_line(square[:1], 20, *size),
    shape_masks.draw_line(square[:2], 2, *size),
  ):
    assert 0 < region[1].size <= 44 * 44
  rows = [1000 * 3000, 40, 12_000_000 - 1000 * 3000 - 40]
  box, mask = shape_masks.decode_runs(rows, *size)
  assert box == (slice(0, 3000), slice(1000, 1001)) and mask.sum() == 40
  one, other = (
    shape_masks.fill_polygon(square + shift, *size) for shift in (0, [60, 20])
  )
  box, mask = shape_masks.unite([one, other])
  assert box == (slice(2000, 2060), slice(1000, 1100))
  assert mask.sum() == one[1].sum() + other[1].sum() == 2 * 40 * 40


@pytest.mark.parametrize('counts', [[12], [0, 12], [12, 0], [0, 0, 12]])
def test_run_lengths_of_everything_or_nothing(counts):
  region = shape_masks.decode_runs(counts, 3, 4)
  assert _whole(region, 3, 4).sum() == sum(counts[1::2])


def test_run_lengths():
  mask = np.zeros((7, 9), bool)
  mask[1:4, 2:6] = mask[5, 0] = True
  # What pycocotools writes.
  counts = shape_masks.unpack_counts('5192K00000d0')
  assert counts == [5, 1, 9, 3, 4, 3, 4, 3, 4, 3, 24]
  found = shape_masks.decode_runs(counts, 7, 9)
  np.testing.assert_array_equal(_whole(found, 7, 9), mask)
  assert shape_masks.unpack_counts('<') == [12]


@pytest.mark.parametrize('text', ['5 1', '5é', '5`', '`' * 100])
def test_bad_run_lengths(text):
  with pytest.raises(ValueError, match='run lengths'):
    shape_masks.unpack_counts(text)


@pytest.mark.parametrize('counts', [[], [3, 4], [-1, 13], [10**12]])
def test_run_lengths_must_cover_the_image(counts):
  with pytest.raises(ValueError, match='of 3 x 4'):
    shape_masks.decode_runs(counts, 3, 4)

"""Tiles: where they are, how much they count, and what they add up to."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest

from deeplab.common import InputError
from deeplab.evaluation import tiling

_SIZES = [(1, 1), (33, 34), (1024, 2048), (1080, 1920), (720, 1280), (97, 4000)]


@pytest.mark.parametrize('size', _SIZES)
@pytest.mark.parametrize('grid', [8, 16, 32])
@pytest.mark.parametrize('overlap', [0, 0.25, 0.75])
def test_tiles_cover_the_image_and_are_within_bounds(size, grid, overlap):
  tile = tiling.tile_size(size, 257, overlap, grid)
  tiles = tiling.layout(size, tile, overlap, grid)
  assert math.prod(tile) <= tiling.padded(257, grid) ** 2
  for length, side, positions in zip(
    size, tile, (tiles.rows, tiles.columns), strict=True
  ):
    assert side % grid == 1 and positions[0] == 0
    assert all(start % grid == 0 for start in positions)
    assert length <= positions[-1] + side < length + grid
    for start, following in itertools.pairwise(positions):
      assert start < following < start + side
      assert start + side - following > overlap * side - grid


@pytest.mark.parametrize(
  ('size', 'tile', 'count'),
  [
    ((375, 500), (385, 513), 1),
    ((720, 1280), (721, 1281), 1),
    ((1024, 2048), (1025, 833), 3),
    ((1080, 1920), (1089, 769), 3),
  ],
)
def test_the_size_of_common_images(size, tile, count):
  """As few pixels as possible, in tiles that are not narrow."""
  assert tiling.tile_size(size, 1025, 0.25, 16) == tile
  tiles = tiling.layout(size, tile, 0.25, 16)
  assert len(tiles.rows) * len(tiles.columns) == count
  assert tiles.is_whole == (count == 1)


def test_least_size():
  assert tiling.tile_size((40, 900), 1025, 0.25, 32, (769, 769)) == (769, 929)


@pytest.mark.parametrize(
  ('length', 'tile', 'overlap'),
  [(700, 257, 0.25), (258, 257, 0), (3000, 65, 0.75), (20, 65, 0.5)],
)
def test_windows_sum_to_one(length, tile, overlap):
  positions = tiling.starts(length, tile, overlap, 16)
  total = np.zeros(positions[-1] + tile)
  for start, window in zip(
    positions, tiling.windows(positions, tile), strict=True
  ):
    assert (window > 0).all()
    total[start : start + tile] += window
  np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_a_tile_fades_towards_its_neighbour():
  window = tiling.windows([0, 48], 65)[0]
  assert (np.diff(window[48:]) < 0).all()
  assert window[0] == 1 and window[-1] < 1e-2


@pytest.mark.parametrize('overlap', [0, 0.25, 0.6, 0.75])
@pytest.mark.parametrize('batch_size', [1, 3])
def test_merging_gives_back_what_does_not_depend_on_tiles(overlap, batch_size):
  """A function of each pixel alone is the same in tiles as on the whole."""
  generator = np.random.default_rng(0)
  image = generator.integers(0, 256, (150, 211, 3), np.uint8)
  tiles = tiling.layout(image.shape[:2], (65, 49), overlap, 16)
  seen = []

  def predict(batch):
    assert batch.dtype == np.float32 and batch.shape[1:] == (65, 49, 3)
    seen.append(len(batch))
    return np.concatenate([batch, 255 - batch], axis=-1)

  merged = np.full((*image.shape[:2], 6), np.nan)
  for top, left, values in tiling.merge(
    predict, image, tiles, [7, 8, 9], batch_size
  ):
    part = merged[top : top + values.shape[0], left : left + values.shape[1]]
    assert np.isnan(part).all()  # Every pixel is finished once.
    part[:] = values[: part.shape[0], : part.shape[1]]
  expected = np.concatenate([image, 255 - image], axis=-1)
  np.testing.assert_allclose(merged, expected, atol=1e-3)
  assert max(seen) == batch_size
  assert sum(seen) == len(tiles.rows) * len(tiles.columns)


def test_merging_melts_tiles_into_each_other():
  """Where tiles disagree there is a ramp, not a step."""
  image = np.zeros((40, 113, 3))
  tiles = tiling.layout((40, 113), (49, 65), 0.25, 16)
  numbers = itertools.count()
  merged = np.concatenate(
    [
      values[:40]
      for *_, values in tiling.merge(
        lambda batch: [np.full((49, 65, 1), float(next(numbers)))],
        image,
        tiles,
        [0, 0, 0],
      )
    ],
    axis=1,
  )
  line = merged[0, :, 0]
  assert line[0] == 0 and line[112] == 1
  assert (np.diff(line) >= 0).all() and np.diff(line).max() < 0.15


def test_memory_of_a_large_image_stays_small():
  """Parts are finished row by row, none larger than a tile."""
  image = np.zeros((2000, 300, 3), np.uint8)
  tiles = tiling.layout((2000, 300), (65, 65), 0.25, 16)
  parts = [
    (top, values.shape)
    for top, _, values in tiling.merge(
      lambda batch: [np.ones((65, 65, 2), np.float32)],
      image,
      tiles,
      [0, 0, 0],
    )
  ]
  assert all(shape[0] <= 65 and shape[1] <= 65 for _, shape in parts)
  assert [top for top, _ in parts] == sorted(top for top, _ in parts)


def test_memory_of_a_wide_image_stays_small():
  """The strip above goes as the one below comes, tile by tile."""
  tiles = tiling.layout((150, 4000), (65, 65), 0.25, 16)
  image = np.zeros((150, 4000, 3), np.uint8)
  parts = tiling.merge(
    lambda batch: [np.ones((65, 65, 100), np.float32)],
    image,
    tiles,
    [0, 0, 0],
  )
  tracemalloc.start()
  for _ in parts:
    pass
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  step = int(tiles.rows[1])
  strip = (65 - step) * 65 * 100 * 4 * len(tiles.columns)
  # One strip, what is made of one tile, and little else.
  assert peak < strip + 6 * 65 * 65 * 100 * 4


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ((20, 0.25), 'max_tile_size must be an integer, at least 33'),
    ((513.5, 0.25), 'max_tile_size'),
    ((513, 0.8), 'tile_overlap must be'),
    ((513, float('nan')), 'tile_overlap'),
  ],
)
def test_numbers_out_of_range(values, message):
  with pytest.raises(InputError, match=message):
    tiling.check_options(*values)

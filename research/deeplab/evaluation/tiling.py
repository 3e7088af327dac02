"""Large images as overlapping tiles, whose results melt into each other.

Tiles begin at multiples of the network's stride, where its features lie, so
that far from the borders of a tile they are those of the whole image. Each tile
counts with a smooth window that fades towards its borders, and the windows sum
to one everywhere: there are no seams.
"""

import dataclasses
import itertools
import math

import numpy as np

from deeplab import common

# Images of more pixels than a square of this side are cut into tiles.
DEFAULT_MAX_SIZE = 1025

# Share of a tile that the next one repeats.
DEFAULT_OVERLAP = 0.25

_RANGES = {
  'max_tile_size': common.Range(33, whole=True),
  # Every pixel then is in sixteen tiles.
  'tile_overlap': common.Range(0, 0.75),
}


def check_options(max_tile_size, tile_overlap, names=None):
  """Checks the numbers that tiles depend on.

  Args:
    max_tile_size: see `tile_size`.
    tile_overlap: see `tile_size`.
    names: {'max_tile_size': what messages call it, ...}; None for these names.

  Raises:
    common.InputError: a number is out of range.
  """
  names = names or {name: name for name in _RANGES}
  values = {'max_tile_size': max_tile_size, 'tile_overlap': tile_overlap}
  common.check_ranges(
    {names[name]: value for name, value in values.items()},
    {names[name]: bounds for name, bounds in _RANGES.items()},
  )


def padded(length, grid):
  """The smallest multiple of `grid` plus one that is not below `length`."""
  return -(-(length - 1) // grid) * grid + 1


def tile_size(size, max_size, overlap, grid, least=(1, 1)):
  """The size of the tiles that cover an image with the least work.

  Args:
    size: [height, width] of the image in pixels.
    max_size: a tile has at most the pixels of a square of this side.
    overlap: share of a tile that the next one repeats, from 0 to 0.75.
    grid: sides are multiples of it plus one.
    least: [height, width] that a tile has at least.

  Returns:
    (height, width). An image that fits has one tile: itself, padded.
  """
  limit = padded(max_size, grid) ** 2

  def sides(length, smallest):
    """The side that goes with each number of tiles along an axis."""
    most = 1 + math.ceil(length / (max_size * (1 - overlap)))
    return [
      max(smallest, padded(math.ceil(length / (n - (n - 1) * overlap)), grid))
      for n in range(1, most + 1)
    ]

  def cost(counted):
    (rows, height), (columns, width) = counted
    area = height * width
    # All pixels of all tiles; narrow tiles see less around each of them.
    narrow = (height + width) / math.sqrt(area)
    return area > limit, rows * columns * area * narrow

  heights, widths = (
    enumerate(sides(length, smallest), 1)
    for length, smallest in zip(size, least, strict=True)
  )
  (_, height), (_, width) = min(itertools.product(heights, widths), key=cost)
  return height, width


def starts(length, tile, overlap, grid):
  """Where the tiles of one axis begin.

  Args:
    length: of the image in pixels.
    tile: length of a tile.
    overlap: share of a tile that the next one repeats, as far as the grid
      allows.
    grid: tiles begin at multiples of it.

  Returns:
    A list of integers, evenly spaced as far as the grid allows. The last tile
    ends with the image or, by less than `grid` pixels, after it.
  """
  grid = min(grid, tile)
  last = -(-max(0, length - tile) // grid) * grid
  # Never beyond the end of the tile before.
  step = min(math.ceil(tile * (1 - overlap) / grid), tile // grid) * grid
  count = -(-last // step) + 1
  return [
    round(index * last / (max(1, count - 1) * grid)) * grid
    for index in range(count)
  ]


def windows(positions, tile):
  """How much each tile of one axis counts, pixel by pixel.

  Args:
    positions: where the tiles begin, see `starts`.
    tile: length of a tile.

  Returns:
    float32 [tiles, tile]; the windows of the tiles sum to one at every pixel.
  """
  # Hann's window between the pixels' borders: it is nowhere zero.
  window = np.sin(np.pi * (np.arange(tile) + 0.5) / tile) ** 2
  total = np.zeros(positions[-1] + tile)
  for start in positions:
    total[start : start + tile] += window
  shares = [window / total[start : start + tile] for start in positions]
  return np.array(shares, np.float32)


def pad(image, fill, result):
  """Pads an image at the bottom and on the right.

  Args:
    image: [height, width, channels].
    fill: the value of each channel there.
    result: float32 [height', width', channels], not smaller, which is filled.
  """
  height, width = image.shape[:2]
  result[height:] = fill
  result[:height, width:] = fill
  result[:height, :width] = image


@dataclasses.dataclass(frozen=True)
class Layout:
  """The tiles of an image.

  Attributes:
    size: [height, width] of a tile.
    rows: where tiles begin from the top.
    columns: where they begin from the left.
  """

  size: tuple[int, int]
  rows: list[int]
  columns: list[int]

  @property
  def is_whole(self) -> bool:
    """Whether one tile holds the whole image."""
    return len(self.rows) == len(self.columns) == 1

  def cut(self, image, top, left, fill, result):
    """Fills `result` with the tile at a place; see `pad`."""
    height, width = self.size
    pad(image[top : top + height, left : left + width], fill, result)


def layout(size, tile, overlap, grid):
  """The Layout of an image of `size` in tiles of the size `tile`."""
  rows, columns = (
    starts(length, side, overlap, grid)
    for length, side in zip(size, tile, strict=True)
  )
  return Layout(tuple(tile), rows, columns)


def merge(predict, image, tiles, fill, batch_size=1):
  """Runs a function on all tiles and puts the results together.

  Nothing as large as the image with all its classes is ever in memory: only
  a few tiles, and the strip that two rows of tiles share.

  Args:
    predict: function from float32 [batch, height, width, 3] to a sequence of
      float32 [height, width, classes], such as probabilities.
    image: [height, width, 3].
    tiles: its Layout.
    fill: three numbers to pad with.
    batch_size: tiles that `predict` gets at most at once.

  Yields:
    (top, left, values): float32 [rows, columns, classes] of a part of the
    image that is finished. The parts cover the image; those at its end may
    reach beyond it.
  """
  height, width = tiles.size
  row_windows = windows(tiles.rows, height)[..., None, None]
  column_windows = windows(tiles.columns, width)[..., None]
  # How far the next tile is; the last one is finished as a whole.
  row_steps = [*np.diff(tiles.rows), height]
  column_steps = [*np.diff(tiles.columns), width]
  above = None
  for top, row_step, row_window in zip(
    tiles.rows, row_steps, row_windows, strict=True
  ):
    below, before = [], None
    predicted = _predicted(predict, image, tiles, top, fill, batch_size)
    for column, values in enumerate(predicted):
      values = values * (row_window * column_windows[column])
      if before is not None:
        values[:, : before.shape[1]] += before
      step = column_steps[column]
      done, before = values[:, :step], values[:, step:].copy()
      if above is not None:
        done[: above[column].shape[0]] += above[column]
        # Memory for the strip below, which grows meanwhile.
        above[column] = None
      yield top, tiles.columns[column], done[:row_step]
      below.append(done[row_step:].copy())
    above = below


def _predicted(predict, image, tiles, top, fill, batch_size):
  """Yields what `predict` says of each tile of a row."""
  columns = iter(tiles.columns)
  while batch := list(itertools.islice(columns, batch_size)):
    images = np.empty((len(batch), *tiles.size, image.shape[-1]), np.float32)
    for left, one in zip(batch, images, strict=True):
      tiles.cut(image, top, left, fill, one)
    yield from predict(images)

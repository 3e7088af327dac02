"""The pixels of polygons, of lines and of run lengths.

Coordinates are [x, y] in pixels from the upper left corner of the image; the
centre of its first pixel is [0.5, 0.5]. A pixel belongs to a shape if its
centre does. A shape is a Region: the part of the image that it lies in, as
slices of rows and columns, and its mask there, bool [height, width].
"""

from collections.abc import Sequence

import numpy as np

Region = tuple[tuple[slice, slice], np.ndarray]

# Of a run length; no image has so many pixels.
_MAX_BITS = 60


def _box(low, high, height, width):
  """Limits (left, top, right, bottom) of the pixels between two points."""
  corners = np.stack([np.floor(low), np.ceil(high)])
  return np.clip(corners, 0, [width, height]).astype(int).ravel().tolist()


def fill_polygon(points: np.ndarray, height: int, width: int) -> Region:
  """Fills a polygon; what it surrounds an even number of times is outside.

  Args:
    points: its corners, float [n, 2]; it closes itself.
    height: of the image in pixels.
    width: of the image in pixels.

  Returns:
    The region.
  """
  left, top, right, bottom = _box(points.min(0), points.max(0), height, width)
  # An edge changes everything below it: inside becomes outside.
  changes = np.zeros((bottom - top + 1, right - left), bool)
  for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
    first, end = np.ceil(np.sort(np.clip([x0, x1], 0, width)) - 0.5)
    columns = np.arange(int(first), int(end))
    if columns.size:
      y = y0 + (columns + 0.5 - x0) * (y1 - y0) / (x1 - x0)
      rows = np.clip(np.ceil(y - 0.5), top, bottom).astype(int)
      changes[rows - top, columns - left] ^= True
  mask = np.logical_xor.accumulate(changes[:-1], axis=0)
  return (slice(top, bottom), slice(left, right)), mask


def draw_line(
  points: np.ndarray, radius: float, height: int, width: int
) -> Region:
  """Draws a line with round ends; of one point it is a disc.

  Args:
    points: its corners, float [n, 2].
    radius: half its width in pixels.
    height: of the image in pixels.
    width: of the image in pixels.

  Returns:
    The region.
  """
  left, top, right, bottom = _box(
    points.min(0) - radius, points.max(0) + radius, height, width
  )
  mask = np.zeros((bottom - top, right - left), bool)
  for begin, end in zip(points, [*points[1:], points[-1]], strict=True):
    corners = np.stack([begin, end])
    x0, y0, x1, y1 = _box(
      corners.min(0) - radius, corners.max(0) + radius, height, width
    )
    low, high = _reach(begin, end, radius, np.arange(y0, y1) + 0.5)
    columns = np.arange(x0, x1) + 0.5
    part = mask[y0 - top : y1 - top, x0 - left : x1 - left]
    part |= (columns >= low[:, None]) & (columns <= high[:, None])
  return (slice(top, bottom), slice(left, right)), mask


def _reach(begin, end, radius, y):
  """The first and the last x at each y of what is near to a segment."""
  limits = []
  # The discs around its ends.
  for center in (begin, end):
    square = radius**2 - np.square(y - center[1])
    half = np.where(square >= 0, np.sqrt(np.maximum(square, 0)), -np.inf)
    limits.append((center[0] - half, center[0] + half))
  # What lies between the ends, and no further than the radius to each side.
  dx, dy = end - begin
  square = dx**2 + dy**2
  side = radius * np.sqrt(square)
  low, high = np.full(len(y), -np.inf), np.full(len(y), np.inf)
  y = y - begin[1]
  for a, b, least, most in ((dx, dy, 0, square), (dy, -dx, -side, side)):
    if a:
      ends = np.sort([(least - b * y) / a, (most - b * y) / a], axis=0)
      low, high = np.maximum(low, ends[0]), np.minimum(high, ends[1])
    else:
      low = np.where((b * y >= least) & (b * y <= most), low, np.inf)
  is_there = (low <= high) & (square > 0)
  low, high = low + begin[0], high + begin[0]
  limits.append(
    (np.where(is_there, low, np.inf), np.where(is_there, high, -np.inf))
  )
  lows, highs = zip(*limits, strict=True)
  return np.min(lows, axis=0), np.max(highs, axis=0)


def unite(regions: Sequence[Region]) -> Region:
  """The pixels of any of some regions.

  Args:
    regions: one or more.

  Returns:
    The region.
  """
  if len(regions) == 1:
    return regions[0]
  boxes = [box for box, _ in regions]
  rows, columns = (
    slice(
      min(box[axis].start for box in boxes),
      max(box[axis].stop for box in boxes),
    )
    for axis in (0, 1)
  )
  mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
  for (y, x), part in regions:
    mask[
      y.start - rows.start : y.stop - rows.start,
      x.start - columns.start : x.stop - columns.start,
    ] |= part
  return (rows, columns), mask


def unpack_counts(text: str) -> list[int]:
  """Reads the compressed run lengths of COCO.

  A number is written in groups of five bits, the lowest first, a character
  (from '0' on) each; bit 5 says that more follow, and the sign is that of the
  last group. From the fourth on, numbers are differences to the last but one.

  Args:
    text: the text.

  Returns:
    The run lengths.

  Raises:
    ValueError: the text holds other characters, or ends within a number.
  """
  counts, value, shift = [], 0, 0
  for character in text:
    group = ord(character) - ord('0')
    if not 0 <= group < 64 or shift > _MAX_BITS:
      raise ValueError(f'{character!r} does not belong to run lengths')
    value |= (group & 31) << shift
    shift += 5
    if not group & 32:
      if group & 16:
        value -= 1 << shift
      counts.append(value + (counts[-2] if len(counts) > 2 else 0))
      value = shift = 0
  if shift:
    raise ValueError('the run lengths are cut off')
  return counts


def decode_runs(counts: list[int], height: int, width: int) -> Region:
  """Expands COCO's run lengths, which go down the columns.

  Args:
    counts: lengths of runs, of pixels outside and inside in turn.
    height: of the image in pixels.
    width: of the image in pixels.

  Returns:
    The region: the columns from the first to the last pixel inside.

  Raises:
    ValueError: they are negative, or are not those of the image.
  """
  total = sum(counts)
  if min(counts, default=0) < 0 or total != height * width:
    raise ValueError(
      f'the run lengths cover {total} pixels of {height} x {width}'
    )
  inside = np.arange(len(counts)) % 2 == 1
  ends = np.cumsum(counts)
  ends_inside = ends[1::2][np.array(counts[1::2], int) > 0]
  left = min(counts[0] // height, width) if ends_inside.size else 0
  right = -(-int(ends_inside.max(initial=0)) // height)
  pixels = np.repeat(inside, counts)[left * height : right * height]
  mask = pixels.reshape(-1, height).T
  return (slice(0, height), slice(left, max(left, right))), mask

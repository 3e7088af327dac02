"""The pixels of polygons, of lines and of run lengths.

Coordinates are [x, y] in pixels from the upper left corner of the image; the
centre of its first pixel is [0.5, 0.5]. A pixel belongs to a shape if its
centre does. Masks are boolean arrays [height, width].
"""

import numpy as np

# Of a run length; no image has so many pixels.
_MAX_BITS = 60


def fill_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
  """Fills a polygon; what it surrounds an even number of times is outside.

  Args:
    points: its corners, float [n, 2]; it closes itself.
    height: of the image in pixels.
    width: of the image in pixels.

  Returns:
    The mask.
  """
  # An edge changes everything below it: inside becomes outside.
  changes = np.zeros((height + 1, width), bool)
  for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
    first, end = np.ceil(np.sort(np.clip([x0, x1], 0, width)) - 0.5)
    columns = np.arange(int(first), int(end))
    if columns.size:
      y = y0 + (columns + 0.5 - x0) * (y1 - y0) / (x1 - x0)
      rows = np.clip(np.ceil(y - 0.5), 0, height).astype(int)
      changes[rows, columns] ^= True
  return np.logical_xor.accumulate(changes[:-1], axis=0)


def draw_line(
  points: np.ndarray, radius: float, height: int, width: int
) -> np.ndarray:
  """Draws a line with round ends; of one point it is a disc.

  Args:
    points: its corners, float [n, 2].
    radius: half its width in pixels.
    height: of the image in pixels.
    width: of the image in pixels.

  Returns:
    The mask.
  """
  mask = np.zeros((height, width), bool)
  for begin, end in zip(points, [*points[1:], points[-1]], strict=True):
    corners = np.stack([begin, end])
    low = np.floor(corners.min(0) - radius)
    high = np.ceil(corners.max(0) + radius)
    (left, top), (right, bottom) = (
      np.clip(corner, 0, [width, height]).astype(int) for corner in (low, high)
    )
    y, x = np.mgrid[top:bottom, left:right] + 0.5
    along = end - begin
    # Where on the segment, 0..1, the point nearest to the pixel lies.
    place = (x - begin[0]) * along[0] + (y - begin[1]) * along[1]
    place = np.clip(place / (np.square(along).sum() or 1), 0, 1)
    distance = np.hypot(
      x - begin[0] - place * along[0], y - begin[1] - place * along[1]
    )
    mask[top:bottom, left:right] |= distance <= radius
  return mask


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


def decode_runs(counts: list[int], height: int, width: int) -> np.ndarray:
  """Expands COCO's run lengths, which go down the columns.

  Args:
    counts: lengths of runs, of pixels outside and inside in turn.
    height: of the image in pixels.
    width: of the image in pixels.

  Returns:
    The mask.

  Raises:
    ValueError: they are negative, or are not those of the image.
  """
  total = sum(counts)
  if min(counts, default=0) < 0 or total != height * width:
    raise ValueError(
      f'the run lengths cover {total} pixels of {height} x {width}'
    )
  inside = np.arange(len(counts)) % 2 == 1
  return np.repeat(inside, counts).reshape(width, height).T

"""From the pixels of masks to labels: colours and values through tables."""

import math
from collections.abc import Mapping

import numpy as np

from deeplab.common import InputError
from deeplab.datasets.dataset_info import DatasetInfo

# How many unknown colours or values a message lists.
_LISTED = 5

_IGNORED = 'ignored'

Color = tuple[int, int, int]


def pack(colors: np.ndarray) -> np.ndarray:
  """One integer a colour: uint8 [..., 3] -> int32 [...]."""
  red, green, blue = np.moveaxis(np.asarray(colors), -1, 0)
  packed = red.astype(np.int32)
  for channel in (green, blue):
    packed = packed << 8 | channel
  return packed


def unpack(number: int) -> list[int]:
  """The [red, green, blue] of a packed colour."""
  return [number >> 16 & 255, number >> 8 & 255, number & 255]


def _name(label, info):
  return info.class_names[label] if label < info.num_classes else _IGNORED


def _nearest(color, label_of_color, info):
  """The words '<class> [r, g, b]' of the known colour nearest to another."""
  best = min(label_of_color, key=lambda known: math.dist(known, color))
  return f'{_name(label_of_color[best], info)!r} {list(best)}'


def labels_from_colors(
  pixels: np.ndarray,
  label_of_color: Mapping[Color, int],
  info: DatasetInfo,
  path: str,
  unknown_label: int | None = None,
) -> np.ndarray:
  """Looks the colours of a mask up.

  Args:
    pixels: uint8 [height, width, 3].
    label_of_color: {(red, green, blue): label}, not empty.
    info: the data set, for messages.
    path: the mask, for messages.
    unknown_label: the label of other colours, None to refuse them.

  Returns:
    The labels, uint8 [height, width].

  Raises:
    InputError: there are other colours.
  """
  packed = pack(pixels)
  # A label and one; 0 where there is no class.
  table = np.zeros(1 << 24, np.uint16)
  for color, label in label_of_color.items():
    table[pack(color)] = label + 1
  found = table[packed]
  is_unknown = found == 0
  result = (found - 1).astype(np.uint8)
  if not is_unknown.any():
    return result
  if unknown_label is not None:
    result[is_unknown] = unknown_label
    return result
  colors, counts = np.unique(packed[is_unknown], return_counts=True)
  order = np.argsort(-counts, kind='stable')[:_LISTED]
  listed = '; '.join(
    f'{color} ({counts[i]} pixels, nearest: '
    f'{_nearest(color, label_of_color, info)})'
    for i, color in ((i, unpack(int(colors[i]))) for i in order)
  )
  raise InputError(
    f'{path} is a coloured mask with {len(colors)} colours that are no class '
    f'of the data set {info.name!r}, in {counts.sum()} pixels: '
    f'{listed}{"; ..." if len(colors) > _LISTED else ""}. Correct the mask or '
    'the table of classes. Colours between those of two classes come from '
    'masks that were resized, smoothed or saved as JPEG.'
  )


def look_up(
  values: np.ndarray,
  label_of_value: Mapping[int, int],
  path: str,
  expected: str,
  unknown_label: int | None = None,
) -> np.ndarray:
  """Looks the values of a mask up.

  Args:
    values: uint8 [height, width].
    label_of_value: {value: label}.
    path: the mask, for messages.
    expected: what is expected of values, for messages.
    unknown_label: the label of other values, None to refuse them.

  Returns:
    The labels, uint8 [height, width].

  Raises:
    InputError: there are other values.
  """
  table = np.full(256, -1)
  table[list(label_of_value)] = list(label_of_value.values())
  counts = np.bincount(values.ravel(), minlength=256)
  bad = np.flatnonzero((counts > 0) & (table < 0))
  if bad.size and unknown_label is None:
    listed = ', '.join(f'{v} ({counts[v]} pixels)' for v in bad[:_LISTED])
    raise InputError(
      f'{path} holds {len(bad)} values that are no class: '
      f'{listed}{", ..." if len(bad) > _LISTED else ""}. Expected {expected}. '
      'Correct the mask, or the description of the classes.'
    )
  table[bad] = unknown_label or 0
  return table.astype(np.uint8)[values]

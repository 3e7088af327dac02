"""From the pixels of masks to labels: colours and values through tables."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from deeplab.common import InputError
from deeplab.datasets.dataset_info import DatasetInfo

# How many unknown colours or values a message lists.
_LISTED = 5

_IGNORED = 'ignored'

Color = tuple[int, int, int]


def pack(colors: np.ndarray) -> np.ndarray:
  """One integer a colour: uint8 [..., 3] -> int32 [...]."""
  colors = np.asarray(colors).astype(np.int32)
  return colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]


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
  known = sorted((int(pack(c)), label) for c, label in label_of_color.items())
  colors, labels = (np.array(column) for column in zip(*known, strict=True))
  packed = pack(pixels)
  places = np.searchsorted(colors, packed).clip(max=len(colors) - 1)
  result = labels[places].astype(np.uint8)
  is_unknown = colors[places] != packed
  if not is_unknown.any():
    return result
  if unknown_label is not None:
    result[is_unknown] = unknown_label
    return result
  found, counts = np.unique(packed[is_unknown], return_counts=True)
  order = np.argsort(-counts, kind='stable')[:_LISTED]
  listed = '; '.join(
    f'{color} ({counts[i]} pixels, nearest: '
    f'{_nearest(color, label_of_color, info)})'
    for i, color in ((i, unpack(int(found[i]))) for i in order)
  )
  raise InputError(
    f'{path} is a coloured mask with {len(found)} colours that are no class '
    f'of the data set {info.name!r}, in {counts.sum()} pixels: '
    f'{listed}{"; ..." if len(found) > _LISTED else ""}. Correct the mask or '
    'the table of classes. Colours between those of two classes come from '
    'masks that were resized, smoothed or saved as JPEG.'
  )


def labels_from_indices(
  values: np.ndarray,
  label_of_value: Sequence[int],
  info: DatasetInfo,
  path: str,
  unknown_label: int | None = None,
) -> np.ndarray:
  """Looks the values of a mask up; the ignore label stands for itself.

  Args:
    values: uint8 [height, width].
    label_of_value: the label of each value from 0 on.
    info: the data set, for its ignore label and messages.
    path: the mask, for messages.
    unknown_label: the label of other values, None to refuse them.

  Returns:
    The labels, uint8 [height, width].

  Raises:
    InputError: there are other values.
  """
  table = np.full(256, -1)
  table[info.ignore_label] = info.ignore_label
  table[: len(label_of_value)] = label_of_value
  counts = np.bincount(values.ravel(), minlength=256)
  bad = np.flatnonzero((counts > 0) & (table < 0))
  if bad.size and unknown_label is None:
    listed = ', '.join(f'{v} ({counts[v]} pixels)' for v in bad[:_LISTED])
    raise InputError(
      f'{path} holds {len(bad)} values that are no class of the data set '
      f'{info.name!r}: {listed}{", ..." if len(bad) > _LISTED else ""}. '
      f'Expected 0..{len(label_of_value) - 1}, rows of the table of classes, '
      f'and {info.ignore_label} for pixels to ignore. Correct the mask or the '
      'table.'
    )
  table[bad] = unknown_label or 0
  return table.astype(np.uint8)[values]

"""Labels that are masks: indices, palettes, colours."""

from collections.abc import Sequence

import numpy as np
import tqdm

from deeplab.common import InputError
from deeplab.datasets import image_files, image_folders
from deeplab.datasets.labels import class_table_files, mask_values
from deeplab.datasets.labels.class_table_files import ClassTable, Row
from deeplab.datasets.labels.label_source import Classes, LabelSource

EXTENSIONS = ('png', 'bmp', 'tif', 'tiff', 'jpg', 'jpeg', 'webp', 'gif')

# How the pixels of masks are read: --mask_values.
AUTO, INDEX, COLOR = VALUES = ('auto', 'index', 'color')

_ADVICE = (
  f'Say what the pixels of all masks are: --mask_values={INDEX} (numbers of '
  f'rows of the table, from 0) or --mask_values={COLOR}'
)

# A message lists the colours of a mask if there are at most so many.
_MAX_COLORS = 40


class MaskLabels(LabelSource):
  """Masks in a folder, named as the images are."""

  def __init__(self, folder: str, suffix: str = '', values: str = AUTO):
    """Finds the masks.

    Args:
      folder: the folder.
      suffix: what follows the names of the images.
      values: whether pixels are indices, colours, or whichever fits ('auto').

    Raises:
      InputError: see `image_folders.find_files`.
    """
    self.paths = image_folders.find_files(folder, EXTENSIONS, suffix)
    self._values = values
    # {the only way in which masks could be read: the first such mask}.
    self._decided = {}

  def find_classes(self, names: Sequence[str]) -> ClassTable:
    if self._values == COLOR:
      raise InputError(
        '--mask_values=color needs the classes of the colours: give '
        '--class_table.'
      )
    # The table that is made here may have colours; they mean nothing new.
    self._values = INDEX
    occurs, palette = np.zeros(256, bool), _Palette()
    for name in tqdm.tqdm(names, desc='masks', unit='mask'):
      mask = image_files.read_mask(self.paths[name])
      indices = _indices(mask)
      if indices is None:
        raise _colors_without_table(mask)
      counts = np.bincount(indices.ravel(), minlength=256)
      occurs |= counts > 0
      palette.add(mask, np.flatnonzero(counts))
    return _table_of_indices(np.flatnonzero(occurs).tolist(), palette)

  def decode(
    self, name: str, size: tuple[int, int], classes: Classes
  ) -> np.ndarray:
    mask = image_files.read_mask(self.paths[name])
    if self._values != AUTO:
      return _READERS[self._values](mask, classes, classes.unknown_label)
    if classes.table.has_colors:
      values, labels = _whichever_fits(mask, classes)
      self._decide(values, mask.path)
      return labels
    values = COLOR if _indices(mask) is None else INDEX
    return _READERS[values](mask, classes, classes.unknown_label)

  def _decide(self, values, path):
    """Refuses a mask that is to be read otherwise than masks before it."""
    if values is None:
      return
    self._decided.setdefault(values, path)
    if len(self._decided) > 1:
      raise InputError(
        f'the masks would be read in two ways: only the values of '
        f'{self._decided[INDEX]} are rows of the table of classes, but of '
        f'{self._decided[COLOR]} only the colours stand there. {_ADVICE}. '
        '--unknown=ignore ignores what is not in the table.'
      )


def _indices(mask):
  """Indices of a mask; grey levels saved as RGB are too. None for colours."""
  if mask.has_indices:
    return mask.indices
  red, green, blue = np.moveaxis(mask.colors, -1, 0)
  is_grey = np.array_equal(red, green) and np.array_equal(red, blue)
  return red if is_grey else None


def _by_index(mask, classes, unknown_label):
  indices = _indices(mask)
  if indices is None:
    raise InputError(
      f'{mask.path} is a coloured mask, which has no indices. Leave '
      f'--mask_values={INDEX} out.'
    )
  table, ignore = classes.table, classes.table.ignore_label
  rows = dict(enumerate(table.label_of_row))
  return mask_values.look_up(
    indices,
    {ignore: ignore} | rows,
    mask.path,
    f'0..{len(rows) - 1}, rows of {table.source}, and {ignore} for pixels to '
    'ignore',
    unknown_label,
  )


def _by_color(mask, classes, unknown_label):
  colors = classes.table.label_of_color
  return mask_values.labels_from_colors(
    mask.colors, colors, classes.info, mask.path, unknown_label
  )


# {--mask_values: how to read a mask}.
_READERS = {INDEX: _by_index, COLOR: _by_color}


def _whichever_fits(mask, classes):
  """Labels of a mask, where the table has colours.

  Its values may be rows of the table, and what they look like colours of the
  table. If both are possible, they must come to the same, unless the file
  holds colours by its kind.

  Returns:
    INDEX or COLOR, None if it may be either; and the labels.
  """
  found, errors = {}, []
  for values, read in _READERS.items():
    try:
      found[values] = read(mask, classes, None)
    except InputError as error:
      errors.append(str(error))
  if not found and not mask.has_indices:
    return COLOR, _by_color(mask, classes, classes.unknown_label)
  if not found:
    raise InputError(f'{errors[0]} Nor do its colours fit. {_ADVICE}.')
  if len(found) == 1:
    return found.popitem()
  if np.array_equal(*found.values()):
    return None, found[INDEX]
  if mask.has_indices:
    raise InputError(
      f'{mask.path} can be read in two ways: its values are rows of '
      f'{classes.table.source} (or {classes.table.ignore_label}), and its '
      f'colours stand there too, as other classes. {_ADVICE}.'
    )
  return COLOR, found[COLOR]


# Masks without a table.


class _Palette:
  """The colours of indices, which all masks must agree on."""

  def __init__(self):
    self._colors = {}
    self._first = []
    self._path = None

  def colors(self, count):
    """The colours of the first indices, None unless they are of use."""
    known = dict(enumerate(map(tuple, self._first))) | self._colors
    colors = [known.get(index) for index in range(count)]
    are_grey = all(color == (i,) * 3 for i, color in enumerate(colors))
    differ = None not in colors and len(set(colors)) == count
    return colors if differ and not are_grey else None

  def add(self, mask, indices):
    """Takes the colours of the indices that occur in a mask."""
    palette = mask.palette or []
    for index in indices.tolist():
      if index >= len(palette):
        continue
      color = tuple(palette[index])
      if self._colors.setdefault(index, color) != color:
        raise InputError(
          f'the palettes of {mask.path} and {self._path} have different '
          f'colours of index {index}: {list(color)} and '
          f'{list(self._colors[index])}. If the colours tell the class, give '
          f'--class_table and --mask_values={COLOR}; if the indices do, '
          f'--class_table with the names alone.'
        )
    if palette and not self._first:
      self._first, self._path = palette, mask.path


def _colors_without_table(mask):
  """The error of a coloured mask, with a table to begin from."""
  colors = np.unique(mask_values.pack(mask.colors)).tolist()
  if len(colors) > _MAX_COLORS:
    lines = (
      f'This one has {len(colors)} colours: probably it was resized, smoothed '
      'or saved as JPEG, or is no mask.'
    )
  else:
    rows = (
      ','.join(map(str, [f'class_{i}', *mask_values.unpack(color)]))
      for i, color in enumerate(colors)
    )
    lines = 'The colours of this one, to begin with:\n' + '\n'.join(rows)
  return InputError(
    f'{mask.path} is a coloured mask. Say which colour is which class: '
    '--class_table=FILE, a text file with lines name,red,green,blue. '
    f'{lines}'
  )


def _table_of_indices(values, palette):
  """The table of the values that occur, with the palette's colours."""
  ignore = class_table_files.IGNORE_LABEL
  count = max((value + 1 for value in values if value != ignore), default=0)
  if count < 2:
    raise InputError(
      f'the masks hold the values {values} alone, where {ignore} stands for '
      'pixels to ignore: there are not two classes. If they are grey levels, '
      'say which is which class: --class_table=FILE with lines '
      'name,red,green,blue (name,255,255,255 for white), and '
      f'--mask_values={COLOR}.'
    )
  colors = palette.colors(count) or [None] * count
  rows = [Row(f'class_{i}', color) for i, color in enumerate(colors)]
  return ClassTable(rows, source='the values of the masks')

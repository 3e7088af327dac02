"""Tables of classes, in the files that users have.

A table is a text or a JSON file with a row for each class: a name, and a
colour where masks are coloured. The order of the rows numbers the classes.
"""

import collections
import dataclasses
import re
from collections.abc import Collection, Iterable, Sequence

from deeplab import input_files
from deeplab.common import InputError
from deeplab.datasets import class_tables, dataset_info
from deeplab.datasets.dataset_info import DatasetInfo
from deeplab.datasets.labels.mask_values import Color

# Label 255 is left for pixels to ignore.
MAX_CLASSES = 255
IGNORE_LABEL = 255

# Names that annotation tools give to what has no class, and to the pixels to
# ignore.
BACKGROUND_NAMES = ('background', '_background_')
IGNORE_NAME = '__ignore__'

BACKGROUND = BACKGROUND_NAMES[0]

# Lines of a text file. Colons are CVAT's.
_NUMBER = r'(-?\d{1,9})'
_NUMBERS = rf'{_NUMBER}[\s,;]+{_NUMBER}[\s,;]+{_NUMBER}'
# Bounded, or a line of many separators would take hours.
_NAME = r'(.{0,200}?\S)'
_NAME_FIRST = re.compile(rf'{_NAME}[\s,;:]+{_NUMBERS}[\s,;:]*')
_COLOR_FIRST = re.compile(rf'{_NUMBERS}[\s,;:]+(\S.*)')
_HEX = re.compile(rf'{_NAME}[\s,;:]+(#[0-9a-fA-F]{{6}})')
_HEADER = re.compile(
  r'\w+[\s,;]+(r[\s,;]+g[\s,;]+b|red[\s,;]+green[\s,;]+blue)'
  r'|(r[\s,;]+g[\s,;]+b|red[\s,;]+green[\s,;]+blue)[\s,;]+\w+'
  r'|names?|class(es)?|labels?|\w+\s*[,;]\s*colou?r',
  re.IGNORECASE,
)

# What names do not hold unless they are quoted, beside colours whose numbers
# are between commas, or between spaces, and alone: numbers, or other columns.
_COMMAS = re.compile('[,;]')
_NUMBER_IN_NAME = re.compile(r'-?\d+\s.*|.*\s-?\d+')
_NUMBER_FIRST = re.compile(r'-?\d+[\s:].*')

_EXPECTED = (
  "Expected 'name,red,green,blue' or 'red green blue name' in every line, or "
  'names alone'
)


@dataclasses.dataclass(frozen=True)
class Row:
  """A class: its name, its colour if there is one, and where it stands."""

  name: str
  color: Color | None = None
  where: str = ''


@dataclasses.dataclass(frozen=True)
class ClassTable:
  """The rows of a table, and which of them are no classes.

  Attributes:
    rows: all Rows; those that are not ignored are the classes 0, 1, ...
    ignored: names of rows whose pixels are ignored.
    ignore_label: the label of such pixels.
    source: where the table comes from, for messages.
  """

  rows: Sequence[Row]
  ignored: frozenset[str] = frozenset()
  ignore_label: int = IGNORE_LABEL
  source: str = 'the table of classes'

  def __post_init__(self):
    if not 1 <= len(self.kept) <= MAX_CLASSES:
      raise InputError(
        f'{self.source} has {len(self.kept)} classes ({len(self.rows)} rows). '
        f'Expected 1 to {MAX_CLASSES}.'
      )

  @property
  def kept(self) -> list[Row]:
    """The rows that are classes."""
    return [row for row in self.rows if row.name not in self.ignored]

  @property
  def has_colors(self) -> bool:
    """Whether the table gives colours of its own."""
    return self.rows[0].color is not None

  @property
  def label_of_name(self) -> dict[str, int]:
    """{name of a row: its label}."""
    labels = {name: self.ignore_label for name in self.ignored}
    labels |= {row.name: label for label, row in enumerate(self.kept)}
    return labels

  @property
  def label_of_row(self) -> list[int]:
    """The label of each row, which is what an index in a mask counts."""
    labels = self.label_of_name
    return [labels[row.name] for row in self.rows]

  @property
  def label_of_color(self) -> dict[Color, int]:
    """{colour of a row: its label}; PASCAL's colours if there are none.

    Raises:
      InputError: two rows have one colour.
    """
    if not self.has_colors:
      colors = class_tables.pascal_colormap()
      labels = {tuple(colors[i]): i for i in range(len(self.kept))}
      return labels | {tuple(colors[IGNORE_LABEL]): self.ignore_label}
    _check_unique(self.rows, 'color', 'colour')
    labels = self.label_of_name
    return {row.color: labels[row.name] for row in self.rows}

  @property
  def _backgrounds(self):
    """The rows that are called background."""
    return [r for r in self.rows if r.name.casefold() in BACKGROUND_NAMES]

  @property
  def background_label(self) -> int:
    """The label of pixels outside all shapes; see `with_background`."""
    return self.label_of_name[self._backgrounds[0].name]

  def with_background(self, to_front: bool = False) -> 'ClassTable':
    """The table with a row for the background, in front if it had none.

    Args:
      to_front: whether a row that is there goes to the front too.
    """
    if found := self._backgrounds:
      others = [row for row in self.rows if row is not found[0]]
      return self._changed([found[0], *others]) if to_front else self
    color = None
    if self.has_colors:
      free = map(tuple, class_tables.pascal_colormap())
      used = {row.color for row in self.rows}
      color = next(c for c in free if c not in used)
    return self._changed([Row(BACKGROUND, color), *self.rows])

  def _changed(self, rows, ignored=frozenset()):
    """The table with other rows, or with further ones ignored.

    The ignore label of a dataset_info.json may be that of a class. It would
    become that of another one; so what it was is ignored as a row is.
    """
    was = {row.name for row in self.kept[self.ignore_label :][:1]}
    is_free = not was and self.ignore_label >= len(rows)
    return dataclasses.replace(
      self,
      rows=rows,
      ignored=self.ignored | ignored | was,
      ignore_label=self.ignore_label if is_free else IGNORE_LABEL,
    )

  def without(self, names: Collection[str]) -> 'ClassTable':
    """The table with further rows ignored.

    Args:
      names: what --ignore_classes names.

    Raises:
      InputError: there is no such row.
    """
    known = [row.name for row in self.rows]
    unknown = [name for name in names if name not in known]
    if unknown:
      raise InputError(
        f'--ignore_classes names {unknown}, but {self.source} has the classes '
        f'{known}.'
      )
    return self._changed(self.rows, frozenset(names)) if names else self

  def info(self, name: str) -> DatasetInfo:
    """The description of the data set.

    Args:
      name: of the data set.
    """
    kept = self.kept
    return DatasetInfo(
      name=name,
      num_classes=len(kept),
      ignore_label=self.ignore_label,
      class_names=[row.name for row in kept],
      colors=[row.color for row in kept] if self.has_colors else (),
    )


def from_names(
  names: Iterable[str], source: str, colors: Iterable[Color] | None = None
) -> ClassTable:
  """The table of names that stand in annotations.

  Args:
    names: the classes in their order.
    source: where they come from, for messages.
    colors: their colours, which need not differ; None for PASCAL's.
  """
  names = list(names)
  rows = [
    Row(name, color, source)
    for name, color in zip(names, colors or [None] * len(names), strict=True)
  ]
  return _make(rows, source, colors_differ=False)


def read(path: str) -> ClassTable:
  """Reads a table of classes.

  Args:
    path: a text file with lines `name,red,green,blue` or `red green blue
      name` (commas, semicolons or white space; with or without such a header;
      also `name,#rrggbb`, CVAT's labelmap.txt, and names alone, whose colours
      are PASCAL's); or a JSON file: a dataset_info.json, an object of
      {name: [red, green, blue]}, a list of names, or one of objects with
      'name' and 'color'.

  Returns:
    The table.

  Raises:
    InputError: it cannot be read, or is no such table.
  """
  text = input_files.read_text(path)
  if not path.lower().endswith('.json'):
    return _make(_text_rows(text, path), path)
  content = input_files.parse_json(text, path, object_pairs_hook=_unique_pairs)
  if isinstance(content, dict) and 'num_classes' in content:
    return _from_info(dataset_info.load(path), path)
  return _make(_json_rows(content, path), path)


def _check_unique(rows, field, what):
  """Raises unless the rows differ in a field."""
  seen = {}
  for row in rows:
    value = getattr(row, field)
    if value in seen:
      raise InputError(
        f'{row.where}: the {what} {value!r} stands in {seen[value].where} '
        f'already (of {seen[value].name!r}). Give every class its own.'
      )
    seen[value] = row


def _make(rows, source, colors_differ=True):
  """The checked table of rows, of which all or none have a colour."""
  if not rows:
    raise InputError(f'{source} names no classes.')
  for row in rows:
    if (row.color is None) != (rows[0].color is None):
      raise InputError(
        f'{row.where}: {row.name!r} has '
        f'{"no" if row.color is None else "a"} colour, unlike '
        f'{rows[0].name!r} ({rows[0].where}). {_EXPECTED}.'
      )
    if row.color and not all(0 <= value <= 255 for value in row.color):
      raise InputError(
        f'{row.where}: the colour of {row.name!r} must be three integers from '
        f'0 to 255. Received: {list(row.color)}.'
      )
  _check_unique(rows, 'name', 'name')
  if rows[0].color and colors_differ:
    _check_unique(rows, 'color', 'colour')
  names = {row.name for row in rows}
  return ClassTable(rows, frozenset(names & {IGNORE_NAME}), source=source)


def _from_info(info, path):
  """The table of a dataset_info.json; colours need not differ there."""
  rows = [
    Row(name, tuple(color), f'{path}, class {label}')
    for label, (name, color) in enumerate(
      zip(info.class_names, info.colors, strict=True)
    )
  ]
  _check_unique(rows, 'name', 'name')
  return ClassTable(rows, frozenset(), info.ignore_label, path)


# Text files.


def _text_rows(text, path):
  """The Rows of a text file."""
  rows, is_first = [], True
  for number, line in enumerate(map(str.strip, text.splitlines()), 1):
    if not line or line.startswith('#'):
      continue
    if not (is_first and _HEADER.fullmatch(line.replace('"', ''))):
      rows.append(_text_row(line, f'{path}, line {number}'))
    is_first = False
  return rows


def _text_row(line, where):
  """The Row of a line."""
  color = None
  if match := _COLOR_FIRST.fullmatch(line):
    *numbers, name = match.groups()
    color = tuple(map(int, numbers))
  elif match := _NAME_FIRST.fullmatch(line):
    name, *numbers = match.groups()
    color = tuple(map(int, numbers))
  elif match := _HEX.fullmatch(line):
    name, color = match[1], _hex_color(match[2])
  elif re.search('[,;]', line):
    raise InputError(f'{where}: {_EXPECTED}. Received: {line[:80]!r}.')
  else:
    name = line
  _check_columns(name.strip(), line, where)
  return Row(_bare(name), color, where)


def _check_columns(name, line, where):
  """Refuses names that hold further columns of the file."""
  if name.startswith('"') and name.endswith('"'):
    return
  if _COMMAS.search(line.replace(name, '', 1)):
    is_bad = _COMMAS.search(name)
  elif name != line:
    is_bad = _NUMBER_IN_NAME.fullmatch(name)
  else:
    is_bad = _NUMBER_FIRST.fullmatch(name)
  if is_bad:
    raise InputError(
      f'{where}: there are columns besides name and colour, {name[:80]!r}: '
      f'remove them, or write "{_bare(name)[:80]}" if that is the name. '
      f'{_EXPECTED}. Received: {line[:80]!r}.'
    )


def _bare(name):
  """A name without the quotes of a CSV file."""
  return name.strip().strip('"').strip()


def _hex_color(text):
  return tuple(bytes.fromhex(text[1:]))


# JSON files.


def _unique_pairs(pairs):
  """The object of a JSON file; Python would keep the last of equal keys."""
  counts = collections.Counter(key for key, _ in pairs)
  twice = [key for key, count in counts.items() if count > 1]
  if twice:
    raise ValueError(f'the keys {twice} occur several times in one object')
  return dict(pairs)


def _json_rows(content, path):
  """The Rows of a JSON file."""
  if isinstance(content, dict):
    pairs = content.items()
  elif isinstance(content, list):
    pairs = [
      (item.get('name'), item.get('color'))
      if isinstance(item, dict)
      # A name alone, or what the check below refuses.
      else (item, None)
      for item in content
    ]
  else:
    pairs = [(content, None)]
  return [
    _json_row(name, color, f'{path}, entry {number}')
    for number, (name, color) in enumerate(pairs, 1)
  ]


def _json_row(name, color, where):
  """The Row of a name and a colour."""
  if not isinstance(name, str) or not name.strip():
    raise InputError(
      f'{where}: expected a name. The file must hold {{name: [red, green, '
      "blue]}, a list of names, a list of objects with 'name' and 'color', or "
      f'a {dataset_info.FILE_NAME}. Received: {str(name)[:60]}.'
    )
  color = None if color is None else as_color(color, name, where)
  return Row(name.strip(), color, where)


def as_color(value, name: str, where: str) -> Color:
  """The colour that a JSON file gives a class.

  Args:
    value: [red, green, blue] or '#rrggbb'.
    name: of the class, for messages.
    where: where it stands, for messages.

  Raises:
    InputError: it is none.
  """
  if isinstance(value, str) and _HEX.fullmatch(f'x {value}'):
    return _hex_color(value)
  is_color = (
    isinstance(value, (list, tuple))
    and len(value) == 3
    and all(type(number) is int for number in value)
  )
  if not is_color:
    raise InputError(
      f'{where}: the colour of {name!r} must be [red, green, blue] or '
      f"'#rrggbb'. Received: {str(value)[:60]}."
    )
  return tuple(value)

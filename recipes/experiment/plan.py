"""What a recipe is: rows, and what they share at each scale."""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deeplab.common import InputError

FULL = 'full'
SMALL = 'small'
SCALES = (FULL, SMALL)


@dataclasses.dataclass(frozen=True)
class Setting:
  """What all rows of a recipe share at one scale.

  Attributes:
    text: what it is, for the table.
    data: name of the data set; 'camvid' and 'shapes' are made by the runner.
    train: {flag of train.py: value}; a value is a number, a text, a bool or a
      list, None for a flag that is left out.
    eval: the same for eval.py, or vis.py.
    checkpoint: name of the checkpoint that training starts from, None for a
      training from scratch.
  """

  text: str
  data: str
  train: Mapping[str, Any]
  eval: Mapping[str, Any]
  checkpoint: str | None = None

  def change(self, train=(), eval=(), **fields) -> 'Setting':
    """A copy with some flags and other fields changed."""
    return dataclasses.replace(
      self,
      train=_merge(self.train, train),
      eval=_merge(self.eval, eval),
      **fields,
    )


@dataclasses.dataclass(frozen=True)
class Row:
  """One row of a table.

  Attributes:
    name: of the row, and of its folder.
    paper: mIoU that the paper reports, in percent; None where there is none.
    train: flags of train.py beside those of the setting.
    eval: flags of eval.py beside those of the setting; None for a row that is
      only trained, as a stage of others.
    weights: name of the row whose weights are evaluated, for a row that does
      not train.
    start: at full scale, name of the row whose weights the training starts
      from; None for a checkpoint.
    checkpoint, data: at full scale, others than the setting's.
    small_train, small_eval: further changes at small scale.
    small_start: `start` at small scale.
    scales: where the row is run.
    script: 'eval', or 'vis' where the labels are not public.
  """

  name: str
  paper: float | None = None
  train: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  eval: Mapping[str, Any] | None = dataclasses.field(default_factory=dict)
  weights: str | None = None
  start: str | None = None
  checkpoint: str | None = None
  data: str | None = None
  small_train: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  small_eval: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  small_start: str | None = None
  scales: Sequence[str] = SCALES
  script: str = 'eval'

  @property
  def trains(self) -> bool:
    """Whether the row has a training of its own."""
    return self.weights is None

  @property
  def initial_checkpoint(self) -> str | None:
    """Name of the checkpoint to be given, None if there is none."""
    return self.checkpoint if self.trains and not self.start else None

  @property
  def has_crf(self) -> bool:
    """Whether the evaluation ends with the CRF."""
    return bool(self.eval and self.eval.get('crf'))

  @property
  def needs(self) -> str | None:
    """The row that must be run before."""
    return self.weights or self.start

  def change(self, train, eval) -> 'Row':
    """A copy with some flags changed."""
    return dataclasses.replace(
      self,
      train=_merge(self.train, train) if self.trains else {},
      eval=None if self.eval is None else _merge(self.eval, eval),
    )

  def at(self, scale: str, setting: Setting) -> 'Row':
    """The row with all that it takes from its setting."""
    small = scale == SMALL
    train = _merge(setting.train, self.train, self.small_train if small else {})
    eval_flags = _merge(
      setting.eval, self.eval or {}, self.small_eval if small else {}
    )
    return dataclasses.replace(
      self,
      start=self.small_start if small else self.start,
      checkpoint=(not small and self.checkpoint) or setting.checkpoint,
      data=(not small and self.data) or setting.data,
      train=train if self.trains else {},
      eval=None if self.eval is None else eval_flags,
    )


def _merge(*flags):
  """Later values win; None takes a flag away."""
  merged = {}
  for values in flags:
    merged.update(values)
  return {name: value for name, value in merged.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Recipe:
  """The experiment of a table.

  Attributes:
    name: of the recipe's file.
    table: of the paper, as in 'DeepLab v3 (arXiv:1706.05587), table 5'.
    rows: each `Row`.
    settings: {scale: Setting}.
  """

  name: str
  table: str
  rows: Sequence[Row]
  settings: Mapping[str, Setting]

  def __post_init__(self):
    names = [row.name for row in self.rows]
    for name in names:
      if not re.fullmatch(r'[a-z0-9][a-z0-9_.-]*', name):
        raise ValueError(f'{self.name}: {name!r} is no name of a folder')
    for i, row in enumerate(self.rows):
      if names.index(row.name) != i:
        raise ValueError(f'{self.name}: two rows are called {row.name!r}')
      small_start = row.small_start if SMALL in self.settings else None
      for needed in {row.weights, row.start, small_start} - {None}:
        if needed not in names[:i]:
          raise ValueError(
            f'{self.name}: row {row.name!r} comes before {needed!r}'
          )
      if row.weights and (row.train or row.start or small_start):
        raise ValueError(f'{self.name}: row {row.name!r} does not train')


def select_rows(recipe, scale, names=None):
  """The rows to run at a scale, in order, and those that they need.

  Args:
    recipe: a Recipe.
    scale: 'full' or 'small'.
    names: names of the rows, None for all.

  Returns:
    A list of complete `Row`.

  Raises:
    InputError: a row is unknown, or the recipe has no such scale.
  """
  if scale not in recipe.settings:
    raise InputError(
      f'--scale={scale}: recipe {recipe.name} runs at '
      f'--scale={", ".join(recipe.settings)} only.'
    )
  setting = recipe.settings[scale]
  rows = {
    row.name: row.at(scale, setting)
    for row in recipe.rows
    if scale in row.scales
  }
  unknown = sorted(set(names or ()) - set(rows))
  if unknown:
    raise InputError(
      f'--rows: recipe {recipe.name} has no rows {", ".join(unknown)} at '
      f'--scale={scale}. It has {", ".join(rows)}.'
    )
  wanted = set(names or rows)
  for row in reversed(rows.values()):
    if row.name in wanted and row.needs:
      wanted.add(row.needs)
  return [row for row in rows.values() if row.name in wanted]


def shell_flags(values):
  """['--name=value', ...] of {name: value}."""
  return [f'--{name}={_text(value)}' for name, value in values.items()]


def _text(value):
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, (list, tuple)):
    return ','.join(map(str, value))
  return str(value)


class Named:
  """Paths given as NAME=PATH, or the main one as PATH."""

  def __init__(self, flag, texts, names, main=None):
    """Sorts what the user gave.

    Args:
      flag: name of the flag.
      texts: its values.
      names: the names that the rows ask for; some may be None.
      main: the name of a path without name; None for none.

    Raises:
      InputError: no row asks for a path of that name.
    """
    self._flag = flag
    self._main = main
    self._paths = {}
    known = list(dict.fromkeys(filter(None, names)))
    for text in texts:
      name, equals, path = text.partition('=')
      if not equals:
        name, path = main, text
      if name not in known:
        expected = ' or '.join(known) or 'nothing'
        raise InputError(
          f'--{flag}={text}: the rows need {expected}; give --{flag}=NAME=PATH '
          'with one of these names.'
        )
      self.set(name, os.path.expanduser(path))

  def get(self, name: str) -> str | None:
    """The path of that name, None if it was not given."""
    return self._paths.get(name)

  def set(self, name: str, path: str):
    """Gives a name its path."""
    self._paths[name] = path

  def placeholder(self, name: str) -> str:
    """What a dry run prints for a path that is not given."""
    return f'{name.upper()}_{self._flag.upper()}'

  def require(self, name: str, kind: str, exists: Callable[[str], bool]):
    """Refuses a path that is not given or not there.

    Raises:
      InputError: with the flag to give.
    """
    path = self.get(name)
    if path is None:
      raise InputError(
        f'--{self._flag} must name the {kind} of {name!r}: --{self._flag}='
        f'{"" if name == self._main else f"{name}="}PATH.'
      )
    if not exists(path):
      raise InputError(
        f'--{self._flag}={name}={path}: there is no such {kind}.'
      )

"""Runs targets on damaged inputs, and says what must not have happened."""

import collections
import contextlib
import dataclasses
import faulthandler
import pathlib
import random
import shutil
import sys
import tempfile

from fuzz.targets import MUTATIONS, OUTPUT, Target

from deeplab.common import InputError

# Whoever takes longer hangs. The process ends then: TensorFlow's own code
# cannot be interrupted.
LIMIT_SECS = 60

ACCEPTED, REFUSED = 'accepted', 'refused'


@dataclasses.dataclass(frozen=True)
class Case:
  """A target, and what happens to its inputs; all follows from the numbers.

  Attributes:
    target: the Target.
    number: of the case among those of the target.
    seed: of the whole run.
  """

  target: Target
  number: int
  seed: int = 0

  @property
  def kind(self) -> str:
    """The kind of the input that is damaged."""
    return self._kinds[self.number % len(self._kinds)]

  @property
  def _kinds(self):
    return sorted(self.target.inputs)

  @property
  def mutation(self):
    """What happens to it: all things that may happen, one after the other."""
    choices = list(MUTATIONS[self.kind])
    # In one order for all cases of the target.
    random.Random(f'{self.seed} {self.target.name}').shuffle(choices)
    return choices[self.number // len(self._kinds) % len(choices)]

  def __str__(self):
    name = self.mutation.__name__
    return f'{self.target.name} {self.number}, {self.kind}: {name}'

  def random(self) -> random.Random:
    """The source of all chance."""
    return random.Random(f'{self.seed} {self.target.name} {self.number}')


class Failure(AssertionError):
  """What must not happen."""


@contextlib.contextmanager
def time_limit(secs):
  """Ends the process, with all its stacks, if the body takes longer."""
  faulthandler.dump_traceback_later(secs, exit=True, file=sys.__stderr__)
  try:
    yield
  finally:
    faulthandler.cancel_dump_traceback_later()


def _content(folder):
  """{relative path: content} of a folder; None if there is none."""
  if not folder.is_dir():
    return None
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
  }


def _names(root):
  """All that lies there, but for results."""
  return {
    path.relative_to(root)
    for path in root.rglob('*')
    if path.relative_to(root).parts[0] != OUTPUT
  }


class Runner:
  """Runs the cases of a target."""

  def __init__(self, target: Target, seed: int = 0):
    """Writes the whole inputs and runs the target on them once."""
    self._target = target
    self._seed = seed
    self._stack = contextlib.ExitStack()
    folder = self._stack.enter_context(tempfile.TemporaryDirectory())
    self._folder = pathlib.Path(folder)
    self._whole = self._folder / 'whole'
    self._whole.mkdir()
    target.write(self._whole)
    self._earlier = self._folder / 'earlier' / target.folder
    shutil.copytree(self._whole, self._earlier)
    target.run(self._earlier)
    target.check(self._earlier)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._stack.close()

  def run(self, number: int) -> tuple[Case, str]:
    """Runs one case.

    Args:
      number: of the case.

    Returns:
      The case, and ACCEPTED or REFUSED.

    Raises:
      Failure: anything else happened.
    """
    case = Case(self._target, number, self._seed)
    root = self._folder / str(number) / self._target.folder
    has_earlier = self._target.has_earlier and number // 2 % 2 == 1
    shutil.copytree(self._earlier if has_earlier else self._whole, root)
    try:
      return case, self._outcome(case, root)
    except Failure as failure:
      raise Failure(f'{case} (seed {self._seed}): {failure}') from failure
    finally:
      shutil.rmtree(root.parent)

  def _outcome(self, case, root):
    target, rng = self._target, case.random()
    paths = sorted(root.glob(target.inputs[case.kind]))
    case.mutation(rng.choice(paths), rng)
    names, before = _names(root), _content(root / OUTPUT)
    message = None
    try:
      with time_limit(LIMIT_SECS):
        target.run(root)
    except InputError as error:
      message = str(error)
    except BaseException as error:
      raise Failure(f'{type(error).__name__}: {error}') from error
    if _names(root) != names:
      raise Failure(f'left behind: {sorted(_names(root) - names)}')
    after = _content(root / OUTPUT)
    if message is None:
      try:
        target.check(root)
      except Exception as error:
        raise Failure(
          f'accepted, but the output is not whole: '
          f'{type(error).__name__}: {error}'
        ) from error
      return ACCEPTED
    if str(root) not in message and '--' not in message:
      raise Failure(f'the message names no file: {message}')
    if target.is_atomic and after != before:
      raise Failure(
        f'refused, but {OUTPUT} changed: {sorted(before or ())} became '
        f'{sorted(after or ())}'
      )
    return REFUSED


class Counts:
  """How many cases of a kind ended how."""

  def __init__(self):
    self._counts = collections.Counter()

  def add(self, case: Case, outcome: str):
    """Counts a case."""
    self._counts[case.target.name, case.kind, outcome] += 1

  @property
  def total(self) -> int:
    """The number of cases."""
    return sum(self._counts.values())

  def table(self) -> str:
    """Lines: target, kind of input, cases, accepted, refused."""
    rows = sorted({key[:2] for key in self._counts})
    lines = [f'{"target":24}{"input":10}{"cases":>8}{ACCEPTED:>10}{REFUSED:>9}']
    columns = (ACCEPTED, REFUSED)
    for row in [*rows, ('all', '')]:
      numbers = [
        self._counts[(*row, column)]
        if row[1]
        else sum(n for key, n in self._counts.items() if key[2] == column)
        for column in columns
      ]
      cells = ''.join(
        f'{n:>{width}}'
        for n, width in zip((sum(numbers), *numbers), (8, 10, 9), strict=True)
      )
      lines.append(f'{row[0]:24}{row[1]:10}{cells}')
    return '\n'.join(lines)

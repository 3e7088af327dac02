"""The error of the user's input, and checks of numbers."""

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any


class InputError(ValueError):
  """The user's input is at fault: the message alone says what and the cure.

  The command-line scripts print it without a traceback and exit with 1.
  """


def check(condition, message):
  """Raises InputError with a message unless a condition holds."""
  if not condition:
    raise InputError(message)


@dataclasses.dataclass(frozen=True)
class Range:
  """The finite numbers from `low` to `high`, both included.

  Attributes:
    low: the smallest number.
    high: the largest one.
    above: whether `low` itself is left out.
    whole: whether only integers count.
  """

  low: float = 0
  high: float = math.inf
  above: bool = False
  whole: bool = False

  def __contains__(self, value):
    kind = numbers.Integral if self.whole else numbers.Real
    return (
      isinstance(value, kind)
      and not isinstance(value, bool)
      and math.isfinite(value)
      and self.low <= value <= self.high
      and not (self.above and value == self.low)
    )

  def __str__(self):
    kind = 'an integer, ' if self.whole else 'a finite number, '
    low = f'above {self.low}' if self.above else f'at least {self.low}'
    high = '' if self.high == math.inf else f' and at most {self.high}'
    return kind + low + high


NOT_NEGATIVE = Range()
POSITIVE = Range(above=True)
COUNT = Range(1, whole=True)
SHARE = Range(0, 1)


def check_ranges(values: Mapping[str, Any], ranges: Mapping[str, Range]):
  """Checks numbers, and every item of lists of numbers.

  Args:
    values: {name: number, sequence of numbers, or None for none}; names
      without a range are not looked at.
    ranges: {name: what its numbers may be}.

  Raises:
    InputError: a number is not in its range, or not a number.
  """
  for name, allowed in ranges.items():
    value = values.get(name)
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    for item in value if is_list else [] if value is None else [value]:
      if item not in allowed:
        raise InputError(
          f'{"each value of " if is_list else ""}{name} must be {allowed}. '
          f'Received: {name}={list(value) if is_list else value!r}.'
        )

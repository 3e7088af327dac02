"""Which examples each of several input pipelines reads.

Every host of a run has an input pipeline of its own, which makes its share of
each global batch. Either each pipeline has files of its own and goes through
them in epochs of its own, so that no record is read twice; or all read all
records, in one order, and each keeps its rows of every global batch.
"""

import dataclasses
from collections.abc import Sequence

from deeplab import checking
from deeplab.checking import InputError
from deeplab.datasets import records

FILES = 'files'
RECORDS = 'records'

# Where files are dealt out, the pipeline with the fewest records has at least
# this share of what the one with the most has: its examples are seen that much
# more often.
_MIN_BALANCE = 0.9


@dataclasses.dataclass(frozen=True)
class Plan:
  """What one input pipeline reads.

  Attributes:
    shards: the files with records that it reads.
    num_streams: number of different orders of examples; 1 where all pipelines
      read the same.
    stream: which of these is this pipeline's.
    num_slices: number of pipelines that share a stream.
    slice: which of these this one is.
    first_example: number of records of the streams before this one.
    text: what is read, for the log.
  """

  shards: tuple[records.Shard, ...]
  num_streams: int
  stream: int
  num_slices: int
  slice: int
  first_example: int
  text: str

  @property
  def num_examples(self) -> int:
    """Number of records in an epoch of the stream."""
    return sum(shard.num_records for shard in self.shards)


def plan(
  shards: Sequence[records.Shard],
  part: int = 0,
  num_parts: int = 1,
  shard_by: str | None = None,
  repeats: bool = True,
) -> Plan:
  """Decides what one of several input pipelines reads.

  Files are dealt out, those with the most records first, each to the pipeline
  that has the fewest records so far. This is kept if every pipeline then has
  at least 0.9 times the records of the fullest, and epochs repeat: without
  repetition the pipelines would end at different steps. Otherwise records are
  dealt out. `shard_by` overrides this.

  Args:
    shards: the shards of the split, in order.
    part: number of the pipeline, from 0.
    num_parts: number of pipelines.
    shard_by: 'files', 'records', or None to choose by the rule above.
    repeats: whether epochs follow each other without end.

  Returns:
    The plan; a pure function of the arguments.

  Raises:
    InputError: an argument is out of range, or files are asked for and not
      every pipeline can have one with records.
  """
  check(part, num_parts, shard_by)
  full = tuple(shard for shard in shards if shard.num_records)
  if num_parts == 1:
    return Plan(full, 1, 0, 1, 0, 0, 'not sharded: one input pipeline')
  reason = 'as asked for'
  if shard_by != RECORDS:
    dealt = _deal(full, num_parts)
    reason = _why_not_by_files(full, dealt, shard_by, repeats)
    if reason is None:
      return _by_files(full, dealt, part)
  text = f'by records, {reason}'
  return Plan(full, 1, 0, num_parts, part, 0, text)


def check(part: int, num_parts: int, shard_by: str | None):
  """Checks the arguments of `plan`.

  Args:
    part: number of the pipeline.
    num_parts: number of pipelines.
    shard_by: 'files', 'records' or None.

  Raises:
    InputError: one is out of range.
  """
  checking.check_ranges({'num_parts': num_parts}, {'num_parts': checking.COUNT})
  allowed = checking.Range(0, num_parts - 1, whole=True)
  checking.check_ranges({'part': part}, {'part': allowed})
  if shard_by not in (None, FILES, RECORDS):
    raise InputError(
      f"shard_by must be '{FILES}', '{RECORDS}', or None to choose what suits "
      f'the shards. Received: shard_by={shard_by!r}.'
    )


def _count(shards):
  return sum(shard.num_records for shard in shards)


def _deal(shards, num_parts):
  """Tuples of shards, one a part, with about the same numbers of records."""
  dealt = [[] for _ in range(num_parts)]
  counts = [0] * num_parts
  # Both sorted and index take the first of equals: the result is determined.
  for index in sorted(range(len(shards)), key=lambda i: -shards[i].num_records):
    part = counts.index(min(counts))
    dealt[part].append(index)
    counts[part] += shards[index].num_records
  return [tuple(shards[index] for index in sorted(hand)) for hand in dealt]


def _why_not_by_files(shards, dealt, shard_by, repeats):
  """Why files are not to be dealt out like this; None if they are."""
  num_parts = len(dealt)
  counts = [_count(hand) for hand in dealt]
  if not min(counts):
    reason = f'{len(shards)} shards are too few for {num_parts} pipelines'
    if shard_by == FILES:
      raise InputError(
        f'shard_by={FILES!r}: {reason}. Convert the data set into more '
        f'shards, best a multiple of {num_parts}, or shard by records.'
      )
    return reason
  if shard_by == FILES:
    return None
  if not repeats:
    return 'since epochs do not repeat'
  if min(counts) < _MIN_BALANCE * max(counts):
    return (
      f'{len(shards)} shards cannot be dealt out evenly to {num_parts} '
      f'pipelines ({min(counts)} to {max(counts)} records)'
    )
  return None


def _by_files(shards, dealt, part):
  """The plan of a part that has files of its own."""
  text = f'by files: {len(dealt[part])} of {len(shards)} here'
  first = sum(_count(hand) for hand in dealt[:part])
  return Plan(dealt[part], len(dealt), part, 1, 0, first, text)

"""Errors of reading that pass, such as those of a network file system."""

import errno
import os
import re
import time
from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from deeplab.checking import InputError
from deeplab.datasets import records

# Seconds to wait before a new attempt, at most.
_MOST_WAIT = 60.0

# What a file system or the tf.data service says when it is not there just now.
_PASSING = (
  tf.errors.UnavailableError,
  tf.errors.DeadlineExceededError,
  tf.errors.AbortedError,
)

# What TensorFlow makes of other failures, those of reading among them.
_UNSPECIFIC = (tf.errors.UnknownError, tf.errors.InternalError)

_IO_ERROR = os.strerror(errno.EIO)

# In what is said of another worker of the training, not of a file.
_OTHER_WORKERS = re.compile(
  r'\bCollective|remote target|[Cc]oordination service'
)


def _text(error):
  """The first line of an error's message, without the names of operations."""
  message = error.message or type(error).__name__
  line = next(iter(message.strip().splitlines()), '')
  return re.sub(r'\{\{.*?\}\}\s*|\s*\[Op:.*', '', line)


def _path(error, shards):
  """The shard that an error names, None if there is none."""
  message = str(error)
  return next((s.path for s in shards if s.path in message), None)


def waits(number: int) -> list[float]:
  """Seconds to wait before each of so many attempts in a row."""
  return [min(5.0**i, _MOST_WAIT) for i in range(number)]


def is_passing(error: Exception, shards: Sequence[records.Shard] = ()) -> bool:
  """Whether what failed may succeed when it is tried again.

  Args:
    error: what was raised where a batch was asked for.
    shards: the files that are read.

  Returns:
    Whether it may. Errors of the data never do, nor does the loss of another
    worker of the training, which only a new start mends.
  """
  if _OTHER_WORKERS.search(str(error)):
    return False
  if isinstance(error, _PASSING):
    return True
  return isinstance(error, _UNSPECIFIC) and (
    _IO_ERROR in str(error) or _path(error, shards) is not None
  )


class Patience:
  """Bears a number of failures in a row.

  Attributes:
    failures: number of failures since the last success.
  """

  def __init__(self, shards: Sequence[records.Shard], waits: Sequence[float]):
    """Makes one that has met no failure.

    Args:
      shards: the files that are read.
      waits: seconds to wait after each failure in a row; one more ends it.
    """
    self.failures = 0
    self._shards = shards
    self._waits = waits

  def succeeded(self):
    """Begins to count anew."""
    self.failures = 0

  def bear(self, error: tf.errors.OpError):
    """Waits, so that the caller may try again, or gives up.

    Args:
      error: what was raised where a batch was asked for.

    Raises:
      InputError: there were too many failures in a row, or waiting does not
        help: a file is gone.
      tf.errors.OpError: the error, which has nothing to do with reading.
    """
    path = _path(error, self._shards)
    if not is_passing(error, self._shards):
      # A file that is gone, say, or closed to us.
      if path is None or isinstance(error, records.DATA_ERRORS):
        raise error
      raise InputError(
        f'{path} can no longer be read: {_text(error)}. Restore the file and '
        'start again.'
      ) from error
    self.failures += 1
    kind = type(error).__name__
    if self.failures > len(self._waits):
      where = path or os.path.dirname(self._shards[0].path)
      raise InputError(
        f'{where}: reading failed {self.failures} times in a row, last with '
        f'{kind}: {_text(error)}. Check the disk or the network and start '
        'again.'
      ) from error
    wait = self._waits[self.failures - 1]
    logging.warning(
      'Reading failed with %s: %s. Trying again in %g s, attempt %d of %d.',
      kind,
      _text(error),
      wait,
      self.failures,
      len(self._waits),
    )
    time.sleep(wait)

"""Ends of a run that the same command takes up again."""

import contextlib
import signal
import threading
import time

from absl import logging

# sysexits.h: a temporary failure. The same command goes on from a checkpoint.
RESUMABLE_STATUS = 75

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# A request may come twice, to a process and to the group that it is in.
_ONE_REQUEST_SECS = 2.0


class Interrupted(SystemExit):
  """The run ends with RESUMABLE_STATUS."""

  def __init__(self, message):
    super().__init__(RESUMABLE_STATUS)
    self.message = message

  def __str__(self):
    return self.message


class StopRequest:
  """Whether this process was asked to end.

  Attributes:
    received: whether a signal has come.
  """

  def __init__(self):
    self.received = False
    self._since = 0.0

  @contextlib.contextmanager
  def listen(self):
    """Takes SIGTERM and SIGINT; a later one does what it does otherwise."""
    if threading.current_thread() is not threading.main_thread():
      yield  # Only the main thread may.
      return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def receive(number, frame):
      now = time.monotonic()
      if self.received:
        if now - self._since > _ONE_REQUEST_SECS:
          restore()
          signal.raise_signal(number)
        return
      self.received, self._since = True, now
      logging.warning(
        '%s: saving a checkpoint after the present step, then ending. The same '
        'command goes on from there.',
        signal.Signals(number).name,
      )

    def restore():
      for number, handler in before.items():
        signal.signal(number, handler)

    for number in _SIGNALS:
      signal.signal(number, receive)
    try:
      yield
    finally:
      restore()

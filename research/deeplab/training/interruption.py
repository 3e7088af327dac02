"""Ends of a run that the same command takes up again."""

import contextlib
import signal
import threading

from absl import logging

# sysexits.h: a temporary failure. The same command goes on from a checkpoint.
RESUMABLE_STATUS = 75

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


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

  @contextlib.contextmanager
  def listen(self):
    """Takes SIGTERM and SIGINT; a second one does what it does otherwise."""
    if threading.current_thread() is not threading.main_thread():
      yield  # Only the main thread may.
      return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def receive(number, frame):
      self.received = True
      restore()
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

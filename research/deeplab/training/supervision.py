"""Starts a worker of several hosts again when it ends before its training.

TensorFlow cannot take a host back into a running training: when one is gone
all processes must begin anew, and some end without a chance to say so. So the
training is a process below this one, which starts it again. A host that ends
with an error leaves word in a file, so that the others do not wait for it.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import tensorflow as tf
from absl import logging

from deeplab import atomic_files
from deeplab.common import InputError
from deeplab.training.interruption import RESUMABLE_STATUS

# Set in the process that trains.
_MARK = 'DEEPLAB_SUPERVISED'

# Statuses of a script that a signal ended before it could save anything.
_SIGNALLED = (128 + signal.SIGTERM, 128 + signal.SIGINT)

# Seconds between an end and the new start, at first and at most.
_FIRST_WAIT, _MOST_WAIT = 1.0, 30.0

# Seconds between two looks for the word of another host.
_POLL_SECS = 10.0

# The hosts of a run start within these seconds.
_STARTING_SECS = 60.0

# Words that are older than this at the start are of an earlier run.
_OLD_SECS = 600.0

# prctl(2), where Linux runs. Not to be loaded between fork and exec.
_LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None
_PR_SET_PDEATHSIG = 1


def is_supervised() -> bool:
  """Whether this process is the one that trains."""
  return _MARK in os.environ


def supervise(
  progress: Callable[[], object], max_restarts: int, folder: str, index: int
):
  """Runs the command line of this process again and again.

  A training that was interrupted, or killed by a signal (as TensorFlow does
  itself where it loses a host), is started again; one that ended well or with
  an error is not. SIGTERM and SIGINT go on to it, and then its end is the end.

  Args:
    progress: function whose value changes as the training goes on, such as the
      newest checkpoint.
    max_restarts: so many starts in a row without progress are the last.
    folder: that all hosts share, for `failed_host_<index>.txt` of one that ends
      with an error.
    index: number of this host.

  Raises:
    SystemExit: with the status of the training, unless it ended well.
  """
  words = _Words(folder, index)
  before, failures = progress(), 0
  with _Child() as child:
    while True:
      status = child.run(words)
      resumes = status == RESUMABLE_STATUS or status < 0
      if child.is_stopped and (resumes or status in _SIGNALLED):
        # It had nothing to save yet, or it has saved.
        sys.exit(RESUMABLE_STATUS)
      if child.is_stopped or not resumes:
        if not status:
          return
        status = status if status > 0 else 128 - status
        if not child.is_stopped:
          words.leave(status)
        sys.exit(status)
      now = progress()
      failures = failures + 1 if now == before else 0
      before = now
      if failures > max_restarts:
        logging.error(
          'The training ended %d times in a row without a new checkpoint; the '
          'last one is %s.',
          failures,
          now,
        )
        sys.exit(RESUMABLE_STATUS)
      wait = min(_FIRST_WAIT * 2**failures, _MOST_WAIT)
      logging.warning(
        'The training ended with status %d. Starting it again in %.0f seconds.',
        status,
        wait,
      )
      child.sleep(wait)


class _Words:
  """What the hosts tell each other where one ends with an error."""

  def __init__(self, folder, index):
    """Takes back what this host has said in an earlier run."""
    self._folder = folder
    self._own = os.path.join(folder, f'failed_host_{index}.txt')
    self._start = time.time()
    with contextlib.suppress(OSError, tf.errors.OpError):
      tf.io.gfile.remove(self._own)

  def leave(self, status):
    """Tells the others that this host has ended with an error."""
    text = f'{socket.gethostname()} ended with status {status}\n'
    try:
      atomic_files.write(self._own, text)
    except InputError:
      # A full disk may be what it ended with, and takes an empty file.
      with (
        contextlib.suppress(OSError, tf.errors.OpError),
        tf.io.gfile.GFile(self._own, 'w'),
      ):
        pass

  def check(self):
    """Ends this process where another host has ended with an error."""
    if time.time() - self._start < _STARTING_SECS:
      return  # It may be started soon, and take its word back.
    for path in self._others():
      logging.error(
        'Another host has ended with an error: %s is there. See its log, and '
        'start the same command on all hosts.',
        path,
      )
      sys.exit(1)

  def _others(self):
    with contextlib.suppress(OSError, tf.errors.OpError):
      pattern = os.path.join(self._folder, 'failed_host_*.txt')
      for path in tf.io.gfile.glob(pattern):
        written = tf.io.gfile.stat(path).mtime_nsec / 1e9
        if path != self._own and written > self._start - _OLD_SECS:
          yield path


class _Child:
  """The process that trains, and the signals that go on to it.

  Attributes:
    is_stopped: whether this process was told to end.
  """

  def __init__(self):
    self._stopped = threading.Event()
    self._process = None
    self._handlers = {}

  @property
  def is_stopped(self):
    return self._stopped.is_set()

  def __enter__(self):
    for number in (signal.SIGTERM, signal.SIGINT):
      self._handlers[number] = signal.signal(number, self._pass_on)
    return self

  def __exit__(self, *error):
    for number, handler in self._handlers.items():
      signal.signal(number, handler)

  def _pass_on(self, number, frame):
    self._stopped.set()
    if self._process is not None:
      with contextlib.suppress(ProcessLookupError):
        self._process.send_signal(signal.SIGTERM)

  def run(self, words):
    """Runs the training; returns its status."""
    self._process = subprocess.Popen(
      [sys.executable, *sys.argv],
      env={**os.environ, _MARK: str(os.getpid())},
      preexec_fn=_end_with_parent,
      # Ctrl-C comes from here alone, not from the terminal as well.
      start_new_session=True,
    )
    if self.is_stopped:
      # The signal came while there was nobody to send it on to.
      self._pass_on(signal.SIGTERM, None)
    try:
      while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
          return self._process.wait(_POLL_SECS)
        if not self.is_stopped:
          words.check()
    except SystemExit:
      # It may wait for the other host, where nothing else reaches it.
      self._process.kill()
      self._process.wait()
      raise

  def sleep(self, seconds):
    """Waits; ends this process where it is told to end."""
    if self._stopped.wait(seconds):
      sys.exit(RESUMABLE_STATUS)


def _end_with_parent():
  """Ends the process below when this one is killed, where Linux runs."""
  if _LIBC is not None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

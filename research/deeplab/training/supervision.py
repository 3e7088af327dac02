"""Starts a worker of several hosts again when it ends before its training.

TensorFlow cannot take a host back into a running training: when one is gone
all processes must begin anew, and some end without a chance to say so. So the
training is a process below this one, which starts it again. A host that ends
with an error leaves word in a file, for the others not to wait for it.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
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


def is_supervised() -> bool:
  """Whether this process is the one that trains."""
  return _MARK in os.environ


def supervise(
  progress: Callable[[], object], max_restarts: int, failure_file: str
):
  """Runs the command line of this process again and again.

  A training that was interrupted, or killed by a signal (as TensorFlow does
  itself where it loses a host), is started again; one that ended well or with
  an error is not. SIGTERM and SIGINT go on to it, and then its end is the end.

  Args:
    progress: function whose value changes as the training goes on, such as the
      newest checkpoint.
    max_restarts: so many starts in a row without progress are the last.
    failure_file: path, the same for all hosts, of the word that one leaves
      which ends with an error. A new start takes it back.

  Raises:
    SystemExit: with the status of the training, unless it ended well.
  """
  _remove(failure_file)
  before, failures = progress(), 0
  while True:
    status, is_stopped = _run_once(failure_file)
    resumes = status == RESUMABLE_STATUS or status < 0
    if is_stopped and (resumes or status in _SIGNALLED):
      # It had nothing to save yet, or it has saved.
      sys.exit(RESUMABLE_STATUS)
    if is_stopped or not resumes:
      if not status:
        return
      status = status if status > 0 else 128 - status
      if not is_stopped:
        _leave_word(failure_file, status)
      sys.exit(status)
    # The word of another host may come a little later than its end.
    time.sleep(_FIRST_WAIT)
    _end_if_failed(failure_file)
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
    time.sleep(wait)


def _leave_word(path, status):
  # A full disk may be what it ended with.
  with contextlib.suppress(InputError):
    atomic_files.write(path, f'{socket.gethostname()}: status {status}\n')


def _remove(path):
  with contextlib.suppress(OSError, tf.errors.OpError):
    tf.io.gfile.remove(path)


def _has_failed(path):
  with contextlib.suppress(OSError, tf.errors.OpError):
    return tf.io.gfile.exists(path)
  return False


def _end_if_failed(path):
  """Ends where another host has ended with an error."""
  if _has_failed(path):
    logging.error(
      'Another host has ended with an error, which its log tells; %s says '
      'which. Mend it and start the same command on all hosts.',
      path,
    )
    sys.exit(1)


def _run_once(failure_file):
  """Runs the training; returns its status, and whether it was told to end."""
  process = subprocess.Popen(
    [sys.executable, *sys.argv],
    env={**os.environ, _MARK: str(os.getpid())},
    preexec_fn=_end_with_parent,
    # Ctrl-C comes from here alone, not from the terminal as well.
    start_new_session=True,
  )
  is_stopped = False

  def pass_on(number, frame):
    nonlocal is_stopped
    is_stopped = True
    with contextlib.suppress(ProcessLookupError):
      process.send_signal(signal.SIGTERM)

  before = {
    number: signal.signal(number, pass_on)
    for number in (signal.SIGTERM, signal.SIGINT)
  }
  try:
    while True:
      with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(_POLL_SECS), is_stopped
      if not is_stopped and _has_failed(failure_file):
        # It may wait for the other host, where nothing else reaches it.
        process.kill()
        process.wait()
        _end_if_failed(failure_file)
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _end_with_parent():
  """Ends the process below when this one is killed, where Linux runs."""
  with contextlib.suppress(OSError, AttributeError):
    import ctypes

    # PR_SET_PDEATHSIG of prctl(2).
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)

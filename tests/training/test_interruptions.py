"""Ends that the same command takes up again, and faults it gets over."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import training_process

from deeplab import checkpoints
from deeplab.common import InputError
from deeplab.training import interruption, loop, profiling, summaries

_SHORT = {
  'train_batch_size': 2,
  'training_number_of_steps': 4,
  'fine_tune_batch_norm': False,
}


# That one request listens to both is seen below, without processes.
@pytest.mark.parametrize(
  'number',
  [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
)
def test_a_signal_saves_and_ends(number, tmp_path):
  process = training_process.start(
    tmp_path, train_batch_size=2, training_number_of_steps=100_000
  )
  log = tmp_path / 'train_log.jsonl'
  while not (log.exists() and log.read_text()) and process.poll() is None:
    time.sleep(0.1)
  process.send_signal(number)
  output = process.communicate()[0]
  assert process.returncode == interruption.RESUMABLE_STATUS, output[-3000:]
  last = checkpoints.latest(str(tmp_path))
  step = checkpoints.global_step(last)
  assert f'stopped at step {step} of 100000. Saved {last}' in output
  assert len(log.read_text().splitlines()) == step


def test_a_request_may_come_twice(monkeypatch):
  """To a process, and to the group that it is in; later ones are others."""
  # A shell lets what it runs in the background ignore it.
  outer = signal.signal(signal.SIGINT, signal.default_int_handler)
  stop = interruption.StopRequest()
  with stop.listen():
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    assert stop.received
    monkeypatch.setattr(interruption, '_ONE_REQUEST_SECS', -1)
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
  assert signal.signal(signal.SIGINT, outer) == signal.default_int_handler


@pytest.fixture
def failing_saves(monkeypatch):
  """The first saves fail, as many as the list that it gives says."""
  save, left, waits = checkpoints.save, [], []

  def save_or_fail(*arguments):
    if left:
      left.pop()
      raise InputError('no space left')
    return save(*arguments)

  monkeypatch.setattr(checkpoints, 'save', save_or_fail)
  monkeypatch.setattr(loop.time, 'sleep', waits.append)
  return left, waits


def test_a_save_that_fails_is_tried_again(failing_saves, tmp_path):
  left, waits = failing_saves
  left += [None] * 2
  prefix = loop.train(training_process.make_config(tmp_path, **_SHORT))
  assert waits == [1, 2]
  assert checkpoints.global_step(prefix) == 4


def test_a_save_that_goes_on_failing_ends_the_run(failing_saves, tmp_path):
  left, waits = failing_saves
  left += [None] * 5
  config = training_process.make_config(
    tmp_path, save_retry_secs=0, save_interval_steps=2, **_SHORT
  )
  with pytest.raises(InputError, match='no space left'):
    loop.train(config)
  assert not waits
  assert checkpoints.latest(str(tmp_path)) is None


def test_a_host_that_is_lost_is_an_interruption(tmp_path):
  import tensorflow as tf

  from deeplab.training import strategies

  config = training_process.make_config(tmp_path)
  cluster = strategies.Cluster(('a:1', 'b:2'), 0)
  error = tf.errors.UnavailableError(None, None, 'gone')
  with pytest.raises(tf.errors.UnavailableError), loop._lost_hosts(config):
    raise error
  config = config.replace(cluster=cluster)
  with (
    pytest.raises(interruption.Interrupted, match='another host is gone: gone'),
    loop._lost_hosts(config),
  ):
    raise error


_SUPERVISED = """
import os, pathlib, sys, time
folder, plan = pathlib.Path(sys.argv[1]), sys.argv[2].split(',')
if 'DEEPLAB_SUPERVISED' in os.environ:
  runs = len(list(folder.iterdir()))
  (folder / str(runs)).touch()
  status = int(plan[runs])
  if status < 0:
    os.kill(os.getpid(), -status)
    time.sleep(60)
  os._exit(status)
from deeplab.training import supervision
progress = (lambda: len(list(folder.iterdir()))) if plan[-1] == 'on' else int
supervision._FIRST_WAIT = 0.01
supervision.supervise(progress, 2, str(folder.parent), 0)
"""


@pytest.mark.parametrize(
  'plan, status, runs',
  [
    ('75,-6,-9,75,0,on', 0, 5),
    ('75,1,on', 1, 2),
    ('75,75,75,75,75,off', 75, 3),
  ],
)
def test_a_worker_is_started_again(plan, status, runs, tmp_path):
  script = tmp_path / 'script.py'
  script.write_text(_SUPERVISED)
  folder = tmp_path / 'runs'
  folder.mkdir()
  done = subprocess.run(
    [sys.executable, str(script), str(folder), plan],
    capture_output=True,
    text=True,
  )
  assert done.returncode == status, done.stderr
  assert len(list(folder.iterdir())) == runs
  # Only an error is one for the other hosts.
  failed = tmp_path / 'failed_host_0.txt'
  assert failed.exists() == (status == 1)


_WAITING = """
import os, sys, time
if 'DEEPLAB_SUPERVISED' in os.environ:
  open(sys.argv[1], 'w').close()
  time.sleep(600)
from deeplab.training import supervision
supervision._POLL_SECS = supervision._STARTING_SECS = 0.1
supervision.supervise(int, 2, os.path.dirname(sys.argv[1]), 0)
"""


def test_a_host_does_not_wait_for_one_that_failed(tmp_path):
  script = tmp_path / 'script.py'
  script.write_text(_WAITING)
  started = tmp_path / 'started'
  own, other = (tmp_path / f'failed_host_{i}.txt' for i in range(2))
  for path in (own, other):
    path.write_text('of an earlier run')
  os.utime(other, (0, 0))
  process = subprocess.Popen(
    [sys.executable, str(script), str(started)],
    stderr=subprocess.PIPE,
    text=True,
  )
  while not started.exists() and process.poll() is None:
    time.sleep(0.05)
  time.sleep(0.5)
  assert process.poll() is None and not own.exists()
  other.write_text('b ended with status 1')
  output = process.communicate(timeout=60)[1]
  assert process.returncode == 1
  assert 'Another host has ended with an error' in output


_STOPPED = """
import os, sys, time
from deeplab.training import interruption, supervision
if supervision.is_supervised():
  with interruption.StopRequest().listen():
    open(sys.argv[1], 'w').close()
    time.sleep(3)
  os._exit(int(sys.argv[2]))
supervision.supervise(int, 2, os.path.dirname(sys.argv[1]), 0)
"""


# What the signal is and how the worker ends do not depend on each other: each
# of both at least once.
@pytest.mark.parametrize(
  'number, status',
  [
    (signal.SIGTERM, 75),
    (signal.SIGINT, 143),
    pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, 75, marks=pytest.mark.slow),
  ],
)
def test_a_supervisor_that_is_told_to_end(number, status, tmp_path):
  script = tmp_path / 'script.py'
  script.write_text(_STOPPED)
  started = tmp_path / 'started'
  process = subprocess.Popen(
    [sys.executable, str(script), str(started), str(status)],
    start_new_session=True,
  )
  while not started.exists() and process.poll() is None:
    time.sleep(0.05)
  # As a terminal or a cluster does it: to all of the group.
  os.killpg(process.pid, number)
  assert process.wait(60) == interruption.RESUMABLE_STATUS


def test_a_log_that_cannot_be_written_is_no_end(tmp_path, caplog):
  log = summaries.TrainLog(str(tmp_path), 0)
  path = tmp_path / summaries.LOG_FILE
  log.write({'step': 1, 'seconds': 1.0})
  path.unlink()
  path.mkdir()
  log.write({'step': 2, 'seconds': 2.0, 'loss': math.nan})
  assert 'cannot be written' in caplog.text
  path.rmdir()
  log.write({'step': 3, 'seconds': 3.0})
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert [line['step'] for line in lines] == [2, 3]
  assert lines[0]['loss'] is None


def test_a_profile_goes_on_where_the_run_does(tmp_path):
  config = training_process.make_config(tmp_path, profile_steps=[2, 4])
  assert profiling.Profiler(config, 2)._first == 3
  assert profiling.Profiler(config, 4)._folder is None


def test_half_a_line_is_taken_back(tmp_path, monkeypatch):
  log = summaries.TrainLog(str(tmp_path), 0)
  path = tmp_path / summaries.LOG_FILE

  def write_half(line):
    with path.open('a') as file:
      file.write('{"st')
    raise OSError('no space left')

  log.write({'step': 1, 'seconds': 1.0})
  with monkeypatch.context() as patch:
    patch.setattr(log, '_append', write_half)
    log.write({'step': 2, 'seconds': 2.0})
  log.write({'step': 3, 'seconds': 3.0})
  log.write({'step': 4, 'seconds': 4.0})
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert [line['step'] for line in lines] == [1, 2, 3, 4]

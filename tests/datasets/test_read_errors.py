"""Reading that fails for a while, for ever, or for the data's own fault."""

import errno
import os
import pathlib
import time

import pytest
import small_records
import tensorflow as tf

from deeplab import common
from deeplab.datasets import read_errors


def error(kind, message='the network is gone'):
  return kind(None, None, message)


class Flaky:
  """Counts on from a number; fails before some numbers, some times each."""

  def __init__(self, faults):
    self.faults = {number: list(errors) for number, errors in faults.items()}
    self.starts = []

  def __call__(self, start):
    self.starts.append(start)
    for number in range(start, 6):
      if self.faults.get(number):
        raise self.faults[number].pop(0)
      yield number


@pytest.fixture
def dataset(tmp_path):
  return small_records.make(small_records.write(tmp_path, [3]), 2)


@pytest.fixture
def waits(monkeypatch):
  """The seconds that were waited; none pass."""
  waited = []
  monkeypatch.setattr(time, 'sleep', waited.append)
  return waited


@pytest.mark.parametrize(
  ('kind', 'message'),
  [
    (tf.errors.UnavailableError, 'the network is gone'),
    (tf.errors.DeadlineExceededError, 'too late'),
    (tf.errors.AbortedError, 'Stale file handle'),
    (tf.errors.UnknownError, 'x.tfrecord; Input/output error'),
    (tf.errors.InternalError, '{shard}: libcurl code 56'),
  ],
)
def test_goes_on_where_it_stopped(dataset, waits, caplog, kind, message):
  message = message.format(shard=dataset.shards[0].path)
  fault = error(kind, message)
  flaky = Flaky({0: [fault], 3: [fault, fault, fault], 4: [fault]})
  assert list(dataset.iterate(flaky(0), flaky)) == list(range(6))
  assert flaky.starts == [0, 0, 3, 3, 3, 4]
  # Failures are counted anew after every success.
  assert waits == [1, 1, 5, 25, 1]
  logged = [record.getMessage() for record in caplog.records]
  assert len(logged) == 5
  assert all(kind.__name__ in text and message in text for text in logged)
  assert '5 s, attempt 2 of 3' in logged[2]


def test_gives_up_after_so_many_failures(dataset, waits):
  fault = error(tf.errors.UnavailableError)
  flaky = Flaky({2: [fault] * 9})
  iterator = dataset.iterate(flaky(0), flaky, waits=(2, 3))
  assert [next(iterator), next(iterator)] == [0, 1]
  with pytest.raises(common.InputError) as caught:
    next(iterator)
  assert waits == [2, 3]
  text = str(caught.value)
  assert text.startswith(f'{dataset.dataset_dir}: reading failed 3 times')
  assert 'UnavailableError: the network is gone' in text


def test_making_the_iteration_anew_may_fail_too(dataset, waits):
  fault = error(tf.errors.AbortedError)
  flaky = Flaky({1: [fault]})
  failures = [fault]

  def retry(start):
    if failures:
      raise failures.pop()
    return flaky(start)

  assert list(dataset.iterate(flaky(0), retry)) == list(range(6))
  assert waits == [1, 5]


def test_without_retry_the_first_failure_is_the_last(dataset, waits):
  flaky = Flaky({1: [error(tf.errors.UnavailableError)]})
  with pytest.raises(common.InputError, match='reading failed'):
    list(dataset.iterate(flaky(0)))
  assert not waits


@pytest.mark.parametrize(
  ('kind', 'message'),
  [
    (tf.errors.InternalError, 'of the network'),
    (tf.errors.UnknownError, 'of the network'),
    (tf.errors.InvalidArgumentError, 'x: Input/output error'),
    (tf.errors.UnavailableError, 'Collective ops is aborted by: reset'),
    (tf.errors.UnavailableError,
     'Connection reset\nAdditional GRPC error information from remote target'),
    (tf.errors.NotFoundError, 'of the network'),
  ],
)  # fmt: skip
def test_other_errors_are_not_retried(dataset, waits, kind, message):
  flaky = Flaky({1: [error(kind, message)]})
  with pytest.raises(kind):
    list(dataset.iterate(flaky(0), flaky))
  assert flaky.starts == [0]
  assert not waits


def test_broken_data_are_not_retried(tmp_path, waits):
  folder = small_records.write(tmp_path, [4], bad=(2,))
  dataset = small_records.make(folder, 1)
  with pytest.raises(common.InputError, match='"2" holds 7'):
    list(zip(range(5), dataset.iterate(), strict=False))
  assert not waits


def unreadable(path):
  """Puts a file in the place of another whose reading fails with EIO."""
  memory = pathlib.Path('/proc/self/mem')
  try:
    with memory.open('rb') as file:
      file.read(1)
  except OSError as fault:
    if fault.errno == errno.EIO:
      path.unlink()
      path.symlink_to(memory)
      return
  pytest.skip('needs a file whose reading fails.')


def shard_of(dataset):
  return pathlib.Path(dataset.shards[0].path)


def test_a_read_that_fails_for_a_while(dataset, monkeypatch):
  path = shard_of(dataset)
  content = path.read_bytes()
  whole = [small_records.rows(batch) for batch in dataset.as_dataset(0).take(4)]
  unreadable(path)
  waited = []

  def restore(seconds):
    waited.append(seconds)
    path.unlink()
    path.write_bytes(content)

  monkeypatch.setattr(time, 'sleep', restore)
  got = [
    small_records.rows(batch)
    for _, batch in zip(range(4), dataset.iterate(), strict=False)
  ]
  assert got == whole
  assert waited == [read_errors.waits(3)[0]]


def test_a_read_that_fails_for_good(dataset, waits):
  path = shard_of(dataset)
  unreadable(path)
  with pytest.raises(common.InputError) as caught:
    next(dataset.iterate())
  assert len(waits) == 3
  text = str(caught.value)
  assert text.startswith(f'{path}: reading failed 4 times in a row')
  assert os.strerror(errno.EIO) in text
  assert '{{' not in text


@pytest.mark.parametrize('distributed', [False, True])
def test_a_file_that_is_gone(dataset, waits, distributed):
  batches = dataset.as_dataset()
  if distributed:
    strategy = tf.distribute.MirroredStrategy(['CPU:0'])
    batches = strategy.experimental_distribute_dataset(batches)
  shard_of(dataset).unlink()
  with pytest.raises(common.InputError) as caught:
    next(dataset.iterate(batches, lambda start: batches))
  text = str(caught.value)
  assert text.startswith(f'{shard_of(dataset)} can no longer be read')
  assert '{{' not in text
  assert not waits


def test_faults_of_the_caller_pass_through(dataset, waits):
  """What is raised where batches are used is no fault of reading."""
  with pytest.raises(tf.errors.UnavailableError, match='while training'):
    for _ in dataset.iterate():
      raise error(tf.errors.UnavailableError, 'while training')
  assert not waits

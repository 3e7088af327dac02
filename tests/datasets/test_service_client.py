"""Batches from a tf.data service on this machine."""

import concurrent.futures
import gc
import itertools
import json
import socket
import time

import grpc
import pytest
import small_records
import tensorflow as tf
import training_process

from deeplab import common
from deeplab.datasets import service_client

service = tf.data.experimental.service


@pytest.fixture(scope='module')
def dispatcher():
  """The address of a dispatcher with two workers."""
  server = service.DispatchServer(service.DispatcherConfig(port=0))
  workers = [
    service.WorkerServer(
      service.WorkerConfig(
        dispatcher_address=server.target.partition('://')[2],
        heartbeat_interval_ms=100,
      )
    )
    for _ in range(2)
  ]
  yield server.target
  # Iterators that are still there hold up the end of the workers.
  gc.collect()
  begin = time.monotonic()
  del workers
  # Those that tune themselves each took up to a minute.
  assert time.monotonic() - begin < 10


@pytest.fixture
def hurried(monkeypatch):
  """Gives up waiting for a service soon."""
  monkeypatch.setattr(service_client, 'WAIT_SECONDS', 0.4)


def take(dataset, count, *arguments):
  batches = dataset.iterate(dataset.as_dataset(*arguments))
  return list(itertools.islice(batches, count))


def test_workers_share_the_epochs(tmp_path, dispatcher):
  folder = small_records.write(tmp_path, [4, 4, 3])
  dataset = small_records.make(folder, 4, data_service=dispatcher)
  text = dataset.describe_sharding()
  assert text == f'by the tf.data service at {dispatcher}'
  batches = take(dataset, 30)
  assert all(batch['image'].shape == [4, 17, 17, 3] for batch in batches)
  local = small_records.make(folder, 4).as_dataset().element_spec
  assert dataset.as_dataset().element_spec == local
  rows = [row for batch in batches for row in small_records.rows(batch)]
  assert {name for name, _ in rows} == set(range(11))
  # No example is augmented twice alike: the workers have different epochs.
  assert len(set(rows)) == len(rows)
  # Augmentation is that of a single pipeline.
  single = small_records.make(folder, 1)
  epochs = itertools.islice(single.as_dataset(), 11 * 4)
  known = {row for batch in epochs for row in small_records.rows(batch)}
  assert len(set(rows) & known) >= 11


def test_pipelines_share_a_job(tmp_path, dispatcher):
  folder = small_records.write(tmp_path, [4, 4, 3])
  rows = []
  # As on two hosts: each makes its own data set, with the same arguments.
  iterators = [
    small_records.make(folder, 4, data_service=dispatcher).as_dataset(0, p, 2)
    for p in range(2)
  ]
  iterators = [iter(batches) for batches in iterators]
  for _ in range(10):
    for iterator in iterators:
      batch = next(iterator)
      assert batch['image'].shape == [2, 17, 17, 3]
      rows += small_records.rows(batch)
  assert len(set(rows)) == len(rows) == 40


def test_other_runs_have_other_jobs(tmp_path, dispatcher):
  folder = small_records.write(tmp_path, [3])
  rows = []
  for job in ('first', 'second'):
    dataset = small_records.make(
      folder, 1, data_service=dispatcher, data_service_job=job
    )
    batches = take(dataset, 24)
    rows.append({r for batch in batches for r in small_records.rows(batch)})
  assert rows[0] & rows[1]


def test_goes_on_near_where_it_stopped(tmp_path, dispatcher):
  """No epoch before that of the step is made again."""
  folder = small_records.write(tmp_path, [5])
  dataset = small_records.make(folder, 5, data_service=dispatcher)
  before = small_records.make(folder, 5).as_dataset().take(3)
  seen = {row for batch in before for row in small_records.rows(batch)}
  assert len(seen) == 15
  batches = take(dataset, 6, 3)
  rows = {row for batch in batches for row in small_records.rows(batch)}
  assert len(rows) == 30
  assert not rows & seen


def test_distributed(tmp_path, dispatcher):
  folder = small_records.write(tmp_path, [5])
  dataset = small_records.make(folder, 2, data_service=dispatcher)
  strategy = tf.distribute.MirroredStrategy(['CPU:0'])
  batches = strategy.experimental_distribute_dataset(dataset.as_dataset())
  batch = next(dataset.iterate(batches))
  assert batch['image'].shape == [2, 17, 17, 3]


def test_broken_records_are_named(tmp_path, dispatcher):
  folder = small_records.write(tmp_path, [3], bad=(1,))
  dataset = small_records.make(folder, 1, data_service=dispatcher)
  with pytest.raises(common.InputError, match='"1" holds 7'):
    take(dataset, 20)


@pytest.mark.parametrize(
  'address',
  ['host:5000', 'grpc://host', 'grpc://host:0', 'grpc://host:65536', '',
   'http://host:5000', 'grpc://host:5000/', 'grpc://a b:5000', 5000],
)  # fmt: skip
def test_addresses_of_another_form(tmp_path, address):
  folder = small_records.write(tmp_path, [1])
  with pytest.raises(common.InputError, match='grpc://host:port') as caught:
    small_records.make(folder, 1, data_service=address)
  assert f'data_service={address!r}' in str(caught.value)


@pytest.mark.parametrize('target', ['host:1', '10.0.0.5:65535', '[::1]:5000'])
def test_addresses(target):
  assert service_client.check_address(f'grpc://{target}') == target


@pytest.mark.parametrize(
  ('arguments', 'match'),
  [
    ({'should_repeat': False}, 'should_repeat=False'),
    ({'shard_by': 'records'}, "shard_by='records'"),
  ],
)
def test_arguments_that_do_not_go_with_a_service(tmp_path, arguments, match):
  folder = small_records.write(tmp_path, [1])
  with pytest.raises(common.InputError, match=match):
    small_records.make(folder, 1, data_service='grpc://host:5000', **arguments)


def test_nobody_answers(tmp_path, hurried):
  folder = small_records.write(tmp_path, [1])
  with socket.socket() as taken:
    # Nobody listens there.
    taken.bind(('127.0.0.1', 0))
    address = f'grpc://127.0.0.1:{taken.getsockname()[1]}'
    dataset = small_records.make(folder, 1, data_service=address)
    begin = time.monotonic()
    with pytest.raises(common.InputError, match='does not answer') as caught:
      dataset.as_dataset()
  assert address in str(caught.value)
  assert time.monotonic() - begin < 5


def test_nobody_works(hurried):
  server = service.DispatchServer(service.DispatcherConfig(port=0))
  with pytest.raises(common.InputError, match='has no workers'):
    service_client.wait_for_workers(server.target)


def test_something_else_answers(hurried):
  pool = concurrent.futures.ThreadPoolExecutor(1)
  server = grpc.server(pool)
  port = server.add_insecure_port('127.0.0.1:0')
  server.start()
  with pytest.raises(common.InputError, match='no dispatcher'):
    service_client.wait_for_workers(f'grpc://127.0.0.1:{port}')
  server.stop(None)


@pytest.mark.slow
def test_a_training(tmp_path, dispatcher):
  settings = {'train_batch_size': 4}
  for steps in (2, 3):
    settings['training_number_of_steps'] = steps
    training_process.train(tmp_path, data_service=dispatcher, **settings)
  lines = (tmp_path / 'train_log.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in lines] == [1, 2, 3]

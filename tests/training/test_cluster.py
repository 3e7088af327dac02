"""Several hosts: who they are, and that they train as one device does."""

import json
import os
import subprocess
import sys

import pytest
import training_process
from conftest import ROOT

from deeplab.common import InputError
from deeplab.training import strategies

_HOSTS = ['a:1', 'b:2']


def _tf_config(task, **cluster):
  return {'TF_CONFIG': json.dumps({'cluster': cluster, 'task': task})}


def test_hosts_from_flags():
  cluster = strategies.find_cluster(2, 1, _HOSTS, {})
  assert cluster == strategies.Cluster(('a:1', 'b:2'), 1)
  assert strategies.find_cluster(None, None, _HOSTS, {}).index == 0
  for hosts in ([], ['a:1']):
    assert strategies.find_cluster(1, 0, hosts, {}) is None
    assert strategies.find_cluster(None, None, hosts, {}) is None


def test_hosts_from_the_environment():
  environ = _tf_config({'type': 'worker', 'index': 1}, worker=_HOSTS)
  cluster = strategies.find_cluster(None, None, [], environ)
  assert cluster == strategies.Cluster(('a:1', 'b:2'), 1)
  environ = _tf_config(
    {'type': 'worker', 'index': 0}, chief=['c:3'], worker=_HOSTS
  )
  cluster = strategies.find_cluster(3, None, [], environ)
  assert cluster == strategies.Cluster(('c:3', 'a:1', 'b:2'), 1)


@pytest.mark.parametrize(
  'arguments, message',
  [
    ((3, 0, _HOSTS, {}), 'num_replicas=3, but 2 hosts are named'),
    ((2, 0, [], {}), 'num_replicas=2, but 0 hosts are named'),
    ((2, 2, _HOSTS, {}), r'must be in 0\.\.1.*Received: 2'),
    ((None, 1, [], {}), '--task=1 is one of several hosts'),
    ((2, 0, ['a', 'b:2'], {}), "name:port each. Received: 'a'"),
    ((2, 0, ['a:1', 'a:1'], {}), 'twice'),
    ((None, None, _HOSTS, {'TF_CONFIG': '{}'}), 'both name hosts'),
    ((None, None, [], {'TF_CONFIG': '{'}), 'TF_CONFIG must be JSON'),
    ((None, None, [], {'TF_CONFIG': '[]'}), 'TF_CONFIG must be JSON'),
    (
      (None, 1, [], _tf_config({'type': 'worker', 'index': 0}, worker=_HOSTS)),
      '--task=1, but TF_CONFIG says 0',
    ),
    (
      (
        None,
        None,
        [],
        _tf_config({'type': 'ps', 'index': 0}, worker=_HOSTS, ps=['c:1']),
      ),
      'no parameter servers',
    ),
    (
      (
        None,
        None,
        [],
        _tf_config({'type': 'worker', 'index': 2}, worker=_HOSTS),
      ),
      'worker 2 as this task',
    ),
  ],
)
def test_hosts_that_are_wrong(arguments, message):
  with pytest.raises(InputError, match=message):
    strategies.find_cluster(*arguments)


def test_a_host_without_so_many_gpus():
  cluster = strategies.Cluster(('a:1', 'b:2'), 0)
  with pytest.raises(InputError, match='num_clones=3'):
    strategies.make_strategy(3, cluster=cluster)
  with pytest.raises(InputError, match='brings its own hosts'):
    strategies.make_strategy(1, tpu='local', cluster=cluster)


# With frozen statistics of MobileNetV2 rounding stays rounding. Batch
# statistics of random weights make a hundredfold of it in each step; variables
# and activations in float64, and the rate that is the flag's default, tell
# whether the steps are the same.
_FROZEN = {'fine_tune_batch_norm': False, 'sync_batch_norm': True}
_EXACT = {
  'floatx': 'float64',
  'sync_batch_norm': True,
  'base_learning_rate': 1e-4,
}
_RESNET = {'model_variant': 'resnet_v1_50_beta', 'depth_multiplier': 1.0}


@pytest.mark.slow  # Two clones of the original are a fast test.
def test_two_devices_train_as_one(tmp_path):
  short = {**_FROZEN, 'training_number_of_steps': 3}
  one = training_process.train_here(tmp_path / 'one', **short)
  two = training_process.train(tmp_path / 'two', num_clones=2, **short)
  assert training_process.difference(one, two) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
  'settings',
  [
    {**_FROZEN},
    {**_EXACT},
    {**_EXACT, 'model': _RESNET},
  ],
  ids=['frozen', 'mobilenet_v2', 'resnet_v1_50_beta'],
)
def test_devices_and_hosts_train_as_one(settings, tmp_path):
  one = training_process.train(tmp_path / 'one', **settings)
  for clones in (2, 4):
    folder = tmp_path / str(clones)
    found = training_process.train(folder, num_clones=clones, **settings)
    assert training_process.difference(one, found) < 1e-5, clones
  training_process.train_on_hosts(
    tmp_path / 'hosts', 2, shard_by='records', **settings
  )
  found = training_process.weights(tmp_path / 'hosts')
  assert training_process.difference(one, found) < 1e-5


@pytest.mark.slow
def test_parts_of_two_devices_train_as_one(tmp_path):
  one = training_process.train(tmp_path / 'one', **_FROZEN)
  parts = training_process.train(
    tmp_path / 'parts', num_clones=2, gradient_accumulation_steps=2, **_FROZEN
  )
  assert training_process.difference(one, parts) < 1e-5


@pytest.mark.slow
def test_hosts_share_the_folder(tmp_path):
  hosts = training_process.free_addresses(2)
  training_process.train(tmp_path / 'a', training_number_of_steps=1)
  processes = [
    training_process.start(tmp_path / name, cluster=[hosts, index])
    for index, name in enumerate('ab')
  ]
  for process in processes:
    output = process.communicate()[0]
    assert process.returncode
    assert 'must be a folder that all hosts share' in output, os.linesep


@pytest.mark.slow
def test_no_host_waits_for_one_that_failed(tmp_path):
  hosts = ','.join(training_process.free_addresses(2))
  log = tmp_path / 'first.log'

  def start(task, dataset_dir):
    return subprocess.Popen(
      [
        sys.executable,
        str(ROOT / 'train.py'),
        f'--train_logdir={tmp_path}/train',
        f'--dataset_dir={dataset_dir}',
        '--train_split=trainval',
        '--model_variant=mobilenet_v2',
        '--train_crop_size=33,33',
        f'--worker_hosts={hosts}',
        f'--task={task}',
        '--clone_on_cpu',
      ],
      stderr=output,
      text=True,
    )

  with log.open('w') as output:
    first = start(0, ROOT / 'tests' / 'testdata' / 'voc_tfrecord')
    second = start(1, tmp_path / 'none')
    for process in (second, first):
      assert process.wait(240) == 1
  assert 'Another host has ended with an error' in log.read_text()

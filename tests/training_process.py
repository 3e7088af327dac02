"""Trainings as processes of their own, with devices or hosts of their own.

  python training_process.py '{"train_logdir": "...", "num_clones": 2, ...}'

runs `loop.train`. Virtual devices and hosts must be asked for before TensorFlow
is used, so that a test cannot do it itself.
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np

_TESTS = pathlib.Path(__file__).resolve().parent


def make_config(train_logdir, model=(), cluster=None, **changes):
  """A TrainConfig of a small run on the repository's records.

  Args:
    train_logdir: its folder.
    model: changes of the ModelOptions.
    cluster: arguments of strategies.Cluster, or None.
    **changes: of the TrainConfig.
  """
  from deeplab import common
  from deeplab.training import config, strategies

  options = {
    'outputs_to_num_classes': {'semantic': 21},
    'crop_size': [33, 33],
    'output_stride': 16,
    'depth_multiplier': 0.35,
    **dict(model),
  }
  return config.TrainConfig(
    **{
      'model_options': common.ModelOptions(**options),
      'train_logdir': str(train_logdir),
      'dataset_dir': str(_TESTS / 'testdata' / 'voc_tfrecord'),
      'train_split': 'trainval',
      'train_batch_size': 8,
      'training_number_of_steps': 10,
      'base_learning_rate': 0.01,
      'log_steps': 1,
      'clone_on_cpu': True,
      'cluster': cluster and strategies.Cluster(*cluster),
      **changes,
    }
  )


def start(train_logdir, **changes):
  """Starts a run; returns the process.

  Args:
    train_logdir: its folder.
    **changes: as of `make_config`; and `floatx`, 'float64' for variables and
      activations of that type, on any number of devices with the batch norm
      that is synchronised.
  """
  values = {'train_logdir': str(train_logdir), **changes}
  return subprocess.Popen(
    [sys.executable, __file__, json.dumps(values)],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '1'},
  )


def finish(*processes):
  """Waits for runs; returns what they wrote. None may have failed."""
  outputs = [process.communicate()[0] for process in processes]
  for process, output in zip(processes, outputs, strict=True):
    assert process.returncode == 0, output[-4000:]
  return outputs


def train(train_logdir, **changes):
  """Runs a training to its end; returns the weights."""
  finish(start(train_logdir, **changes))
  return weights(train_logdir)


def ignore_histogram(*unused, **named):
  """In place of tf.summary.histogram, to write none."""
  return True


def train_here(train_logdir, **changes):
  """Runs a training on one device in this process; returns the weights."""
  from deeplab.training import loop

  loop.train(make_config(train_logdir, **changes))
  return weights(train_logdir)


def train_on_hosts(train_logdir, num_hosts, **changes):
  """Runs a training on several processes; returns what they wrote."""
  hosts = free_addresses(num_hosts)
  return finish(
    *(
      start(train_logdir, cluster=[hosts, index], **changes)
      for index in range(num_hosts)
    )
  )


def free_addresses(number):
  """'127.0.0.1:port' of ports that nobody listens on."""
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
    for one in sockets:
      one.bind(('127.0.0.1', 0))
    return [f'127.0.0.1:{one.getsockname()[1]}' for one in sockets]


def weights(train_logdir):
  """{name: array} of the newest checkpoint."""
  from deeplab import checkpoints

  stored = checkpoints.read(checkpoints.latest(str(train_logdir)))
  return {name: get() for name, (_, get) in stored.items()}


def difference(first, second):
  """The largest difference of a variable, relative to its own size."""
  assert first.keys() == second.keys()
  return max(
    np.linalg.norm(np.float64(first[name]) - second[name])
    / max(np.linalg.norm(np.float64(first[name])), 1e-9)
    for name in first
  )


def use_floatx(floatx):
  """Makes all networks of this process in another type, 'float64'."""
  import keras

  from deeplab.slim import scopes

  keras.config.set_floatx(floatx)
  # The fused batch norm of one device does not know float64.
  scopes.synchronizes_batch_norm = lambda: True


def _main(floatx=None, **settings):
  import tensorflow as tf
  from absl import logging

  from deeplab.training import loop

  # They take longer than the steps; test_loop.py looks at them.
  tf.summary.histogram = ignore_histogram
  logging.set_verbosity(logging.INFO)
  logging.use_absl_handler()
  if floatx:
    use_floatx(floatx)
  loop.train(make_config(**settings))


if __name__ == '__main__':
  _main(**json.loads(sys.argv[1]))

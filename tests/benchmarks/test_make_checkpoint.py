"""Checkpoints of the benchmarks."""

import re

import numpy as np
import pytest

from benchmarks import make_checkpoint
from benchmarks.artifacts import Checkpoint, Network, Weights
from deeplab import checkpoint_files, checkpoints
from deeplab.common import InputError

_NETWORK = Network(
  'small',
  (
    '--model_variant=mobilenet_v2',
    '--depth_multiplier=0.1',
    '--output_stride=16',
  ),
  crop=33,
  classes=5,
)


@pytest.fixture
def make(parse, tmp_path):
  """Makes the checkpoint of a network; gives its prefix and weights.npz."""

  def run(network, name):
    folder = tmp_path / name
    # The command without what Python runs it by.
    arguments = Checkpoint(network).command(str(folder), None)[2:]
    parse(make_checkpoint, make_checkpoint._define_flags, arguments)
    make_checkpoint.main()
    with np.load(folder / make_checkpoint.WEIGHTS_FILE) as file:
      return str(folder / 'model.ckpt-0'), dict(file)

  return run


def _read(prefix):
  stored = checkpoint_files.read(prefix)
  del stored['global_step']
  return {name: get() for name, (_, get) in stored.items()}


def test_random_weights_are_always_the_same(make):
  prefix, values = make(_NETWORK, 'first')
  _, again = make(_NETWORK, 'second')
  stored = _read(prefix)
  assert stored.keys() == values.keys() == again.keys()
  for name, array in values.items():
    np.testing.assert_array_equal(array, stored[name])
    np.testing.assert_array_equal(array, again[name])
    assert np.any(array), name


def test_trained_weights(make, tmp_path):
  _, values = make(_NETWORK, 'first')
  values = {name: array + 1 for name, array in values.items()}
  network = _with_weights(checkpoints.save(tmp_path, 30, values))
  assert Checkpoint(network).name != Checkpoint(_NETWORK).name
  prefix, found = make(network, 'second')
  stored = _read(prefix)
  for name, array in values.items():
    np.testing.assert_array_equal(found[name], array)
    np.testing.assert_array_equal(stored[name], array)


def _with_weights(prefix):
  return _NETWORK.replace(weights=Weights.of(str(prefix)))


def test_artifacts_of_a_file_that_has_changed_are_others(make, tmp_path):
  _, values = make(_NETWORK, 'first')
  names = [
    Checkpoint(_with_weights(checkpoints.save(tmp_path, 30, kept))).name
    for kept in (values, {n: v + 1 for n, v in values.items()}, values)
  ]
  assert names[0] == names[2] != names[1]


def test_a_checkpoint_of_a_single_file(tmp_path):
  """As a frozen graph is, or one of TensorFlow's first format."""
  file = tmp_path / 'graph.pb'
  file.write_bytes(b'values')
  weights = Weights.of(str(file))
  file.write_bytes(b'others')
  assert Weights.of(str(file)).digest != weights.digest


def test_weights_of_another_network(make):
  prefix, _ = make(_NETWORK, 'first')
  network = _with_weights(prefix).replace(classes=7)
  with pytest.raises(InputError, match=re.escape('logits/semantic')):
    make(network, 'second')

"""Checkpoints of the benchmarks."""

import re

import numpy as np
import pytest

from benchmarks import make_checkpoint
from benchmarks.artifacts import Checkpoint, Network
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
  trained = checkpoints.save(tmp_path, 30, values)
  network = _NETWORK.replace(trained_checkpoint=str(trained))
  assert Checkpoint(network).name != Checkpoint(_NETWORK).name
  prefix, found = make(network, 'second')
  stored = _read(prefix)
  for name, array in values.items():
    np.testing.assert_array_equal(found[name], array)
    np.testing.assert_array_equal(stored[name], array)


def test_other_weights_are_others(make, tmp_path):
  """Artifacts of a path whose file has changed are made anew."""
  _, values = make(_NETWORK, 'first')
  network = _NETWORK.replace(
    trained_checkpoint=str(checkpoints.save(tmp_path, 30, values))
  )
  before = Checkpoint(network).name
  checkpoints.save(tmp_path, 30, {n: v + 1 for n, v in values.items()})
  assert Checkpoint(network).name != before


def test_weights_of_another_network(make):
  prefix, _ = make(_NETWORK, 'first')
  network = _NETWORK.replace(classes=7, trained_checkpoint=prefix)
  with pytest.raises(InputError, match=re.escape('logits/semantic')):
    make(network, 'second')

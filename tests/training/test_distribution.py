"""Training on two virtual CPU devices, each in a process of its own.

Virtual devices must be asked for before TensorFlow is used.
"""

import json
import pathlib
import subprocess
import sys

import pytest

from deeplab import common
from deeplab.common import InputError
from deeplab.training import config, strategies

_TESTS = pathlib.Path(__file__).resolve().parent.parent

_TWO_CLONES = """
import sys
sys.path[:0] = [{tests!r}, {tests!r} + '/training']
import test_train_step
name = 'mobilenet_v2_two_clones'
step = test_train_step.make_step(test_train_step.GOLDEN[name])
assert step.strategy.num_replicas_in_sync == 2
assert step.replica_batch_size == 2
test_train_step.check_best_of_three(name)
"""

_TRAIN = """
import sys
sys.path[:0] = [{tests!r}, {tests!r} + '/training']
import test_distribution
from deeplab.training import loop
loop.train(test_distribution.make_config(sys.argv[1], int(sys.argv[2])))
"""


def make_config(folder, num_clones):
  """A small run with batch norm and dropout, from the repository's records."""
  return config.TrainConfig(
    model_options=common.ModelOptions(
      outputs_to_num_classes={'semantic': 21},
      crop_size=[33, 33],
      output_stride=16,
      depth_multiplier=0.35,
    ),
    train_logdir=folder,
    dataset_dir=str(_TESTS / 'testdata' / 'voc_tfrecord'),
    train_split='trainval',
    train_batch_size=4,
    training_number_of_steps=4,
    base_learning_rate=0.01,
    log_steps=1,
    save_interval_steps=2,
    save_summaries_images=True,
    num_clones=num_clones,
    clone_on_cpu=True,
  )


def _python(code, *arguments):
  done = subprocess.run(
    [sys.executable, '-c', code.format(tests=str(_TESTS)), *arguments],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-4000:]


def test_two_clones_of_the_original():
  _python(_TWO_CLONES)


def _read_log(folder):
  lines = (folder / 'train_log.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_loop_on_two_devices(tmp_path):
  """Runs, sees the same images as one device, and resumes exactly."""
  for name, clones in (('one', '1'), ('two', '2'), ('again', '2')):
    folder = tmp_path / name
    if name == 'again':
      folder.mkdir()
      for file in (tmp_path / 'two').glob('*ckpt-2*'):
        (folder / file.name).write_bytes(file.read_bytes())
    _python(_TRAIN, str(folder), clones)
  one, two, again = (
    _read_log(tmp_path / name) for name in ('one', 'two', 'again')
  )
  assert [line['step'] for line in two] == [1, 2, 3, 4]
  # Batch statistics are those of each device, so losses are merely near.
  assert two[0]['total_loss'] == pytest.approx(one[0]['total_loss'], rel=0.1)
  for key in ('step', 'total_loss', 'regularization', 'learning_rate'):
    assert [x[key] for x in again] == [x[key] for x in two[2:]], key


def test_more_clones_than_gpus():
  with pytest.raises(InputError, match='num_clones=64'):
    strategies.make_strategy(64)


def test_clones_and_tpu():
  with pytest.raises(InputError, match='--clone_on_cpu is for CPUs'):
    strategies.make_strategy(1, True, 'local')
  with pytest.raises(InputError, match='--tpu=local'):
    strategies.make_strategy(2, tpu='local')


def test_more_cpu_devices_than_were_asked_for():
  with pytest.raises(InputError, match='64 CPU devices'):
    strategies.make_strategy(64, clone_on_cpu=True)

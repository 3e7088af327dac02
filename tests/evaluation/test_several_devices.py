"""Prediction on virtual CPU devices, in a process of its own.

Virtual devices must be asked for before TensorFlow is used.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import recipe
from deeplab import checkpoints, common
from deeplab.evaluation import prediction
from deeplab.training import strategies

_TESTS = pathlib.Path(__file__).resolve().parent.parent
_SIZE = [33, 33]

_COMPARE = """
import sys
sys.path[:0] = [{tests!r}, {tests!r} + '/evaluation']
import test_several_devices
test_several_devices.check_devices({number})
"""


def _options(**changes):
  return common.ModelOptions(
    {'semantic': 5},
    crop_size=_SIZE,
    output_stride=16,
    depth_multiplier=0.35,
    aspp_convs_filters=16,
    **changes,
  )


def check_devices(number):
  """Compares one device with several; asks for them first."""
  strategy = strategies.make_strategy(number, clone_on_cpu=True)
  assert strategy.num_replicas_in_sync == number
  # Several devices do not compute with the folded network.
  alone = prediction.Predictor(_options(), _SIZE, for_speed=False)
  spread = prediction.Predictor(_options(), _SIZE, strategy=strategy)
  for predictor in (alone, spread):
    recipe.assign(checkpoints.named_variables(predictor._model))
  images = np.random.default_rng(3).uniform(0, 255, (5, *_SIZE, 3))
  images = images.astype(np.float32)
  sizes = np.array([[33, 20]] * 5)
  for count in range(1, 6):
    batch = tf.constant(images[:count])
    labels = alone(batch)
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(spread(batch), labels)
    pairs = zip(
      alone.probabilities(images[:count], sizes[:count]),
      spread.probabilities(images[:count], sizes[:count]),
      strict=True,
    )
    for (image, expected), (same, found) in pairs:
      np.testing.assert_array_equal(image, same)
      assert found.shape == (33, 20, 5)
      np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('number', [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_same_as_on_one_device(number):
  done = subprocess.run(
    [sys.executable, '-c', _COMPARE.format(tests=str(_TESTS), number=number)],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-4000:]


def test_every_device_computes(monkeypatch):
  """Shares have one size, and the last image fills up the last of them."""
  seen = []

  class Strategy:
    """Three replicas in turn."""

    num_replicas_in_sync = 3

    def run(self, function):
      def replica(number):
        context = type('Context', (), {'replica_id_in_sync_group': number})
        monkeypatch.setattr(
          tf.distribute, 'get_replica_context', lambda: context
        )
        return function()

      return {'double': [replica(number) for number in range(3)]}

    def experimental_local_results(self, values):
      return values

  def network(images, training):
    assert not training
    seen.append(images.numpy().tolist())
    return 2 * images

  monkeypatch.setattr(
    tf.nest,
    'map_structure',
    lambda function, values: {k: function(v) for k, v in values.items()},
  )
  found = prediction._spread(Strategy(), network, tf.constant([1, 2, 3, 4]))
  assert seen == [[1, 2], [3, 4], [4, 4]]
  assert found['double'].numpy().tolist() == [2, 4, 6, 8]


def _run(repository, script, *arguments):
  done = subprocess.run(
    [sys.executable, str(repository / f'{script}.py'), *arguments],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-4000:]
  return done.stdout


@pytest.mark.slow
def test_the_scripts_on_two_devices(repository, testdata, tmp_path):
  """The same confusion matrix and the same pictures as on one."""
  options = common.ModelOptions(
    {'semantic': 21}, output_stride=16, depth_multiplier=0.35
  )
  predictor = prediction.Predictor(options, _SIZE)
  variables = checkpoints.named_variables(predictor._model)
  recipe.assign(variables)
  prefix = checkpoints.save(str(tmp_path), 4, variables)
  common_flags = [
    f'--checkpoint_dir={prefix}',
    f'--dataset_dir={testdata}/voc_tfrecord',
    '--depth_multiplier=0.35',
  ]
  devices = ['--num_clones=2', '--clone_on_cpu']
  found = {}
  for name, more in (('one', []), ('two', devices)):
    folder = tmp_path / name
    _run(
      repository,
      'eval',
      *common_flags,
      f'--eval_logdir={folder}',
      '--eval_crop_size=129,129',
      '--eval_batch_size=2',  # The last of three images is alone.
      *more,
    )
    _run(
      repository,
      'vis',
      *common_flags,
      f'--vis_logdir={folder}',
      '--vis_crop_size=129,129',
      '--vis_batch_size=2',
      *more,
    )
    values = json.loads((folder / 'miou_4.json').read_text())
    pictures = folder / 'segmentation_results'
    found[name] = (
      values['confusion_matrix'],
      {path.name: path.read_bytes() for path in pictures.iterdir()},
    )
  assert found['one'] == found['two']

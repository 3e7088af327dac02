"""Finding checkpoints and following a training run."""

import os
import types

import pytest
import tensorflow as tf

from deeplab import checkpoints, common
from deeplab.common import InputError
from deeplab.evaluation import prediction


def _write(folder, step, state=True):
  """Writes a checkpoint whose only variable is global_step."""
  prefix = os.path.join(folder, f'model.ckpt-{step}')
  tf.raw_ops.SaveV2(
    prefix=prefix,
    tensor_names=['global_step'],
    shape_and_slices=[''],
    tensors=[tf.constant(step, tf.int64)],
  )
  if state:
    tf.compat.v1.train.update_checkpoint_state(folder, prefix)
  return prefix


@pytest.mark.parametrize('suffix', ['', '.index', '.data-00000-of-00001'])
def test_prefix_or_file(tmp_path, suffix):
  prefix = _write(str(tmp_path), 5)
  assert prediction.fixed_checkpoint(prefix + suffix) == prefix
  # A fixed checkpoint is never waited for, whatever the limit.
  assert list(prediction.checkpoint_paths(prefix + suffix, 0)) == [prefix]


def test_directory_of_a_training_run(tmp_path):
  _write(str(tmp_path), 5)
  newest = _write(str(tmp_path), 12)
  assert prediction.fixed_checkpoint(str(tmp_path)) is None
  assert list(prediction.checkpoint_paths(str(tmp_path), 1)) == [newest]


def test_downloaded_directory_without_state_file(tmp_path):
  _write(str(tmp_path), 9, state=False)
  newest = _write(str(tmp_path), 30000, state=False)
  assert prediction.fixed_checkpoint(str(tmp_path)) == newest


@pytest.mark.parametrize('name', ['missing', 'missing/model.ckpt-7'])
def test_nothing_there(tmp_path, name):
  with pytest.raises(InputError, match='no such checkpoint'):
    list(prediction.checkpoint_paths(str(tmp_path / name), 1))


def test_empty_directory(tmp_path):
  with pytest.raises(InputError, match='holds no checkpoint'):
    list(prediction.checkpoint_paths(str(tmp_path), 1))
  with pytest.raises(
    InputError, match=r'no checkpoint appeared in 0\.1 seconds'
  ):
    list(prediction.checkpoint_paths(str(tmp_path), 0, 0, 0.1))


def test_follows_new_checkpoints_until_the_timeout(tmp_path):
  first = _write(str(tmp_path), 1)
  seen = []
  for prefix in prediction.checkpoint_paths(str(tmp_path), 0, 0, 0.5):
    seen.append(prefix)
    if prefix == first:
      second = _write(str(tmp_path), 2)
  assert seen == [first, second]


@pytest.mark.parametrize('name', ['interval_secs', 'timeout_secs'])
def test_times_are_not_negative(name):
  with pytest.raises(InputError, match=f'{name}=-1'):
    prediction.Job('run', None, None, [33, 33], **{name: -1})


def test_limit(tmp_path):
  _write(str(tmp_path), 1)
  seen = []
  for prefix in prediction.checkpoint_paths(str(tmp_path), 2, 0, 5):
    seen.append(os.path.basename(prefix))
    _write(str(tmp_path), len(seen) + 1)
  assert seen == ['model.ckpt-1', 'model.ckpt-2']


def test_job_builds_one_network(tmp_path, monkeypatch):
  first = _write(str(tmp_path), 1)
  built, restored, asked = [], [], []

  class Stub:
    def __init__(self, *arguments):
      built.append(arguments)

    def restore(self, prefix):
      restored.append(prefix)
      return len(restored)

  def make_options(num_classes, prefix):
    asked.append(prefix)
    return common.ModelOptions({'semantic': num_classes})

  def make_dataset(model_variant):
    return types.SimpleNamespace(num_of_classes=3, variant=model_variant)

  monkeypatch.setattr(prediction, 'Predictor', Stub)
  job = prediction.Job(
    str(tmp_path),
    make_dataset,
    make_options,
    [33, 33],
    eval_scales=[0.5, 1.0],
    add_flipped_images=True,
    limit=2,
    interval_secs=0,
    timeout_secs=5,
  )
  steps = []
  for run in job.runs():
    steps.append(run.step)
    assert run.dataset.variant == 'mobilenet_v2'
    assert run.prefix == restored[-1]
    second = _write(str(tmp_path), 2)
  assert restored == [first, second] and steps == [1, 2] and asked == [first]
  assert built == [
    (common.ModelOptions({'semantic': 3}), [33, 33], [0.5, 1.0], True, None)
  ]


def test_pyramid_and_scales_exclude_each_other():
  options = common.ModelOptions({'semantic': 3})
  with pytest.raises(InputError, match='--image_pyramid cannot be combined'):
    prediction.Predictor(options, [33, 33], [0.5], False, [1.0, 2.0])
  with pytest.raises(InputError, match='add_flipped_images=True'):
    prediction.Predictor(options, [33, 33], [1.0], True, [1.0, 2.0])


def test_scales_must_be_positive():
  options = common.ModelOptions({'semantic': 3})
  with pytest.raises(InputError, match='scales must be positive'):
    prediction.Predictor(options, [33, 33], [1.0, 0.0])


def test_a_moved_folder_with_absolute_paths_in_its_state_file(tmp_path):
  (tmp_path / 'checkpoint').write_text(
    'model_checkpoint_path: "/elsewhere/model.ckpt-3"\n'
  )
  checkpoints.save(str(tmp_path / 'x'), 3, {'v': 1.0})
  for file in (tmp_path / 'x').glob('model.ckpt-3.*'):
    file.rename(tmp_path / file.name)
  assert prediction.fixed_checkpoint(str(tmp_path)) == str(
    tmp_path / 'model.ckpt-3'
  )

"""The folder with the best checkpoint of a training run."""

import contextlib
import json
import math

import faults
import numpy as np
import pytest
import tensorflow as tf

from deeplab import checkpoints, common, stored_options
from deeplab.common import InputError
from deeplab.datasets import dataset_info


def _save(folder, step):
  values = {'net/weights': np.full([16], step, np.float32)}
  return checkpoints.save(str(folder), step, values, keep_max=2)


def _weights(path):
  variable = tf.Variable(np.zeros([16], np.float32))
  checkpoints.restore({'net/weights': variable}, str(path))
  return set(variable.numpy())


def _names(folder):
  return sorted(path.name for path in folder.iterdir())


def _files(name):
  """What the folder holds besides the files of options."""
  return [
    'best.json',
    'checkpoint',
    f'{name}.data-00000-of-00001',
    f'{name}.index',
  ]


def test_only_what_is_better(tmp_path):
  best = tmp_path / 'best'
  kept = []
  for step, miou in enumerate([0.5, 0.4, 0.5, math.nan, None, 0.6, 0.1]):
    kept.append(checkpoints.keep_best(tmp_path, _save(tmp_path, step), miou))
  assert kept == [True, False, False, False, False, True, False]
  assert _names(best) == _files('model.ckpt-5')
  assert _weights(best) == {5}
  assert checkpoints.global_step(checkpoints.find(best)) == 5
  record = json.loads((best / 'best.json').read_text())
  assert (record['miou'], record['step']) == (0.6, 5)
  assert checkpoints.read_best(tmp_path) == {
    'miou': 0.6,
    'step': 5,
    'checkpoint': 'model.ckpt-5',
  }
  assert checkpoints.read_best(tmp_path, 'accuracy') is None
  # It takes no part in the run's own checkpoints.
  assert checkpoints.latest(str(tmp_path)) == str(tmp_path / 'model.ckpt-6')


def test_what_lies_beside_a_checkpoint_comes_with_it(tmp_path):
  options = common.ModelOptions({'semantic': 3}, atrous_rates=[6])
  stored_options.save(str(tmp_path), options)
  info = dataset_info.DatasetInfo('towns', 3)
  info.save(str(tmp_path))
  checkpoints.keep_best(tmp_path, _save(tmp_path, 1), 0.5)
  best = str(tmp_path / 'best')
  assert stored_options.load(best).to_dict() == options.to_dict()
  assert json.loads((tmp_path / 'best' / 'dataset_info.json').read_text()) == (
    json.loads((tmp_path / 'dataset_info.json').read_text())
  )


def test_nothing_there(tmp_path):
  assert checkpoints.read_best(tmp_path) is None


@pytest.mark.parametrize(
  'text',
  [
    '',
    '{',
    'null',
    '[1]',
    '{"miou": "high", "step": 1, "checkpoint": "model.ckpt-1"}',
    '{"miou": NaN, "step": 1, "checkpoint": "model.ckpt-1"}',
    '{"miou": 0.9, "step": 1}',
    '{"miou": 0.9, "step": 1, "checkpoint": "../model.ckpt-1"}',
    '{"miou": 0.9, "step": 9, "checkpoint": "model.ckpt-9"}',
    '{"loss": 0.9, "step": 1, "checkpoint": "model.ckpt-1"}',
  ],
)
def test_an_older_file_that_means_no_checkpoint(tmp_path, text):
  checkpoints.keep_best(tmp_path, _save(tmp_path, 1), 0.9)
  (tmp_path / 'best' / 'best.json').write_text(text)
  assert checkpoints.read_best(tmp_path) is None
  assert checkpoints.keep_best(tmp_path, _save(tmp_path, 2), 0.1)
  assert checkpoints.read_best(tmp_path)['step'] == 2
  assert _names(tmp_path / 'best') == _files('model.ckpt-2')


def test_a_best_checkpoint_that_is_torn_is_none(tmp_path):
  checkpoints.keep_best(tmp_path, _save(tmp_path, 1), 0.9)
  (tmp_path / 'best' / 'model.ckpt-1.data-00000-of-00001').write_bytes(b'')
  assert checkpoints.read_best(tmp_path) is None
  assert checkpoints.keep_best(tmp_path, _save(tmp_path, 2), 0.1)
  assert _weights(tmp_path / 'best') == {2}


def test_a_run_that_comes_to_a_step_twice(tmp_path):
  checkpoints.keep_best(tmp_path, _save(tmp_path, 3), 0.5)
  prefix = checkpoints.save(
    str(tmp_path), 3, {'net/weights': np.full([16], 7, np.float32)}
  )
  assert not checkpoints.keep_best(tmp_path, prefix, 0.5)
  assert checkpoints.keep_best(tmp_path, prefix, 0.6)
  assert _weights(tmp_path / 'best') == {7}
  assert checkpoints.read_best(tmp_path)['step'] == 3
  assert _names(tmp_path / 'best') == _files('model.ckpt-again-3')


# The second one comes after the first, is of the same step, or comes before.
@pytest.mark.parametrize('step', [20, 10, 5])
def test_killed_at_any_moment(tmp_path, monkeypatch, step):
  moment, happened = 0, True
  while happened:
    run = tmp_path / str(moment)
    values = {}
    for old in (1, 10):
      values[0.1 * old] = float(old)
      checkpoints.keep_best(run, _save(run, old), 0.1 * old)
    prefix = checkpoints.save(
      str(run), step, {'net/weights': np.full([16], 99, np.float32)}
    )
    values[2.0] = 99.0
    with monkeypatch.context() as patch:
      state = faults.kill_at(patch, moment)
      with contextlib.suppress(faults.Killed):
        assert checkpoints.keep_best(run, prefix, 2.0)
      happened = state.happened
    found = checkpoints.read_best(run)
    assert found['miou'] in (1.0, 2.0)
    # The value, and what evaluation and export would take.
    assert _weights(run / 'best') == {values[found['miou']]}
    # The run goes on.
    checkpoints.keep_best(run, prefix, 2.0)
    assert checkpoints.read_best(run)['miou'] == 2.0
    assert _weights(run / 'best') == {99.0}
    assert not checkpoints.keep_best(run, prefix, 1.5)
    checkpoints.keep_best(run, _save(run, 30), 3.0)
    assert _names(run / 'best') == _files('model.ckpt-30')
    moment += 1
  assert moment > 8


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'best').touch()
  with pytest.raises(InputError, match='best: the best checkpoint could not'):
    checkpoints.keep_best(tmp_path, _save(tmp_path, 1), 0.5)


def test_a_copy_that_fails_leaves_the_older_one(tmp_path, monkeypatch):
  checkpoints.keep_best(tmp_path, _save(tmp_path, 1), 0.5)
  before = _names(tmp_path / 'best')
  prefix = _save(tmp_path, 2)
  copy = tf.io.gfile.copy

  def full(source, target):
    if source.endswith('.index'):
      raise tf.errors.ResourceExhaustedError(None, None, 'no space')
    copy(source, target)

  with monkeypatch.context() as patch:
    patch.setattr(tf.io.gfile, 'copy', full)
    with pytest.raises(InputError, match='no space'):
      checkpoints.keep_best(tmp_path, prefix, 0.6)
  assert _names(tmp_path / 'best') == before
  assert checkpoints.read_best(tmp_path)['miou'] == 0.5
  assert checkpoints.keep_best(tmp_path, prefix, 0.6)

"""Evaluation during training: the best checkpoint, stopping early."""

import json
import os

import pytest
import training_process

from deeplab import checkpoints
from deeplab.common import InputError
from deeplab.evaluation import evaluator
from deeplab.training import interruption, loop, validation

_SETTINGS = {
  'train_batch_size': 2,
  'training_number_of_steps': 6,
  'fine_tune_batch_norm': False,
  'eval_interval_steps': 1,
  'eval_crop_size': [65, 65],
  'max_resize_value': 65,
  'min_resize_value': 33,
}


def test_the_best_checkpoint_is_kept(tmp_path):
  config = training_process.make_config(
    tmp_path,
    **{**_SETTINGS, 'training_number_of_steps': 2},
    keep_best_by='miou',
    moving_average_decay=0.9,
  )
  loop.train(config)
  results = [
    json.loads((tmp_path / 'eval' / f'miou_{step}.json').read_text())
    for step in (1, 2)
  ]
  best = max(results, key=lambda values: (values['miou'], -values['step']))
  found = checkpoints.read_best(str(tmp_path))
  assert (found['miou'], found['step']) == (best['miou'], best['step'])
  assert checkpoints.latest(str(tmp_path / 'best'))
  assert (tmp_path / 'best' / 'model_options.json').exists()


@pytest.mark.parametrize(
  'last, values',
  [
    (4, [0.1, 0.3, 0.2, 0.2, 0.9, 0.9]),
    (6, [0.1, 0.3, 0.2, 0.4, 0.3, 0.5]),
    # Nothing is waited for before there is a best one.
    (5, [None, None, 0.2, 0.2, 0.1, 0.1]),
  ],
)
def test_stops_early(last, values, tmp_path, monkeypatch):
  monkeypatch.setattr(
    evaluator.Evaluation,
    'evaluate',
    lambda self, prefix, step: {'miou': values[step - 1]},
  )
  config = training_process.make_config(
    tmp_path, keep_best_by='miou', early_stopping_evals=2, **_SETTINGS
  )
  prefix = loop.train(config)
  assert checkpoints.global_step(prefix) == last
  assert os.path.basename(prefix) == f'model.ckpt-{last}'


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'keep_best_by': 'miou'}, 'Give --eval_interval_steps'),
    ({'early_stopping_evals': 2}, 'Give --keep_best_by'),
    ({'keep_best_by': 'loss', 'eval_interval_steps': 1}, "one of miou.*'loss'"),
    ({'eval_interval_steps': 0}, 'eval_interval_steps'),
    ({'eval_crop_size': [65]}, 'two integers'),
    ({'profile_steps': [9, 3]}, 'first and the last step'),
    ({'mixed_precision': 'float8'}, "bfloat16.*'float8'"),
    ({'gradient_accumulation_steps': 0}, 'gradient_accumulation_steps'),
    ({'moving_average_decay': 1.5}, 'moving_average_decay'),
    ({'max_nan_steps': -1}, 'max_nan_steps'),
  ],
)
def test_refuses(tmp_path, changes, message):
  with pytest.raises(InputError, match=message):
    training_process.make_config(tmp_path, **changes)


def test_a_split_that_is_not_there(tmp_path):
  config = training_process.make_config(
    tmp_path, **{**_SETTINGS, 'eval_split': 'none'}
  )
  with pytest.raises(InputError, match='none'):
    loop.train(config)


def test_what_was_not_evaluated_is_evaluated_first(tmp_path, monkeypatch):
  evaluated = []

  def evaluate(self, prefix, step):
    evaluated.append(step)
    result = tmp_path / 'eval' / f'miou_{step}.json'
    result.write_text('{"miou": 0.1}')
    return {'miou': 0.1}

  monkeypatch.setattr(evaluator.Evaluation, 'evaluate', evaluate)
  settings = {**_SETTINGS, 'keep_best_by': 'miou', 'early_stopping_evals': 2}

  def train():
    return loop.train(training_process.make_config(tmp_path, **settings))

  # Steps 1, 2 and 3; that of step 1 is the best.
  assert train().endswith('-3')
  (tmp_path / 'eval' / 'miou_3.json').unlink()
  assert train().endswith('-3')
  assert evaluated == [1, 2, 3, 3]
  # It stays stopped.
  assert train().endswith('-3')
  assert len(evaluated) == 4


def test_the_last_step_is_evaluated_though_killed(tmp_path, monkeypatch):
  evaluated = []
  monkeypatch.setattr(
    evaluator.Evaluation,
    'evaluate',
    lambda self, prefix, step: evaluated.append(step),
  )
  settings = {**_SETTINGS, 'training_number_of_steps': 3}
  config = training_process.make_config(
    tmp_path, **{**settings, 'eval_interval_steps': 2}
  )
  # No result is written, as if it were killed each time.
  for _ in range(2):
    assert loop.train(config).endswith('-3')
  assert evaluated == [2, 3, 3]


def test_the_best_is_kept_though_killed(tmp_path, monkeypatch):
  def evaluate(self, prefix, step):
    values = {'miou': step / 10}
    path = tmp_path / 'eval' / f'miou_{step}.json'
    path.write_text(json.dumps(values))
    if step == 2:
      raise KeyboardInterrupt
    return values

  monkeypatch.setattr(evaluator.Evaluation, 'evaluate', evaluate)
  settings = {**_SETTINGS, 'training_number_of_steps': 2}
  config = training_process.make_config(
    tmp_path, **settings, keep_best_by='miou'
  )
  with pytest.raises(KeyboardInterrupt):
    loop.train(config)
  assert checkpoints.read_best(str(tmp_path))['step'] == 1
  loop.train(config)
  assert checkpoints.read_best(str(tmp_path))['step'] == 2


def test_an_evaluation_ends_when_told_to(tmp_path):
  config = training_process.make_config(
    tmp_path, **{**_SETTINGS, 'training_number_of_steps': 1}
  )
  prefix = loop.train(config)
  (tmp_path / 'eval' / 'miou_1.json').unlink()
  part = validation.Validation(config, is_chief=True, should_stop=lambda: True)
  with pytest.raises(interruption.Interrupted, match='evaluates the check'):
    part.resume(prefix, 1)
  assert not (tmp_path / 'eval' / 'miou_1.json').exists()


@pytest.mark.slow
def test_hosts_stop_early_together(tmp_path):
  # Nothing is learnt, so that no evaluation is better than the first.
  settings = {**_SETTINGS, 'base_learning_rate': 0.0, 'weight_decay': 0.0}
  outputs = training_process.train_on_hosts(
    tmp_path, 2, keep_best_by='miou', early_stopping_evals=2, **settings
  )
  assert checkpoints.latest(str(tmp_path)).endswith('-3')
  assert checkpoints.read_best(str(tmp_path))['step'] == 1
  assert all('Stopped early' in output for output in outputs)

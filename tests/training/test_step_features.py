"""Accumulated gradients, skipped steps, averages and the scale of the loss."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import training_process

from deeplab.common import InputError
from deeplab.training import step_guards, strategies, train_step

_SIZE = 33
_SPEC = {
  'image': tf.TensorSpec([None, _SIZE, _SIZE, 3], tf.float32),
  'label': tf.TensorSpec([None, _SIZE, _SIZE, 1], tf.int32),
}


def _make_step(**changes):
  config = training_process.make_config(
    'unused',
    train_batch_size=4,
    **{'model': {'depth_multiplier': 0.35}, **changes},
  )
  return train_step.TrainStep(config, strategies.make_strategy(1, True), 255)


def _batch(ignored_rows=(0, 5, 10, 20)):
  """Images, and labels of which each image has another number."""
  random = np.random.default_rng(0)
  images = random.uniform(0, 255, (4, _SIZE, _SIZE, 3)).astype(np.float32)
  labels = random.integers(0, 21, (4, _SIZE, _SIZE, 1)).astype(np.int32)
  for label, rows in zip(labels, ignored_rows, strict=True):
    label[:rows] = 255
  return tf.constant(images), tf.constant(labels)


def _state(step):
  return {name: value.numpy() for name, value in step.state().items()}


def _run(num_steps=2, **changes):
  """State and last metrics of some steps on one batch."""
  step = _make_step(**changes)
  run = step.compile(_SPEC)
  for _ in range(num_steps):
    metrics, _ = run(*_batch())
  return _state(step), {name: float(value) for name, value in metrics.items()}


def test_parts_make_the_whole_batch():
  whole, metrics = _run(fine_tune_batch_norm=False)
  parts, part_metrics = _run(
    fine_tune_batch_norm=False, gradient_accumulation_steps=4
  )
  assert training_process.difference(whole, parts) < 1e-6
  assert metrics == pytest.approx(part_metrics, rel=1e-6)


@pytest.mark.parametrize(
  'changes',
  [
    {'upsample_logits': False},
    {'image_pyramid': [0.5, 1.0]},
  ],
)
@pytest.mark.slow
def test_parts_of_other_losses(changes):
  changes['fine_tune_batch_norm'] = False
  whole, _ = _run(**changes)
  parts, _ = _run(gradient_accumulation_steps=2, **changes)
  assert training_process.difference(whole, parts) < 1e-6


def test_the_batch_divides_by_the_parts():
  with pytest.raises(InputError, match='1 replicas times 3 parts'):
    _make_step(gradient_accumulation_steps=3)


def test_a_step_that_is_not_finite_changes_nothing():
  step = _make_step(max_nan_steps=1, moving_average_decay=0.9)
  run = step.compile(_SPEC)
  images, labels = _batch()
  run(images, labels)
  before = _state(step)
  metrics, _ = run(images * float('nan'), labels)
  assert float(metrics[step_guards.SKIPPED]) == 1
  after = _state(step)
  assert after.pop('global_step') == before.pop('global_step') + 1
  for name, value in before.items():
    np.testing.assert_array_equal(after[name], value, err_msg=name)
  metrics, _ = run(images, labels)
  assert float(metrics[step_guards.SKIPPED]) == 0
  assert training_process.difference(before, _state_without_step(step)) > 1e-6


def _state_without_step(step):
  state = _state(step)
  del state['global_step']
  return state


def test_moving_averages():
  name = 'logits/semantic/weights'
  step = _make_step(moving_average_decay=0.5, base_learning_rate=0.1)
  run = step.compile(_SPEC)
  step.averages.start()
  expected = step.variables[name].numpy().astype(np.float64)
  for number in range(3):
    run(*_batch())
    decay = min(0.5, (1 + number) / (10 + number))
    value = step.variables[name].numpy()
    expected = decay * expected + (1 - decay) * value
  average = step.state()[f'{name}/ExponentialMovingAverage'].numpy()
  np.testing.assert_allclose(average, expected, rtol=1e-5, atol=1e-8)
  assert len(step.averages.slots) == len(step.variables)


def test_the_scale_of_the_loss():
  scale = step_guards.LossScale(True)
  first = scale.multiply(tf.constant(1.0)).numpy()
  assert scale.divide(scale.multiply(tf.constant(3.0))).numpy() == 3

  def update(skipped):
    metrics = {step_guards.SKIPPED: tf.constant(float(skipped))}
    scale.update(metrics)
    return metrics[step_guards.LOSS_SCALE].numpy()

  assert update(True) == first
  assert scale.multiply(tf.constant(1.0)).numpy() == first / 2
  for _ in range(2000):
    update(False)
  assert scale.multiply(tf.constant(1.0)).numpy() == first
  for _ in range(40):
    update(True)
  assert scale.multiply(tf.constant(1.0)).numpy() == 1


def test_half_precision_goes_on_after_an_overflow():
  step = _make_step(mixed_precision='float16')
  run = step.compile(_SPEC)
  scale = step.loss_scale.state()[step_guards.LOSS_SCALE]
  scale.assign(2.0**120)
  metrics, _ = run(*_batch())
  assert float(metrics[step_guards.SKIPPED]) == 1
  assert np.isfinite(float(metrics[train_step.TOTAL_LOSS]))
  assert scale.numpy() == 2.0**119
  scale.assign(2.0**10)
  before = _state_without_step(step)
  metrics, _ = run(*_batch())
  assert float(metrics[step_guards.SKIPPED]) == 0
  assert training_process.difference(before, _state_without_step(step)) > 1e-6


@functools.cache
def _plain_metrics(fine_tune_batch_norm):
  """Of one step without any of these features."""
  settings = {'fine_tune_batch_norm': fine_tune_batch_norm}
  return _run(1, recompute_grad='nothing', **settings)[1]


@pytest.mark.parametrize(
  'changes',
  [
    {'mixed_precision': 'bfloat16'},
    {'recompute_grad': 'activations'},
    {'recompute_grad': 'blocks'},
    {
      'mixed_precision': 'float16',
      'gradient_accumulation_steps': 2,
      'fine_tune_batch_norm': False,
    },
  ],
)
def test_the_loss_is_nearly_that_of_plain_steps(changes):
  norm = changes.get('fine_tune_batch_norm', True)
  plain = _plain_metrics(norm)
  _, other = _run(1, **changes)
  assert other['total_loss'] == pytest.approx(plain['total_loss'], rel=0.02)
  assert other['total_loss'] != 0

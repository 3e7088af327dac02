"""The loss of upsampled logits against the plain operations."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab.slim import devices
from deeplab.training import losses, upsampled_loss

_CLASSES = 5
_IGNORE = 255


def _batch(size=(161, 129), small=(11, 9), spread=3.0):
  random = np.random.default_rng(1)
  logits = random.normal(0, spread, (2, *small, _CLASSES)).astype(np.float32)
  labels = random.integers(0, _CLASSES, (2, *size, 1)).astype(np.int32)
  labels[:, :7, ::3] = _IGNORE
  return tf.constant(logits), tf.constant(labels)


def _loss(logits, labels, **arguments):
  """The loss, and the gradient of three times it."""
  with tf.GradientTape() as tape:
    tape.watch(logits)
    (loss,) = losses.softmax_cross_entropy_loss_for_each_scale(
      {'logits': logits}, labels, _CLASSES, _IGNORE, **arguments
    ).values()
    scaled = 3.0 * loss
  return loss.numpy(), tape.gradient(scaled, logits).numpy()


def _compare(monkeypatch, logits, labels, **arguments):
  assert upsampled_loss.applies(logits, labels)
  loss, gradient = _loss(logits, labels, **arguments)
  monkeypatch.setattr(upsampled_loss, 'applies', lambda *_: False)
  expected_loss, expected = _loss(logits, labels, **arguments)
  assert loss == pytest.approx(expected_loss, rel=1e-6)
  np.testing.assert_allclose(
    gradient, expected, atol=3e-6 * np.abs(expected).max()
  )
  return loss, gradient


@pytest.mark.parametrize('loss_weight', [1.0, [0.5, 2.0, 0.0, 1.0, 3.0]])
def test_agrees_with_plain_operations(monkeypatch, loss_weight):
  loss, _ = _compare(monkeypatch, *_batch(), loss_weight=loss_weight)
  assert loss > 0.5


def test_logits_of_the_labels_size(monkeypatch):
  _compare(monkeypatch, *_batch(size=(131, 130), small=(131, 130)))


def test_large_logits(monkeypatch):
  loss, gradient = _compare(monkeypatch, *_batch(spread=1e4))
  assert np.isfinite(loss) and np.isfinite(gradient).all()


def test_ignored_pixels_alone():
  logits, labels = _batch()
  loss, gradient = _loss(logits, tf.fill(labels.shape, _IGNORE))
  assert loss == 0.0
  assert not gradient.any()


def test_not_a_number_is_not_hidden():
  logits, labels = _batch()
  loss, _ = _loss(logits * np.nan, labels)
  assert np.isnan(loss)


def test_hard_pixels_take_the_plain_way():
  logits, labels = _batch()
  loss, _ = _loss(logits, labels, top_k_percent_pixels=0.1)
  assert loss > 1.5 * _loss(logits, labels)[0]


def test_where_it_does_not_apply(monkeypatch):
  logits, labels = _batch()
  assert not upsampled_loss.applies(tf.cast(logits, tf.float64), labels)
  assert not upsampled_loss.applies(logits, labels[:, :65, :65])
  shapes = []
  tf.function(
    lambda labels: shapes.append(upsampled_loss.applies(logits, labels)),
    autograph=False,
  ).get_concrete_function(tf.TensorSpec([2, None, None, 1], tf.int32))
  assert shapes == [False]
  monkeypatch.setattr(devices, 'are_processors', lambda: False)
  assert not upsampled_loss.applies(logits, labels)

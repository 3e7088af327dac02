"""Labels of small logits against those of resized logits."""

import keras
import numpy as np
import pytest
import resized_means
import tensorflow as tf

from deeplab import slim
from deeplab.core import label_upsampling, utils


def _noise(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _blobs(*shape):
  """Discs, each of one class, as objects are."""
  _, height, width, classes = shape
  logits = 0.1 * _noise(*shape)
  random = np.random.default_rng(1)
  rows, columns = np.mgrid[:height, :width]
  for image in logits:
    for _ in range(4):
      center = random.uniform(0, [height, width])
      distance = np.hypot(rows - center[0], columns - center[1])
      image[distance < max(height, width) / 4, random.integers(classes)] += 3
  return logits


def _labels(logits, size, batch=None):
  """What is to be tested, as a part of a network."""
  with slim.layer_store():
    inputs = keras.Input(logits.shape[1:], batch)
    network = keras.Model(
      inputs, label_upsampling.upsampled_labels([inputs], size)
    )
  eager = network(logits)
  compiled = tf.function(
    network, input_signature=[tf.TensorSpec([batch, *logits.shape[1:]])]
  )(logits)
  np.testing.assert_array_equal(eager, compiled)
  assert eager.dtype == tf.int32 and eager.shape == (len(logits), *size)
  return eager.numpy()


def _check(logits, size, batch=None):
  """The classes are the best ones, but for ties within rounding."""
  found = _labels(logits, size, batch)
  resized = tf.raw_ops.ResizeBilinear(
    images=logits, size=size, align_corners=True
  ).numpy()
  lost = resized.max(-1) - np.take_along_axis(
    resized, found[..., np.newaxis], -1
  ).squeeze(-1)
  assert lost.max() <= 2e-6 * np.abs(resized).max()
  assert (found != resized.argmax(-1)).mean() < 1e-3


@pytest.mark.parametrize('make', [_noise, _blobs])
@pytest.mark.parametrize(
  'small, size',
  [
    ((9, 9), (65, 65)),
    # Another factor down than right, and none at all in one direction.
    ((5, 9), (65, 33)),
    ((9, 5), (9, 65)),
    ((2, 2), (17, 17)),
    # Factors that are not whole, as those of even sides.
    ((8, 10), (64, 80)),
    ((9, 9), (64, 65)),
    # Smaller than the logits, or as large.
    ((9, 9), (5, 5)),
    ((9, 9), (1, 65)),
    ((9, 9), (9, 9)),
    # A row, a column, a pixel.
    ((1, 9), (17, 65)),
    ((9, 1), (65, 17)),
    ((1, 1), (17, 17)),
    ((1, 9), (1, 65)),
  ],
)
def test_equals_the_argmax_of_resized_logits(small, size, make):
  _check(make(1, *small, 5), size)


@pytest.mark.parametrize('batch', [None, 3])
def test_a_batch(batch):
  _check(_blobs(3, 9, 11, 4), (65, 81), batch)


@pytest.mark.parametrize('classes', [1, 2, 151])
def test_numbers_of_classes(classes):
  _check(_blobs(2, 9, 9, classes), (65, 65))
  _check(_noise(2, 9, 9, classes), (33, 33))


_SIDES = [(5, 5), (17, 13), (9, 9)]


def _passes(batch=2, classes=4):
  """Logits of one scene at several sizes, with noise of their own."""
  scene = _blobs(batch, 9, 9, classes)
  for sides in _SIDES:
    resized = tf.raw_ops.ResizeBilinear(
      images=scene, size=sides, align_corners=True
    ).numpy()
    yield resized + 0.1 * _noise(*resized.shape)


@pytest.mark.parametrize('size', [(65, 65), (50, 71), (7, 9), (1, 33)])
@pytest.mark.parametrize('kind', ['scene', 'noise', 'disagreement'])
def test_several_passes_have_the_best_class_of_their_mean(kind, size):
  passes = list(_passes())
  if kind == 'noise':
    passes = [3 * _noise(*x.shape) for x in passes]
  elif kind == 'disagreement':
    # Each is sure of another class everywhere; none is mixed.
    for i, x in enumerate(passes):
      x[..., i] += 9 + i
  labels = label_upsampling.upsampled_labels(passes, size)
  assert labels.dtype == tf.int32 and labels.shape == (2, *size)
  mean = resized_means.mean_of_softmaxes(passes, size)
  best = np.take_along_axis(mean, labels.numpy()[..., np.newaxis], -1)
  assert (mean.max(-1) - best[..., 0]).max() < 1e-5
  assert (labels != mean.argmax(-1)).numpy().mean() < 1e-2


def test_only_blocks_that_may_have_several_classes_are_mixed():
  logits = np.zeros([1, 17, 17, 4], np.float32)
  logits[..., 1] = 9
  # One logit of another class.
  logits[0, 0, 0, 2] = 99
  size = tf.constant([65, 65])
  best, is_mixed = label_upsampling._block_labels(
    logits, tf.constant([1 / 4, 1 / 4]), size, block=4
  )
  expected = np.zeros([1, 17, 17], bool)
  expected[0, 0, 0] = True
  np.testing.assert_array_equal(is_mixed, expected)
  np.testing.assert_array_equal(best, np.where(expected, 2, 1))


@pytest.mark.parametrize('block', [4, 9])
@pytest.mark.parametrize('make', [_noise, _blobs])
@pytest.mark.parametrize('side', [5, 17, 33])
def test_least_probabilities_are_those_of_pixels(side, make, block):
  logits = 4 * make(2, side, side, 5)
  size = np.array([65, 50])
  step = ((side - 1) / (size - 1)).astype(np.float32)
  least = label_upsampling._least_probabilities(
    logits, tf.constant(step), tf.constant(size, tf.int32), block
  ).numpy()
  probabilities = resized_means.mean_of_softmaxes([logits], size)
  rows, columns = np.mgrid[: size[0], : size[1]] // block
  of_pixels = least[:, rows, columns]
  assert (of_pixels <= probabilities + 1e-5).all()
  if make is _blobs and side > 5:
    assert (of_pixels > 0.9).any()


def test_passes_that_are_sure_decide(monkeypatch):
  """Two of three are so sure that what the third one says does not matter."""
  passes = [0.1 * _noise(1, 9, 9, 4) for _ in range(3)]
  for x in passes[:2]:
    x[..., 2] += 9

  def none_mixed(passes, steps, blocks, block):
    assert not len(blocks)
    return tf.zeros([0, block, block], tf.int32)

  monkeypatch.setattr(label_upsampling, '_mixed_labels', none_mixed)
  labels = label_upsampling._labels(passes, tf.constant([65, 65]))
  assert (labels.numpy() == 2).all()


def test_one_class_everywhere():
  """No block is mixed."""
  logits = 0.1 * _noise(2, 9, 9, 4)
  logits[..., 2] += 9
  assert (_labels(logits, (65, 65)) == 2).all()


def test_no_images():
  assert _labels(np.zeros([0, 9, 9, 4], np.float32), (65, 65)).shape[0] == 0


def test_pixels_that_are_logits_keep_their_classes():
  logits = _noise(2, 9, 9, 4)
  labels = _labels(logits, (65, 65))
  np.testing.assert_array_equal(labels[:, ::8, ::8], logits.argmax(-1))


def test_sides_that_nobody_knows_yet():
  """Those of a network for images of any size."""
  images = keras.Input((None, None, 3))
  logits = keras.Input((None, None, 4))
  size = utils.spatial_size(images)
  network = keras.Model(
    [images, logits], label_upsampling.upsampled_labels([logits], size)
  )
  values = _blobs(2, 5, 7, 4)
  for sides in ((33, 49), (30, 50)):
    found = network([np.zeros([2, *sides, 3], np.float32), values])
    resized = tf.raw_ops.ResizeBilinear(
      images=values, size=sides, align_corners=True
    )
    np.testing.assert_array_equal(found, tf.argmax(resized, -1))


def test_argmax():
  logits = _noise(2, 5, 6, 4)
  labels = label_upsampling.argmax(tf.constant(logits))
  assert labels.dtype == tf.int32
  np.testing.assert_array_equal(labels, logits.argmax(-1))

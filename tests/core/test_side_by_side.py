"""Images that go through a network by themselves."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab.core import side_by_side
from deeplab.slim import devices

_SPEC = tf.TensorSpec([None, 4, 5, 3], name='images')


@pytest.fixture
def accelerator(monkeypatch):
  monkeypatch.setattr(devices, 'are_processors', lambda: False)


def _network(images):
  """Nested tensors of other shapes and types than the images."""
  return {
    'sums': [tf.reduce_sum(images, [1, 2]), images[:, ::2]],
    'labels': tf.argmax(images, axis=-1, output_type=tf.int32),
  }


def _images(count):
  return tf.random.stateless_normal([count, 4, 5, 3], seed=[0, 1])


def _check(found, expected):
  tf.nest.assert_same_structure(found, expected)
  for x, y in zip(*map(tf.nest.flatten, (found, expected)), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_allclose(x, y, rtol=1e-6)


class _Counter:
  """A network that knows which batches it got, and how many at once."""

  def __init__(self):
    self.batches = []
    self.most = self._now = 0
    self._lock = threading.Lock()
    self._second = threading.Event()

  def __call__(self, images):
    with self._lock:
      self.batches.append(images.shape[0])
      self._now += 1
      self.most = max(self.most, self._now)
      if self._now == 2:
        self._second.set()
    # The first one waits for another at the same time.
    assert self._second.wait(timeout=60)
    with self._lock:
      self._now -= 1
    return tf.identity(images)


@pytest.mark.parametrize(
  ('count', 'batch'), [(0, None), (1, None), (1, 1), (4, None), (4, 4)]
)
def test_one_by_one(count, batch):
  compiled = tf.function(
    _network, input_signature=[_SPEC]
  ).get_concrete_function()
  images = _images(count)
  _check(side_by_side.one_by_one(compiled, images), _network(images))
  in_graph = tf.function(
    lambda x: side_by_side.one_by_one(compiled, x),
    input_signature=[tf.TensorSpec([batch, 4, 5, 3])],
  )
  _check(in_graph(images), _network(images))
  graph = in_graph.get_concrete_function().graph
  loops = [op for op in graph.get_operations() if op.type.endswith('While')]
  assert len(loops) == (batch != 1)


def test_a_keras_model_in_a_graph():
  inputs = keras.Input([None, None, 3])
  network = keras.Model(inputs, {'found': [inputs + 1, inputs[:, :1]]})
  in_graph = tf.function(
    lambda x: side_by_side.one_by_one(network, x),
    input_signature=[tf.TensorSpec([None, None, None, 3])],
  )
  images = _images(3)
  _check(in_graph(images), network(images))


def test_two_images_at_once():
  network = _Counter()
  images = _images(5)
  _check(side_by_side.one_by_one(network, images), tf.identity(images))
  assert network.batches == 5 * [1]
  assert network.most == 2


def test_one_image_needs_no_thread():
  names = []

  def network(images):
    names.append(threading.current_thread().name)
    return images

  side_by_side.one_by_one(network, _images(1))
  assert names == [threading.current_thread().name]


def test_accelerators_take_all_at_once(accelerator):
  batches = []

  def network(images):
    batches.append(images.shape[0])
    return _network(images)

  images = _images(4)
  _check(side_by_side.one_by_one(network, images), _network(images))
  assert batches == [4]


def test_errors_come_through():
  def network(images):
    raise ValueError('no such image')

  with pytest.raises(ValueError, match='no such image'):
    side_by_side.one_by_one(network, _images(3))

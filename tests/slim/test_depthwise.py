"""Dilated depthwise convolutions of the training step."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from deeplab import slim
from deeplab.slim import depthwise, devices

_ARGUMENTS = {'strides': [1, 1, 1, 1], 'padding': 'SAME'}


def _values(size, kernel=(3, 3), channels=4, dtype=np.float32):
  random = np.random.default_rng(0)
  return tuple(
    tf.constant(random.normal(size=shape).astype(dtype))
    for shape in (
      (2, *size, channels),
      (*kernel, channels, 1),
      (2, *size, channels),
    )
  )


def _differentiate(convolve, inputs, kernel, weights):
  with tf.GradientTape() as tape:
    tape.watch([inputs, kernel])
    outputs = convolve(inputs, kernel)
    total = tf.reduce_sum(outputs * weights)
  return outputs, *tape.gradient(total, [inputs, kernel])


def _assert_close(found, expected):
  for value, reference in zip(found, expected, strict=True):
    scale = np.abs(reference).max()
    np.testing.assert_allclose(value, reference, atol=2e-6 * scale)


_CASES = [
  ((17, 17), (3, 3), [2, 2]),
  ((16, 21), (3, 3), [6, 4]),
  ((21, 21), (3, 3), [8, 8]),
  ((21, 17), (3, 3), [12, 12]),
  ((9, 9), (3, 3), [18, 18]),
  ((15, 15), (5, 5), [3, 3]),
  ((15, 15), (5, 3), [8, 9]),
]


@pytest.mark.parametrize('native', [True, False])
@pytest.mark.parametrize('size, kernel, rates', _CASES)
def test_agrees_with_tensorflow(monkeypatch, size, kernel, rates, native):
  if not native:
    monkeypatch.setattr(devices, 'has_dilated_depthwise', lambda dtype: False)
  values = _values(size, kernel)
  found = _differentiate(
    functools.partial(depthwise.convolve, rates=rates), *values
  )
  expected = _differentiate(
    functools.partial(tf.nn.depthwise_conv2d, dilations=rates, **_ARGUMENTS),
    *values,
  )
  _assert_close(found, expected)


@pytest.mark.parametrize('rate', [2, 12])
def test_compiles(rate):
  values = _values((21, 21))
  function = functools.partial(
    _differentiate, functools.partial(depthwise.convolve, rates=[rate, rate])
  )
  _assert_close(
    tf.function(function, jit_compile=True)(*values), function(*values)
  )


def test_where_it_does_not_apply(monkeypatch):
  inputs, kernel, _ = _values((9, 9))
  assert depthwise.applies(inputs, kernel, [6, 6], 'SAME')
  assert not depthwise.applies(inputs, kernel, [6, 4], 'SAME')
  assert not depthwise.applies(inputs, kernel, [6, 6], 'VALID')
  assert not depthwise.applies(inputs, kernel[:2], [6, 6], 'SAME')
  twice = tf.concat([kernel, kernel], -1)
  assert not depthwise.applies(inputs, twice, [6, 6], 'SAME')
  half = tf.cast(inputs, tf.bfloat16)
  assert not depthwise.applies(half, kernel, [6, 6], 'SAME')
  monkeypatch.setattr(devices, 'are_processors', lambda: False)
  assert not depthwise.applies(inputs, kernel, [6, 6], 'SAME')


@pytest.mark.parametrize('rate, taken', [(2, False), (6, True)])
def test_layers_take_it_in_the_training_step(monkeypatch, rate, taken):
  calls = []

  def convolve(inputs, kernel, rates):
    calls.append(rates)
    return inputs

  monkeypatch.setattr(depthwise, 'convolve', convolve)
  with slim.layer_store():
    inputs = tf.keras.Input((9, 9, 4))
    outputs = slim.separable_conv2d(inputs, None, 3, rate=rate)
  model = tf.keras.Model(inputs, outputs)
  images = tf.zeros([1, 9, 9, 4])
  model(images)
  assert not calls
  with slim.train_step_context(tf.constant(0, tf.int64), tf.constant([0, 0])):
    model(images)
  assert calls == ([[rate, rate]] if taken else [])


@pytest.mark.parametrize('size, rate', [(21, 6), (21, 18)])
def test_the_inputs_are_prepared_when_the_gradients_are_there(size, rate):
  """What the gradient of the kernel is made of would be kept until then."""
  forward = []

  @tf.function(autograph=False)
  def gradients_of(inputs, kernel, gradients):
    with tf.GradientTape() as tape:
      tape.watch([inputs, kernel])
      outputs = depthwise.convolve(inputs, kernel, [rate, rate])
    forward.extend(tf.compat.v1.get_default_graph().get_operations())
    return tape.gradient(outputs, [inputs, kernel], gradients)

  graph = gradients_of.get_concrete_function(*_values((size, size))).graph
  inputs, _, gradients = graph.inputs
  backward = set(inputs.consumers()) - set(forward)
  assert backward
  for operation in backward:
    assert gradients.op in operation.control_inputs

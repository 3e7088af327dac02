"""TensorFlow 1's update rules, against its own kernels."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab.training import optimizers

_LAST = ['logits', 'aspp', 'decoder']
_RATES = [0.1, 0.1, 0.01]


def _gradients():
  random = np.random.default_rng(1)
  return [random.normal(size=[3, 4]).astype(np.float32) for _ in _RATES]


def _run(make):
  """Three steps inside a compiled step of a strategy; the optimiser."""
  strategy = tf.distribute.OneDeviceStrategy('/cpu:0')
  with strategy.scope():
    variable = tf.Variable(tf.ones([3, 4]))
    optimizer = make({'a/weights': variable})

  @tf.function
  def step(gradient, rate):
    strategy.run(
      lambda g, r: optimizer.apply_gradients({'a/weights': g}, r),
      args=(gradient, rate),
    )

  for gradient, rate in zip(_gradients(), _RATES, strict=True):
    step(tf.constant(gradient), tf.constant(rate))
  return variable, optimizer


def test_momentum_is_the_kernel_of_tensorflow_1():
  variable, optimizer = _run(lambda v: optimizers.Momentum(v, momentum=0.9))
  expected, slot = tf.Variable(tf.ones([3, 4])), tf.Variable(tf.zeros([3, 4]))
  for gradient, rate in zip(_gradients(), _RATES, strict=True):
    tf.raw_ops.ResourceApplyMomentum(
      var=expected.handle,
      accum=slot.handle,
      lr=rate,
      grad=gradient,
      momentum=0.9,
    )
  assert list(optimizer.slots) == ['a/weights/Momentum']
  np.testing.assert_allclose(variable, expected, rtol=1e-6, atol=1e-7)
  np.testing.assert_allclose(
    optimizer.slots['a/weights/Momentum'], slot, rtol=1e-6, atol=1e-7
  )


def test_adam_is_the_kernel_of_tensorflow_1():
  variable, optimizer = _run(optimizers.Adam)
  zeros = tf.zeros([3, 4])
  expected, m, v = tf.Variable(tf.ones([3, 4])), *map(tf.Variable, [zeros] * 2)
  for t, (gradient, rate) in enumerate(
    zip(_gradients(), _RATES, strict=True), 1
  ):
    tf.raw_ops.ResourceApplyAdam(
      var=expected.handle,
      m=m.handle,
      v=v.handle,
      beta1_power=0.9**t,
      beta2_power=0.999**t,
      lr=rate,
      beta1=0.9,
      beta2=0.999,
      epsilon=1e-8,
      grad=gradient,
    )
  slots = optimizer.slots
  assert list(slots) == [
    'beta1_power',
    'beta2_power',
    'a/weights/Adam',
    'a/weights/Adam_1',
  ]
  np.testing.assert_allclose(variable, expected, rtol=1e-4)
  np.testing.assert_allclose(slots['a/weights/Adam'], m, rtol=1e-5)
  np.testing.assert_allclose(slots['a/weights/Adam_1'], v, rtol=1e-5)
  np.testing.assert_allclose(slots['beta1_power'], 0.9**4, rtol=1e-6)
  np.testing.assert_allclose(slots['beta2_power'], 0.999**4, rtol=1e-6)


@pytest.mark.parametrize(
  'name, expected',
  [
    ('MobilenetV2/Conv/weights', None),
    ('MobilenetV2/Conv/biases', 2.0),
    ('logits/semantic/weights', 10.0),
    ('logits/semantic/biases', 20.0),
    ('aspp1_depthwise/BatchNorm/moving_mean', 10.0),
    # The name decides, wherever the part occurs in it.
    ('backbone/decoder_like/weights', 10.0),
  ],
)
def test_gradient_multipliers(name, expected):
  assert (
    optimizers.gradient_multipliers([name], _LAST, 10.0).get(name) == expected
  )

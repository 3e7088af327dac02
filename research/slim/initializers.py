"""Initial values as TensorFlow 1 and slim drew them.

An initialiser is called with a shape and a seed of two integers.
"""

import math

import tensorflow as tf


def truncated_normal_initializer(stddev=1.0):
  """Normal values, redrawn outside two standard deviations."""

  def initialize(shape, seed):
    return tf.random.stateless_truncated_normal(shape, seed, stddev=stddev)

  return initialize


def variance_scaling_initializer(factor=2.0, uniform=False):
  """He et al.'s initialiser in slim's form, by fan-in.

  The variance of the uniform distribution is factor / fan_in; that of the
  normal one, before truncation, 1.3 times as much, 1.3 being slim's correction
  for what truncation takes away.

  Args:
    factor: of the variance.
    uniform: uniform instead of truncated normal.

  Returns:
    An initialiser.
  """

  def initialize(shape, seed):
    variance = factor / math.prod(shape[:-1])
    if uniform:
      limit = math.sqrt(3.0 * variance)
      return tf.random.stateless_uniform(shape, seed, -limit, limit)
    return tf.random.stateless_truncated_normal(
      shape, seed, stddev=math.sqrt(1.3 * variance)
    )

  return initialize


def xavier_initializer():
  """Glorot and Bengio's uniform initialiser, slim's default."""

  def initialize(shape, seed):
    receptive_field = math.prod(shape[:-2])
    fans = receptive_field * (shape[-2] + shape[-1])
    limit = math.sqrt(6.0 / fans)
    return tf.random.stateless_uniform(shape, seed, -limit, limit)

  return initialize


def zeros_initializer():
  """Zeros."""
  return lambda shape, seed: tf.zeros(shape)


def ones_initializer():
  """Ones."""
  return lambda shape, seed: tf.ones(shape)

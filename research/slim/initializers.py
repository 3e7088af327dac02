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


def variance_scaling_initializer(factor=2.0):
  """He et al.'s initialiser in slim's form: fan-in, truncated normal.

  The variance before truncation is 1.3 * factor / fan_in, 1.3 being slim's
  correction for what truncation takes away.
  """

  def initialize(shape, seed):
    fan_in = math.prod(shape[:-1])
    return tf.random.stateless_truncated_normal(
      shape, seed, stddev=math.sqrt(1.3 * factor / fan_in)
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

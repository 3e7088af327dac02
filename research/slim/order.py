"""When operations run: TensorFlow starts what can run as soon as it can."""

import tensorflow as tf

# `tf.raw_ops` lacks it.
from tensorflow.compiler.tf2xla.python import xla


def after(tensor, *others):
  """A TensorFlow tensor that is there once the others are."""
  with tf.control_dependencies(others):
    return tf.identity(tensor)


def after_in_xla(tensors, *others):
  """`after` of each of several tensors, in what XLA compiles.

  Of control dependencies XLA knows nothing.
  """
  return xla.optimization_barrier(*tensors, *others)[: len(tensors)]

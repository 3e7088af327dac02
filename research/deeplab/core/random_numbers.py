"""Random numbers that are pure functions of a seed."""

import tensorflow as tf

# The same numbers on every device.
_RNG = 'philox'


def uniform(seed, **arguments):
  """A random scalar.

  Args:
    seed: int32 or int64 tensor [2], None for TensorFlow's global generator.
    **arguments: of `tf.random.stateless_uniform`, such as its range.

  Returns:
    The scalar.
  """
  if seed is None:
    seed = tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32)
  return tf.random.stateless_uniform([], seed, alg=_RNG, **arguments)


def split_seed(seed, count):
  """Makes independent seeds of one.

  Args:
    seed: int32 or int64 tensor [2], or None.
    count: how many.

  Returns:
    A list of `count` tensors [2], or of None if `seed` is None.
  """
  if seed is None:
    return [None] * count
  return tf.unstack(tf.random.split(seed, count, alg=_RNG))


def offset(room, seed=None):
  """A random place for a window.

  Args:
    room: int32 tensor [2], rows and columns that the window can be moved by.
    seed: int32 or int64 tensor [2].

  Returns:
    int32 [2], row and column of the window's corner.
  """
  row_seed, column_seed = split_seed(seed, 2)
  row = uniform(row_seed, maxval=room[0] + 1, dtype=tf.int32)
  column = uniform(column_seed, maxval=room[1] + 1, dtype=tf.int32)
  return tf.stack([row, column])

"""What the devices of this process are."""

import tensorflow as tf


def are_processors():
  """Whether TensorFlow has no accelerator here.

  What pays on processors, smaller pieces that fit the cache, is a loss where
  one large operation is fastest.
  """
  return not any(map(tf.config.list_logical_devices, ('GPU', 'TPU')))

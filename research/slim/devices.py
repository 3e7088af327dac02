"""What the devices of this process are, and can."""

import functools

import tensorflow as tf


def are_processors():
  """Whether TensorFlow has no accelerator here.

  What pays on processors, smaller pieces that fit the cache, is a loss where
  one large operation is fastest.
  """
  return not any(map(tf.config.list_logical_devices, ('GPU', 'TPU')))


@functools.cache
def has_dilated_depthwise(dtype):
  """Whether the device has a dilated depthwise convolution of that type.

  Only oneDNN has one on processors, of float32 and what it computes like it.
  """
  return _runs(
    tf.raw_ops.DepthwiseConv2dNative,
    input=tf.TensorSpec([1, 5, 5, 1], dtype),
    filter=tf.TensorSpec([3, 3, 1, 1], dtype),
  )


@functools.cache
def has_dilated_gradient(dtype):
  """Whether the device can differentiate a dilated convolution of that type.

  Processors without oneDNN cannot (TensorFlow on Apple's, for example), and
  with it not in every type.
  """
  # Asked of the operation itself: tapes do not record in an init_scope.
  return _runs(
    tf.raw_ops.Conv2DBackpropInput,
    input_sizes=[1, 5, 5, 1],
    filter=tf.TensorSpec([3, 3, 1, 1], dtype),
    out_backprop=tf.TensorSpec([1, 5, 5, 1], dtype),
  )


def _runs(convolution, **arguments):
  """Whether the default device has the operation, at a rate of 2.

  Args:
    convolution: one of tf.raw_ops.
    **arguments: its inputs; a tf.TensorSpec stands for zeros.
  """
  with tf.init_scope():
    for name, value in arguments.items():
      if isinstance(value, tf.TensorSpec):
        arguments[name] = tf.zeros(value.shape, value.dtype)
    try:
      convolution(
        **arguments,
        strides=[1, 1, 1, 1],
        padding='SAME',
        dilations=[1, 2, 2, 1],
      )
    except tf.errors.OpError:
      return False
  return True

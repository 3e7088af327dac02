"""The Keras layers below the slim functions.

Each holds its variables under their TensorFlow 1 names and calls one
TensorFlow operation. `keras.layers.Conv2D` sends dilated convolutions through
SpaceToBatchND, and `keras.layers.BatchNormalization` is neither fused nor
unbiased in its moving variance; hence our own.
"""

import functools
import zlib

import keras
import numpy as np
import tensorflow as tf

from deeplab.slim import scopes

# The fused kernel's smallest epsilon; TensorFlow 1 raised smaller ones to it.
_MIN_EPSILON = 1.001e-5


def _output_length(length, kernel_size, stride, rate, padding):
  if length is None:
    return None
  if padding == 'VALID':
    length -= (kernel_size - 1) * rate
  return -(-length // stride)


class _Convolution(keras.layers.Layer):
  """What the convolutions share: geometry and variables."""

  def __init__(
    self,
    kernel_size,
    stride,
    rate,
    padding,
    weights_initializer,
    weights_regularizer,
    biases_initializer,
    seed,
    name,
  ):
    super().__init__(name=name)
    self.kernel_size = kernel_size
    self.stride = stride
    self.rate = rate
    self.padding = padding
    self._weights_initializer = weights_initializer
    self._weights_regularizer = weights_regularizer
    self._biases_initializer = biases_initializer
    self._seed = seed
    self.bias = None

  def _add_kernel(self, name, shape, fold=0):
    return self.add_weight(
      name=name,
      shape=shape,
      initializer=lambda shape, dtype: self._weights_initializer(
        shape, [self._seed[0], self._seed[1] ^ fold]
      ),
      regularizer=self._weights_regularizer,
    )

  def _add_bias(self, channels):
    if self._biases_initializer is not None:
      self.bias = self.add_weight(
        name='biases',
        shape=(channels,),
        initializer=lambda shape, dtype: self._biases_initializer(
          shape, self._seed
        ),
      )

  def _with_bias(self, outputs):
    return outputs if self.bias is None else tf.nn.bias_add(outputs, self.bias)

  def _output_shape(self, input_shape, channels):
    batch, height, width, _ = input_shape
    sides = (
      _output_length(side, kernel, self.stride, self.rate, self.padding)
      for side, kernel in zip((height, width), self.kernel_size, strict=True)
    )
    return (batch, *sides, channels)


@functools.cache
def _has_dilated_gradient():
  """Whether the device can differentiate a dilated convolution.

  Processors without oneDNN cannot (TensorFlow on Apple's, for example). The
  default device is asked, once.
  """
  # Asked of the operation itself: tapes do not record in an init_scope.
  with tf.init_scope():
    try:
      tf.raw_ops.Conv2DBackpropInput(
        input_sizes=[1, 5, 5, 1],
        filter=tf.zeros([3, 3, 1, 1]),
        out_backprop=tf.zeros([1, 5, 5, 1]),
        strides=[1, 1, 1, 1],
        padding='SAME',
        dilations=[1, 2, 2, 1],
      )
    except tf.errors.OpError:
      return False
  return True


class Conv2D(_Convolution):
  """Convolution with stride or atrous rate, biases optional."""

  def __init__(self, filters, **kwargs):
    super().__init__(**kwargs)
    self.filters = filters

  def build(self, input_shape):
    self.kernel = self._add_kernel(
      'weights', (*self.kernel_size, input_shape[-1], self.filters)
    )
    self._add_bias(self.filters)

  def compute_output_shape(self, input_shape):
    return self._output_shape(input_shape, self.filters)

  def call(self, inputs):
    kernel = tf.convert_to_tensor(self.kernel)
    if self.rate > 1 and not _has_dilated_gradient():
      outputs = tf.nn.atrous_conv2d(inputs, kernel, self.rate, self.padding)
    else:
      outputs = tf.nn.conv2d(
        inputs,
        kernel,
        strides=self.stride,
        padding=self.padding,
        dilations=self.rate,
      )
    return self._with_bias(outputs)


class SeparableConv2D(_Convolution):
  """Depthwise convolution, followed by a pointwise one if `filters` is set."""

  def __init__(self, filters, depth_multiplier, **kwargs):
    super().__init__(**kwargs)
    self.filters = filters
    self.depth_multiplier = depth_multiplier

  def build(self, input_shape):
    channels = input_shape[-1]
    self.depthwise_kernel = self._add_kernel(
      'depthwise_weights', (*self.kernel_size, channels, self.depth_multiplier)
    )
    channels *= self.depth_multiplier
    if self.filters is not None:
      self.pointwise_kernel = self._add_kernel(
        'pointwise_weights', (1, 1, channels, self.filters), fold=1
      )
      channels = self.filters
    self._add_bias(channels)

  def compute_output_shape(self, input_shape):
    channels = self.filters or input_shape[-1] * self.depth_multiplier
    return self._output_shape(input_shape, channels)

  def call(self, inputs):
    # tf.nn goes through SpaceToBatchND for rates above 1: the gradient of the
    # dilated depthwise operation is wrong on CPUs, without an error.
    outputs = tf.nn.depthwise_conv2d(
      inputs,
      tf.convert_to_tensor(self.depthwise_kernel),
      strides=[1, self.stride, self.stride, 1],
      padding=self.padding,
      dilations=[self.rate, self.rate],
    )
    if self.filters is not None:
      outputs = tf.nn.conv2d(
        outputs,
        tf.convert_to_tensor(self.pointwise_kernel),
        strides=1,
        padding='VALID',
      )
    return self._with_bias(outputs)


class BatchNorm(keras.layers.Layer):
  """Fused batch norm.

  With `is_training` false the moving statistics are used, and gamma and beta
  train all the same. The moving variance takes the unbiased batch variance,
  N / (N - 1), as the fused kernel returns it.
  """

  def __init__(self, decay, center, scale, epsilon, is_training, name):
    super().__init__(name=name)
    self.decay = decay
    self.center = center
    self.scale = scale
    self.epsilon = max(epsilon, _MIN_EPSILON)
    self.is_training = is_training

  def build(self, input_shape):
    shape = (input_shape[-1],)
    self.gamma = self.beta = None
    if self.scale:
      self.gamma = self.add_weight(
        name='gamma', shape=shape, initializer='ones'
      )
    if self.center:
      self.beta = self.add_weight(name='beta', shape=shape, initializer='zeros')
    # Replicas see different batches; their statistics are averaged.
    moving = {'shape': shape, 'trainable': False, 'aggregation': 'mean'}
    self.moving_mean = self.add_weight(
      name='moving_mean', initializer='zeros', **moving
    )
    self.moving_variance = self.add_weight(
      name='moving_variance', initializer='ones', **moving
    )

  def compute_output_shape(self, input_shape):
    return input_shape

  def call(self, inputs):
    channels = self.moving_mean.shape
    gamma = tf.ones(channels) if self.gamma is None else self.gamma
    beta = tf.zeros(channels) if self.beta is None else self.beta
    mean, variance = self.moving_mean, self.moving_variance
    outputs, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
      x=inputs,
      scale=tf.convert_to_tensor(gamma),
      offset=tf.convert_to_tensor(beta),
      mean=[] if self.is_training else tf.convert_to_tensor(mean),
      variance=[] if self.is_training else tf.convert_to_tensor(variance),
      epsilon=self.epsilon,
      is_training=self.is_training,
    )
    if self.is_training:
      # Like TensorFlow 1, which kept the decay in float32: 1 - 0.9997 is
      # 3e-5 of itself off there.
      update = np.float32(1.0) - np.float32(self.decay)
      for moving, batch in ((mean, batch_mean), (variance, batch_variance)):
        batch = tf.stop_gradient(batch)
        moving.assign(moving - update * (moving - batch))
    return outputs


class Dropout(keras.layers.Layer):
  """Drops values with probability `rate`; only built for training.

  Inside `slim.train_step_context` what is dropped is a function of the seed
  and of the layer's name.
  """

  def __init__(self, rate, name):
    super().__init__(name=name)
    self.rate = rate

  def compute_output_shape(self, input_shape):
    return input_shape

  def call(self, inputs):
    if not self.rate:
      return inputs
    seed = scopes.current_seed()
    if seed is None:
      return tf.nn.dropout(inputs, self.rate)
    salt = zlib.crc32(self.name.encode()) & 0x7FFFFFFF
    seed = tf.random.experimental.stateless_fold_in(seed, salt)
    return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed)


class Function(keras.layers.Layer):
  """A function of TensorFlow tensors; unlike Lambda it keeps integer types."""

  def __init__(self, function):
    super().__init__()
    self.function = function

  def build(self, *unused_shapes):
    pass

  def call(self, *inputs):
    return self.function(*inputs)

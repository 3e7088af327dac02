"""The Keras layers below the slim functions.

Each holds its variables under their TensorFlow 1 names.
`keras.layers.Conv2D` sends dilated convolutions through SpaceToBatchND, and
`keras.layers.BatchNormalization` is neither fused nor unbiased in its moving
variance; hence our own.
"""

import math
import typing
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from deeplab.common import InputError
from deeplab.slim import depthwise, devices, scopes

# The fused kernel's smallest epsilon; TensorFlow 1 raised smaller ones to it.
_MIN_EPSILON = 1.001e-5

# Added to the variance of a filter by weight standardisation.
_STANDARDIZATION_EPSILON = 1e-5

# Of one kernel; eight gigabytes. More comes from a number that is a mistake,
# and would fill the memory of the machine before anything fails.
_MOST_WEIGHTS = 2**31


def _output_length(length, kernel_size, stride, rate, padding):
  if length is None:
    return None
  if padding == 'VALID':
    length -= (kernel_size - 1) * rate
  return -(-length // stride)


def _initializer(initialize, seed):
  """A Keras initialiser from one of `slim.initializers`."""
  return lambda shape, dtype: tf.cast(initialize(shape, seed), dtype)


class Step(typing.NamedTuple):
  """One linear operation of a convolution layer.

  Attributes:
    kernel: function that returns it, as it is convolved with.
    convolve: function of inputs and kernel.
    channels: shape of the output channels: [filters], or for a depthwise
      kernel [input channels, depth multiplier].
  """

  kernel: Callable
  convolve: Callable
  channels: tuple[int, ...]

  @property
  def is_depthwise(self):
    """Whether each channel is convolved by itself."""
    return len(self.channels) == 2


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
    super().__init__(name=name, dtype=scopes.current_dtype_policy())
    self.kernel_size = kernel_size
    self.stride = stride
    self.rate = rate
    if stride > 1 and max(self.rates) > 1:
      raise ValueError(
        f'{name}: the rate must be 1 where the stride is more than 1. '
        f'Received: stride {stride}, rate {rate}.'
      )
    self.padding = padding
    self._weights_initializer = weights_initializer
    self._weights_regularizer = weights_regularizer
    self._biases_initializer = biases_initializer
    self._seed = seed
    self.bias = None

  @property
  def rates(self):
    """[rate of the height, rate of the width]."""
    rate = self.rate
    return list(rate) if isinstance(rate, tuple) else [rate, rate]

  def _add_kernel(self, name, shape, fold=0):
    if math.prod(shape) > _MOST_WEIGHTS:
      raise InputError(
        f'{self.name}: a kernel of the shape {list(shape)} has '
        f'{math.prod(shape):.1e} weights, more than any network is given. '
        'Fewer channels (depth_multiplier, aspp_convs_filters, decoder_filters,'
        ' nas_stem_output_num_conv_filters) or a smaller kernel need less.'
      )
    return self.add_weight(
      name=name,
      shape=shape,
      initializer=_initializer(
        self._weights_initializer, [self._seed[0], self._seed[1] ^ fold]
      ),
      regularizer=self._weights_regularizer,
      autocast=False,
    )

  def _add_bias(self, channels):
    if self._biases_initializer is not None:
      self.bias = self.add_weight(
        name='biases',
        shape=(channels,),
        initializer=_initializer(self._biases_initializer, self._seed),
        autocast=False,
      )

  def steps(self):
    """The Steps of the layer, in order; there is one or more."""
    raise NotImplementedError

  def call(self, inputs):
    outputs = inputs
    for step in self.steps():
      kernel = tf.cast(step.kernel(), self.compute_dtype)
      outputs = step.convolve(outputs, kernel)
    return self.add_bias(outputs)

  def add_bias(self, outputs):
    """Adds the biases, if there are any."""
    if self.bias is None:
      return outputs
    return tf.nn.bias_add(outputs, tf.cast(self.bias, outputs.dtype))

  def step_output_shape(self, index, input_shape):
    """The shape after step number `index` of what has `input_shape`."""
    channels = math.prod(self.steps()[index].channels)
    if index:
      return (*input_shape[:-1], channels)
    return self._output_shape(input_shape, channels)

  def _output_shape(self, input_shape, channels):
    batch, height, width, _ = input_shape
    sides = (
      _output_length(side, kernel, self.stride, rate, self.padding)
      for side, kernel, rate in zip(
        (height, width), self.kernel_size, self.rates, strict=True
      )
    )
    return (batch, *sides, channels)


class Conv2D(_Convolution):
  """Convolution with stride or atrous rate, biases optional."""

  def __init__(self, filters, use_weight_standardization=False, **kwargs):
    super().__init__(**kwargs)
    if not isinstance(self.rate, int):
      raise ValueError(
        f'{self.name}: the rate must be one integer. Received: {self.rate}.'
      )
    self.filters = filters
    self.use_weight_standardization = use_weight_standardization

  def build(self, input_shape):
    self.kernel = self._add_kernel(
      'weights', (*self.kernel_size, input_shape[-1], self.filters)
    )
    self._add_bias(self.filters)

  def compute_output_shape(self, input_shape):
    return self._output_shape(input_shape, self.filters)

  def steps(self):
    return (Step(self._effective_kernel, self._convolve, (self.filters,)),)

  def _effective_kernel(self):
    kernel = tf.convert_to_tensor(self.kernel)
    if self.use_weight_standardization:
      # Qiao et al., Weight Standardization, arXiv:1903.10520.
      mean, variance = tf.nn.moments(kernel, [0, 1, 2], keepdims=True)
      kernel = (kernel - mean) / tf.sqrt(variance + _STANDARDIZATION_EPSILON)
    return kernel

  def _convolve(self, inputs, kernel):
    if self.rate > 1 and not devices.has_dilated_gradient(inputs.dtype):
      return tf.nn.atrous_conv2d(inputs, kernel, self.rate, self.padding)
    return tf.nn.conv2d(
      inputs,
      kernel,
      strides=self.stride,
      padding=self.padding,
      dilations=self.rate,
    )


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

  def steps(self):
    depthwise = Step(
      lambda: tf.convert_to_tensor(self.depthwise_kernel),
      self._depthwise,
      tuple(self.depthwise_kernel.shape[2:]),
    )
    if self.filters is None:
      return (depthwise,)
    pointwise = Step(
      lambda: tf.convert_to_tensor(self.pointwise_kernel),
      self._pointwise,
      (self.filters,),
    )
    return depthwise, pointwise

  def _depthwise(self, inputs, kernel):
    if scopes.current_train_step() is not None and depthwise.applies(
      inputs, kernel, self.rates, self.padding
    ):
      return depthwise.convolve(inputs, kernel, self.rates)
    # tf.nn goes through SpaceToBatchND for rates above 1: the gradient of the
    # dilated depthwise operation is wrong on CPUs, without an error.
    return tf.nn.depthwise_conv2d(
      inputs,
      kernel,
      strides=[1, self.stride, self.stride, 1],
      padding=self.padding,
      dilations=self.rates,
    )

  def _pointwise(self, inputs, kernel):
    return tf.nn.conv2d(inputs, kernel, strides=1, padding='VALID')


class BatchNorm(keras.layers.Layer):
  """Fused batch norm.

  With `is_training` false the moving statistics are used, and gamma and beta
  train all the same. The moving variance takes the unbiased batch variance,
  N / (N - 1), as the fused kernel returns it. Variables and moments are
  float32 whatever the inputs are.

  If `slim.train_step_context` says so the batch is that of all replicas, and
  the kernel is not the fused one.
  """

  def __init__(self, decay, center, scale, epsilon, is_training, name):
    super().__init__(name=name, dtype=scopes.current_dtype_policy())
    self.decay = decay
    self.center = center
    self.scale = scale
    self.epsilon = max(epsilon, _MIN_EPSILON)
    self.is_training = is_training

  def build(self, input_shape):
    shape = (input_shape[-1],)
    self.gamma = self.beta = None
    if self.scale:
      self.gamma = self._add('gamma', shape, 'ones')
    if self.center:
      self.beta = self._add('beta', shape, 'zeros')
    # Replicas see different batches; their statistics are averaged.
    moving = {'trainable': False, 'aggregation': 'mean'}
    self.moving_mean = self._add('moving_mean', shape, 'zeros', **moving)
    self.moving_variance = self._add('moving_variance', shape, 'ones', **moving)

  def _add(self, name, shape, initializer, **arguments):
    return self.add_weight(
      name=name,
      shape=shape,
      initializer=initializer,
      autocast=False,
      **arguments,
    )

  def compute_output_shape(self, input_shape):
    return input_shape

  def gamma_and_beta(self):
    """Scale and offset as tensors [channels]; 1 and 0 where there is none."""
    channels = self.moving_mean.shape
    gamma = tf.ones(channels) if self.gamma is None else self.gamma
    beta = tf.zeros(channels) if self.beta is None else self.beta
    return tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta)

  def scale_and_offset(self):
    """What the moving statistics make of a value: float64 arrays [channels].

    Returns:
      What it is multiplied by, and what is added to that.
    """
    gamma, beta, mean, variance = (
      np.asarray(value, np.float64)
      for value in (
        *self.gamma_and_beta(),
        self.moving_mean,
        self.moving_variance,
      )
    )
    scale = gamma / np.sqrt(variance + self.epsilon)
    return scale, beta - mean * scale

  def batch_moments(self, inputs):
    """Mean and biased variance of a batch, which the moving ones take in.

    Gradients flow through both; the fused kernel has none for them.
    """
    mean, variance = _moments(inputs)
    self._gather(mean, _unbiased(variance, inputs))
    return mean, variance

  def _gather(self, batch_mean, batch_variance):
    # Like TensorFlow 1, which kept the decay in float32: 1 - 0.9997 is
    # 3e-5 of itself off there.
    update = np.float32(1.0) - np.float32(self.decay)
    for moving, batch in (
      (self.moving_mean, batch_mean),
      (self.moving_variance, batch_variance),
    ):
      batch = tf.stop_gradient(batch)
      moving.assign(moving - update * (moving - batch))

  def call(self, inputs):
    gamma, beta = self.gamma_and_beta()
    if self.is_training and scopes.synchronizes_batch_norm():
      outputs, batch_mean, batch_variance = _synchronized_batch_norm(
        inputs, gamma, beta, self.epsilon
      )
      self._gather(batch_mean, _unbiased(batch_variance, inputs))
      return outputs
    mean, variance = self.moving_mean, self.moving_variance
    outputs, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
      x=inputs,
      scale=gamma,
      offset=beta,
      mean=[] if self.is_training else tf.convert_to_tensor(mean),
      variance=[] if self.is_training else tf.convert_to_tensor(variance),
      epsilon=self.epsilon,
      is_training=self.is_training,
    )
    if self.is_training:
      self._gather(batch_mean, batch_variance)
    return outputs


def _all_reduce(how, values):
  return tf.distribute.get_replica_context().all_reduce(how, values)


def _moments(inputs):
  """Mean and biased variance of each channel of a float32 batch.

  Over all replicas where batch norm is synchronised: their batches have one
  size, so that means of means will do. In two passes; the mean of squares
  less the square of the mean would lose digits.
  """
  if not scopes.synchronizes_batch_norm():
    return tf.nn.moments(inputs, [0, 1, 2])
  mean = _all_reduce('MEAN', tf.reduce_mean(inputs, [0, 1, 2]))
  # Over all replicas together the variance does not change with the mean.
  squares = tf.math.squared_difference(inputs, tf.stop_gradient(mean))
  return mean, _all_reduce('MEAN', tf.reduce_mean(squares, [0, 1, 2]))


def _count(inputs, dtype):
  """Number of values of a channel that the moments are made of."""
  count = tf.cast(tf.size(inputs) / inputs.shape[-1], dtype)
  if scopes.synchronizes_batch_norm():
    count *= tf.distribute.get_strategy().num_replicas_in_sync
  return count


def _unbiased(variance, inputs):
  count = _count(inputs, variance.dtype)
  return variance * (count / tf.maximum(count - 1.0, 1.0))


def _synchronized_batch_norm(inputs, gamma, beta, epsilon):
  """Batch norm with the moments of all replicas.

  The gradient is written out because it keeps the inputs alone, as the fused
  kernel does, rather than each product on the way.

  Args:
    inputs: [batch, height, width, channels].
    gamma: float32 [channels].
    beta: float32 [channels].
    epsilon: added to the variance.

  Returns:
    The outputs, in the type of the inputs; mean and biased variance, float32
    [channels], without gradients.
  """

  @tf.custom_gradient
  def normalize(inputs, gamma, beta):
    values = tf.cast(inputs, gamma.dtype)
    mean, variance = _moments(values)
    scale = tf.math.rsqrt(variance + epsilon)
    outputs = (values - mean) * (gamma * scale) + beta
    count = _count(inputs, variance.dtype)

    def gradient(gradients, *unused_moments):
      gradients = tf.cast(gradients, gamma.dtype)
      normal = (tf.cast(inputs, gamma.dtype) - mean) * scale
      of_beta = tf.reduce_sum(gradients, [0, 1, 2])
      of_gamma = tf.reduce_sum(gradients * normal, [0, 1, 2])
      # The moments depend on the inputs of every replica, and every replica
      # depends on them.
      sums = _all_reduce('SUM', [of_beta, of_gamma])
      through_moments = (sums[0] + normal * sums[1]) / count
      of_inputs = (gamma * scale) * (gradients - through_moments)
      return tf.cast(of_inputs, inputs.dtype), of_gamma, of_beta

    return (tf.cast(outputs, inputs.dtype), mean, variance), gradient

  return normalize(inputs, gamma, beta)


class Dropout(keras.layers.Layer):
  """Drops values with probability `rate`; only built for training.

  Inside `slim.train_step_context` what is dropped of an image is a function of
  the seed, of the layer's name and of the image's place in the global batch.
  """

  def __init__(self, rate, name):
    super().__init__(name=name, dtype=scopes.current_dtype_policy())
    self.rate = rate

  def compute_output_shape(self, input_shape):
    return input_shape

  def call(self, inputs):
    if not self.rate:
      return inputs
    draw = scopes.draw_uniform(self.name, shape_of(inputs))
    if draw is None:
      return tf.nn.dropout(inputs, self.rate)
    kept = inputs * tf.cast(1.0 / (1.0 - self.rate), inputs.dtype)
    return tf.where(draw >= self.rate, kept, tf.zeros_like(kept))


def shape_of(tensor):
  """The sides of a tensor, as integers where they are static."""
  dynamic = tf.shape(tensor)
  return [
    dynamic[i] if side is None else side for i, side in enumerate(tensor.shape)
  ]


class Function(keras.layers.Layer):
  """A function of TensorFlow tensors, in the types that these have.

  Unlike Lambda it keeps integers, and with mixed precision float32.
  """

  def __init__(self, function):
    super().__init__(autocast=False)
    self.function = function

  def build(self, *unused_shapes):
    pass

  def call(self, *inputs):
    return self.function(*inputs)

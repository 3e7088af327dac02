"""Convolutions for inference: batch norm folded in, weights as constants.

A network whose layers have their values is built once more, from the same
store, inside `folded`:

  with slim.layer_store(store=store), slim.folded():
    net = slim.conv2d(images, 64, 3, normalizer_fn=slim.batch_norm)

Of the layers only the values are read: each convolution becomes one with a
constant kernel and a bias, which TensorFlow joins with the activation behind
it, or the sum of a residual unit, into one operation. What is built does not
follow later changes of the variables, and has no gradient.
"""

import functools

import keras
import numpy as np
import tensorflow as tf

from deeplab.slim import scopes

# The greatest rate that oneDNN's fast kernels of depthwise convolutions take.
# Beyond it they are ten times slower than a detour through SpaceToBatchND.
_MAX_DEPTHWISE_RATE = 6


def folded():
  """Layers inside are built for inference; a context manager.

  See the head of the module. Quantised networks are not built so.
  """
  return scopes.folding_scope(True)


def is_folded():
  """Whether `folded` is open."""
  return scopes.is_folding()


@functools.cache
def _has_dilated_depthwise():
  """Whether the device computes dilated depthwise convolutions, as oneDNN does.

  The default device is asked, once.
  """
  with tf.init_scope():
    try:
      tf.raw_ops.DepthwiseConv2dNative(
        input=tf.zeros([1, 5, 5, 1]),
        filter=tf.zeros([3, 3, 1, 1]),
        strides=[1, 1, 1, 1],
        padding='SAME',
        dilations=[1, 2, 2, 1],
      )
    except tf.errors.OpError:
      return False
  return True


def constant(values, dtype):
  """A constant of a graph.

  Args:
    values: float array.
    dtype: tf.DType of the constant.

  Returns:
    A tensor.
  """
  values = values.astype(dtype.as_numpy_dtype)
  if dtype != tf.bfloat16:
    return tf.constant(values)
  # TensorFlow writes constants of this type one number at a time, in minutes.
  return tf.bitcast(tf.constant(values.view(np.uint16)), dtype)


class FoldedConvolution(keras.layers.Layer):
  """One step of a convolution with constant kernel and bias."""

  def __init__(self, convolution, index, kernel, bias):
    """Makes the layer of another one, and of values.

    Args:
      convolution: keras_layers.Conv2D or SeparableConv2D, built.
      index: which of its steps.
      kernel: float32 array, the kernel of the step with batch norm folded in.
      bias: float32 array [output channels], or None.
    """
    super().__init__(dtype=scopes.current_dtype_policy())
    self.convolution = convolution
    self.index = index
    self._kernel = kernel
    self._bias = bias
    self.built = True

  def compute_output_shape(self, input_shape):
    if isinstance(input_shape, list):
      # Of several parts, those that are not planes.
      input_shape = max(input_shape, key=lambda shape: shape[1:3] != (1, 1))
    return self.convolution.step_output_shape(self.index, input_shape)

  def call(self, inputs):
    dtype = tf.as_dtype(self.compute_dtype)
    if isinstance(inputs, list):
      return self._convolve_parts(inputs, dtype)
    convolution = self.convolution
    step = convolution.steps()[self.index]
    kernel = constant(self._kernel, dtype)
    convolve, add = step.convolve, tf.nn.bias_add
    if step.is_depthwise and max(convolution.rates) > 1:
      convolve = functools.partial(_dilated_depthwise, convolution)
      # BiasAdd behind a convolution of groups is joined with it even where
      # that has no kernel; a sum is so only where it has one.
      add = tf.add
    outputs = convolve(inputs, kernel)
    if self._bias is None:
      return outputs
    return add(outputs, constant(self._bias, dtype))

  def _convolve_parts(self, parts, dtype):
    """A 1x1 convolution of the concatenation of several tensors.

    A plane of one colour adds the same everywhere, like a bias.
    """
    ends = np.cumsum([part.shape[-1] for part in parts])
    kernels = np.split(self._kernel, ends[:-1], axis=2)
    kinds = {True: [], False: []}
    for part, kernel in zip(parts, kernels, strict=True):
      kinds[tuple(part.shape[1:3]) == (1, 1)].append((part, kernel))
    outputs = self._bias
    if outputs is not None:
      outputs = constant(outputs, dtype)
    for is_plane in (True, False):
      if not kinds[is_plane]:
        continue
      tensors, kernels = zip(*kinds[is_plane], strict=True)
      kernel = constant(np.concatenate(kernels, axis=2), dtype)
      tensor = tensors[0] if len(tensors) == 1 else tf.concat(tensors, -1)
      convolved = tf.nn.conv2d(tensor, kernel, strides=1, padding='VALID')
      outputs = convolved if outputs is None else convolved + outputs
    return outputs


def _dilated_depthwise(convolution, inputs, kernel):
  """A depthwise convolution of rates above 1, for the forward pass alone."""
  rates, padding = convolution.rates, convolution.padding
  if max(rates) <= _MAX_DEPTHWISE_RATE and _has_dilated_depthwise():
    # As many groups as channels: the same kernel, and unlike the dilated
    # depthwise operation one that other devices know too.
    height, width, channels, multiplier = kernel.shape
    return tf.nn.conv2d(
      inputs,
      tf.reshape(kernel, [height, width, 1, channels * multiplier]),
      strides=1,
      padding=padding,
      dilations=rates,
    )
  strides = [1, 1, 1, 1]
  if padding != 'SAME' or None in inputs.shape[1:3]:
    return tf.nn.depthwise_conv2d(
      inputs, kernel, strides, padding, dilations=rates
    )
  # The zeros that tf.nn pads with are a multiple of the image where the rate
  # is large. They are as good around each of the small images.
  paddings = [
    [0, -side % rate]
    for side, rate in zip(inputs.shape[1:3], rates, strict=True)
  ]
  net = tf.space_to_batch(inputs, rates, paddings)
  net = tf.nn.depthwise_conv2d(net, kernel, strides, padding)
  return tf.batch_to_space(net, rates, paddings)


class Unfolded:
  """A step of a convolution that waits for its batch norm."""

  def __init__(self, convolution, index, inputs):
    """Notes what `fold` needs.

    Args:
      convolution: keras_layers.Conv2D or SeparableConv2D, built.
      index: which of its steps.
      inputs: [batch, height, width, channels].
    """
    self._convolution = convolution
    self._index = index
    self._inputs = inputs

  def fold(self, norm=None):
    """What comes out, normalised by a keras_layers.BatchNorm if one is given.

    Returns:
      [batch, height', width', channels'].
    """
    steps = self._convolution.steps()
    step = steps[self._index]
    kernel, bias = np.asarray(step.kernel()), None
    if norm is not None:
      # In float64, so that only the product is rounded.
      scale, bias = norm.scale_and_offset()
      kernel = (kernel * scale.reshape(step.channels)).astype(np.float32)
    elif step is steps[-1] and self._convolution.bias is not None:
      bias = np.asarray(self._convolution.bias)
    return FoldedConvolution(self._convolution, self._index, kernel, bias)(
      self._inputs
    )


def convolve(convolution, inputs, normalizer_fn):
  """Applies a convolution layer and its batch norm as one.

  Args:
    convolution: keras_layers.Conv2D or SeparableConv2D, built.
    inputs: [batch, height, width, channels].
    normalizer_fn: `slim.batch_norm` or None.

  Returns:
    [batch, height', width', channels'].
  """
  last = len(convolution.steps()) - 1
  for index in range(last):
    inputs = Unfolded(convolution, index, inputs).fold()
  unfolded = Unfolded(convolution, last, inputs)
  return unfolded.fold() if normalizer_fn is None else normalizer_fn(unfolded)

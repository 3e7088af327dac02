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

import weakref

import keras
import numpy as np
import tensorflow as tf

from deeplab.slim import depthwise, devices, scopes, winograd


def folded():
  """Layers inside are built for inference; a context manager.

  See the head of the module. Quantised networks are not built so.
  """
  return scopes.folding_scope()


def is_folded():
  """Whether `folded` is open."""
  return scopes.is_folding()


# Activations that become part of a convolution.
ACTIVATIONS = {keras.ops.relu: tf.nn.relu, keras.ops.relu6: tf.nn.relu6}


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
  return tf.bitcast(tf.constant(values.view(np.int16)), dtype)


def is_constant(tensor):
  """Whether a tensor of a tf.Graph is one that `constant` has made."""
  op = tensor.op
  return op.type == 'Const' or (
    op.type == 'Bitcast' and op.inputs[0].op.type == 'Const'
  )


def constant_values(tensor):
  """The array that `constant` has made a tensor of a tf.Graph of."""
  if tensor.op.type == 'Const':
    return tf.get_static_value(tensor)
  stored = tf.get_static_value(tensor.op.inputs[0])
  return stored.view(tensor.dtype.as_numpy_dtype)


class FoldedConvolution(keras.layers.Layer):
  """One step of a convolution with constant kernel, bias and activation."""

  def __init__(self, convolution, index, kernel, bias, activation_fn):
    """Makes the layer of another one, and of values.

    Args:
      convolution: keras_layers.Conv2D or SeparableConv2D, built.
      index: which of its steps.
      kernel: float32 array, the kernel of the step with batch norm folded in.
      bias: float32 array [output channels], or None.
      activation_fn: one of ACTIVATIONS or None.
    """
    super().__init__(dtype=scopes.current_dtype_policy())
    self.convolution = convolution
    self.index = index
    self._kernel = kernel
    self._bias = bias
    self._activation = ACTIVATIONS.get(activation_fn)
    # Names rather than tensors, which would keep the graphs alive.
    self._names_of_constants = weakref.WeakKeyDictionary()
    self.built = True

  def compute_output_shape(self, input_shape):
    if isinstance(input_shape, list):
      # Of several parts, those that are not planes.
      input_shape = max(input_shape, key=lambda shape: shape[1:3] != (1, 1))
    return self.convolution.step_output_shape(self.index, input_shape)

  def call(self, inputs):
    if isinstance(inputs, list):
      return self._activate(self._convolve_parts(inputs))
    convolution = self.convolution
    step = convolution.steps()[self.index]
    if step.is_depthwise and max(convolution.rates) > 1:
      return self._dilated_depthwise(inputs)
    if self._has_onednn() and winograd.suits(
      self._kernel.shape,
      inputs.shape,
      convolution.stride,
      convolution.rates,
      convolution.padding,
    ):
      kernel = self._constant(
        'winograd', lambda: winograd.transform_kernel(self._kernel)
      )
      outputs = winograd.conv2d(inputs, kernel, convolution.rates)
    else:
      outputs = step.convolve(inputs, self._kernel_constant())
    return self._finish(outputs)

  def _has_onednn(self):
    """Whether oneDNN computes in the type of the layer here."""
    return devices.has_dilated_depthwise(tf.as_dtype(self.compute_dtype))

  def _constant(self, key, make):
    """A constant of the current graph, the same one in all calls.

    Args:
      key: what it is called here.
      make: function that gives its values.

    Returns:
      A tensor of the layer's type.
    """
    dtype = tf.as_dtype(self.compute_dtype)
    if tf.executing_eagerly():
      return constant(make(), dtype)
    graph = tf.compat.v1.get_default_graph()
    names = self._names_of_constants.setdefault(graph, {})
    if key not in names:
      # It does not wait for what the first call waits for.
      with tf.control_dependencies(None):
        names[key] = constant(make(), dtype).name
    return graph.get_tensor_by_name(names[key])

  def _kernel_constant(self):
    return self._constant('kernel', lambda: self._kernel)

  def _bias_constant(self):
    return self._constant('bias', lambda: self._bias)

  def _activate(self, outputs):
    return self._activation(outputs) if self._activation else outputs

  def _finish(self, outputs, add=tf.nn.bias_add):
    """Adds the bias, and activates."""
    if self._bias is not None:
      outputs = add(outputs, self._bias_constant())
    return self._activate(outputs)

  def _dilated_depthwise(self, inputs):
    """A depthwise convolution of rates above 1, for the forward pass alone."""
    rates, padding = self.convolution.rates, self.convolution.padding
    kernel = self._kernel_constant()
    if max(rates) <= depthwise.MAX_NATIVE_RATE and self._has_onednn():
      # As many groups as channels: the same kernels of oneDNN, and unlike the
      # dilated depthwise operation one that all devices know.
      height, width, channels, multiplier = kernel.shape
      kernel = tf.reshape(kernel, [height, width, 1, channels * multiplier])
      outputs = tf.nn.conv2d(
        inputs, kernel, strides=1, padding=padding, dilations=rates
      )
      # A BiasAdd would be joined with it even where that has no kernel; a sum
      # is so only where it has one.
      return self._finish(outputs, tf.add)
    strides = [1, 1, 1, 1]
    if padding != 'SAME':
      return self._finish(
        tf.nn.depthwise_conv2d(inputs, kernel, strides, padding, None, rates)
      )
    return depthwise.in_small_images(
      inputs,
      rates,
      lambda net: self._finish(
        tf.nn.depthwise_conv2d(net, kernel, strides, padding)
      ),
    )

  def _convolve_parts(self, parts):
    """A 1x1 convolution of the concatenation of several tensors.

    A plane of one colour adds the same everywhere, like a bias.
    """
    ends = np.cumsum([part.shape[-1] for part in parts])
    kernels = np.split(self._kernel, ends[:-1], axis=2)
    kinds = {True: [], False: []}
    for place, part in enumerate(parts):
      kinds[tuple(part.shape[1:3]) == (1, 1)].append(place)
    outputs = self._bias
    if outputs is not None:
      outputs = self._bias_constant()
    for is_plane in (True, False):
      places = kinds[is_plane]
      if not places:
        continue
      # The same parts are planes at one size, and are not at another.
      kernel = self._constant(
        ('kernel', *places),
        lambda places=places: np.concatenate(
          [kernels[place] for place in places], axis=2
        ),
      )
      tensors = [parts[place] for place in places]
      tensor = tensors[0] if len(tensors) == 1 else tf.concat(tensors, -1)
      convolved = tf.nn.conv2d(tensor, kernel, strides=1, padding='VALID')
      outputs = convolved if outputs is None else convolved + outputs
    return outputs


class Unfolded:
  """A step of a convolution that waits for its batch norm."""

  def __init__(self, convolution, index, inputs, activation_fn=None):
    """Notes what `fold` needs.

    Args:
      convolution: keras_layers.Conv2D or SeparableConv2D, built.
      index: which of its steps.
      inputs: [batch, height, width, channels], or a list of such.
      activation_fn: one of ACTIVATIONS or None.
    """
    self._convolution = convolution
    self._index = index
    self._inputs = inputs
    self._activation_fn = activation_fn

  def fold(self, norm=None):
    """What comes out, normalised by a keras_layers.BatchNorm if one is given.

    Returns:
      [batch, height', width', channels'].
    """
    key = (self._convolution, self._index, norm, self._activation_fn)
    layer = scopes.folded_layer(key, lambda: self._make_layer(norm))
    return layer(self._inputs)

  def _make_layer(self, norm):
    """The FoldedConvolution, which serves all calls of this convolution."""
    steps = self._convolution.steps()
    step = steps[self._index]
    kernel, bias = np.asarray(step.kernel()), None
    if norm is not None:
      # In float64, so that only the product is rounded.
      scale, bias = norm.scale_and_offset()
      kernel = (kernel * scale.reshape(step.channels)).astype(np.float32)
    elif step is steps[-1] and self._convolution.bias is not None:
      bias = np.asarray(self._convolution.bias)
    return FoldedConvolution(
      self._convolution, self._index, kernel, bias, self._activation_fn
    )


def convolve(convolution, inputs, normalizer_fn, activation_fn):
  """Applies a convolution layer, its batch norm and activation as one.

  Args:
    convolution: keras_layers.Conv2D or SeparableConv2D, built.
    inputs: [batch, height, width, channels], or a list; see `slim.conv2d`.
    normalizer_fn: `slim.batch_norm` or None.
    activation_fn: function or None.

  Returns:
    [batch, height', width', channels'].
  """
  last = len(convolution.steps()) - 1
  for index in range(last):
    inputs = Unfolded(convolution, index, inputs).fold()
  joined = activation_fn if activation_fn in ACTIVATIONS else None
  unfolded = Unfolded(convolution, last, inputs, joined)
  outputs = (
    unfolded.fold() if normalizer_fn is None else normalizer_fn(unfolded)
  )
  if activation_fn is None or joined:
    return outputs
  return activation_fn(outputs)

"""Quantisation-aware training: fake quantisation and folded batch norm.

Jacob et al., Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference, arXiv:1712.05877, section 3, at the places
and under the variable names of TensorFlow 1's graph rewriter:

* the kernel of every convolution, after batch norm has been folded into it:
  eight bits, a narrow range, the extremes of the kernel itself;
* what comes out of every convolution and its activation, of every sum and
  every product: eight bits, moving averages of the extremes.

A network is written as ever and built inside `quantized`:

  with slim.quantized(delay=2000, is_training=True):
    net = slim.conv2d(images, 64, 3, normalizer_fn=slim.batch_norm)
"""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from deeplab.slim import keras_layers, scopes

_BITS = 8
_DECAY = 0.999

# Activations whose output is quantised; TFLite fuses them with what is before.
_FUSED_ACTIVATIONS = (None, keras.ops.relu, keras.ops.relu6)


@dataclasses.dataclass(frozen=True)
class _Settings:
  """What `quantized` was opened with."""

  delay: int
  is_training: bool
  for_converter: bool


def quantized(delay, is_training=False, for_converter=False):
  """Layers made inside compute as if with eight bits; a context manager.

  Args:
    delay: number of the training step from which on values are quantised; the
      ranges are gathered from the first step. Negative: nothing is quantised.
    is_training: gather the ranges, rather than use what was gathered.
    for_converter: build what TFLite's converter wants: rounded kernels that
      it gives ranges of their own, channel by channel and symmetric to zero,
      as its eight-bit operations demand; and known ranges of all else, see
      `declare_range`.
  """
  settings = None
  if delay >= 0:
    settings = _Settings(delay, is_training, for_converter)
  return scopes.quantization_scope(settings)


def is_quantized():
  """Whether `quantized` is open."""
  return scopes.current_quantization() is not None


class FakeQuantize(keras.layers.Layer):
  """Rounds to 2^8 levels, and lets gradients through inside the range.

  The variables of the original: `min`, `max` and, for a moving average while
  training, the biased average and the number of steps that it is made of.
  """

  def __init__(self, name, settings, moving=True, least=-6.0):
    """Makes the layer.

    Args:
      name: full scope name with dots.
      settings: what `quantized` was opened with.
      moving: range is a moving average (activations), rather than that of the
        tensor itself (kernels, of which TFLite uses 255 levels).
      least: initial minimum.
    """
    super().__init__(name=name)
    self.settings = settings
    self.moving = moving
    self._least = least

  def build(self, *unused_shapes):
    initial = {'min': self._least, 'max': 6.0}
    self._ranges = {name: self._add(name, initial[name]) for name in initial}
    self._averages = {}
    if self.moving and self.settings.is_training:
      self._averages = {
        name: [
          self._add(f'{self.name}.{name}.{part}', 0.0)
          for part in ('biased', 'local_step')
        ]
        for name in initial
      }

  def _add(self, name, value):
    return self.add_weight(
      name=name,
      shape=(),
      initializer=keras.initializers.Constant(value),
      trainable=False,
      aggregation='mean',
    )

  def compute_output_shape(self, input_shape):
    return input_shape

  def call(self, inputs):
    settings = self.settings
    if settings.for_converter and not self.moving:
      return self._round_kernel(inputs)
    if settings.is_training:
      self._gather(tf.stop_gradient(inputs))
    low, high = (tf.convert_to_tensor(self._ranges[n]) for n in ('min', 'max'))
    # An absolute name scope: frozen graphs have the original's node names.
    with tf.name_scope(self.name.replace('.', '/') + '/'):
      outputs = tf.quantization.fake_quant_with_min_max_vars(
        inputs,
        tf.stop_gradient(low),
        tf.stop_gradient(high),
        num_bits=_BITS,
        narrow_range=not self.moving,
      )
    step = scopes.current_step()
    if not settings.is_training or not settings.delay or step is None:
      return outputs
    # The original counts the step that is being made.
    return tf.where(step + 1 >= settings.delay, outputs, inputs)

  def _round_kernel(self, kernel):
    """What the fake quantisation gives, by plain arithmetic.

    From a FakeQuant the converter would take the range of the kernel, zero
    point included, which the eight-bit operations refuse.
    """
    low, high = (tf.convert_to_tensor(self._ranges[n]) for n in ('min', 'max'))
    levels = 2.0**_BITS - 2
    step = (high - low) / levels
    # As the original nudges it: zero is a level.
    zero = tf.round(-low / step)
    whole = tf.round(kernel / step)
    return tf.clip_by_value(whole, -zero, levels - zero) * step

  def _gather(self, inputs):
    # Zero is always in the range: TFLite must represent it exactly.
    self._update('min', tf.minimum(tf.reduce_min(inputs), 0.0))
    self._update('max', tf.maximum(tf.reduce_max(inputs), 0.0))

  def _update(self, name, value):
    if not self.moving:
      self._ranges[name].assign(value)
      return
    # Without this, averages would begin at zero and stay near it for long.
    biased, steps = self._averages[name]
    update = np.float32(1.0 - _DECAY)
    biased.assign(biased - (biased - value) * update)
    steps.assign(steps + 1.0)
    share = 1.0 - tf.pow(1.0 - update, tf.convert_to_tensor(steps))
    self._ranges[name].assign(biased / share)


class _FixedRange(keras.layers.Layer):
  """A FakeQuantize with a constant range."""

  def __init__(self, low, high):
    super().__init__()
    self._range = (low, high)

  def build(self, *unused_shapes):
    pass

  def compute_output_shape(self, input_shape):
    return input_shape

  def call(self, inputs):
    return tf.quantization.fake_quant_with_min_max_args(inputs, *self._range)


class QuantizedConvolution(keras.layers.Layer):
  """One step of a convolution, its kernel quantised and batch norm folded in.

  While training, the kernel is scaled by the moving variance, which changes
  slowly, then quantised; what comes out is scaled on to the variance of the
  batch. The statistics of the batch are those of the convolution without
  quantisation, and gradients flow through them: but for the rounding this is
  batch norm.
  """

  def __init__(self, convolution, index, norm, weights_quant, name):
    """Makes the layer of others that are built already.

    Args:
      convolution: keras_layers.Conv2D or SeparableConv2D.
      index: which of its steps.
      norm: keras_layers.BatchNorm that follows, or None.
      weights_quant: FakeQuantize.
      name: full scope name with dots.
    """
    super().__init__(name=name)
    self.convolution = convolution
    self.index = index
    self.norm = norm
    self.weights_quant = weights_quant
    self.built = True

  def compute_output_shape(self, input_shape):
    return self.convolution.step_output_shape(self.index, input_shape)

  def call(self, inputs):
    steps = self.convolution.steps()
    step = steps[self.index]
    if self.norm is not None:
      return self._folded(inputs, step)
    outputs = step.convolve(inputs, self.weights_quant(step.kernel()))
    if step is steps[-1]:
      outputs = self.convolution.add_bias(outputs)
    return outputs

  def _folded(self, inputs, step):
    norm = self.norm
    kernel = step.kernel()
    gamma, beta = norm.gamma_and_beta()
    # Read before this batch changes them.
    mean = tf.convert_to_tensor(norm.moving_mean)
    scale = tf.math.rsqrt(norm.moving_variance + norm.epsilon)
    correction = None
    if norm.is_training:
      mean, variance = norm.batch_moments(step.convolve(inputs, kernel))
      correction = tf.math.rsqrt(variance + norm.epsilon) / scale
    factor = gamma * scale
    folded = self.weights_quant(kernel * tf.reshape(factor, step.channels))
    outputs = step.convolve(inputs, folded)
    if correction is not None:
      outputs *= correction
      factor *= correction
    return outputs + (beta - mean * factor)


class Unfolded:
  """A step of a convolution that waits for its batch norm."""

  def __init__(self, convolution, index, inputs, scope):
    """Notes what `fold` needs.

    Args:
      convolution: keras_layers.Conv2D or SeparableConv2D, built.
      index: which of its steps.
      inputs: [batch, height, width, channels].
      scope: full scope name.
    """
    self._convolution = convolution
    self._index = index
    self._inputs = inputs
    self._scope = scope

  def fold(self, norm=None):
    """What comes out, normalised by a keras_layers.BatchNorm if one is given.

    Returns:
      [batch, height', width', channels'].
    """

    def make(name, seed):
      del seed
      quant_name = name.rpartition('.')[0] + '.weights_quant'
      weights_quant = FakeQuantize(
        quant_name, scopes.current_quantization(), moving=False
      )
      weights_quant.build(())
      return QuantizedConvolution(
        self._convolution, self._index, norm, weights_quant, name
      )

    if norm is not None and not norm.built:
      channels = self._convolution.steps()[self._index].channels
      norm.build((math.prod(channels),))
    return scopes.get_layer(f'{self._scope}/quantized', make)(self._inputs)


def convolve(convolution, inputs, normalizer_fn, scope):
  """Applies a convolution layer with quantised kernels, and its batch norm.

  Args:
    convolution: keras_layers.Conv2D or SeparableConv2D.
    inputs: [batch, height, width, channels].
    normalizer_fn: `slim.batch_norm` or None.
    scope: full scope name of the convolution, which is open.

  Returns:
    [batch, height', width', channels'], not yet quantised.
  """
  if not convolution.built:
    convolution.build(inputs.shape)
  last = len(convolution.steps()) - 1
  for index in range(last):
    # Between a depthwise and a pointwise kernel.
    with scopes.variable_scope('separable_conv2d') as inner:
      inputs = Unfolded(convolution, index, inputs, inner).fold()
      inputs = quantize(inputs, 'act_quant', least=0.0)
  unfolded = Unfolded(convolution, last, inputs, scope)
  return unfolded.fold() if normalizer_fn is None else normalizer_fn(unfolded)


def activate(inputs, activation_fn):
  """Applies an activation, and quantises what TFLite computes in one piece.

  Args:
    inputs: what `convolve` returned.
    activation_fn: function or None; one with the attribute `quantizes_inputs`
      quantises inputs and outputs itself.

  Returns:
    A tensor of the same shape.
  """
  if getattr(activation_fn, 'quantizes_inputs', False):
    return activation_fn(inputs)
  if activation_fn in _FUSED_ACTIVATIONS:
    outputs = inputs if activation_fn is None else activation_fn(inputs)
    return quantize(outputs, 'act_quant', least=0.0)
  return activation_fn(quantize(inputs, 'act_quant', least=0.0))


def quantize(inputs, name, least=-6.0):
  """Quantises a tensor; the identity unless `quantized` is open.

  Args:
    inputs: float tensor.
    name: of the FakeQuantize, below the open scope.
    least: initial minimum.

  Returns:
    A tensor of the same shape.
  """
  settings = scopes.current_quantization()
  if settings is None:
    return inputs
  with scopes.variable_scope(None, name) as full_name:
    layer = scopes.get_layer(
      full_name,
      lambda name, seed: FakeQuantize(name, settings, least=least),
    )
    return layer(inputs)


def declare_range(inputs, low, high):
  """Tells a converter what values there are, where that is known.

  Args:
    inputs: float tensor.
    low: the smallest value.
    high: the largest value.

  Returns:
    The same tensor, unless `quantized` is open for a converter.
  """
  settings = scopes.current_quantization()
  if settings is None or not settings.for_converter:
    return inputs
  return _FixedRange(low, high)(inputs)


def comes_quantized(tensor):
  """Whether a tensor is what a FakeQuantize returned."""
  return isinstance(tensor._keras_history.operation, FakeQuantize)


def hard_gate(inputs):
  """Quantises the inputs of a hard sigmoid or swish, and relu6(inputs + 3).

  The original's rewriter takes the sum for that of a shortcut, and names the
  ranges so: the gate's belongs to the scope around the convolution.

  Args:
    inputs: what comes out of a convolution whose scope is open.

  Returns:
    The two tensors.
  """
  inputs = quantize(inputs, 'conv_quant')
  gate = keras_layers.Function(lambda x: tf.nn.relu6(x + 3.0))(inputs)
  with scopes.outer_scope():
    return inputs, quantize(gate, 'act_quant', least=0.0)

"""slim's layer functions on Keras tensors.

Names, arguments and defaults are slim's (tf.contrib.layers); inputs are
[batch, height, width, channels]. Where slim took an integer or a pair for a
kernel size, so do these.
"""

import functools

import keras

from deeplab.slim import (
  folding,
  initializers,
  keras_layers,
  quantization,
  scopes,
)
from deeplab.slim.scopes import add_arg_scope

_ZEROS = initializers.zeros_initializer()


def _pair(value):
  return (value, value) if isinstance(value, int) else tuple(value)


def _rate(value):
  """An integer, or a tuple where the rates of height and width differ."""
  height, width = _pair(value)
  return height if height == width else (height, width)


def l2_regularizer(scale):
  """`scale * sum(weights ** 2) / 2`, or None for a scale of zero."""
  return keras.regularizers.L2(0.5 * scale) if scale else None


def as_float32(inputs):
  """A tensor of low precision as float32, any other as it is."""
  if inputs.dtype in ('bfloat16', 'float16'):
    return keras.ops.cast(inputs, 'float32')
  return inputs


def function(fn, *inputs):
  """Applies a function of TensorFlow tensors to Keras tensors."""
  return keras_layers.Function(fn)(*inputs)


@add_arg_scope
def batch_norm(
  inputs,
  decay=0.999,
  center=True,
  scale=False,
  epsilon=0.001,
  is_training=True,
  scope=None,
):
  """Batch normalisation over all axes but the last; see BatchNorm.

  Args:
    inputs: float tensor [batch, height, width, channels].
    decay: decay of the moving averages.
    center: whether there is a beta.
    scale: whether there is a gamma.
    epsilon: added to the variance; at least 1.001e-5 is used.
    is_training: use, and gather, batch statistics.
    scope: name, 'BatchNorm' by default.

  Returns:
    A tensor of the same shape.
  """
  with scopes.variable_scope(scope, 'BatchNorm') as name:
    layer = scopes.get_layer(
      name,
      lambda name, seed: keras_layers.BatchNorm(
        decay, center, scale, epsilon, is_training, name
      ),
    )
    if isinstance(inputs, quantization.Unfolded | folding.Unfolded):
      return inputs.fold(layer)
    return layer(inputs)


def _convolve(
  inputs,
  layer_class,
  scope,
  default_scope,
  *,
  kernel_size,
  rate,
  activation_fn,
  normalizer_fn,
  weights_initializer,
  biases_initializer,
  **arguments,
):
  """Convolution, then normalisation (or biases), activation, end point."""
  if normalizer_fn is not None:
    biases_initializer = None
  rate = _rate(rate)
  if isinstance(inputs, list) and not folding.is_folded():
    inputs = keras.ops.concatenate(inputs, axis=-1)
  with scopes.variable_scope(scope, default_scope) as full_name:
    layer = scopes.get_layer(
      full_name,
      functools.partial(
        layer_class,
        kernel_size=_pair(kernel_size),
        rate=rate,
        weights_initializer=weights_initializer
        or initializers.xavier_initializer(),
        biases_initializer=biases_initializer,
        **arguments,
      ),
    )
    if layer.rate != rate:
      raise ValueError(
        f'{full_name} was built with rate {layer.rate} and is called again '
        f'with rate {rate}.'
      )
    if quantization.is_quantized():
      outputs = quantization.convolve(layer, inputs, normalizer_fn, full_name)
      outputs = quantization.activate(outputs, activation_fn)
      return scopes.collect_named_output(full_name, outputs)
    if folding.is_folded():
      outputs = folding.convolve(layer, inputs, normalizer_fn, activation_fn)
      return scopes.collect_named_output(full_name, outputs)
    outputs = layer(inputs)
    if normalizer_fn is not None:
      outputs = normalizer_fn(outputs)
    if activation_fn is not None:
      outputs = activation_fn(outputs)
    return scopes.collect_named_output(full_name, outputs)


@add_arg_scope
def conv2d(
  inputs,
  num_outputs,
  kernel_size,
  stride=1,
  padding='SAME',
  rate=1,
  activation_fn=keras.ops.relu,
  normalizer_fn=None,
  weights_initializer=None,
  weights_regularizer=None,
  biases_initializer=_ZEROS,
  use_weight_standardization=False,
  scope=None,
):
  """Convolution, normalisation (or biases) and activation.

  Args:
    inputs: float tensor [batch, height, width, channels]; with a 1x1 kernel
      also a list of such, for their concatenation. Inside `folded` those of
      [batch, 1, 1, channels] stand for planes of one colour.
    num_outputs: number of filters.
    kernel_size: integer or pair.
    stride: integer.
    padding: 'SAME' or 'VALID'.
    rate: atrous rate, an integer; 1 where stride is more than 1.
    activation_fn: None for linear.
    normalizer_fn: for example `batch_norm`; None adds biases instead.
    weights_initializer: Xavier by default.
    weights_regularizer: a Keras regulariser of the kernel.
    biases_initializer: zeros by default; None for no biases.
    use_weight_standardization: convolve with the kernel that each filter's
      mean and variance are taken out of.
    scope: name, 'Conv' by default.

  Returns:
    A tensor [batch, height', width', num_outputs].
  """
  return _convolve(
    inputs,
    functools.partial(
      keras_layers.Conv2D,
      filters=num_outputs,
      use_weight_standardization=use_weight_standardization,
    ),
    scope,
    'Conv',
    kernel_size=kernel_size,
    stride=stride,
    padding=padding,
    rate=rate,
    activation_fn=activation_fn,
    normalizer_fn=normalizer_fn,
    weights_initializer=weights_initializer,
    weights_regularizer=weights_regularizer,
    biases_initializer=biases_initializer,
  )


@add_arg_scope
def separable_conv2d(
  inputs,
  num_outputs,
  kernel_size,
  depth_multiplier=1,
  stride=1,
  padding='SAME',
  rate=1,
  activation_fn=keras.ops.relu,
  normalizer_fn=None,
  weights_initializer=None,
  weights_regularizer=None,
  biases_initializer=_ZEROS,
  scope=None,
):
  """Depthwise separable convolution; only depthwise if num_outputs is None.

  Args:
    inputs: float tensor [batch, height, width, channels].
    num_outputs: number of pointwise filters or None.
    kernel_size: integer or pair.
    depth_multiplier: filters for each input channel.
    stride: integer.
    padding: 'SAME' or 'VALID'.
    rate: atrous rate, integer or pair; 1 where stride is more than 1.
    activation_fn: None for linear.
    normalizer_fn: for example `batch_norm`; None adds biases instead.
    weights_initializer: Xavier by default.
    weights_regularizer: a Keras regulariser of the kernels.
    biases_initializer: zeros by default; None for no biases.
    scope: name, 'SeparableConv2d' by default.

  Returns:
    A tensor [batch, height', width', num_outputs or channels *
    depth_multiplier].
  """
  return _convolve(
    inputs,
    functools.partial(
      keras_layers.SeparableConv2D,
      filters=num_outputs,
      depth_multiplier=depth_multiplier,
    ),
    scope,
    'SeparableConv2d',
    kernel_size=kernel_size,
    stride=stride,
    padding=padding,
    rate=rate,
    activation_fn=activation_fn,
    normalizer_fn=normalizer_fn,
    weights_initializer=weights_initializer,
    weights_regularizer=weights_regularizer,
    biases_initializer=biases_initializer,
  )


@add_arg_scope
def max_pool2d(inputs, kernel_size, stride=2, padding='VALID', scope=None):
  """Max pooling; `scope` is accepted for slim's sake and names nothing."""
  del scope
  return keras.ops.max_pool(
    inputs, _pair(kernel_size), stride, padding=padding.lower()
  )


@add_arg_scope
def avg_pool2d(inputs, kernel_size, stride=2, padding='VALID', scope=None):
  """Average pooling; `scope` is accepted for slim's sake and names nothing."""
  del scope
  # The sum over a large window needs more digits than a small type has.
  outputs = keras.ops.average_pool(
    as_float32(inputs),
    _pair(kernel_size),
    _pair(stride),
    padding=padding.lower(),
  )
  if outputs.dtype == inputs.dtype:
    return outputs
  return keras.ops.cast(outputs, inputs.dtype)


@add_arg_scope
def dropout(inputs, keep_prob=0.5, is_training=True, scope=None):
  """Dropout while training, identity otherwise."""
  if not is_training:
    return inputs
  with scopes.variable_scope(scope, 'Dropout') as name:
    layer = scopes.get_layer(
      name,
      lambda name, seed: keras_layers.Dropout(1.0 - keep_prob, name),
    )
    if not quantization.is_quantized() or not quantization.comes_quantized(
      inputs
    ):
      return layer(inputs)
    # Its two products are each quantised: by the scale, and by the mask.
    quantize = quantization.quantize
    net = quantize(inputs / keep_prob, 'dropout/mul/activation_Mul_quant')
    net = layer(net) * keep_prob
    return quantize(net, 'dropout/mul_1/activation_Mul_quant')


def repeat(inputs, repetitions, layer, *args, scope, **kwargs):
  """Applies `layer` several times, in scopes `<scope>/<scope>_1`, ..."""
  with scopes.variable_scope(scope):
    outputs = inputs
    for i in range(repetitions):
      outputs = layer(outputs, *args, scope=f'{scope}_{i + 1}', **kwargs)
    return outputs

"""Dilated depthwise convolutions on processors.

`tf.nn.depthwise_conv2d` sorts the pixels into small images, one for each
remainder by the rate, pads these by what the kernel reaches, and keeps them for
the gradient: at 21x21 pixels and rate 18 that is twelve times the inputs. The
gradient of the operation that has rates itself is wrong on processors. So here
the gradients of the training step are written out, of operations that are
right, and keep the inputs alone.
"""

import tensorflow as tf

from deeplab.slim import devices, order

_STRIDES = [1, 1, 1, 1]

# Up to here the detour of tf.nn costs little, and rounds gradients as the
# original does.
_MAX_SMALL_RATE = 4

# The greatest rate that the fast kernels of oneDNN take. Beyond it they are ten
# times slower than the detour.
MAX_NATIVE_RATE = 6


def applies(inputs, kernel, rates, padding):
  """Whether `convolve` takes these, and pays."""
  height, width, _, multiplier = kernel.shape
  return (
    devices.are_processors()
    # The sums of a kernel's gradient want the digits.
    and inputs.dtype in (tf.float32, tf.float64)
    and padding == 'SAME'
    and multiplier == 1
    and height % 2 == width % 2 == 1
    and min(rates) > _MAX_SMALL_RATE
    and inputs.shape.is_fully_defined()
  )


def convolve(inputs, kernel, rates):
  """A depthwise convolution, stride 1, padding SAME.

  Args:
    inputs: [batch, height, width, channels], of a static shape.
    kernel: [odd height, odd width, channels, 1].
    rates: [rate of the height, rate of the width], above 1.

  Returns:
    A tensor like the inputs.
  """

  @tf.custom_gradient
  def convolve_both(inputs, kernel):
    def gradient(gradients):
      # TensorFlow would move and sort the inputs as soon as they are there, and
      # keep that too.
      late_inputs = order.after(inputs, gradients)
      # With odd sides and stride 1 a convolution by the mirrored kernel.
      mirrored = tf.reverse(kernel, [0, 1])
      return (
        _forward(gradients, mirrored, rates),
        _kernel_gradient(late_inputs, gradients, kernel.shape, rates),
      )

    return _forward(inputs, kernel, rates), gradient

  return convolve_both(inputs, kernel)


def _forward(inputs, kernel, rates):
  if max(rates) <= MAX_NATIVE_RATE and devices.has_dilated_depthwise(
    inputs.dtype
  ):
    return tf.raw_ops.DepthwiseConv2dNative(
      input=inputs,
      filter=kernel,
      strides=_STRIDES,
      padding='SAME',
      dilations=[1, *rates, 1],
    )
  return in_small_images(
    inputs,
    rates,
    lambda net: tf.nn.depthwise_conv2d(net, kernel, _STRIDES, 'SAME'),
  )


def in_small_images(inputs, rates, convolve):
  """Convolves pixels that are a rate apart as images of their own.

  `tf.nn.depthwise_conv2d` pads with zeros that are a multiple of the image
  where the rate is large. The zeros of the padding SAME are as good around each
  of the small images.

  Args:
    inputs: [batch, height, width, channels].
    rates: [rate of the height, rate of the width].
    convolve: function that keeps the size.

  Returns:
    [batch, height, width, channels'].
  """
  ends = [[0, end] for end in _missing(inputs, rates)]
  net = convolve(tf.space_to_batch(inputs, rates, ends))
  return tf.batch_to_space(net, rates, ends)


def _missing(inputs, rates):
  """What the sides lack to be multiples of the rates."""
  sides = inputs.shape[1:3]
  if None in sides:
    sides = tf.unstack(tf.shape(inputs)[1:3])
  return [-side % rate for side, rate in zip(sides, rates, strict=True)]


def _kernel_gradient(inputs, gradients, shape, rates):
  """Gradient of a kernel of that shape."""
  sides = inputs.shape[1:3]
  if any(2 * rate >= side for rate, side in zip(rates, sides, strict=True)):
    # Small images of two pixels are slow, and what the images moved against
    # each other have in common is small.
    return _kernel_gradient_by_moves(inputs, gradients, shape, rates)
  reach = [
    rate * (size // 2) for rate, size in zip(rates, shape[:2], strict=True)
  ]
  ends = _missing(inputs, rates)
  padded = tf.space_to_batch(
    inputs, rates, [[r, r + end] for r, end in zip(reach, ends, strict=True)]
  )
  return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
    input=padded,
    filter_sizes=shape,
    out_backprop=tf.space_to_batch(gradients, rates, [[0, e] for e in ends]),
    strides=_STRIDES,
    padding='VALID',
  )


def _kernel_gradient_by_moves(inputs, gradients, shape, rates):
  rows, columns = (
    [_overlap(side, rate * (i - size // 2)) for i in range(size)]
    for side, rate, size in zip(
      inputs.shape[1:3], rates, shape[:2], strict=True
    )
  )
  sums = [
    tf.reduce_sum(
      inputs[:, from_row, from_column] * gradients[:, row, column], [0, 1, 2]
    )
    for from_row, row in rows
    for from_column, column in columns
  ]
  return tf.reshape(tf.stack(sums), shape)


def _overlap(side, move):
  """Slices of the inputs, and of the outputs that these reach by the move."""
  move = max(-side, min(side, move))
  return (
    slice(max(move, 0), side + min(move, 0)),
    slice(max(-move, 0), side - max(move, 0)),
  )

"""Layers in NumPy, to compare the heads of the networks with.

`values` holds arrays by variable name; tensors are [batch, height, width,
channels] in float64.
"""

import numpy as np
import tensorflow as tf


def values_of(variables, scope=''):
  """{name without the scope: float64 array} of {name: variable}."""
  return {
    name.removeprefix(scope): variable.numpy().astype(float)
    for name, variable in variables.items()
  }


def relu(net):
  return np.maximum(net, 0)


def relu6(net):
  return np.clip(net, 0, 6)


def identity(net):
  return net


def finish(net, values, scope, activation=relu):
  """Batch norm, or biases where there is none, and the activation."""
  if f'{scope}/biases' in values:
    return activation(net + values[f'{scope}/biases'])
  gamma, beta, mean, variance = (
    values[f'{scope}/BatchNorm/{key}']
    for key in ('gamma', 'beta', 'moving_mean', 'moving_variance')
  )
  net = (net - mean) / np.sqrt(variance + 1.001e-5)
  return activation(net * gamma + beta)


def _shifts(net, kernel, rate):
  """Each position of a kernel, and the zero-padded input that it meets."""
  reach = [
    (k - 1) // 2 * r for k, r in zip(kernel.shape[:2], rate, strict=True)
  ]
  padded = np.pad(net, [(0, 0), *((r, r) for r in reach), (0, 0)])
  height, width = net.shape[1:3]
  for i, j in np.ndindex(*kernel.shape[:2]):
    top, left = i * rate[0], j * rate[1]
    yield (i, j), padded[:, top : top + height, left : left + width]


def conv2d(net, values, scope, activation=relu):
  """A convolution of stride and rate 1."""
  kernel = values[f'{scope}/weights']
  net = sum(part @ kernel[at] for at, part in _shifts(net, kernel, (1, 1)))
  return finish(net, values, scope, activation)


def separable(net, rate, values, scope, activation=relu):
  """Depthwise and pointwise convolution, each with batch norm."""
  kernel = values[f'{scope}_depthwise/depthwise_weights'][..., 0]
  net = sum(part * kernel[at] for at, part in _shifts(net, kernel, rate))
  net = finish(net, values, f'{scope}_depthwise', activation)
  return conv2d(net, values, f'{scope}_pointwise', activation)


def average_pool(net, window, stride=(1, 1)):
  """Means over the windows that fit."""
  rows, columns = (
    range(0, side - size + 1, step)
    for side, size, step in zip(net.shape[1:3], window, stride, strict=True)
  )
  height, width = window
  return np.stack(
    [
      np.stack(
        [net[:, i : i + height, j : j + width].mean((1, 2)) for j in columns],
        axis=1,
      )
      for i in rows
    ],
    axis=1,
  )


def resize(net, size):
  """Bilinear, with aligned corners."""
  return tf.raw_ops.ResizeBilinear(
    images=net.astype(np.float32), size=size, align_corners=True
  ).numpy()

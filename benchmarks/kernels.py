"""Matrix products, the limit of the machine; and the dense CRF."""

import numpy as np

from benchmarks.case import Task, make_images


def matrix_product(context):
  """tf.matmul of square matrices with `side` rows of type `dtype`."""
  import tensorflow as tf

  side, dtype = context.settings['side'], context.settings['dtype']
  rng = np.random.default_rng(0)
  a, b = (
    tf.constant(rng.normal(size=(side, side)).astype(np.float32))
    for _ in range(2)
  )
  a, b = tf.cast(a, dtype), tf.cast(b, dtype)
  # Within a function kernels are chosen as in a network. The corner alone is
  # waited for, and copied.
  product = tf.function(lambda: tf.matmul(a, b)[:1, :1])
  return Task(lambda: product().numpy())


def dense_crf(context):
  """`core.dense_crf` with its default parameters."""
  from deeplab.core import dense_crf as dense_crf_lib

  settings = context.settings
  height, width, classes = (
    settings[name] for name in ('height', 'width', 'classes')
  )
  image = make_images(1, height, width)[0]
  scores = make_images(classes, height, width)[..., 0].transpose(1, 2, 0)
  probabilities = np.exp(scores / 50.0)
  probabilities /= probabilities.sum(-1, keepdims=True)
  probabilities = probabilities.astype(np.float32)
  return Task(lambda: dense_crf_lib.dense_crf(image, probabilities))

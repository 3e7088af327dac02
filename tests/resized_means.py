"""What several passes are averaged to, by whole images."""

import numpy as np
import tensorflow as tf


def mean_of_softmaxes(passes, size):
  """The mean of the softmaxes of resized logits, [batch, *size, classes]."""
  return np.mean(
    [
      tf.nn.softmax(
        tf.raw_ops.ResizeBilinear(images=x, size=size, align_corners=True)
      )
      for x in passes
    ],
    axis=0,
  )

"""Windows of a resized image, without resizing the whole of it.

A crop of 513 pixels shows a small part of a large image that was scaled up.
What is made here equals, bit for bit, that part of what
`preprocess_utils.resize_image` makes with aligned corners.
"""

import tensorflow as tf

from deeplab.core import preprocess_utils


def _positions(old_size, new_size, start, count):
  """Where pixels of the resized side are in the original, in its pixels.

  As TensorFlow's kernels compute it; the rounding is part of the result.
  """
  scale = tf.cast(old_size - 1, tf.float32) / tf.cast(
    tf.maximum(new_size - 1, 1), tf.float32
  )
  return tf.cast(tf.range(start, start + count), tf.float32) * scale


def bilinear(image, new_size, offset, window):
  """A window of an image that is resized bilinearly.

  The kernel stretches the rows that the window needs, and only them; their
  weighted means are taken here, in the order in which the kernel would.

  Args:
    image: [height, width, channels] of any dtype.
    new_size: int32 tensor [2], height and width of the whole after resizing.
    offset: int32 tensor [2], row and column where the window begins.
    window: int32 tensor [2], its height and width.

  Returns:
    float32 [window height, window width, channels].
  """
  height = tf.shape(image)[0]
  rows = _positions(height, new_size[0], offset[0], window[0])
  upper = tf.cast(tf.floor(rows), tf.int32)
  lower = tf.minimum(upper + 1, height - 1)
  weight = rows - tf.floor(rows)
  first = upper[0]
  needed = tf.cast(image[first : lower[-1] + 1], tf.float32)
  needed = preprocess_utils.resize_image(
    needed,
    tf.stack([tf.shape(needed)[0], new_size[1]]),
    tf.image.ResizeMethod.BILINEAR,
  )[:, offset[1] : offset[1] + window[1]]
  above = tf.gather(needed, upper - first)
  below = tf.gather(needed, lower - first)
  return above + (below - above) * weight[:, tf.newaxis, tf.newaxis]


def nearest(image, new_size, offset, window):
  """A window of an image that is resized to the nearest neighbour.

  Args:
    image: [height, width, channels] of any dtype.
    new_size: see `bilinear`, as for the others.
    offset: where the window begins.
    window: its height and width.

  Returns:
    [window height, window width, channels] of the image's dtype.
  """
  for axis in range(2):
    old_size = tf.shape(image)[0]
    positions = _positions(old_size, new_size[axis], offset[axis], window[axis])
    # Halves are rounded up; tf.round has them go to even numbers.
    indices = tf.cast(tf.floor(positions), tf.int32)
    indices += tf.cast(positions - tf.floor(positions) >= 0.5, tf.int32)
    # Whole rows are copied fast, single pixels of a row are not: hence the
    # columns become rows for a while.
    image = tf.gather(image, tf.minimum(indices, old_size - 1))
    image = tf.transpose(image, [1, 0, 2])
  return image

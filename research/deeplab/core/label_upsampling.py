"""Labels of logits that are smaller than the image."""

import tensorflow as tf

from deeplab import slim
from deeplab.core import utils

# Bounds of the side of a block, in pixels. Smaller ones cost more to find than
# they save, larger ones hold too many pixels beside a boundary.
_LEAST_SIDE, _GREATEST_SIDE = 4, 16
# Mixed blocks are labelled in so many parts, as many at once as there are
# processors: their pixels are never all in memory.
_PARTS = 8


def argmax(logits):
  """The best class of each pixel.

  Args:
    logits: float32 [batch, height, width, classes].

  Returns:
    int32 [batch, height, width].
  """
  return slim.function(lambda x: tf.argmax(x, -1, tf.int32), logits)


def upsampled_labels(passes, size):
  """The best classes of bilinearly resized logits, without resizing all.

  Between four pixels of one best class every pixel has that class, its
  interpolated logits being means of theirs. Where that is so in all passes, and
  the class the same, it is the best one of their mean probabilities too. So is
  one whose mean probability is above a half everywhere. Only blocks of pixels
  where neither is sure, at the boundaries of objects, are interpolated and
  compared.

  Args:
    passes: list of float32 [batch, h, w, classes], h and w of each its own:
      the logits of several passes over the images, or of one.
    size: [height, width] of the labels, integers or a Keras tensor.

  Returns:
    int32 [batch, height, width]: the argmax of the mean of the softmaxes of the
    resized logits, but for ties within rounding.
  """
  return utils.from_passes(_labels, passes, size)


def _labels(passes, size):
  """See `upsampled_labels`; of tensors."""
  sides = [tf.shape(x)[1:3] for x in passes]
  # How many logits one pixel further is.
  steps = [
    tf.cast(side - 1, tf.float32) / tf.cast(tf.maximum(size - 1, 1), tf.float32)
    for side in sides
  ]
  # As large as the smallest cells between logits, of any pass and direction.
  # Blocks need not begin where cells do.
  finest = tf.maximum(tf.reduce_max(tf.stack(steps)), 1 / _GREATEST_SIDE)
  block = tf.maximum(tf.cast(tf.round(1 / finest), tf.int32), _LEAST_SIDE)
  count = -(-size // block)
  labels, is_mixed = _block_labels(passes[0], steps[0], size, block)
  for x, step in zip(passes[1:], steps[1:], strict=True):
    others, also_mixed = _block_labels(x, step, size, block)
    is_mixed |= also_mixed | (others != labels)
  # In a single pass this is so in blocks that are not mixed anyway.
  if len(passes) > 1:
    least = utils.sum_in_turn(
      lambda x, step: _least_probabilities(x, step, size, block), passes, steps
    )
    is_sure = tf.reduce_max(least, axis=-1) > len(passes) / 2
    labels = tf.where(is_sure, tf.argmax(least, -1, tf.int32), labels)
    is_mixed &= ~is_sure
  blocks = tf.where(is_mixed, name='mixed')
  shape = tf.concat([tf.shape(labels), [block, block]], axis=0)
  labels = tf.broadcast_to(labels[..., tf.newaxis, tf.newaxis], shape)
  labels = tf.tensor_scatter_nd_update(
    labels,
    blocks,
    _mixed_labels(passes, steps, tf.cast(blocks, tf.int32), block),
  )
  labels = tf.transpose(labels, [0, 1, 3, 2, 4])
  labels = tf.reshape(labels, tf.concat([shape[:1], count * block], axis=0))
  return labels[:, : size[0], : size[1]]


def _block_labels(logits, step, size, block):
  """Which class a block has, and whether it may have others.

  Args:
    logits: float32 [batch, h, w, classes].
    step: float32 [2], how many logits one pixel further is.
    size: int32 [2], of the image.
    block: side of a block in pixels.

  Returns:
    int32 and bool [batch, blocks in height, blocks in width].
  """
  best = tf.argmax(logits, -1, tf.int32)
  # A cell is what lies between four logits; the last row and column begin
  # cells too.
  padded = _padded(best[..., tf.newaxis])[..., 0]
  is_mixed = (
    (best != padded[:, :-1, 1:])
    | (best != padded[:, 1:, :-1])
    | (best != padded[:, 1:, 1:])
  )
  # Mixed cells above and to the left of each corner.
  above = tf.cumsum(tf.cumsum(tf.cast(is_mixed, tf.int32), axis=1), axis=2)
  above = tf.pad(above, [[0, 0], [1, 0], [1, 0]])
  (top, bottom), (left, right) = (
    _cells_of_blocks(size[i], step[i], block) for i in (0, 1)
  )
  below, over = (tf.gather(above, rows, axis=1) for rows in (bottom, top))
  mixed = below - over
  mixed = tf.gather(mixed, right, axis=2) - tf.gather(mixed, left, axis=2)
  best = tf.gather(tf.gather(best, top, axis=1), left, axis=2)
  return best, mixed > 0


def _least_probabilities(logits, step, size, block):
  """Probabilities that no pixel of a block falls below.

  One over a probability is a sum of exponentials of differences of logits. From
  one logit to the next, in either direction, differences are linear and the sum
  is convex: it is greatest, and the probability least, at one of the logits
  around a pixel.

  Args:
    logits: see `_block_labels`.
    step: likewise.
    size: likewise.
    block: likewise.

  Returns:
    float32 [batch, blocks in height, blocks in width, classes].
  """
  least = tf.nn.softmax(logits)
  for axis in (1, 2):
    first, last = _cells_of_blocks(size[axis - 1], step[axis - 1], block)
    corners = tf.range(1 + tf.reduce_max(last - first))
    corners = tf.minimum(first[:, tf.newaxis] + corners, last[:, tf.newaxis])
    corners = tf.minimum(corners, tf.shape(logits)[axis] - 1)
    least = tf.reduce_min(tf.gather(least, corners, axis=axis), axis + 1)
  return least


def _cells_of_blocks(length, step, block):
  """First cell of each block in one direction, and the one after its last."""
  first = tf.range(0, length, block)
  last = tf.minimum(first + block, length) - 1
  first, last = (
    tf.cast(tf.cast(pixel, tf.float32) * step, tf.int32)
    for pixel in (first, last)
  )
  return first, last + 1


def _mixed_labels(passes, steps, blocks, block):
  """The best classes of the pixels of some blocks.

  Args:
    passes: see `upsampled_labels`.
    steps: float32 [2] of each pass.
    blocks: int32 [n, 3], indices of the blocks.
    block: side of a block in pixels.

  Returns:
    int32 [n, block, block].
  """
  # Pixels at the lower and right edges may come out beyond them, by rounding.
  passes = [_padded(x) for x in passes]
  count = -(-tf.shape(blocks)[0] // _PARTS)
  parts = [blocks[i * count : (i + 1) * count] for i in range(_PARTS)]
  return tf.concat(
    [_best_classes(passes, steps, part, block) for part in parts], axis=0
  )


def _best_classes(passes, steps, blocks, block):
  """`_mixed_labels` of some of the blocks, of padded logits."""
  images, *places = tf.unstack(blocks, 3, axis=1)
  first = tf.cast(block * tf.stack(places, axis=1), tf.float32)
  last = first + tf.cast(block - 1, tf.float32)

  def values(x, step):
    whole = tf.cast(tf.shape(x)[1:3] - 1, tf.float32)
    found = tf.raw_ops.CropAndResize(
      image=x,
      boxes=tf.concat([first * step / whole, last * step / whole], axis=1),
      box_ind=images,
      crop_size=[block, block],
    )
    return tf.nn.softmax(found) if len(passes) > 1 else found

  total = utils.sum_in_turn(values, passes, steps)
  return tf.argmax(total, -1, tf.int32)


def _padded(values):
  """[batch, height + 1, width + 1, channels], the last ones twice."""
  return tf.pad(values, [[0, 0], [0, 1], [0, 1], [0, 0]], 'SYMMETRIC')

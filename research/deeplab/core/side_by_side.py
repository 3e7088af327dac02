"""Images that go through a network by themselves, two at once.

On processors that is faster than a batch: at the end of each operation some
threads wait for the last one, and work on the other image then. The features of
one image fit the cache better, too, and batches take no more memory than two.
Other devices are fastest with the whole batch.
"""

from concurrent import futures

import tensorflow as tf

from deeplab.slim import devices

_COUNT = 2


def both(network, first, second):
  """Applies a network to two batches.

  Args:
    network: function of images that returns nested tensors.
    first: images, [batch, height, width, channels].
    second: other images, of the same shape.

  Returns:
    What it gives for the first batch, and for the second one.
  """
  if not devices.are_processors():
    values = network(tf.concat([first, second], axis=0))
    halves = [tf.split(x, 2) for x in tf.nest.flatten(values)]
    return [
      tf.nest.pack_sequence_as(values, half)
      for half in zip(*halves, strict=True)
    ]
  if tf.executing_eagerly():
    return _in_threads(network, [first, second])
  # TensorFlow runs at once what does not wait for each other.
  return [network(first), network(second)]


def one_by_one(network, images):
  """Applies a network to each image of a batch.

  Args:
    network: ConcreteFunction of images, [batch, height, width, channels], that
      returns nested tensors.
    images: batch of any number of such.

  Returns:
    What it gives for the batch.
  """
  count = images.shape[0]
  if not devices.are_processors() or (count is not None and count < 2):
    return network(images)
  if tf.executing_eagerly():
    parts = _in_threads(network, tf.split(images, count))
    return tf.nest.map_structure(lambda *x: tf.concat(x, axis=0), *parts)
  return tf.map_fn(
    lambda image: tf.nest.map_structure(
      lambda x: x[0], network(image[tf.newaxis])
    ),
    images,
    parallel_iterations=_COUNT,
    fn_output_signature=tf.nest.map_structure(
      lambda x: tf.TensorSpec(x.shape[1:], x.dtype), network.structured_outputs
    ),
  )


def _in_threads(network, batches):
  """What a network gives for each of some batches."""
  with futures.ThreadPoolExecutor(_COUNT) as threads:
    return list(threads.map(network, batches))

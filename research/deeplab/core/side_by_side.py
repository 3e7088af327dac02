"""Images of a batch that go through a network by themselves, two at once.

On processors that is faster than the batch: at the end of each operation some
threads wait for the last one, and work on the other image then. The features of
one image fit the cache better, too, and a batch takes no more memory than two
images. Other devices are fastest with the whole batch.
"""

from concurrent import futures

import keras
import tensorflow as tf

from deeplab.slim import devices

# As measured on two processors; each takes the memory of an image.
_COUNT = 2


def one_by_one(network, images):
  """Applies a network to each image of a batch.

  Args:
    network: keras.Model or ConcreteFunction of images, [batch, height, width,
      channels], that returns nested tensors.
    images: batch of any number of such. In a graph where their sizes are not
      known there must be one at least.

  Returns:
    What it gives for the batch.
  """
  count = images.shape[0]
  if not devices.are_processors() or (count is not None and count < 2):
    return network(images)
  if not tf.executing_eagerly():
    return _in_loop(network, images)
  with futures.ThreadPoolExecutor(_COUNT) as threads:
    values = list(threads.map(network, tf.split(images, count)))
  return tf.nest.map_structure(lambda *x: tf.concat(x, axis=0), *values)


def _in_loop(network, images):
  """See `one_by_one`; in a graph."""
  if isinstance(network, keras.Model):
    outputs = network.output
  else:
    outputs = network.structured_outputs
  return tf.map_fn(
    lambda image: tf.nest.map_structure(
      lambda x: x[0], network(image[tf.newaxis])
    ),
    images,
    parallel_iterations=_COUNT,
    fn_output_signature=tf.nest.map_structure(
      lambda x: tf.TensorSpec(x.shape[1:], x.dtype), outputs
    ),
  )

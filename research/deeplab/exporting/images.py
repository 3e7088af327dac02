"""Images that an export is calibrated or verified on."""

import re

import numpy as np
import tensorflow as tf

from deeplab.common import InputError
from deeplab.core import preprocess_utils
from deeplab.datasets import shapes_images

_RECORD_SUFFIX = '.tfrecord'
_ENCODED_IMAGE = 'image/encoded'

# Of generated images: share of the noise, the generator's seed, and the side
# that shapes need at least.
_NOISE = 0.3
_SEED = 0
_LEAST_SIDE = 64


def read(pattern, flag):
  """Reads images, one by one.

  Args:
    pattern: of image files ('photos/*.jpg'), or of TFRecord files in the
      official format ('tfrecord/val-*.tfrecord').
    flag: the name of the flag that it comes from.

  Yields:
    (name, uint8 tensor [height, width, 3]).

  Raises:
    InputError: there is no such file, or one cannot be read.
  """
  paths = sorted(tf.io.gfile.glob(pattern))
  if not paths:
    raise InputError(f'--{flag}={pattern}: no such file.')
  for path in paths:
    try:
      if path.endswith(_RECORD_SUFFIX):
        for index, record in enumerate(tf.data.TFRecordDataset(path)):
          feature = tf.io.FixedLenFeature((), tf.string)
          example = tf.io.parse_single_example(
            record, {_ENCODED_IMAGE: feature}
          )
          yield f'{path}:{index}', _decode(example[_ENCODED_IMAGE])
      else:
        yield path, _decode(tf.io.read_file(path))
    except tf.errors.OpError as error:
      raise InputError(
        f'--{flag}={pattern}: {path} cannot be read as an image or as official '
        f'records: {_plain(error)}'
      ) from error


def _plain(error):
  """What TensorFlow says, without the names of operations around it."""
  text = str(error).splitlines()[0]
  return re.sub(r'\{\{.*?\}\} ?| \[Op:.*', '', text)


def _decode(encoded):
  return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def preprocess(network, images, pattern, flag):
  """Resizes and pads images as evaluation does.

  Args:
    network: Network.
    images: iterable of (name, uint8 [height, width, 3]).
    pattern: where they come from, for error messages.
    flag: the name of the flag of the pattern.

  Yields:
    (image, what `Network.preprocess` returns for it).

  Raises:
    InputError: an image does not fit into the crop.
  """
  for name, image in images:
    try:
      yield image, network.preprocess(image, name)
    except tf.errors.InvalidArgumentError as error:
      text = preprocess_utils.input_error_text(error)
      raise InputError(f'--{flag}={pattern}: {text}') from error


def generate(crop_size):
  """Draws shapes under noise: one image of the crop's size, and a smaller one.

  Args:
    crop_size: [height, width].

  Yields:
    (name, uint8 array [height, width, 3]), always the same.
  """
  rng = np.random.default_rng(_SEED)
  height, width = crop_size
  sizes = [(height, width), (height * 3 // 4, width * 2 // 3)]
  for index, (height, width) in enumerate(sizes):
    options = shapes_images.Options(
      height=max(height, _LEAST_SIDE), width=max(width, _LEAST_SIDE)
    )
    image = shapes_images.draw(rng, options)[0][:height, :width]
    noise = rng.integers(0, 256, image.shape)
    mixed = (1 - _NOISE) * image + _NOISE * noise
    yield f'generated image {index}', mixed.astype(np.uint8)

"""Images that an export is calibrated or verified on."""

import dataclasses
import itertools
import re
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image

from deeplab import common, input_preprocess
from deeplab.common import InputError
from deeplab.core import preprocess_utils
from deeplab.datasets import shapes_images
from deeplab.evaluation import photos

_RECORD_SUFFIX = '.tfrecord'
_ENCODED_IMAGE = 'image/encoded'

# Of generated images: share of the noise, the generator's seed, and the side
# that shapes need at least.
_NOISE = 0.3
_SEED = 0
_LEAST_SIDE = 64


@dataclasses.dataclass(frozen=True)
class Source:
  """Images of the user's.

  Attributes:
    flag: the flag that names them, '..._images'; '..._limit' is their number.
    patterns: folders, files or patterns of images, see `photos.find`; or
      patterns of TFRecord files in the official format.
    limit: number of images to use at most.
  """

  flag: str
  patterns: Sequence[str]
  limit: int

  def __str__(self):
    return ','.join(self.patterns)

  def check(self, network):
    """Reads the first image.

    Args:
      network: Network.

    Raises:
      InputError: the limit is out of range, there is no image, or the first
        one cannot be used.
    """
    limit = self.flag.replace('_images', '_limit')
    common.check_ranges({limit: self.limit}, {limit: common.COUNT})
    if next(examples(network, self), None) is None:
      raise InputError(
        f'--{self.flag}={self}: there is no image in these files. Give others.'
      )

  def read(self):
    """Yields (name, uint8 [height, width, 3]) of each; see `check`."""
    images = itertools.chain.from_iterable(map(self._read, self.patterns))
    return itertools.islice(images, self.limit)

  def _read(self, pattern):
    """Yields what one pattern means."""
    files = sorted(tf.io.gfile.glob(pattern))
    records = [path for path in files if path.endswith(_RECORD_SUFFIX)]
    for path in records:
      yield from self._read_record(path)
    if records:
      return
    try:
      for path in photos.find([pattern]):
        yield path, photos.read_rgb(path)
    except InputError as error:
      # What is found by patterns elsewhere comes from a flag of that name.
      text = str(error).replace('--image_glob', f'--{self.flag}')
      text = text.removeprefix(f'--{self.flag}={pattern}: ')
      raise InputError(f'--{self.flag}={pattern}: {text}') from error

  def _read_record(self, path):
    """Yields the images of a TFRecord file."""
    feature = tf.io.FixedLenFeature((), tf.string)
    try:
      for index, record in enumerate(tf.data.TFRecordDataset(path)):
        example = tf.io.parse_single_example(record, {_ENCODED_IMAGE: feature})
        image = tf.io.decode_image(
          example[_ENCODED_IMAGE], channels=3, expand_animations=False
        )
        yield f'{path}:{index}', image.numpy()
    except tf.errors.OpError as error:
      raise InputError(
        f'--{self.flag}={self}: {path} cannot be read as official records: '
        f'{_plain(error)}'
      ) from error


def _plain(error):
  """What TensorFlow says, without the names of operations around it."""
  text = str(error).splitlines()[0]
  return re.sub(r'\{\{.*?\}\} ?| \[Op:.*', '', text)


def examples(network, source=None):
  """Resizes and pads images as the input pipeline of evaluation does.

  An image that is larger than the crop is shrunk first, unless the network is
  to be given resized images anyway.

  Args:
    network: Network.
    source: Source; None for generated images.

  Yields:
    uint8 [height, width, 3], the image; [height, width] of it in the crop;
    float32 [crop height, crop width, 3], the crop.

  Raises:
    InputError: an image cannot be read, or does not fit into the crop.
  """
  crop_size = network.options.crop_size
  shrunk = False
  found = generate(crop_size) if source is None else source.read()
  for name, image in found:
    is_large = np.any(np.greater(image.shape[:2], crop_size))
    if is_large and not network.resizes:
      if not shrunk:
        logging.info(
          '--%s: images larger than the crop of %dx%d are shrunk into it, '
          '%s of %dx%d pixels for one.',
          source.flag,
          *crop_size,
          name,
          *image.shape[:2],
        )
      shrunk = True
      image = _shrink(image, crop_size)
    try:
      resized, padded, _ = input_preprocess.preprocess_image_and_label(
        image,
        None,
        *crop_size,
        is_training=False,
        model_variant=network.options.model_variant,
        image_name=name,
        **network.resizing,
      )
    except tf.errors.InvalidArgumentError as error:
      text = preprocess_utils.input_error_text(error)
      raise InputError(f'--{source.flag}={source}: {text}') from error
    yield image, resized.shape[:2], padded


def _shrink(image, crop_size):
  """The largest image of the same proportions in the crop."""
  image = Image.fromarray(image)
  height, width = crop_size
  image.thumbnail((width, height))
  return np.asarray(image)


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

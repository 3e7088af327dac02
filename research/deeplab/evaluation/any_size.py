"""Labels of images of any size, whatever the network was built for."""

import copy

import numpy as np

from deeplab import model
from deeplab.common import InputError
from deeplab.core import dense_crf, feature_extractor
from deeplab.evaluation import prediction, tiling
from deeplab.slim import scopes

# A CRF joins all pixels of an image, which have to be in memory with the
# probabilities of all classes, several times over.
MAX_CRF_PIXELS = 2049**2

# Networks that are kept, where each size of image has one of its own.
_MAX_NETWORKS = 8

# Sides are multiples of this plus one, or of the output stride if larger: what
# the networks found by search go down to and come back from.
_NAS_STRIDE = 32


def grid_of(options):
  """Sides of images are best multiples of this plus one.

  Features then lie at the same distance from both borders.

  Args:
    options: ModelOptions.
  """
  if options.model_variant.startswith('nas_'):
    return max(_NAS_STRIDE, options.output_stride)
  return options.output_stride


class AnySizePredictor:
  """Labels images as a prediction.Predictor does, whatever their size.

  An image is padded to the next size that suits the network; one that is too
  large goes through it in tiles, see `tiling`. Networks for several sizes share
  their weights.

  Attributes:
    crf: dense_crf.Parameters of the CRF behind the network, or None.
  """

  def __init__(
    self,
    options,
    crop_size=None,
    eval_scales=(1.0,),
    add_flipped_images=False,
    image_pyramid=None,
    crf=None,
    *,
    max_tile_size=tiling.DEFAULT_MAX_SIZE,
    tile_overlap=tiling.DEFAULT_OVERLAP,
    batch_size=1,
    store=None,
    **network,
  ):
    """Builds the first network; the weights come with `restore`.

    Args:
      options: ModelOptions, whose crop_size does not matter.
      crop_size: [height, width] that images are padded to and, where larger,
        tiles have; None for what suits each image.
      eval_scales: see `prediction.Predictor`, as the next ones.
      add_flipped_images: see there.
      image_pyramid: see there.
      crf: see there.
      max_tile_size: without a crop_size, an image or tile has at most the
        pixels of a square of this side.
      tile_overlap: share of a tile that the next one repeats, 0 to 0.75.
      batch_size: tiles that go through the network at most at once.
      store: slim.LayerStore of networks to share the weights with, or None.
      **network: more arguments of `prediction.Predictor`.

    Raises:
      InputError: see `prediction.Predictor`; or a number is out of range.
    """
    tiling.check_options(max_tile_size, tile_overlap)
    self.crf = crf
    self._options = options
    self._crop_size = crop_size and tuple(crop_size)
    self._max_tile_size = max_tile_size
    self._overlap = tile_overlap
    self._batch_size = batch_size
    self._network_arguments = {
      'eval_scales': eval_scales,
      'add_flipped_images': add_flipped_images,
      'image_pyramid': image_pyramid,
      'store': scopes.LayerStore() if store is None else store,
      **network,
    }
    self._grid = grid_of(options)
    self._fill = np.asarray(
      feature_extractor.mean_pixel(options.model_variant), np.float32
    )
    self._networks = {}
    # A size that each network can be built for.
    self._first = self._network(self._tile_size((max_tile_size,) * 2))

  def with_crf(self, crf):
    """The same networks with another CRF behind them, or None for none."""
    other = copy.copy(self)
    other.crf = crf
    return other

  def restore(self, prefix):
    """Loads the weights of a checkpoint; see `prediction.Predictor.restore`."""
    step = self._first.restore(prefix)
    for network in self._networks.values():
      network.forget_weights()
    return step

  def __call__(self, images, sizes=None):
    """Labels a batch.

    Args:
      images: uint8 or float32 [batch, height, width, 3] in 0..255.
      sizes: of the images without padding, which have none; not used.

    Returns:
      Integer NumPy array [batch, height, width].

    Raises:
      InputError: an image is too large for a CRF.
    """
    del sizes
    images = np.asarray(images)
    height, width = images.shape[1:3]
    tiles = self._layout(images.shape[1:3])
    if self.crf is not None or not tiles.is_whole:
      return np.stack([self._labels(image, tiles) for image in images])
    batch = np.empty((len(images), *tiles.size, images.shape[-1]), np.float32)
    for image, padded in zip(images, batch, strict=True):
      tiles.cut(image, 0, 0, self._fill, padded)
    return self._network(tiles.size)(batch)[:, :height, :width]

  def probabilities(self, image):
    """Probabilities of the classes, after the CRF if there is one.

    Args:
      image: uint8 or float32 [height, width, 3] in 0..255.

    Returns:
      float32 NumPy array [height, width, classes].

    Raises:
      InputError: the image is too large for a CRF.
    """
    image = np.asarray(image)
    return self._probabilities(image, self._layout(image.shape[:2]))

  def _probabilities(self, image, tiles):
    """See `probabilities`."""
    if self.crf is not None:
      check_crf_size(image)
    height, width = image.shape[:2]
    whole = None
    for top, left, values in self._merged(image, tiles):
      if whole is None:
        whole = np.empty((height, width, values.shape[-1]), np.float32)
      part = whole[top : top + values.shape[0], left : left + values.shape[1]]
      part[:] = values[: part.shape[0], : part.shape[1]]
    if self.crf is None:
      return whole
    levels = np.rint(np.clip(image, 0, 255)).astype(np.uint8)
    return dense_crf.dense_crf(levels, whole, self.crf)

  def _labels(self, image, tiles):
    """Labels of one image, without all its probabilities if possible."""
    if self.crf is not None:
      return self._probabilities(image, tiles).argmax(axis=-1)
    labels = np.empty(image.shape[:2], np.int32)
    for top, left, values in self._merged(image, tiles):
      part = labels[top : top + values.shape[0], left : left + values.shape[1]]
      part[:] = values[: part.shape[0], : part.shape[1]].argmax(axis=-1)
    return labels

  def _merged(self, image, tiles):
    """See `tiling.merge`."""
    network = self._network(tiles.size)

    def predict(batch):
      return [values for _, values in network.probabilities(batch, None)]

    return tiling.merge(predict, image, tiles, self._fill, self._batch_size)

  def _layout(self, size):
    """The tiling.Layout of images of a size."""
    return tiling.layout(size, self._tile_size(size), self._overlap, self._grid)

  def _tile_size(self, size):
    if self._crop_size:
      return self._crop_size
    return tiling.tile_size(
      size,
      self._max_tile_size,
      self._overlap,
      self._grid,
      self._options.image_pooling_crop_size or (1, 1),
    )

  def _network(self, size):
    """The Predictor for images of exactly this size."""
    is_fixed = self._crop_size or model.depends_on_size(self._options)
    key = tuple(size) if is_fixed else (None, None)
    network = self._networks.pop(key, None) or prediction.Predictor(
      self._options.replace(crop_size=list(size) if is_fixed else None),
      key,
      **self._network_arguments,
    )
    # The one that was used last is the last one.
    self._networks[key] = network
    if len(self._networks) > _MAX_NETWORKS:
      del self._networks[next(iter(self._networks))]
    return network


def check_crf_size(image, name='an image', cure='Shrink it'):
  """Refuses an image that is too large for a CRF.

  Args:
    image: [height, width, 3].
    name: what the message calls it.
    cure: how to make it smaller, for the message.

  Raises:
    InputError: it is too large.
  """
  height, width = image.shape[:2]
  if height * width > MAX_CRF_PIXELS:
    raise InputError(
      f'{name} of {height}x{width} pixels (height x width) is too large for '
      f'a CRF, which joins all its pixels: at most {MAX_CRF_PIXELS} are '
      f'possible. {cure}, or leave the CRF out.'
    )

"""A trained network as a function from photographs to labels.

  from deeplab.segmenter import Segmenter

  segmenter = Segmenter('logs/train')
  labels = segmenter(image)  # uint8 [height, width, 3] -> int [height, width]
  print([segmenter.info.class_names[label] for label in set(labels.flat)])

`vis.py --image_glob` does the same to files; `evaluation.photos.read_rgb` reads
one.
"""

import dataclasses

import numpy as np

from deeplab import (
  checkpoints,
  common,
  stored_info,
  stored_options,
)
from deeplab.common import InputError
from deeplab.evaluation import any_size, tiling
from deeplab.slim import scopes


@dataclasses.dataclass(frozen=True)
class _Setting:
  """What another network has to be built for.

  Attributes:
    output_stride: of the network.
    eval_scales: scales whose probabilities are averaged, a tuple.
    add_flipped_images: average over the mirrored images too.
  """

  output_stride: int
  eval_scales: tuple[float, ...]
  add_flipped_images: bool


class Segmenter:
  """Labels images of any size with the weights of a checkpoint.

  Networks are built when they are needed first, one for each setting; those of
  the same output stride share their weights.

  Attributes:
    info: the DatasetInfo of the classes: names, colours.
    options: the ModelOptions of the network as it was trained.
    checkpoint: prefix of the checkpoint.
    step: the training step at which it was written.
  """

  def __init__(
    self,
    checkpoint,
    output_stride=None,
    eval_scales=(1.0,),
    add_flipped_images=False,
    crf=None,
    crop_size=None,
    *,
    image_pyramid=None,
    dataset=None,
    options=None,
    max_tile_size=tiling.DEFAULT_MAX_SIZE,
    tile_overlap=tiling.DEFAULT_OVERLAP,
    use_moving_averages=None,
  ):
    """Reads the checkpoint.

    Args:
      checkpoint: directory, prefix or file of a checkpoint.
      output_stride: of the network; None for that of the training.
      eval_scales: scales whose probabilities are averaged.
      add_flipped_images: average over the mirrored images too.
      crf: dense_crf.Parameters to refine the probabilities with, or None.
      crop_size: see `any_size.AnySizePredictor`.
      image_pyramid: scales of the network's own image pyramid, or None.
      dataset: see `stored_info.find`.
      options: ModelOptions of the network; None for those of
        model_options.json beside the checkpoint, or, where there is none, for
        what the variables tell.
      max_tile_size: see `any_size.AnySizePredictor`.
      tile_overlap: see there.
      use_moving_averages: see `checkpoints.restore`.

    Raises:
      InputError: the checkpoint is not there, or does not tell its network, or
        an argument does not fit it.
    """
    self.checkpoint = checkpoints.find(checkpoint)
    self.options = options or _options(checkpoint)
    self.info = stored_info.find(checkpoint, dataset)
    number = self.options.outputs_to_num_classes.get(common.OUTPUT_TYPE)
    if number != self.info.num_classes:
      raise InputError(
        f'{checkpoint}: the network has {number} classes, the data set '
        f'{self.info.name!r} {self.info.num_classes}. Give the data set that '
        'the network was trained on.'
      )
    self._setting = _Setting(
      output_stride or self.options.output_stride,
      tuple(eval_scales),
      bool(add_flipped_images),
    )
    self._crf = crf
    self._arguments = {
      'crop_size': crop_size,
      'image_pyramid': image_pyramid,
      'max_tile_size': max_tile_size,
      'tile_overlap': tile_overlap,
      'use_moving_averages': use_moving_averages,
    }
    self._stores = {}
    self._predictors = {}
    self._predictor(self._setting)
    self.step = checkpoints.global_step(self.checkpoint)

  def __call__(self, image, **changes):
    """Labels an image.

    Args:
      image: uint8 [height, width, 3], red, green and blue.
      **changes: output_stride, eval_scales, add_flipped_images or crf that
        differ from those of the constructor this time.

    Returns:
      Integer NumPy array [height, width].

    Raises:
      InputError: the image is none, or too large for a CRF; or the network
        cannot be run so.
    """
    image = _checked(image)
    return self._changed(**changes)(image[None])[0]

  def probabilities(self, image, **changes):
    """Probabilities of the classes, after the CRF if there is one.

    Args:
      image: as in `__call__`.
      **changes: as in `__call__`.

    Returns:
      float32 NumPy array [height, width, classes].

    Raises:
      InputError: as in `__call__`.
    """
    return self._changed(**changes).probabilities(_checked(image))

  def _changed(self, **changes):
    """The predictor of a call."""
    crf = changes.pop('crf', self._crf)
    if 'eval_scales' in changes:
      changes['eval_scales'] = tuple(changes['eval_scales'])
    setting = dataclasses.replace(self._setting, **changes)
    return self._predictor(setting).with_crf(crf)

  def _predictor(self, setting):
    """The AnySizePredictor of a setting, built the first time."""
    if setting in self._predictors:
      return self._predictors[setting]
    stride = setting.output_stride
    predictor = any_size.AnySizePredictor(
      self.options.replace(
        output_stride=stride,
        atrous_rates=stored_options.rates_at(self.options, stride),
      ),
      eval_scales=setting.eval_scales,
      add_flipped_images=setting.add_flipped_images,
      # The layers of another output stride have other rates.
      store=self._stores.setdefault(stride, scopes.LayerStore()),
      **self._arguments,
    )
    if not any(key.output_stride == stride for key in self._predictors):
      predictor.restore(self.checkpoint)
    self._predictors[setting] = predictor
    return predictor


def _options(checkpoint):
  """The ModelOptions of a checkpoint's network."""
  options = stored_info.options(checkpoint)
  if options is None:
    raise InputError(
      f'{checkpoint}: there is no {common.MODEL_OPTIONS_FILE} beside it, and '
      'its variables are of no whole network. `python -m deeplab.model_zoo '
      f'inspect {checkpoint}` says what they are; give a checkpoint that was '
      'trained for segmentation.'
    )
  return options


def _checked(image):
  """The image, if it is one."""
  image = np.asarray(image)
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
    raise InputError(
      'image must be uint8 [height, width, 3], red, green and blue. Received: '
      f'{image.dtype} {list(image.shape)}.'
    )
  if not image.size:
    raise InputError(f'image is empty. Received: {list(image.shape)}.')
  return image

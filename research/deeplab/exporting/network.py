"""What is exported: a network, and what comes before and after it.

Every format that takes images of any size is made from `serving_function`, so
that all of them do what evaluation does: the resizing and padding of the input
pipeline, the shared inference function, cropping and resizing back.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from deeplab import (
  checkpoints,
  common,
  constant_graph,
  inference,
  input_preprocess,
  model,
  slim,
)
from deeplab.core.side_by_side import one_by_one
from deeplab.exporting import images

INPUT_NAME = 'ImageTensor'
LABELS = 'SemanticPredictions'
PROBABILITIES = 'SemanticProbabilities'
LOGITS = 'SemanticLogits'
# Prefix of what the network gives, at the size of the crop.
RAW = 'Raw'

_KEYS = {
  LABELS: common.OUTPUT_TYPE,
  PROBABILITIES: common.OUTPUT_TYPE + model.PROB_SUFFIX,
  LOGITS: common.OUTPUT_TYPE + model.LOGITS_SUFFIX,
}


@dataclasses.dataclass(frozen=True)
class Network:
  """A checkpoint, and how it is to be run.

  Attributes:
    checkpoint: directory, prefix or file of a checkpoint.
    options: ModelOptions with a crop_size.
    inference_scales: scales whose probabilities are averaged.
    add_flipped_images: also use the mirror image at each scale.
    image_pyramid: scales merged inside the network.
    use_moving_averages: see `checkpoints.restore`.
    calibration: images.Source of the images on which the ranges of eight-bit
      values are measured, or None.
    resizing: min_resize_value, max_resize_value, resize_factor and
      keep_aspect_ratio of input_preprocess.preprocess_image_and_label.
    inference_dtype: one of inference.DTYPES, that of a SavedModel.
  """

  checkpoint: str
  options: common.ModelOptions
  inference_scales: Sequence[float] = (1.0,)
  add_flipped_images: bool = False
  image_pyramid: Sequence[float] | None = None
  use_moving_averages: bool | None = None
  calibration: images.Source | None = None
  resizing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  inference_dtype: str = 'float32'

  @property
  def averages_probabilities(self):
    """Whether there are several scales or mirror images, hence no logits."""
    return inference.averages(self.inference_scales, self.add_flipped_images)

  @property
  def resizes(self):
    """Whether images are resized before they are padded."""
    return bool(
      self.resizing.get('min_resize_value')
      or self.resizing.get('max_resize_value')
    )

  @functools.cached_property
  def predictor(self):
    """The keras.Model that evaluation uses, restored, with logits if any."""
    return self._restored(
      with_logits=not self.averages_probabilities, store=self._store
    )

  @functools.cached_property
  def _store(self):
    """The layers of `predictor`."""
    return slim.LayerStore()

  @functools.cached_property
  def converter_predictor(self):
    """The same for TFLite's converter."""
    if not self.options.is_quantized:
      return self.predictor
    return self._restored(for_converter=True)

  def _restored(self, **arguments):
    predictor = inference.build_predictor(
      self.options,
      self.inference_scales,
      self.add_flipped_images,
      self.image_pyramid,
      **arguments,
    )
    report = checkpoints.restore(
      predictor, self.checkpoint, use_moving_averages=self.use_moving_averages
    )
    logging.info('%s', report)
    return predictor

  def preprocess(self, image):
    """Resizes and pads as evaluation does.

    Args:
      image: uint8 [height, width, 3], or a batch of such.

    Returns:
      The size after resizing, int32 [2]; the float32 image of the size of the
      crop, or the batch.

    Raises:
      tf.errors.InvalidArgumentError: the image is larger than the crop; see
        `preprocess_utils.input_error_text`.
    """
    height, width = self.options.crop_size
    resized, padded, _ = input_preprocess.preprocess_image_and_label(
      image,
      label=None,
      crop_height=height,
      crop_width=width,
      is_training=False,
      model_variant=self.options.model_variant,
      image_name=INPUT_NAME,
      **self.resizing,
    )
    return tf.shape(resized)[-3:-1], padded

  def outputs(self, *names):
    """A keras.Model, part of the predictor, that computes these outputs alone.

    Args:
      *names: of LABELS, PROBABILITIES and LOGITS.

    Returns:
      keras.Model from what `preprocess` returns to {name: values}.
    """
    predictor = self.predictor
    return keras.Model(
      predictor.input, {name: predictor.output[_KEYS[name]] for name in names}
    )

  def fast_outputs(self, *names):
    """The same function as `outputs`, for speed, in the `inference_dtype`.

    The weights are constants in it. It is traced once, whatever the names, so
    that what calls it with several of them holds the weights once.
    """
    if self.options.is_quantized:
      return self.outputs(*names)
    scores, finish = self._fast_parts

    def run(images):
      predictions = finish(scores(images))
      return {name: predictions[_KEYS[name]] for name in names}

    return run

  @functools.cached_property
  def _fast_parts(self):
    """Compiled scores, and what `inference.Network.finish` is."""
    # Its weights have to be there.
    _ = self.predictor
    network = inference.fold(
      self.options,
      self._store,
      self.inference_scales,
      self.add_flipped_images,
      self.image_pyramid,
      self.inference_dtype,
    )
    images = tf.TensorSpec([None, *self.options.crop_size, 3], name='images')
    arguments = {}
    if self.averages_probabilities:
      # Its parts are compiled, and called one by one.
      scores = network.scores
    else:
      compiled = constant_graph.compile_function(network.scores, images)
      scores = functools.partial(one_by_one, compiled)
      arguments['with_logits'] = True
    # One function for all signatures: `tf.saved_model.load` makes a copy of the
    # weights for each function that calls theirs, by whichever others.
    scores = tf.function(scores, input_signature=[images], autograph=False)
    return (
      scores.get_concrete_function(),
      functools.partial(network.finish, **arguments),
    )


def save(folder, signatures, predictor=None):
  """Writes functions as a SavedModel.

  Args:
    folder: for the files.
    signatures: a tf.function or {name: tf.function}.
    predictor: keras.Model that they call, or parts of it; None if what they
      call has no variables.
  """
  module = tf.Module()
  if predictor is not None:
    module.variables_of_the_network = [v.value for v in predictor.variables]
  verbosity = logging.get_verbosity()
  # At INFO the name of every variable is logged, for every function.
  logging.set_verbosity(logging.WARNING)
  try:
    tf.saved_model.save(module, folder, signatures=signatures)
  finally:
    logging.set_verbosity(verbosity)


def crop_to_image(name, values, inside):
  """Crops padding off what the network gave for images that keep their size.

  Args:
    name: of the output.
    values: [batch, crop height, crop width, ...].
    inside: int32 [2], size of the image.

  Returns:
    [batch, height, width, ...], an operation of that name.
  """
  return tf.identity(values[:, : inside[0], : inside[1]], name)


def to_image(name, values, inside, size):
  """Crops padding off what the network gave, and undoes the resizing.

  Args:
    name: of the output.
    values: [batch, crop height, crop width] labels or [..., channels] floats.
    inside: int32 [2], size of the image in the crop.
    size: int32 [2], size of the image as it came.

  Returns:
    int32 or float32 [batch, height, width, ...], an operation of that name.
  """
  # Official graphs have float32 labels under the raw name.
  values = tf.identity(tf.cast(values, tf.float32), RAW + name)
  values = values[:, : inside[0], : inside[1]]
  if name == LABELS:
    labels = tf.raw_ops.ResizeNearestNeighbor(
      images=values[..., tf.newaxis], size=size, align_corners=True
    )
    return tf.cast(labels[..., 0], tf.int32, name)
  values = tf.raw_ops.ResizeBilinear(
    images=values, size=size, align_corners=True
  )
  return tf.identity(values, name)


def serving_function(network, outputs, batch=None, for_speed=False):
  """The function that is exported.

  Args:
    network: Network.
    outputs: names, of LABELS, PROBABILITIES and LOGITS.
    batch: number of images in a batch, None for any.
    for_speed: build it of `Network.fast_outputs`, rather than with the
      operations of the official graph.

  Returns:
    A tf.function from 'ImageTensor', uint8 [batch, height, width, 3], to
    {'SemanticPredictions': int32 [batch, height, width],
     'SemanticProbabilities', 'SemanticLogits': float32 [batch, height, width,
     classes]}, those of them that are in `outputs`.
  """
  run = (network.fast_outputs if for_speed else network.outputs)(*outputs)
  crop_size = network.options.crop_size

  def serve(images):
    inside, padded = network.preprocess(images)
    # Where `preprocess` cannot raise (ONNX has no such operation), this fails
    # for an image that is larger than the crop.
    padded = tf.reshape(padded, [tf.shape(images)[0], *crop_size, 3])
    values = run(padded)
    if for_speed and not network.resizes:
      return {
        name: crop_to_image(name, values[name], inside) for name in values
      }
    size = tf.shape(images)[1:3]
    return {name: to_image(name, values[name], inside, size) for name in values}

  return tf.function(
    serve,
    input_signature=[
      tf.TensorSpec([batch, None, None, 3], tf.uint8, name=INPUT_NAME)
    ],
  )

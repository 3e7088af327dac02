"""One inference function for evaluation, visualisation and export."""

import functools
import typing
from collections.abc import Callable

import keras
import tensorflow as tf

from deeplab import common, constant_graph, model, slim
from deeplab.common import InputError
from deeplab.core import averaging, label_upsampling

# Types that a network can be run in.
DTYPES = ('float32', 'bfloat16')


class Network(typing.NamedTuple):
  """A network in two parts, the expensive one and what depends on the use.

  Attributes:
    scores: functional keras.Model from float32 images [batch, height, width,
      3] in 0..255 to {output: float32 [batch, h, w, classes]}: logits. Where
      probabilities are averaged, a list of the logits of each pass if the
      network is folded, else the mean of the probabilities.
    finish: function of such scores that returns what `build_predictor` gives;
      of Keras tensors alone where the options have no crop size.
  """

  scores: keras.Model
  finish: Callable

  def predictor(self, with_logits=False):
    """Both parts as one keras.Model; see `build_predictor`."""
    scores = self.scores.output
    arguments = {'with_logits': True} if with_logits else {}
    return keras.Model(
      self.scores.input,
      self.finish(scores, **arguments),
      name='deeplab_predictor',
    )


def build_predictor(
  options,
  eval_scales=(1.0,),
  add_flipped_images=False,
  image_pyramid=None,
  for_converter=False,
  with_logits=False,
  store=None,
):
  """Builds the network up to its predictions.

  Args:
    options: ModelOptions.
    eval_scales: scales of the images whose probabilities are averaged.
    add_flipped_images: also use the mirror image at each scale.
    image_pyramid: scales whose logits are merged inside the network; only
      with a single scale of 1 and no mirror images.
    for_converter: build for TFLite's converter; see slim.quantized.
    with_logits: also give output + '_logits', float32 [batch, height, width,
      classes]; only with a single scale of 1 and no mirror images.
    store: slim.LayerStore of another predictor of the same weights, to share
      them; None for weights of its own.

  Returns:
    A functional keras.Model from float32 images [batch, height, width, 3] in
    0..255 to {output: int32 labels [batch, height, width],
    output + '_prob': float32 [batch, height, width, classes]}.

  Raises:
    InputError: the options cannot be built, a scale is not positive, or
      several scales or mirror images are combined with an image pyramid or
      with `prediction_with_upsampled_logits` false.
  """
  _check(options, eval_scales, add_flipped_images, image_pyramid, with_logits)
  with (
    slim.layer_store(store=store),
    slim.quantized(options.quantize_delay_step, for_converter=for_converter),
  ):
    network = _build(options, eval_scales, add_flipped_images, image_pyramid)
    return network.predictor(with_logits)


def fold(
  options,
  store,
  eval_scales=(1.0,),
  add_flipped_images=False,
  image_pyramid=None,
  inference_dtype='float32',
):
  """Builds a network for speed, with the values of the weights in it.

  Args:
    options: ModelOptions, not quantised.
    store: slim.LayerStore that `build_predictor` was called with, for the same
      network; its values are copied.
    eval_scales: as in `build_predictor`.
    add_flipped_images: likewise.
    image_pyramid: likewise.
    inference_dtype: one of DTYPES, that of everything up to the last features;
      logits and probabilities are float32.

  Returns:
    A Network.

  Raises:
    InputError: see `build_predictor`; or there is no such type.
  """
  _check(options, eval_scales, add_flipped_images, image_pyramid)
  check_dtype(inference_dtype, options)
  with (
    slim.layer_store(store=store),
    slim.folded(),
    slim.compute_dtype(
      None if inference_dtype == 'float32' else inference_dtype
    ),
  ):
    return _build(options, eval_scales, add_flipped_images, image_pyramid)


def check_dtype(inference_dtype, options):
  """Refuses a type that a network cannot be run in.

  Raises:
    InputError: it is not one of DTYPES, or the network is quantised.
  """
  if inference_dtype not in DTYPES:
    raise InputError(
      f'--inference_dtype must be one of {", ".join(DTYPES)}. Received: '
      f'{inference_dtype!r}.'
    )
  if inference_dtype != 'float32' and options.is_quantized:
    raise InputError(
      f'--inference_dtype={inference_dtype} cannot be combined with '
      'quantisation-aware training, whose rounding needs float32. Leave it '
      'out, or set --quantize_delay_step=-1. Received: '
      f'--quantize_delay_step={options.quantize_delay_step}.'
    )


def _build(options, eval_scales, add_flipped_images, image_pyramid):
  """The Network, in the open store."""
  images = model.make_input(options)
  size = model.image_size(images, options)
  if averages(eval_scales, add_flipped_images):
    passes = eval_scales, add_flipped_images
    if slim.is_folded():
      get_logits = _compiled_logits()
      scores = averaging.passes(
        images,
        lambda images, scale: model.merged_logits(
          images, options, [scale], get_logits
        ),
        *passes,
      )
      finish = functools.partial(_predict_from_passes, size=size)
    else:
      scores = model.average_probabilities(images, options, *passes)
      finish = model.predict_from_probabilities
  else:
    scores = model.merged_logits(images, options, image_pyramid)
    finish = functools.partial(
      model.predict_from_logits,
      model_options=options,
      size=size,
      for_speed=slim.is_folded(),
    )
  return Network(keras.Model(images, scores, name='deeplab_scores'), finish)


def _compiled_logits():
  """`get_logits` of `model.multi_scale_logits`: one network for all sizes.

  Several scales then take the memory of the largest one. Where the network
  depends on the size there is one for each.
  """
  functions = {}

  def get_logits(images, options):
    if not model.depends_on_size(options):
      options = options.replace(crop_size=None)
    size = options.crop_size and tuple(options.crop_size)
    if size not in functions:
      functions[size] = _compile(options)
    return slim.function(functions[size], images)

  return get_logits


def _compile(options):
  """The folded network as a function from images to {output: logits}."""
  images = model.make_input(options)
  network = keras.Model(images, model.merged_logits(images, options))
  spec = tf.TensorSpec(images.shape, name='images')
  return constant_graph.compile_function(network, spec, is_shared=True)


def _predict_from_passes(logits, size):
  """What `build_predictor` gives, of {output: logits of several passes}.

  Labels are not the argmax of these very probabilities: each is rounded in its
  own way, so that they may differ at ties.
  """
  predictions = {}
  for output, passes in logits.items():
    labels = label_upsampling.upsampled_labels(passes, size)
    probabilities = averaging.mean_probabilities(passes, size)
    predictions[output] = labels
    predictions[output + model.PROB_SUFFIX] = probabilities
  return predictions


def averages(eval_scales, add_flipped_images):
  """Whether the probabilities of several passes are averaged."""
  return tuple(eval_scales) != (1.0,) or add_flipped_images


def _check(
  options, eval_scales, add_flipped_images, image_pyramid, with_logits=False
):
  """Refuses what cannot be combined; see `build_predictor`."""
  common.check_ranges(
    {'image_pyramid': image_pyramid}, {'image_pyramid': common.POSITIVE}
  )
  if not eval_scales or any(s not in common.POSITIVE for s in eval_scales):
    raise InputError(f'scales must be positive. Received: {list(eval_scales)}.')
  if not averages(eval_scales, add_flipped_images):
    return
  if image_pyramid:
    raise InputError(
      '--image_pyramid cannot be combined with several scales or '
      '--add_flipped_images: each scale is a pyramid of its own. Received: '
      f'--image_pyramid={list(image_pyramid)}, scales {list(eval_scales)}, '
      f'--add_flipped_images={add_flipped_images}.'
    )
  if with_logits:
    raise InputError(
      'several scales and mirror images have no logits: it is probabilities '
      'that are averaged.'
    )
  if not options.prediction_with_upsampled_logits:
    raise InputError(
      '--prediction_with_upsampled_logits=false cannot be combined with '
      'several scales or --add_flipped_images, whose probabilities are '
      'averaged at the size of the image.'
    )

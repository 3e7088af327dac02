"""One inference function for evaluation, visualisation and export."""

import keras

from deeplab import common, model, slim
from deeplab.common import InputError


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
  common.check_ranges(
    {'image_pyramid': image_pyramid}, {'image_pyramid': common.POSITIVE}
  )
  several = tuple(eval_scales) != (1.0,) or add_flipped_images
  if not eval_scales or any(s not in common.POSITIVE for s in eval_scales):
    raise InputError(f'scales must be positive. Received: {list(eval_scales)}.')
  if image_pyramid and several:
    raise InputError(
      '--image_pyramid cannot be combined with several scales or '
      '--add_flipped_images: each scale is a pyramid of its own. Received: '
      f'--image_pyramid={list(image_pyramid)}, scales {list(eval_scales)}, '
      f'--add_flipped_images={add_flipped_images}.'
    )
  if several and with_logits:
    raise InputError(
      'several scales and mirror images have no logits: it is probabilities '
      'that are averaged.'
    )
  if several and not options.prediction_with_upsampled_logits:
    raise InputError(
      '--prediction_with_upsampled_logits=false cannot be combined with '
      'several scales or --add_flipped_images, whose probabilities are '
      'averaged at the size of the image.'
    )
  with (
    slim.layer_store(store=store),
    slim.quantized(options.quantize_delay_step, for_converter=for_converter),
  ):
    images = model.make_input(options)
    if several:
      predictions = model.predict_labels_multi_scale(
        images, options, eval_scales, add_flipped_images
      )
    else:
      predictions = model.predict_labels(
        images, options, image_pyramid, with_logits
      )
    return keras.Model(images, predictions, name='deeplab_predictor')

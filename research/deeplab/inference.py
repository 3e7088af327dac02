"""One inference function for evaluation, visualisation and export."""

import keras

from deeplab import model, slim


def build_predictor(
  options, eval_scales=(1.0,), add_flipped_images=False, image_pyramid=None
):
  """Builds the network up to its predictions.

  Args:
    options: ModelOptions.
    eval_scales: scales of the images whose probabilities are averaged.
    add_flipped_images: also use the mirror image at each scale.
    image_pyramid: scales whose logits are merged inside the network; only
      with a single scale of 1 and no mirror images.

  Returns:
    A functional keras.Model from float32 images [batch, height, width, 3] in
    0..255 to {output: int32 labels [batch, height, width],
    output + '_prob': float32 [batch, height, width, classes]}.

  Raises:
    InputError: the options cannot be built.
  """
  with slim.layer_store():
    images = model.make_input(options)
    if tuple(eval_scales) == (1.0,) and not add_flipped_images:
      predictions = model.predict_labels(images, options, image_pyramid)
    else:
      predictions = model.predict_labels_multi_scale(
        images, options, eval_scales, add_flipped_images
      )
    return keras.Model(images, predictions, name='deeplab_predictor')

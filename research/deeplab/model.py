"""The DeepLab model: backbone, ASPP, decoder, logits and predictions.

All of the line in one file, as in the official code:

* atrous convolution in the backbone (v1, arXiv:1412.7062; `core/vgg.py`);
* atrous spatial pyramid pooling, branches summed (v2, arXiv:1606.00915);
* ASPP with batch norm and the image-level feature (v3, arXiv:1706.05587);
* the decoder and separable convolutions (v3+, arXiv:1802.02611).

The functions take and return Keras tensors; `build_model` makes a
`keras.Model` of them.
"""

import functools

import keras

from deeplab import cell_config, slim
from deeplab.common import InputError
from deeplab.core import (
  aspp,
  averaging,
  dense_prediction_cell,
  feature_extractor,
  label_upsampling,
  utils,
)
from deeplab.core.aspp import (
  ASPP_SCOPE,
  CONCAT_PROJECTION_SCOPE,
  IMAGE_POOLING_SCOPE,
)
from deeplab.core.branch_logits import LOGITS_SCOPE_NAME, get_branch_logits
from deeplab.core.decoder import DECODER_SCOPE, refine_by_decoder
from deeplab.core.dense_prediction_cell import META_ARCHITECTURE_SCOPE

MERGED_LOGITS_SCOPE = 'merged_logits'

PROB_SUFFIX = '_prob'
LOGITS_SUFFIX = '_logits'

# Types that a network can be trained in, beside float32.
MIXED_PRECISIONS = ('bfloat16', 'float16')


def get_extra_layer_scopes(last_layers_contain_logits_only=False):
  """Name parts of the layers that the backbone does not have.

  Args:
    last_layers_contain_logits_only: leave ASPP and decoder out.

  Returns:
    A list of strings; a variable belongs to the last layers if its name
    contains one of them.
  """
  if last_layers_contain_logits_only:
    return [LOGITS_SCOPE_NAME]
  return [
    LOGITS_SCOPE_NAME,
    IMAGE_POOLING_SCOPE,
    ASPP_SCOPE,
    CONCAT_PROJECTION_SCOPE,
    DECODER_SCOPE,
    META_ARCHITECTURE_SCOPE,
  ]


def build_model(
  options,
  image_pyramid=None,
  is_training=False,
  fine_tune_batch_norm=False,
  weight_decay=0.0001,
  seed=None,
  nas_training_hyper_parameters=None,
  mixed_precision=None,
):
  """Builds the network up to its logits.

  Args:
    options: ModelOptions.
    image_pyramid: scales of the input, None for 1 alone.
    is_training: build for training: dropout is active, and batch norm if
      `fine_tune_batch_norm` is true. The mode is fixed by building, as in
      slim; the `training` argument of Keras changes nothing.
    fine_tune_batch_norm: use and gather batch statistics; where false, moving
      statistics are used while gamma and beta still train.
    weight_decay: of the convolution kernels; the terms are in `model.losses`.
    seed: integer that initial values are a function of, None for a new one.
    nas_training_hyper_parameters: see feature_extractor.extract_features.
    mixed_precision: type that features are computed in, 'bfloat16' or
      'float16'; None for float32. Variables, the statistics of batch norm and
      logits are float32 all the same.

  Returns:
    A functional keras.Model from float32 images [batch, height, width, 3] in
    0..255 to {output: {'merged_logits': [batch, h, w, classes], ...}}, with a
    'logits_<scale>' for each scale of a pyramid.

  Raises:
    InputError: the options cannot be built.
  """
  _check_mixed_precision(mixed_precision, options)
  with (
    slim.layer_store(seed),
    slim.quantized(options.quantize_delay_step, is_training),
    slim.compute_dtype(mixed_precision),
  ):
    images = make_input(options)
    logits = multi_scale_logits(
      images,
      options,
      image_pyramid,
      weight_decay=weight_decay,
      is_training=is_training,
      fine_tune_batch_norm=fine_tune_batch_norm,
      nas_training_hyper_parameters=nas_training_hyper_parameters,
    )
    return keras.Model(images, logits, name='deeplab')


def _check_mixed_precision(mixed_precision, options):
  if mixed_precision is None:
    return
  if mixed_precision not in MIXED_PRECISIONS:
    raise InputError(
      f'mixed_precision must be one of {", ".join(MIXED_PRECISIONS)}, or left '
      f'out for float32. Received: mixed_precision={mixed_precision!r}.'
    )
  if options.quantize_delay_step >= 0:
    raise InputError(
      'mixed_precision cannot be combined with training for eight bits, whose '
      'rounding needs float32: leave it out, or set quantize_delay_step=-1. '
      f'Received: mixed_precision={mixed_precision!r}, '
      f'quantize_delay_step={options.quantize_delay_step}.'
    )


def make_input(options):
  """The Keras input for images of `options.crop_size` (None: any size)."""
  height, width = options.crop_size or (None, None)
  return keras.Input((height, width, 3), name='images')


def depends_on_size(options):
  """Whether the network is another one for each size of the image.

  Args:
    options: ModelOptions.
  """
  cell = options.dense_prediction_cell_config
  return options.image_pooling_crop_size is not None or bool(
    cell and cell_config.pools(cell)
  )


# Logits.


def multi_scale_logits(
  images,
  model_options,
  image_pyramid=None,
  weight_decay=0.0001,
  is_training=False,
  fine_tune_batch_norm=False,
  nas_training_hyper_parameters=None,
  get_logits=None,
):
  """Logits for each scale of the input, and merged.

  Args:
    images: float32 [batch, height, width, 3].
    model_options: ModelOptions.
    image_pyramid: scales, None for 1 alone.
    weight_decay: of the convolution kernels.
    is_training: whether the network is built for training.
    fine_tune_batch_norm: whether batch norm then uses batch statistics.
    nas_training_hyper_parameters: see feature_extractor.extract_features.
    get_logits: function of images and the ModelOptions that go with them that
      returns {output: logits}; None to build the network for each scale.

  Returns:
    {output: {name: [batch, h, w, classes]}}, where name is 'merged_logits'
    and, if there are several scales, 'logits_0.50' and so on. Sizes are those
    of the largest scale (at least 1) at the stride of the logits.
  """
  image_pyramid = image_pyramid or [1.0]
  crop_size = model_options.crop_size or utils.spatial_size(images)
  logits_stride = min(
    model_options.decoder_output_stride or [model_options.output_stride]
  )
  logits_size = utils.scale_size(
    crop_size, max(1.0, *image_pyramid) / logits_stride
  )
  scales_to_logits = {
    output: {} for output in model_options.outputs_to_num_classes
  }
  get_logits = get_logits or functools.partial(
    _get_logits,
    weight_decay=weight_decay,
    is_training=is_training,
    fine_tune_batch_norm=fine_tune_batch_norm,
    nas_training_hyper_parameters=nas_training_hyper_parameters,
  )
  # Default scope names start anew, so that calls share their weights.
  with slim.variable_scope(''):
    for scale in image_pyramid:
      logits = get_logits(
        *_scale_input(images, model_options, crop_size, scale)
      )
      name = MERGED_LOGITS_SCOPE
      if len(image_pyramid) > 1:
        name = f'logits_{scale:.2f}'
      for output, value in logits.items():
        value = utils.resize_bilinear(value, logits_size)
        scales_to_logits[output][name] = value
  if len(image_pyramid) > 1:
    for values in scales_to_logits.values():
      values[MERGED_LOGITS_SCOPE] = _merge(
        list(values.values()), model_options.merge_method
      )
  return scales_to_logits


def _scale_input(images, options, crop_size, scale):
  """The images at a scale, and the options that go with their size."""
  if scale == 1.0:
    return images, options
  size = utils.scale_size(crop_size, scale)
  images = utils.resize_bilinear(images, size)
  if options.crop_size:
    options = options.replace(crop_size=size)
  if options.image_pooling_crop_size:
    options = options.replace(
      image_pooling_crop_size=utils.scale_size(
        options.image_pooling_crop_size, scale
      )
    )
  return images, options


def _merge(logits, merge_method):
  merge = keras.ops.max if merge_method == 'max' else keras.ops.mean
  return merge(keras.ops.stack(logits, axis=-1), axis=-1)


def _get_logits(
  images,
  model_options,
  weight_decay,
  is_training,
  fine_tune_batch_norm,
  nas_training_hyper_parameters,
):
  """{output: logits} of one scale, at the resolution of the last features."""
  build = {
    'weight_decay': weight_decay,
    'is_training': is_training,
    'fine_tune_batch_norm': fine_tune_batch_norm,
  }
  features, end_points = extract_features(
    images,
    model_options,
    nas_training_hyper_parameters=nas_training_hyper_parameters,
    **build,
  )
  if model_options.decoder_output_stride:
    features = refine_by_decoder(
      features,
      end_points,
      crop_size=model_options.crop_size or utils.spatial_size(images),
      model_options=model_options,
      **build,
    )
  rates = model_options.atrous_rates
  backbone = feature_extractor.get_backbone(model_options.model_variant)
  if backbone.branches and not model_options.aspp_with_batch_norm:
    features = backbone.branches(
      features, end_points, model_options, weight_decay, is_training
    )
    rates = None
  if model_options.decoder_output_is_logits:
    for output, classes in model_options.outputs_to_num_classes.items():
      if features.shape[-1] != classes:
        raise InputError(
          'decoder_output_is_logits without decoder_output_stride needs '
          'features with a channel for each class; set aspp_convs_filters. '
          f'Received: {features.shape[-1]} channels, {classes} classes of '
          f'output {output!r}.'
        )
    # With mixed precision they may come from layers that are no logits.
    features = slim.as_float32(features)
    return {output: features for output in model_options.outputs_to_num_classes}
  return {
    output: get_branch_logits(
      features,
      num_classes,
      rates,
      aspp_with_batch_norm=model_options.aspp_with_batch_norm,
      kernel_size=model_options.logits_kernel_size,
      weight_decay=weight_decay,
      scope_suffix=output,
    )
    for output, num_classes in sorted(
      model_options.outputs_to_num_classes.items()
    )
  }


# Features: backbone and ASPP.


def extract_features(
  images,
  model_options,
  weight_decay=0.0001,
  is_training=False,
  fine_tune_batch_norm=False,
  nas_training_hyper_parameters=None,
):
  """Backbone, and ASPP or dense prediction cell.

  With `aspp_with_batch_norm` false the backbone alone.

  Args:
    images: float32 [batch, height, width, 3].
    model_options: ModelOptions.
    weight_decay: of the convolution kernels.
    is_training: whether the network is built for training.
    fine_tune_batch_norm: whether batch norm then uses batch statistics.
    nas_training_hyper_parameters: see feature_extractor.extract_features.

  Returns:
    Features [batch, height / output_stride, width / output_stride, channels]
    and the backbone's dictionary of end points.
  """
  features, end_points = feature_extractor.extract_features(
    images,
    model_options,
    weight_decay=weight_decay,
    is_training=is_training,
    fine_tune_batch_norm=fine_tune_batch_norm,
    nas_training_hyper_parameters=nas_training_hyper_parameters,
  )
  if not model_options.aspp_with_batch_norm:
    return features, end_points
  build_head = aspp.aspp
  if model_options.dense_prediction_cell_config is not None:
    build_head = dense_prediction_cell.dense_prediction_cell
  net = build_head(
    features, model_options, weight_decay, is_training, fine_tune_batch_norm
  )
  return net, end_points


# Predictions.


def predict_labels(
  images, model_options, image_pyramid=None, with_logits=False
):
  """Labels and probabilities at the size of the images.

  Args:
    images: float32 [batch, height, width, 3].
    model_options: ModelOptions.
    image_pyramid: scales whose logits are merged, None for 1 alone.
    with_logits: also give output + '_logits', resized to the images.

  Returns:
    {output: int32 [batch, height, width],
     output + '_prob': float32 [batch, height, width, classes]}.
  """
  return predict_from_logits(
    merged_logits(images, model_options, image_pyramid),
    model_options,
    image_size(images, model_options),
    with_logits,
  )


def merged_logits(images, model_options, image_pyramid=None, get_logits=None):
  """{output: [batch, h, w, classes]} of `multi_scale_logits`, merged alone."""
  logits = multi_scale_logits(
    images, model_options, image_pyramid, get_logits=get_logits
  )
  return {
    output: values[MERGED_LOGITS_SCOPE] for output, values in logits.items()
  }


def image_size(images, model_options):
  """[height, width] of the images, or a Keras tensor where not known yet."""
  return model_options.crop_size or utils.spatial_size(images)


def predict_from_logits(
  logits, model_options, size, with_logits=False, for_speed=False
):
  """What `predict_labels` makes of the merged logits.

  Args:
    logits: {output: float32 [batch, h, w, classes]}.
    model_options: ModelOptions.
    size: [height, width] of the images.
    with_logits: see `predict_labels`.
    for_speed: find labels by `label_upsampling.upsampled_labels`.

  Returns:
    See `predict_labels`.
  """
  predictions = {}
  for output, values in logits.items():
    if model_options.prediction_with_upsampled_logits:
      if for_speed:
        labels = label_upsampling.upsampled_labels([values], size)
      values = utils.resize_bilinear(values, size)
      if not for_speed:
        labels = label_upsampling.argmax(values)
      probabilities = keras.ops.softmax(values)
    else:
      # Cheaper, and blocky: the labels are upsampled.
      labels = utils.resize_nearest(label_upsampling.argmax(values), size)
      probabilities = utils.resize_bilinear(keras.ops.softmax(values), size)
    predictions[output] = labels
    predictions[output + PROB_SUFFIX] = probabilities
    if with_logits:
      # The tensor itself where it has that size already.
      predictions[output + LOGITS_SUFFIX] = utils.resize_bilinear(values, size)
  return predictions


def predict_labels_multi_scale(
  images, model_options, eval_scales=(1.0,), add_flipped_images=False
):
  """Labels from the mean of the probabilities over scales and mirror images.

  Args:
    images: float32 [batch, height, width, 3].
    model_options: ModelOptions.
    eval_scales: scales of the images.
    add_flipped_images: also use the mirror image at each scale.

  Returns:
    {output: int32 [batch, height, width],
     output + '_prob': float32 [batch, height, width, classes]}.
  """
  return predict_from_probabilities(
    average_probabilities(
      images, model_options, eval_scales, add_flipped_images
    )
  )


def predict_from_probabilities(probabilities):
  """{output: labels, output + '_prob': probabilities} of {output: these}."""
  predictions = {}
  for output, values in probabilities.items():
    predictions[output] = label_upsampling.argmax(values)
    predictions[output + PROB_SUFFIX] = values
  return predictions


def average_probabilities(
  images, model_options, eval_scales=(1.0,), add_flipped_images=False
):
  """The mean of the probabilities over scales and mirror images.

  One pass follows the other, so that there is never more than one in memory.

  Args:
    images: float32 [batch, height, width, 3].
    model_options: ModelOptions.
    eval_scales: scales of the images.
    add_flipped_images: also use the mirror image at each scale.

  Returns:
    {output: float32 [batch, height, width, classes]}.
  """
  return averaging.average(
    images,
    lambda images, scale: merged_logits(images, model_options, [scale]),
    eval_scales,
    add_flipped_images,
    image_size(images, model_options),
  )

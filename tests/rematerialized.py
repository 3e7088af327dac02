"""Networks that are rematerialised in tests, small."""

import numpy as np
import tensorflow as tf

import recipe
from deeplab import checkpoints, common, model, rematerialization, slim

CASES = {
  'mobilenet_v2': {'depth_multiplier': 0.35, 'decoder_output_stride': [4]},
  'image_pyramid': {'depth_multiplier': 0.35, 'image_pyramid': [0.5, 1.0]},
  'resnet_v1_50_beta': {
    'model_variant': 'resnet_v1_50_beta',
    'multi_grid': [1, 2, 4],
    'decoder_output_stride': [4],
  },
  'resnet_v1_18': {
    'model_variant': 'resnet_v1_18',
    'add_image_level_feature': False,
  },
  'vgg_16': {
    'model_variant': 'vgg_16',
    'output_stride': 8,
    'aspp_with_batch_norm': False,
    'atrous_rates': [6, 12],
    'vgg_fc_filters': 16,
  },
  # Its head is that of the published ones.
  'mobilenet_v3': {
    'model_variant': 'mobilenet_v3_small_seg',
    'output_stride': 32,
    'aspp_convs_filters': 8,
    'aspp_with_concat_projection': False,
    'aspp_with_squeeze_and_excitation': True,
    'decoder_use_sum_merge': True,
    'decoder_filters': 4,
    'decoder_output_is_logits': True,
    'image_se_uses_qsigmoid': True,
    'decoder_output_stride': [8],
  },
  'quantized': {'depth_multiplier': 0.35, 'quantize_delay_step': 0},
  'any_size': {'depth_multiplier': 0.35, 'crop_size': None},
  'xception': {'model_variant': 'xception_41', 'decoder_output_stride': [4]},
  'pnasnet': {'model_variant': 'nas_pnasnet'},
  'hnasnet': {
    'model_variant': 'nas_hnasnet',
    'output_stride': 8,
    'nas_architecture_options': {'nas_stem_output_num_conv_filters': 8},
  },
}


def build(case, fine_tune_batch_norm=True, **build):
  """A network with recipe weights, and {official name: variable}."""
  case = {'crop_size': [33, 33], **CASES[case], **build}
  drop_path = None
  if case.get('model_variant', '').startswith('nas_'):
    drop_path = {'drop_path_keep_prob': 0.7, 'total_training_steps': 10}
  pyramid = case.pop('image_pyramid', None)
  mixed_precision = case.pop('mixed_precision', None)
  network = model.build_model(
    common.ModelOptions({'semantic': 4}, **case),
    image_pyramid=pyramid,
    is_training=True,
    fine_tune_batch_norm=fine_tune_batch_norm,
    seed=1,
    nas_training_hyper_parameters=drop_path,
    mixed_precision=mixed_precision,
  )
  named = checkpoints.named_variables(network)
  recipe.assign({n: v for n, v in named.items() if '_quant/' not in n})
  return network, named


def make_images(images=4, size=33):
  rng = np.random.default_rng(0)
  shape = (images, size, size, 3)
  return rng.uniform(0, 255, shape).astype(np.float32)


def make_step(network, named, way, is_xla=False, **context):
  """A function of images: outputs of all scales, and gradients by name."""
  weights = {name: v.value for name, v in named.items() if v.trainable}

  def step(images):
    with tf.GradientTape() as tape:
      with slim.train_step_context(
        tf.constant(10, tf.int64), tf.constant([1, 2]), **context
      ):
        outputs = rematerialization.call(network, images, way, is_xla)
        outputs = outputs['semantic']
      loss = tf.add_n([tf.reduce_mean(x**2) for x in outputs.values()])
      loss += tf.add_n(network.losses)
    return outputs, tape.gradient(loss, weights)

  return step

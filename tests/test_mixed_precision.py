"""Networks in bfloat16 and float16 against the same ones in float32."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import recipe
from deeplab import checkpoints, common, model, slim
from deeplab.common import InputError
from deeplab.core import dense_prediction_cell

# Root mean square error of the logits, in standard deviations, and the cosine
# between gradients, where the worst found is 0.028 and 0.982, 0.004 and 0.9992.
# float16 has three more bits.
_BOUNDS = {'bfloat16': (0.06, 0.97), 'float16': (0.01, 0.998)}

_DECODER = {'atrous_rates': [1, 2], 'decoder_output_stride': [4]}
_MOBILENET = {'depth_multiplier': 0.35}
_CASES = {
  'decoder': {**_MOBILENET, **_DECODER},
  'image_pyramid': {**_MOBILENET, 'image_pyramid': [0.5, 1.0]},
  'dense_prediction_cell': {
    **_MOBILENET,
    'dense_prediction_cell_config': dense_prediction_cell.read_config(
      dense_prediction_cell.PUBLISHED_CELL
    ),
  },
  'decoder_of_logits': {
    'model_variant': 'mobilenet_v3_small_seg',
    'output_stride': 32,
    'image_pooling_crop_size': [33, 33],
    'image_pooling_stride': [4, 5],
    'aspp_convs_filters': 128,
    'aspp_with_concat_projection': False,
    'aspp_with_squeeze_and_excitation': True,
    'image_se_uses_qsigmoid': True,
    'decoder_output_stride': [8],
    'decoder_use_sum_merge': True,
    'decoder_filters': 4,
    'decoder_output_is_logits': True,
  },
  'aspp_of_logits': {
    **_MOBILENET,
    'aspp_convs_filters': 4,
    'decoder_output_is_logits': True,
  },
  'edgetpu': {'model_variant': 'mobilenet_edgetpu', **_MOBILENET},
  'vgg': {
    'model_variant': 'vgg_16',
    'output_stride': 8,
    'aspp_with_batch_norm': False,
    'atrous_rates': [12],
    'vgg_side_branches': True,
    'vgg_fc_filters': 32,
  },
  'resnet': {'model_variant': 'resnet_v1_18'},
  'weight_standardization': {
    'model_variant': 'resnet_v1_50_beta',
    'use_weight_standardization': True,
    **_DECODER,
  },
  'xception': {'model_variant': 'xception_41', **_DECODER},
  'pnasnet': {'model_variant': 'nas_pnasnet'},
  'hnasnet': {
    'model_variant': 'nas_hnasnet',
    'output_stride': 8,
    'nas_architecture_options': {'nas_stem_output_num_conv_filters': 8},
  },
}
_SLOW = {'weight_standardization', 'xception', 'pnasnet', 'hnasnet'}


def _options(crop_size=33, **options):
  return common.ModelOptions(
    {'semantic': 4}, crop_size=[crop_size] * 2, **options
  )


def _build(case, mixed_precision, fine_tune_batch_norm=False):
  """A network with recipe weights, and {official name: variable}."""
  case = dict(case)
  drop_path = None
  if case.get('model_variant', '').startswith('nas_'):
    drop_path = {'drop_path_keep_prob': 0.9, 'total_training_steps': 10}
  network = model.build_model(
    image_pyramid=case.pop('image_pyramid', None),
    options=_options(**case),
    is_training=True,
    fine_tune_batch_norm=fine_tune_batch_norm,
    nas_training_hyper_parameters=drop_path,
    mixed_precision=mixed_precision,
  )
  named = checkpoints.named_variables(network)
  recipe.assign(named)
  if case.get('use_weight_standardization'):
    # Its filters have variance 1, and what comes out that of their inputs
    # times their number.
    for name, variable in named.items():
      kernel = named.get(name.replace('BatchNorm/moving_variance', 'weights'))
      if name.endswith('moving_variance') and kernel is not None:
        variable.assign(variable * math.prod(kernel.shape[:-1]))
  return network, named


def _images(size=33):
  rng = np.random.default_rng(0)
  return rng.uniform(0, 255, (2, size, size, 3)).astype(np.float32)


def _run(network, named, images):
  """Outputs of all scales, and gradients by name."""
  weights = {name: v.value for name, v in named.items() if v.trainable}
  with tf.GradientTape() as tape:
    with slim.train_step_context(tf.constant(3, tf.int64), tf.constant([1, 2])):
      outputs = network(images)['semantic']
    loss = tf.add_n([tf.reduce_mean(x**2) for x in outputs.values()])
  return outputs, tape.gradient(loss, weights)


@pytest.mark.parametrize(
  'case',
  [
    pytest.param(case, marks=pytest.mark.slow if case in _SLOW else ())
    for case in _CASES
  ],
)
def test_close_to_float32(case):
  images = _images()
  outputs, gradients = _run(*_build(_CASES[case], None), images)
  expected = outputs['merged_logits'].numpy()
  flat = tf.concat([tf.reshape(g, [-1]) for g in gradients.values()], 0).numpy()
  for dtype, (bound, least_cosine) in _BOUNDS.items():
    network, named = _build(_CASES[case], dtype)
    features = {
      tensor.dtype
      for layer in network.layers
      for tensor in tf.nest.flatten(layer.output)
    }
    assert dtype in features
    assert {v.dtype for v in named.values()} == {'float32'}
    outputs, other = _run(network, named, images)
    assert {x.dtype for x in outputs.values()} == {tf.float32}
    difference = outputs['merged_logits'].numpy() - expected
    error = np.sqrt(np.mean(difference**2)) / expected.std()
    # Nothing is rounded where the error is nil.
    assert 1e-6 < error < bound, dtype
    for name, gradient in other.items():
      assert gradient.dtype == tf.float32
      assert np.isfinite(gradient).all(), name
    other = tf.concat([tf.reshape(g, [-1]) for g in other.values()], 0).numpy()
    cosine = flat @ other / np.linalg.norm(flat) / np.linalg.norm(other)
    assert cosine > least_cosine, dtype


@pytest.mark.parametrize('dtype', model.MIXED_PRECISIONS)
def test_statistics_and_what_is_dropped(dtype):
  """Moments are sums in float32, and the draw does not depend on the type."""
  case, images = _CASES['decoder'], _images()
  networks = [_build(case, precision, True) for precision in (None, dtype)]
  for network, named in networks:
    _run(network, named, images)
  plain, mixed = (named for _, named in networks)
  for part in ('mean', 'variance'):
    name = f'MobilenetV2/Conv/BatchNorm/moving_{part}'
    change = plain[name].numpy() - recipe.make_value(name, plain[name].shape)
    assert np.abs(change).max() > 1e-4
    np.testing.assert_allclose(
      mixed[name], plain[name], atol=0.01 * np.abs(change).max()
    )


def test_dropout_of_any_type_draws_the_same():
  inputs = np.ones((2, 5, 5, 8), np.float32)
  zeros = []
  for dtype in (None, *model.MIXED_PRECISIONS):
    with slim.layer_store(), slim.compute_dtype(dtype):
      tensor = keras.Input(inputs.shape[1:])
      network = keras.Model(tensor, slim.dropout(tensor, scope='dropout'))
    with slim.train_step_context(None, tf.constant([1, 2])):
      outputs = network(inputs)
    assert outputs.dtype == (dtype or 'float32')
    zeros.append(outputs.numpy() == 0)
  assert 0 < zeros[0].mean() < 1
  np.testing.assert_array_equal(zeros[1], zeros[0])
  np.testing.assert_array_equal(zeros[2], zeros[0])


def test_a_mean_over_a_large_window():
  """In bfloat16 a sum stays where it is 256 times its summands."""
  inputs = np.random.default_rng(0).uniform(0.5, 1.5, (1, 65, 65, 3))
  with slim.layer_store():
    tensor = keras.Input(inputs.shape[1:], dtype='bfloat16')
    pooled = slim.avg_pool2d(tensor, 65)
    network = keras.Model(tensor, pooled)
  assert pooled.dtype == 'bfloat16'
  outputs = tf.cast(network(tf.cast(inputs, tf.bfloat16)), tf.float32)
  np.testing.assert_allclose(
    outputs[0, 0, 0], inputs.mean((0, 1, 2)), rtol=2**-8
  )


@pytest.mark.slow
def test_a_step_compiles_with_xla():
  images = _images()
  expected, _ = _run(*_build(_CASES['decoder'], 'bfloat16'), images)
  network, named = _build(_CASES['decoder'], 'bfloat16')
  compiled = tf.function(
    lambda x: _run(network, named, x), jit_compile=True, autograph=False
  )
  outputs, gradients = compiled(images)
  expected = expected['merged_logits'].numpy()
  assert outputs['merged_logits'].dtype == tf.float32
  np.testing.assert_allclose(
    outputs['merged_logits'], expected, atol=0.2 * expected.std()
  )
  assert all(np.isfinite(g).all() for g in gradients.values())


@pytest.mark.parametrize('wrong', ['float8', 'float32', 16, ''])
def test_another_type_is_refused(wrong):
  with pytest.raises(InputError, match=r'bfloat16, float16.*mixed_precision='):
    model.build_model(_options(), is_training=True, mixed_precision=wrong)


def test_eight_bits_are_refused():
  with pytest.raises(InputError, match='quantize_delay_step=0'):
    model.build_model(
      _options(quantize_delay_step=0),
      is_training=True,
      mixed_precision='bfloat16',
    )

"""The model beyond the golden configurations."""

import dataclasses

import keras
import numpy as np
import pytest

import recipe
from deeplab import checkpoints, common, inference, model
from deeplab.common import InputError
from deeplab.core import utils


def _options(**changes):
  return common.ModelOptions(
    **{
      'outputs_to_num_classes': {'semantic': 5},
      'output_stride': 16,
      'atrous_rates': [1, 2],
      'depth_multiplier': 0.25,
      'aspp_convs_filters': 16,
      'decoder_filters': 16,
      'decoder_output_stride': [4],
      **changes,
    }
  )


def _images(height, width, batch=1):
  generator = np.random.default_rng(0)
  shape = (batch, height, width, 3)
  return generator.uniform(0, 255, shape).astype(np.float32)


def _run(build, options, images, **kwargs):
  network = build(options, **kwargs)
  recipe.assign(checkpoints.named_variables(network))
  return network(images)


@pytest.mark.parametrize('size', [(65, 97), (64, 96), (70, 75), (33, 34)])
@pytest.mark.parametrize('build', [{}, {'eval_scales': [0.5, 1.25]}])
def test_any_size_equals_the_fixed_size(size, build):
  images = _images(*size)
  results = [
    _run(inference.build_predictor, _options(crop_size=crop), images, **build)[
      'semantic_prob'
    ].numpy()
    for crop in (None, size)
  ]
  assert results[0].shape == (1, *size, 5)
  np.testing.assert_allclose(*results, atol=1e-6)


def test_a_batch_equals_its_images():
  images = _images(65, 65, batch=3)
  options = _options(crop_size=[65, 65])
  network = model.build_model(options)
  recipe.assign(checkpoints.named_variables(network))
  together = network(images)['semantic']['merged_logits'].numpy()
  for i in range(3):
    alone = network(images[i : i + 1])['semantic']['merged_logits'].numpy()
    np.testing.assert_allclose(together[i : i + 1], alone, atol=1e-4)


def test_mirror_images_count_at_scale_one():
  options = _options(crop_size=[65, 65])
  images = _images(65, 65)
  plain = _run(inference.build_predictor, options, images)
  both = _run(
    inference.build_predictor, options, images, add_flipped_images=True
  )
  mirrored = _run(inference.build_predictor, options, images[:, :, ::-1])
  expected = (
    plain['semantic_prob'].numpy()
    + mirrored['semantic_prob'].numpy()[:, :, ::-1]
  ) / 2
  np.testing.assert_allclose(both['semantic_prob'], expected, atol=1e-5)


def test_several_outputs():
  options = _options(
    crop_size=[65, 65], outputs_to_num_classes={'semantic': 5, 'parts': 3}
  )
  images = _images(65, 65)
  logits = _run(model.build_model, options, images, image_pyramid=[0.5, 1.0])
  assert set(logits) == {'semantic', 'parts'}
  assert set(logits['parts']) == {'logits_0.50', 'logits_1.00', 'merged_logits'}
  assert logits['parts']['merged_logits'].shape == (1, 17, 17, 3)
  predictions = _run(inference.build_predictor, options, images)
  assert predictions['parts'].shape == (1, 65, 65)
  assert predictions['parts_prob'].shape == (1, 65, 65, 3)


def test_merge_methods():
  images = _images(65, 65)
  merged = {}
  for method, function in (('max', np.max), ('avg', np.mean)):
    logits = _run(
      model.build_model,
      _options(crop_size=[65, 65], merge_method=method),
      images,
      image_pyramid=[0.5, 1.0],
    )['semantic']
    merged[method] = logits['merged_logits'].numpy()
    parts = [logits['logits_0.50'].numpy(), logits['logits_1.00'].numpy()]
    np.testing.assert_allclose(
      merged[method], function(parts, axis=0), atol=1e-5
    )
  assert not np.allclose(merged['max'], merged['avg'])


@pytest.mark.parametrize(
  'variant, strides',
  [
    ('mobilenet_v2', (2, 4, 8, 16, 32)),
    ('resnet_v1_18', (4, 8, 16, 32)),
    ('xception_41', (4, 8, 16, 32)),
  ],
)
def test_every_output_stride_shares_its_weights(variant, strides):
  names = set()
  for stride in strides:
    options = _options(
      model_variant=variant,
      crop_size=[65, 65],
      output_stride=stride,
      decoder_output_stride=None,
    )
    network = model.build_model(options)
    side = 64 // stride + 1
    logits = network.output['semantic']['merged_logits']
    assert logits.shape == (None, side, side, 5)
    names.add(tuple(checkpoints.named_variables(network)))
  assert len(names) == 1


def test_the_head_of_mobilenet_v3():
  """Gate, no projection, pooling window, sums, the decoder as logits."""
  options = _options(
    crop_size=[65, 65],
    atrous_rates=None,
    image_pooling_crop_size=[49, 49],
    image_pooling_stride=[4, 5],
    aspp_with_concat_projection=False,
    aspp_with_squeeze_and_excitation=True,
    image_se_uses_qsigmoid=True,
    decoder_use_sum_merge=True,
    decoder_filters=5,
    decoder_output_is_logits=True,
    decoder_output_stride=[8],
  )
  logits = _run(model.build_model, options, _images(65, 65))
  assert logits['semantic']['merged_logits'].shape == (1, 9, 9, 5)
  names = checkpoints.named_variables(model.build_model(options))
  head = [name for name in names if not name.startswith('MobilenetV2')]
  assert head == [
    'image_pooling/weights',
    'image_pooling/biases',
    'aspp0/weights',
    'aspp0/BatchNorm/gamma',
    'aspp0/BatchNorm/beta',
    'aspp0/BatchNorm/moving_mean',
    'aspp0/BatchNorm/moving_variance',
    'decoder/feature_projection0/weights',
    'decoder/feature_projection0/biases',
    'decoder/decoder_conv0/weights',
    'decoder/decoder_conv0/biases',
  ]


def test_q_sigmoid(testdata):
  golden = np.load(testdata / 'units.npz')
  x = golden['q_sigmoid_x']
  tensor = keras.Input(x.shape[1:])
  network = keras.Model(tensor, utils.q_sigmoid(tensor))
  np.testing.assert_allclose(network(x), golden['q_sigmoid_y'], atol=1e-7)


@pytest.mark.parametrize(
  'changes, kernels',
  [
    (
      {},
      [
        'feature_projection0',
        'decoder_conv0_depthwise',
        'decoder_conv0_pointwise',
        'decoder_conv1_depthwise',
        'decoder_conv1_pointwise',
        'feature_projection0_1',
        'decoder_conv0_1_depthwise',
        'decoder_conv0_1_pointwise',
        'decoder_conv1_1_depthwise',
        'decoder_conv1_1_pointwise',
      ],
    ),
    (
      {'decoder_use_separable_conv': False},
      [
        'feature_projection0',
        'decoder_conv0/decoder_conv0_1',
        'decoder_conv0/decoder_conv0_2',
        'feature_projection0_1',
        'decoder_conv0_1/decoder_conv0_1_1',
        'decoder_conv0_1/decoder_conv0_1_2',
      ],
    ),
    (
      {'decoder_use_sum_merge': True},
      [
        'feature_projection0',
        'decoder_split_sep_conv0_depthwise',
        'decoder_split_sep_conv0_pointwise',
        'feature_projection0_1',
        'decoder_split_sep_conv0_1_depthwise',
        'decoder_split_sep_conv0_1_pointwise',
      ],
    ),
  ],
)
def test_two_stages_of_the_decoder(changes, kernels):
  options = _options(
    crop_size=[65, 65], decoder_output_stride=[8, 4], **changes
  )
  network = model.build_model(options)
  found = [
    name.split('/', 1)[1].rsplit('/', 1)[0]
    for name in checkpoints.named_variables(network)
    if name.startswith('decoder/') and name.endswith('weights')
  ]
  assert found == kernels
  assert network.output['semantic']['merged_logits'].shape[1:3] == (17, 17)


@pytest.mark.parametrize(
  'variant, multi_grid, rates',
  [
    ('xception_41', [1, 2, 4], [2, 4, 8]),
    ('resnet_v1_50', [1, 2, 4], [2, 4, 8]),
    ('resnet_v1_18', [1, 2], [2, 2, 4, 4]),
  ],
)
def test_multi_grid(variant, multi_grid, rates):
  network = model.build_model(
    _options(
      model_variant=variant,
      multi_grid=multi_grid,
      crop_size=[65, 65],
      atrous_rates=None,
    )
  )
  layers = sorted(
    (layer for layer in network.layers if getattr(layer, 'rate', 0) > 1),
    key=lambda layer: layer.creation_index,
  )
  assert [layer.rate for layer in layers] == rates


_CELL = [{'op': 'conv', 'kernel': 1, 'input': -1}]
_SMALL_NAS = {'nas_stem_output_num_conv_filters': 2}


@pytest.mark.parametrize(
  'common_changes, idle',
  [
    ({}, {'multi_grid': [1, 2, 4]}),
    ({}, {'nas_architecture_options': {'nas_use_classification_head': True}}),
    ({'model_variant': 'mobilenet_v3_small_seg'}, {'divisible_by': 4}),
    (
      {'add_image_level_feature': False},
      {
        'aspp_with_squeeze_and_excitation': True,
        'image_se_uses_qsigmoid': True,
      },
    ),
    (
      {'aspp_with_batch_norm': False},
      {
        'aspp_with_squeeze_and_excitation': True,
        'aspp_with_concat_projection': False,
      },
    ),
    (
      {'aspp_with_batch_norm': False},
      {'dense_prediction_cell_config': _CELL},
    ),
    (
      {'dense_prediction_cell_config': _CELL},
      {
        'aspp_with_squeeze_and_excitation': True,
        'aspp_with_concat_projection': False,
        'use_bounded_activation': False,
      },
    ),
    (
      {'decoder_output_is_logits': True, 'decoder_filters': 5},
      {'logits_kernel_size': 3},
    ),
    (
      {
        'model_variant': 'nas_pnasnet',
        'nas_architecture_options': _SMALL_NAS,
        'multi_grid': None,
      },
      {
        'nas_architecture_options': {
          **_SMALL_NAS,
          'nas_remove_os32_stride': True,
        },
        'multi_grid': [1, 2, 4],
      },
    ),
  ],
)
def test_options_of_parts_that_are_not_there(common_changes, idle):
  """They are not looked at: the official scripts set them on every network."""
  plain = _options(crop_size=[33, 33], **common_changes)
  hyper_parameters = None
  if not plain.model_variant.startswith('nas_'):
    hyper_parameters = {'drop_path_keep_prob': 0.5, 'total_training_steps': 9}
  images = _images(33, 33)
  first = _run(model.build_model, plain, images)
  second = _run(
    model.build_model,
    plain.replace(**idle),
    images,
    nas_training_hyper_parameters=hyper_parameters,
  )
  np.testing.assert_array_equal(
    first['semantic']['merged_logits'], second['semantic']['merged_logits']
  )


def test_features_as_logits():
  options = _options(
    crop_size=[65, 65],
    decoder_output_stride=None,
    decoder_output_is_logits=True,
    aspp_convs_filters=5,
  )
  network = model.build_model(options)
  assert list(checkpoints.named_variables(network))[-1].startswith('concat_pro')
  assert network.output['semantic']['merged_logits'].shape == (None, 5, 5, 5)


def test_the_same_stride_twice():
  options = _options(crop_size=[65, 65], decoder_output_stride=[4, 4])
  names = checkpoints.named_variables(model.build_model(options))
  assert names['decoder/feature_projection0/weights'].shape == (
    names['decoder/feature_projection0_1/weights'].shape
  )


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'image_pooling_crop_size': [769, 769]}, 'larger than the images'),
    ({'output_stride': 64}, r'cannot be reached.* 16, 32\].*=64'),
    (
      {'output_stride': 64, 'model_variant': 'xception_41'},
      r'cannot be reached.* 16, 32\].*=64',
    ),
    ({'output_stride': 6, 'model_variant': 'resnet_v1_50'}, 'multiple of 4'),
    ({'output_stride': 12, 'model_variant': 'resnet_v1_50'}, 'be reached'),
    ({'output_stride': 7, 'model_variant': 'xception_65'}, 'multiple of 2'),
    ({'model_variant': 'resnet_152'}, 'one of .*mobilenet_v2.*resnet_152'),
    ({'decoder_output_stride': [2]}, r'\[4, 8, 16\].*=2'),
    (
      {'model_variant': 'resnet_v1_50', 'multi_grid': [1, 2]},
      'must have 3 values',
    ),
    (
      {'model_variant': 'resnet_v1_18', 'multi_grid': [1, 2, 4]},
      'must have 2 values',
    ),
    ({'model_variant': 'xception_41', 'multi_grid': [1]}, '3 values'),
    (
      {
        'decoder_output_is_logits': True,
        'decoder_output_stride': None,
        'aspp_convs_filters': 4,
      },
      'without decoder_output_stride.*4 channels, 5 classes',
    ),
  ],
)
def test_what_cannot_be_built(changes, message):
  with pytest.raises(InputError, match=message):
    model.build_model(_options(crop_size=[65, 65], **changes))


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'crop_size': [513]}, 'crop_size must be two positive'),
    ({'crop_size': [0, 513]}, 'crop_size must be two positive'),
    ({'crop_size': ['a', None]}, 'crop_size must be two positive'),
    ({'crop_size': [2**40, 513]}, 'crop_size must be two positive'),
    ({'outputs_to_num_classes': {3: 5}}, 'at least one output'),
    ({'decoder_output_stride': [4, 8]}, 'descending'),
    ({'image_pooling_stride': None}, 'image_pooling_stride'),
    (
      {
        'aspp_with_squeeze_and_excitation': True,
        'aspp_with_concat_projection': False,
      },
      'needs aspp_with_concat_projection',
    ),
    ({'merge_method': 'sum'}, 'merge_method'),
    ({'logits_kernel_size': 3}, 'logits_kernel_size must be 1'),
    ({'label_weights': [1.0]}, '5 classes.*1 weights'),
    (
      {'decoder_output_is_logits': True, 'decoder_output_stride': [4]},
      'decoder_filters',
    ),
    ({'outputs_to_num_classes': {}}, 'at least one output'),
    ({'depth_multiplier': 0}, 'depth_multiplier'),
    ({'resnet_root_convs': 4}, 'resnet_root_convs'),
    ({'atrous_rates': [6, 0]}, 'atrous_rates must be an integer'),
    ({'atrous_rates': 6}, 'atrous_rates must be of the kind'),
    ({'add_image_level_feature': 'yes'}, 'kind bool'),
    ({'model_variant': 3}, 'kind str'),
    ({'outputs_to_num_classes': {'semantic': '7'}}, 'at least one output'),
    ({'depth_multiplier': float('nan')}, 'depth_multiplier must be a finite'),
    ({'divisible_by': 0}, 'divisible_by'),
    ({'aspp_convs_filters': 0}, 'aspp_convs_filters'),
    ({'decoder_filters': -1}, 'decoder_filters'),
    ({'batch_norm_decay': 1.5}, 'batch_norm_decay'),
    ({'label_weights': [1, 1, 1, 1, -1.0]}, 'each value of label_weights'),
    ({'sync_batch_norm_method': 'tpu'}, 'sync_batch_norm_method is not sup'),
  ],
)
def test_options_that_contradict_themselves(changes, message):
  with pytest.raises(InputError, match=message):
    _options(**changes)


def test_options_are_frozen_and_survive_json():
  options = _options(crop_size=(65, 97), label_weights=[1, 2, 3, 4, 5])
  with pytest.raises(dataclasses.FrozenInstanceError):
    options.output_stride = 8
  again = common.ModelOptions.from_dict(options.to_dict())
  assert again.to_dict() == options.to_dict()


@pytest.mark.parametrize('convs, filters', [(2, [64, 128]), (3, [64, 64, 128])])
def test_stems_of_the_beta_variants(convs, filters):
  network = model.build_model(
    _options(
      model_variant='resnet_v1_50_beta',
      resnet_root_convs=convs,
      crop_size=[33, 33],
      decoder_output_stride=None,
    )
  )
  names = checkpoints.named_variables(network)
  stem = [
    names[f'resnet_v1_50/conv1_{i}/weights'].shape[-1]
    for i in range(1, convs + 1)
  ]
  assert stem == filters
  assert f'resnet_v1_50/conv1_{convs + 1}/weights' not in names


def test_weight_decay_spares_depthwise_kernels_and_batch_norm():
  network = model.build_model(_options(crop_size=[33, 33]), weight_decay=0.5)
  regularised = [
    name
    for name, variable in checkpoints.named_variables(network).items()
    if variable.regularizer is not None
  ]
  assert len(network.losses) == len(regularised)
  assert all(name.endswith('/weights') for name in regularised)
  kernels = checkpoints.named_variables(network)
  expected = sum(
    0.25 * np.sum(kernels[name].numpy() ** 2) for name in regularised
  )
  assert float(sum(network.losses)) == pytest.approx(expected, rel=1e-4)


def test_batch_norm_decay_reaches_every_layer():
  network = model.build_model(
    _options(crop_size=[33, 33], batch_norm_decay=0.5), is_training=True
  )
  decays = {layer.decay for layer in network.layers if hasattr(layer, 'decay')}
  assert decays == {0.5}


def test_the_training_argument_of_keras_changes_nothing():
  network = model.build_model(_options(crop_size=[33, 33]))
  images = _images(33, 33)
  plain, training = (
    network(images, training=mode)['semantic']['merged_logits'].numpy()
    for mode in (False, True)
  )
  np.testing.assert_array_equal(plain, training)
  assert isinstance(network, keras.Model)

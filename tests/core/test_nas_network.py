"""The searched networks: sizes, options, and drop path."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import recipe
from deeplab import checkpoints, common, model, slim
from deeplab.core import feature_extractor, nas_cell, nas_genotypes
from deeplab.training import config as config_lib
from deeplab.training import strategies, train_step

_HYPER_PARAMETERS = {'drop_path_keep_prob': 0.6, 'total_training_steps': 1000}


def _options(variant, output_stride=8, architecture=None, **changes):
  return common.ModelOptions(
    **{
      'outputs_to_num_classes': {'semantic': 3},
      'crop_size': [65, 65],
      'output_stride': output_stride,
      'model_variant': variant,
      'nas_architecture_options': architecture,
      **changes,
    }
  )


def _features(options, **build):
  """Features, end points, and the layers by official scope name."""
  with slim.layer_store(seed=1) as store:
    return *feature_extractor.extract_features(
      model.make_input(options), options, **build
    ), store.layers


# Networks.


@pytest.mark.parametrize(
  'variant, output_stride, size, channels',
  [
    ('nas_pnasnet', 8, 9, 200),
    ('nas_pnasnet', 16, 5, 400),
    ('nas_pnasnet', 32, 3, 800),
    ('nas_hnasnet', 8, 9, 200),
  ],
)
def test_features(variant, output_stride, size, channels):
  features, end_points, _ = _features(_options(variant, output_stride))
  assert features.shape == (None, size, size, channels)
  assert end_points['Stem'].shape == (None, 17, 17, 128)
  cells = [f'Cell_{i}' for i in range(12)]
  assert list(end_points) == ['Stem', *cells]
  if variant == 'nas_hnasnet':
    sides = [end_points[cell].shape[1] for cell in cells]
    assert sides == [17, 17, 17, 9, 5, 9, 5, 5, 3, 3, 5, 9]


def test_any_size():
  """A network for images of any size gives what one for their size gives."""
  fixed = _options('nas_hnasnet', crop_size=[65, 97])
  images = tf.random.stateless_uniform([1, 65, 97, 3], [1, 2], 0, 255)
  first, second = (
    model.build_model(options, seed=3)(images)['semantic']['merged_logits']
    for options in (fixed, fixed.replace(crop_size=None))
  )
  assert first.shape == (1, 9, 13, 3)
  np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)


def test_even_sizes():
  options = _options('nas_pnasnet', 16, crop_size=[66, 72])
  features, _, _ = _features(options)
  assert features.shape[1:3] == (5, 5)
  # On the way up sizes are 2 * n - 1: the features are smaller than elsewhere.
  options = _options(
    'nas_hnasnet', crop_size=[64, 64], add_image_level_feature=False
  )
  features, _, _ = _features(options)
  assert features.shape[1:3] == (5, 5)
  with pytest.raises(common.InputError, match=r'32 \* k \+ 1'):
    _features(options.replace(add_image_level_feature=True))


@pytest.mark.parametrize(
  'filters, millions', [(20, 10.147), (32, 21.622), (48, 44.425)]
)
def test_stem_filters(filters, millions):
  """The trainable parameters of the published Auto-DeepLab S, M and L."""
  options = _options(
    'nas_hnasnet',
    outputs_to_num_classes={'semantic': 19},
    atrous_rates=[6, 12, 18],
    aspp_with_separable_conv=False,
    decoder_use_separable_conv=False,
    decoder_output_stride=[4],
    architecture={'nas_stem_output_num_conv_filters': filters},
  )
  weights = model.build_model(options).trainable_variables
  count = sum(weight.value.shape.num_elements() for weight in weights)
  assert round(count / 1e6, 3) == millions


@pytest.mark.parametrize(
  'variant, output_stride, downsampling',
  [
    # Scope, size, rate and kernel for a crop of 65.
    ('nas_hnasnet', 8, [(16, 9, 2, 512), (32, 9, 4, 1024)]),
    ('nas_hnasnet', 16, [(16, 5, 1, 512), (32, 5, 2, 1024)]),
    ('nas_hnasnet', 32, [(16, 5, 1, 512), (32, 3, 1, 1024)]),
    ('nas_pnasnet', 16, [(32, 5, 2, 1024)]),
    ('nas_pnasnet', 32, []),
  ],
)
def test_classification_head(variant, output_stride, downsampling):
  options = _options(
    variant,
    output_stride,
    {
      'nas_use_classification_head': True,
      'nas_stem_output_num_conv_filters': 4,
    },
  )
  features, end_points, layers = _features(options)
  side = -(-65 // output_stride)
  assert features.shape == (None, side, side, 2048)
  scope = variant.removeprefix('nas_')
  names = [f'downsample_os{stride}' for stride, *_ in downsampling]
  assert list(end_points)[13:] == [*names, 'classification_head']
  for name, (_, size, rate, filters) in zip(names, downsampling, strict=True):
    assert end_points[name].shape == (None, size, size, filters)
    assert layers[f'{scope}/{name}_conv'].rate == rate
  expected = [
    f'{scope}/{name}_{kind}'
    for name in [*names, 'classification_head']
    for kind in ('conv', 'bn')
  ]
  assert [n for n in layers if n.startswith(tuple(expected))] == expected


def test_remove_os32_stride():
  """The same weights; what was at output stride 32 is at 16."""
  removed = {'nas_remove_os32_stride': True}
  crop = 97
  options = _options('nas_hnasnet', crop_size=[crop, crop])
  networks = []
  for architecture in (None, removed):
    features, end_points, layers = _features(
      options.replace(nas_architecture_options=architecture)
    )
    assert features.shape[1:3] == (-(-crop // 8),) * 2
    networks.append((end_points, layers))
  (end_points, layers), (removed_end_points, removed_layers) = networks
  assert [v.path for layer in layers.values() for v in layer.variables] == [
    v.path for layer in removed_layers.values() for v in layer.variables
  ]
  for cell in range(12):
    name = f'Cell_{cell}'
    shape = list(end_points[name].shape)
    if cell in (8, 9):
      assert shape[1] == -(-crop // 32)
      shape[1:3] = [-(-crop // 16)] * 2
    assert list(removed_end_points[name].shape) == shape


def test_remove_os32_stride_of_pnasnet():
  """It has such a level at output stride 32 only."""
  features, _, _ = _features(
    _options(
      'nas_pnasnet',
      32,
      {'nas_remove_os32_stride': True},
      add_image_level_feature=False,
    )
  )
  assert features.shape[1:3] == (5, 5)


@pytest.mark.parametrize(
  'changes',
  [
    {'add_image_level_feature': False},
    {
      'dense_prediction_cell_config': [{'op': 'conv', 'kernel': 1, 'input': -1}]
    },
  ],
)
def test_output_stride_of_hnasnet_without_pooling(changes):
  """Its features have stride 8 anyhow; only the logits are resized."""
  filters = {'nas_stem_output_num_conv_filters': 2}
  results = []
  for output_stride in (8, 16):
    network = model.build_model(
      _options('nas_hnasnet', output_stride, filters, **changes)
    )
    recipe.assign(checkpoints.named_variables(network))
    images = tf.random.stateless_uniform([1, 65, 65, 3], [1, 2], 0, 255)
    results.append(network(images)['semantic']['merged_logits'].numpy())
  # With aligned corners every other pixel stays where it was.
  np.testing.assert_allclose(results[1], results[0][:, ::2, ::2], atol=1e-5)


def test_depthwise_kernels_decay():
  options = _options('nas_pnasnet', 16)
  network = model.build_model(options, weight_decay=0.5)
  variables = checkpoints.named_variables(network)
  expected = sum(
    0.25 * np.sum(np.square(variable.numpy(), dtype=np.float64))
    for name, variable in variables.items()
    if name.endswith('weights')
  )
  assert any('depthwise_weights' in name for name in variables)
  np.testing.assert_allclose(sum(network.losses), expected, rtol=1e-5)


@pytest.mark.parametrize(
  'variant, changes, message',
  [
    ('nas_pnasnet', {'output_stride': 4}, r'one of \[8, 16, 32\]'),
    (
      'nas_hnasnet',
      {
        'output_stride': 4,
        'nas_architecture_options': {'nas_use_classification_head': True},
      },
      r'one of \[8, 16, 32\].*Received: 4',
    ),
    ('nas_hnasnet', {'output_stride': 16}, r'feature has \[5, 5\]'),
    (
      'nas_pnasnet',
      {
        'output_stride': 32,
        'nas_architecture_options': {'nas_remove_os32_stride': True},
      },
      r'features of \[5, 5\] where the image-level feature has \[3, 3\]',
    ),
  ],
)
def test_refuses(variant, changes, message):
  options = _options(variant).replace(**changes)
  with pytest.raises(common.InputError, match=message):
    _features(options)


@pytest.mark.parametrize(
  'variant, architecture, message',
  [
    (
      'nas_pnasnet',
      {'filters': 20},
      r"has the keys .* Received: \['filters'\]",
    ),
    (
      'nas_pnasnet',
      {'nas_stem_output_num_conv_filters': 0},
      'nas_stem_output_num_conv_filters must be an integer, at least 1',
    ),
    (
      'nas_pnasnet',
      {'nas_stem_output_num_conv_filters': True},
      'nas_stem_output_num_conv_filters must be an integer',
    ),
    (
      'nas_hnasnet',
      {'nas_use_classification_head': 1},
      'nas_use_classification_head must be True or False. Received: .*=1',
    ),
  ],
)
def test_refuses_architecture(variant, architecture, message):
  with pytest.raises(common.InputError, match=message):
    _options(variant, architecture=architecture)


# Drop path.


@pytest.mark.parametrize(
  'cell, step, expected',
  [
    (11, 0, 1.0),
    (11, 500, 0.8),
    (11, 1000, 0.6),
    (11, 5000, 0.6),
    (5, 1000, 0.8),
    (5, 250, 0.95),
    (0, 1000, 1 - 0.4 / 12),
  ],
)
def test_schedule(cell, step, expected):
  schedule = nas_cell.DropPathSchedule(0.6, 1000, 12)
  step = tf.constant(step, tf.int64)
  assert float(schedule(cell, step)) == pytest.approx(expected, rel=1e-6)


def _drop(name='path', step=1000, seed=(1, 2), images=4000):
  layer = nas_cell.DropPath(nas_cell.DropPathSchedule(0.6, 1000, 2), 0, name)
  inputs = tf.random.stateless_uniform([images, 2, 3, 4], [5, 6], 1.0, 2.0)

  @tf.function(jit_compile=True)
  def run(step, seed):
    with slim.train_step_context(step, seed):
      return layer(inputs)

  outputs = run(tf.constant(step, tf.int64), tf.constant(seed, tf.int64))
  return inputs.numpy(), outputs.numpy()


def test_drops_whole_images():
  inputs, outputs = _drop()
  kept = outputs[:, 0, 0, 0] > 0
  # Five standard errors of 4000 draws.
  assert kept.mean() == pytest.approx(0.8, abs=0.032)
  np.testing.assert_allclose(outputs[kept], inputs[kept] / 0.8, rtol=1e-6)
  assert not outputs[~kept].any()
  assert outputs.mean() == pytest.approx(inputs.mean(), rel=0.04)


def test_drop_path_follows_seed_name_and_step():
  _, outputs = _drop()
  np.testing.assert_array_equal(_drop()[1], outputs)
  for changes in ({'name': 'other'}, {'seed': (1, 3)}, {'seed': (2, 2)}):
    kept, other = outputs[:, 0, 0, 0] > 0, _drop(**changes)[1][:, 0, 0, 0] > 0
    # Independent draws agree in 0.8 ** 2 + 0.2 ** 2 of the cases.
    assert np.mean(kept == other) == pytest.approx(0.68, abs=0.04)
  inputs, first = _drop(step=0)
  np.testing.assert_array_equal(first, inputs)


def test_needs_the_step():
  layer = nas_cell.DropPath(nas_cell.DropPathSchedule(0.6, 1000, 2), 0, 'path')
  with pytest.raises(ValueError, match='train_step_context'):
    layer(tf.zeros([1, 2, 2, 1]))


def _drop_path_layers(**build):
  _, _, layers = _features(_options('nas_pnasnet', 16), **build)
  return {
    name: layer
    for name, layer in layers.items()
    if isinstance(layer, nas_cell.DropPath)
  }


def test_only_while_training():
  training = {'is_training': True, 'fine_tune_batch_norm': True}
  hyper_parameters = {'nas_training_hyper_parameters': _HYPER_PARAMETERS}
  layers = _drop_path_layers(**training, **hyper_parameters)
  # Nine operations in twelve cells; the identity does not drop.
  assert len(layers) == 9 * 12
  name = 'pnasnet/cell_3/comb_iter_4/left/drop_path'
  assert layers[name].cell == 3
  assert layers[name].schedule == nas_cell.DropPathSchedule(0.6, 1000, 12)
  assert name.replace('left', 'right') not in layers
  assert not _drop_path_layers(**hyper_parameters)
  assert not _drop_path_layers(**training)
  # As in the original: the network runs as in inference.
  assert not _drop_path_layers(is_training=True, **hyper_parameters)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'hyper_parameters': {'drop_path_keep_prob': 0.5}}, 'must have the keys'),
    (
      {'hyper_parameters': {**_HYPER_PARAMETERS, 'drop_path_keep_prob': 0}},
      'drop_path_keep_prob must be',
    ),
    (
      {'hyper_parameters': {**_HYPER_PARAMETERS, 'total_training_steps': 0}},
      'total_training_steps must be',
    ),
  ],
)
def test_refuses_hyper_parameters(changes, message):
  hyper_parameters = changes['hyper_parameters']
  with pytest.raises(common.InputError, match=message):
    _features(
      _options('nas_pnasnet'), nas_training_hyper_parameters=hyper_parameters
    )


def _config(variant='nas_hnasnet', **changes):
  return config_lib.TrainConfig(
    model_options=_options(
      variant,
      architecture={'nas_stem_output_num_conv_filters': 2}
      if variant == 'nas_hnasnet'
      else None,
    ),
    train_logdir='unused',
    dataset_dir='unused',
    train_batch_size=4,
    training_number_of_steps=100,
    **{'drop_path_keep_prob': 0.5, **changes},
  )


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'variant': 'xception_65'}, 'no effect on model_variant=xception_65'),
    ({'fine_tune_batch_norm': False}, 'fine_tune_batch_norm=False'),
    ({'drop_path_keep_prob': 0.0}, 'drop_path_keep_prob must be'),
    ({'drop_path_keep_prob': 1.5}, 'drop_path_keep_prob must be'),
  ],
)
def test_config_refuses(changes, message):
  with pytest.raises(common.InputError, match=message):
    _config(**changes)


def _make_loss(**changes):
  """A function from the number of a training step to its loss."""
  keras.backend.clear_session()
  step = train_step.TrainStep(
    _config(**changes), strategies.make_strategy(1, False), 255
  )
  images = tf.random.stateless_uniform([4, 65, 65, 3], [1, 2], 0.0, 255.0)
  labels = tf.cast(images[..., :1] / 90.0, tf.int32)
  spec = {
    common.IMAGE: tf.type_spec_from_value(images),
    common.LABEL: tf.type_spec_from_value(labels),
  }
  run = step.compile(spec)

  def loss(number):
    recipe.assign(step.variables)
    step.global_step.assign(number)
    metrics, _ = run(images, labels)
    assert all(np.isfinite(value).all() for value in step.variables.values())
    return float(metrics['semantic_merged_logits'])

  return loss


@pytest.mark.slow
def test_training_step(monkeypatch):
  """Nothing drops at step 0; later the draw is a function of the step."""
  monkeypatch.setattr(nas_genotypes, 'HNASNET_LEVELS', (0, 1))
  plain = _make_loss(drop_path_keep_prob=1.0)(0)
  loss = _make_loss()
  assert loss(0) == pytest.approx(plain, rel=1e-5)
  late = loss(80)
  assert late != pytest.approx(plain, rel=1e-3)
  assert loss(80) == pytest.approx(late, rel=1e-5)
  assert loss(81) != pytest.approx(late, rel=1e-3)
  assert _make_loss(seed=1)(80) != pytest.approx(late, rel=1e-3)

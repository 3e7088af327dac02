"""The dense prediction cell; its golden network is in test_golden_models."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import recipe
import reference
from deeplab import checkpoints, common, inference, model, slim, stored_options
from deeplab.common import InputError
from deeplab.core import dense_prediction_cell

# Published JSON files and commands have it; it must not change.
_NAME = 'dense_prediction_cell_branch5_top1_cityscapes'
_SMALL = [
  {'op': 'conv', 'kernel': [1, 1], 'input': -1},
  {'op': 'conv', 'kernel': 3, 'rate': [1, 2], 'input': 0},
  {'op': 'pyramid_pooling', 'grid_size': [1, 2], 'input': 1},
  {'op': 'conv', 'kernel': [3, 1], 'rate': [2, 1], 'input': -1},
]


def _options(cell, **changes):
  return common.ModelOptions(
    **{
      'outputs_to_num_classes': {'semantic': 5},
      'crop_size': [65, 65],
      'output_stride': 16,
      'depth_multiplier': 0.25,
      'decoder_filters': 16,
      'decoder_output_stride': [4],
      'dense_prediction_cell_config': cell,
      **changes,
    }
  )


# Reading.


@pytest.mark.parametrize(
  'path', [_NAME, f'{_NAME}.json', f'deeplab/core/{_NAME}.json']
)
def test_the_published_cell_comes_with_the_package(path, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  cell = dense_prediction_cell.read_config(path)
  assert [operation['rate'] for operation in cell] == [
    [1, 6],
    [18, 15],
    [6, 3],
    [1, 1],
    [6, 21],
  ]
  assert [operation['input'] for operation in cell] == [-1, 0, 1, 0, 0]


def test_a_file_of_ones_own(tmp_path):
  path = tmp_path / f'{_NAME}.json'
  path.write_text(json.dumps(_SMALL))
  assert dense_prediction_cell.read_config(str(path)) == _SMALL


@pytest.mark.parametrize(
  'text, message',
  [
    ('[{"op": "conv", "kernel": 3]', 'not JSON.*line 1'),
    ('\xff', 'not JSON'),
    ('{"op": "conv"}', 'is a list of one or more operations'),
    ('[]', r'one or more operations. Received: \[\]'),
  ],
)
def test_bad_files(tmp_path, text, message):
  path = tmp_path / 'cell.json'
  path.write_text(text, encoding='latin-1')
  with pytest.raises(InputError, match=f'cell.json: .*{message}'):
    dense_prediction_cell.read_config(str(path))


@pytest.mark.parametrize('path', ['nothing.json', '.'])
def test_no_file(path):
  with pytest.raises(InputError, match=f'cannot be read.*one of {_NAME}'):
    dense_prediction_cell.read_config(path)


def _changed(index, **changes):
  cell = [dict(operation) for operation in _SMALL]
  cell[index].update(changes)
  return [
    {key: value for key, value in operation.items() if value is not None}
    for operation in cell
  ]


@pytest.mark.parametrize(
  'index, changes, parts',
  [
    (
      1,
      {'op': None},
      ["key 'op'", 'is missing', "'conv' or 'pyramid_pooling'"],
    ),
    (1, {'op': 'pool'}, ["key 'op'", "received 'pool'"]),
    (1, {'op': ['conv']}, ["key 'op'", "received ['conv']"]),
    (0, {'input': 0}, ["key 'input'", 'received 0', 'expected -1 for the']),
    (2, {'input': 2}, ["key 'input'", 'or 0 to 1 for an earlier item']),
    (2, {'input': -2}, ["key 'input'", 'received -2']),
    (2, {'input': True}, ["key 'input'", 'received True']),
    (2, {'input': None}, ["key 'input'", 'is missing']),
    (1, {'kernel': 0}, ["key 'kernel'", 'received 0']),
    (1, {'kernel': [3]}, ["key 'kernel'", 'received [3]', '"kernel": 3']),
    (1, {'kernel': 3.0}, ["key 'kernel'", 'received 3.0']),
    (1, {'rate': 6}, ["key 'rate'", 'received 6', '"rate": [6, 6]']),
    (1, {'rate': [6, 6, 6]}, ["key 'rate'", 'pair of positive integers']),
    (1, {'rate': [6, 0]}, ["key 'rate'", 'received [6, 0]']),
    (1, {'rate': None}, ["key 'rate'", 'is missing']),
    (0, {'rate': 'x'}, ["key 'rate'", "received 'x'"]),
    (2, {'grid_size': 2}, ["key 'grid_size'", 'received 2']),
    (2, {'kernel': 3}, ["key 'kernel'", "unknown to 'pyramid_pooling'"]),
    (1, {'rates': [1, 1]}, ["key 'rates'", 'op, input, kernel, rate']),
  ],
)
def test_faults_name_item_key_and_values(tmp_path, index, changes, parts):
  cell = _changed(index, **changes)
  path = tmp_path / 'cell.json'
  path.write_text(json.dumps(cell))
  with pytest.raises(InputError) as error:
    dense_prediction_cell.read_config(str(path))
  for part in [f'{path}: item {index}, ', *parts]:
    assert part in str(error.value)
  with pytest.raises(InputError) as error:
    _options(cell)
  for part in [f'dense_prediction_cell_config: item {index}, ', *parts]:
    assert part in str(error.value)


def test_faults_in_model_options_name_the_file(tmp_path):
  stored_options.save(str(tmp_path), _options(_SMALL))
  loaded = stored_options.load(str(tmp_path))
  assert loaded.dense_prediction_cell_config == _SMALL
  path = tmp_path / common.MODEL_OPTIONS_FILE
  values = json.loads(path.read_text())
  values['dense_prediction_cell_config'][1] = 'conv'
  path.write_text(json.dumps(values))
  with pytest.raises(InputError, match=f'{path}.*item 1, .*an object'):
    stored_options.load(str(tmp_path))


def test_a_cell_needs_rates_of_one_or_more():
  with pytest.raises(InputError, match=r'output_stride of at most 16.*32'):
    _options(_SMALL, output_stride=32)
  # Not where the cell is not built.
  _options(_SMALL, output_stride=32, aspp_with_batch_norm=False)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'crop_size': None}, 'pyramid_pooling needs crop_size'),
    ({'image_pooling_crop_size': [513, 513]}, 'larger than the images'),
  ],
)
def test_pyramid_pooling_needs_windows_that_fit(changes, message):
  with pytest.raises(InputError, match=message):
    model.build_model(_options(_SMALL, **changes))


# Building.


def test_every_operation_against_numpy():
  """Grid windows, kernels and rates that are not square, rates doubled."""
  features = np.random.default_rng(0).normal(size=(2, 9, 11, 3))
  features = features.astype(np.float32)
  with slim.layer_store():
    tensor = keras.Input(features.shape[1:])
    cell = dense_prediction_cell.DensePredictionCell(
      _SMALL,
      {'reduction_size': 4, 'concat_channels': 6, 'conv_rate_multiplier': 2},
    )
    network = keras.Model(
      tensor, cell.build_cell(tensor, output_stride=8, crop_size=[65, 81])
    )
  variables = checkpoints.named_variables(network)
  recipe.assign(variables)
  values = reference.values_of(variables, 'meta_architecture/')
  first = reference.conv2d(features, values, 'branch0')
  second = reference.separable(first, (2, 4), values, 'branch1')
  # 1/8 of the crop is 9x11; half of its width, 6.
  third = reference.average_pool(second, (9, 6))
  third = reference.conv2d(third, values, 'branch2')
  third = reference.resize(third, (9, 11))
  fourth = reference.separable(features, (4, 2), values, 'branch3')
  expected = reference.conv2d(
    np.concatenate([first, second, third, fourth], axis=-1),
    values,
    'concat_projection',
  )
  assert expected.shape == (2, 9, 11, 6)
  np.testing.assert_allclose(network(features), expected, atol=1e-5)


def test_rates_grow_as_the_output_stride_shrinks():
  cell = dense_prediction_cell.read_config(_NAME)
  for stride, factor in ((16, 1), (8, 2)):
    options = _options(cell, output_stride=stride, decoder_output_stride=None)
    rates = {
      layer.name: layer.rates
      for layer in model.build_model(options).layers
      if layer.name.startswith('meta_architecture')
      and layer.name.endswith('_depthwise')
    }
    assert list(rates.values()) == [
      [factor * rate for rate in operation['rate']] for operation in cell
    ]


def test_the_gradient_of_a_rate_that_is_not_square():
  images = np.random.default_rng(0).normal(size=(1, 12, 13, 2))
  images = tf.constant(images, tf.float32)
  with slim.layer_store() as store:
    tensor = keras.Input(images.shape[1:])
    outputs = slim.separable_conv2d(
      tensor, None, 3, rate=[2, 5], activation_fn=None, scope='s'
    )
    network = keras.Model(tensor, outputs)
  layer = store.layers['s']
  weights = np.random.default_rng(1).normal(size=outputs.shape[1:])

  def loss(kernel):
    layer.depthwise_kernel.assign(kernel)
    return tf.reduce_sum(network(images) * weights)

  kernel = np.random.default_rng(2).normal(size=layer.depthwise_kernel.shape)
  with tf.GradientTape() as tape:
    value = loss(kernel)
  gradient = tape.gradient(value, layer.depthwise_kernel.value)
  # The loss is linear in the kernel.
  for index in ((0, 0, 0, 0), (2, 1, 1, 0), (1, 2, 0, 0)):
    step = np.zeros_like(kernel)
    step[index] = 1.0
    change = loss(kernel + step) - loss(kernel)
    assert float(gradient[index]) == pytest.approx(float(change), abs=1e-3)


def test_each_scale_of_a_pyramid_has_a_cell_of_its_own():
  """As in the original; scales and mirror images of a test share the first."""
  options = _options(_SMALL)
  scopes = {
    name.split('/')[0]
    for name in checkpoints.named_variables(
      model.build_model(options, image_pyramid=[0.5, 1.0])
    )
  }
  cells = {'meta_architecture', 'meta_architecture_1'}
  assert scopes == {'MobilenetV2', 'decoder', 'logits', *cells}
  predictor = inference.build_predictor(
    options, eval_scales=[0.5, 1.0], add_flipped_images=True
  )
  plain = checkpoints.named_variables(model.build_model(options))
  assert list(checkpoints.named_variables(predictor)) == list(plain)


def test_initial_values_and_dropout_before_the_projection():
  cell = dense_prediction_cell.read_config(_NAME)
  network = model.build_model(_options(cell), is_training=True, seed=1)
  for name, variable in checkpoints.named_variables(network).items():
    if not name.startswith('meta_architecture') or 'weights' not in name:
      continue
    value = variable.numpy()
    if 'concat_projection' in name:
      # Xavier of 1280 and 256 channels.
      assert value.shape == (1, 1, 1280, 256)
      bound, spread = 0.0625, 3**-0.5
    else:
      bound = 2 * (0.33 if 'depthwise' in name else 0.06)
      spread = 0.8796 / 2
    assert np.abs(value).max() <= bound * (1 + 1e-5), name
    assert value.std() == pytest.approx(
      bound * spread, rel=5 / np.sqrt(2 * value.size)
    ), name
  dropouts = [layer for layer in network.layers if 'dropout' in layer.name]
  assert [layer.rate for layer in dropouts] == [pytest.approx(0.1)]
  assert dropouts[0].input.shape[-1] == 1280


def test_batch_norm_and_weight_decay_of_a_cell():
  network = model.build_model(
    _options(_SMALL, batch_norm_decay=0.5),
    is_training=True,
    fine_tune_batch_norm=True,
  )
  layers = [
    layer
    for layer in network.layers
    if layer.name.startswith('meta_architecture') and hasattr(layer, 'decay')
  ]
  assert layers and all(
    layer.decay == 0.5 and layer.is_training for layer in layers
  )
  regularised = {
    name
    for name, variable in checkpoints.named_variables(network).items()
    if variable.regularizer is not None and name.startswith('meta_architecture')
  }
  assert len(regularised) == 5
  assert all(name.endswith('/weights') for name in regularised)

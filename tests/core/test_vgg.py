"""VGG-16 and the heads of DeepLab v1 and v2 against NumPy and the papers."""

import math

import keras
import numpy as np
import pytest

import recipe
import reference
from deeplab import (
  checkpoints,
  common,
  diagnosis,
  model,
  model_flags,
  slim,
  stats,
  stored_options,
)
from deeplab.common import InputError
from deeplab.core import feature_extractor, vgg

# Kernel and rate of fc6, filters, and what table 2 of v1 says, in millions.
TABLE_2 = {
  '7x7': (7, 4, 4096, 134.3),
  '4x4': (4, 4, 4096, 65.1),
  '4x4 rate 8': (4, 8, 4096, 65.1),
  'LargeFOV': (3, 12, 1024, 20.5),
}


def _options(**changes):
  return common.ModelOptions(
    **{
      'outputs_to_num_classes': {'semantic': 3},
      'crop_size': [33, 33],
      'output_stride': 8,
      'model_variant': 'vgg_16',
      'aspp_with_batch_norm': False,
      'vgg_fc_filters': 16,
      **changes,
    }
  )


def _images(height, width):
  generator = np.random.default_rng(0)
  return generator.uniform(0, 255, (1, height, width, 3)).astype(np.float32)


def _assign(variables):
  recipe.assign(variables)
  for name, variable in variables.items():
    # Images are not scaled to -1..1.
    if name.endswith(('conv1_1/weights', 'data_conv/weights')):
      variable.assign(variable / 64)


# Caffe's layers: padding and stride are explicit.


def _windows(net, size, pad, stride, hole, fill):
  """Each position of a window, and the inputs that it meets."""
  net = np.pad(
    net, [(0, 0), (pad, pad), (pad, pad), (0, 0)], constant_values=fill
  )
  height, width = (side - (size - 1) * hole for side in net.shape[1:3])
  for i, j in np.ndindex(size, size):
    part = net[:, i * hole :, j * hole :]
    yield (i, j), part[:, :height:stride, :width:stride]


def _conv(net, values, scope, pad, hole=1, stride=1):
  kernel = values[f'{scope}/weights']
  parts = _windows(net, kernel.shape[0], pad, stride, hole, 0)
  net = sum(part @ kernel[at] for at, part in parts)
  return reference.finish(net, values, scope)


def _max_pool(net, stride):
  parts = _windows(net, 3, 1, stride, 1, -np.inf)
  return np.max([part for _, part in parts], axis=0)


def _average_pool(net):
  return sum(part for _, part in _windows(net, 3, 1, 1, 1, 0)) / 9


def _reference(images, values, pool_strides, branches, sides=None):
  """Logits as the released Caffe models compute them.

  Args:
    images: float [batch, height, width, 3].
    values: {name without 'vgg_16/': array}.
    pool_strides: of the five poolings; after one of 1 the rate doubles.
    branches: for each: suffix of the names, padding and rate of fc6, and
      whether an average pooling comes before.
    sides: strides of the side branches.
  """
  net = images - np.array([122.675, 116.669, 104.008])
  inputs = {'data': net}
  hole = 1
  for i, (convs, stride) in enumerate(
    zip((2, 2, 3, 3, 3), pool_strides, strict=True), 1
  ):
    for j in range(1, convs + 1):
      net = _conv(net, values, f'conv{i}/conv{i}_{j}', hole, hole)
    net = inputs[f'pool{i}'] = _max_pool(net, stride)
    hole *= 3 - stride
  total = 0
  for number, (suffix, pad, rate, averages) in enumerate(branches):
    branch = _average_pool(net) if averages else net
    branch = _conv(branch, values, f'fc6{suffix}', pad, rate)
    branch = _conv(branch, values, f'fc7{suffix}', 0)
    for name, stride in (sides or {}).items():
      side = _conv(inputs[name], values, f'{name}_conv', 1, stride=stride)
      side = _conv(side, values, f'{name}_fc', 0)
      branch = np.concatenate([branch, side], axis=-1)
    scope = f'logits/semantic_{number}' if number else 'logits/semantic'
    total = total + branch @ values[f'{scope}/weights'][0, 0]
    total = total + values[f'{scope}/biases']
  return total


_CASES = {
  'LargeFOV': ({'atrous_rates': [3]}, [('', 3, 3, True)], None),
  '4x4': (
    {'atrous_rates': [2], 'vgg_fc6_kernel_size': 4},
    [('', 3, 2, False)],
    None,
  ),
  'MSc': (
    {'atrous_rates': [2], 'vgg_side_branches': True},
    [('', 2, 2, True)],
    {'data': 8, 'pool1': 4, 'pool2': 2, 'pool3': 1, 'pool4': 1},
  ),
  'ASPP of v2': (
    {'atrous_rates': [1, 2, 4]},
    [('_1', 1, 1, False), ('_2', 2, 2, False), ('_3', 4, 4, False)],
    None,
  ),
}


@pytest.mark.parametrize(
  'case, size',
  [(case, (25, 33)) for case in _CASES]
  + [('4x4', (24, 30)), ('MSc', (24, 30)), ('ASPP of v2', (26, 31))],
)
def test_equals_the_released_models(case, size):
  fields, branches, sides = _CASES[case]
  network = model.build_model(_options(crop_size=size, **fields))
  variables = checkpoints.named_variables(network)
  _assign(variables)
  images = _images(*size)
  logits = network(images)['semantic']['merged_logits'].numpy()
  assert logits.shape == (1, -(-size[0] // 8), -(-size[1] // 8), 3)
  values = reference.values_of(variables, 'vgg_16/')
  expected = _reference(images, values, (2, 2, 2, 1, 1), branches, sides)
  assert expected.std() > 0.1
  np.testing.assert_allclose(logits, expected, atol=1e-4 * expected.std())


@pytest.mark.parametrize(
  'output_stride, pool_strides',
  [(16, (2, 2, 2, 2, 1)), (32, (2, 2, 2, 2, 2)), (4, (2, 2, 1, 1, 1))],
)
def test_other_output_strides(output_stride, pool_strides):
  options = _options(
    crop_size=[17, 17],
    output_stride=output_stride,
    vgg_fc6_kernel_size=7,
    vgg_side_branches=True,
  )
  network = model.build_model(options)
  variables = checkpoints.named_variables(network)
  _assign(variables)
  images = _images(17, 17)
  logits = network(images)['semantic']['merged_logits'].numpy()
  names = ['data', 'pool1', 'pool2', 'pool3', 'pool4']
  sides = {n: max(1, output_stride >> i) for i, n in enumerate(names)}
  expected = _reference(
    images,
    reference.values_of(variables, 'vgg_16/'),
    pool_strides,
    [('', 3, 1, False)],
    sides,
  )
  assert logits.shape == expected.shape
  np.testing.assert_allclose(logits, expected, atol=1e-4 * expected.std())


def test_an_output_stride_that_cannot_be_reached():
  with pytest.raises(InputError, match=r'possible are \[1, .*32\].*=64'):
    model.build_model(_options(output_stride=64))


# Names and counts.


def test_names_are_those_of_slim():
  shapes = diagnosis.model_shapes(
    _options(vgg_fc6_kernel_size=7, vgg_fc_filters=4096)
  )
  assert shapes['vgg_16/conv1/conv1_1/weights'] == (3, 3, 3, 64)
  assert shapes['vgg_16/conv3/conv3_3/weights'] == (3, 3, 256, 256)
  assert shapes['vgg_16/conv5/conv5_3/biases'] == (512,)
  assert shapes['vgg_16/fc6/weights'] == (7, 7, 512, 4096)
  assert shapes['vgg_16/fc7/weights'] == (1, 1, 4096, 4096)
  assert list(shapes)[-2:] == [
    'logits/semantic/weights',
    'logits/semantic/biases',
  ]
  assert len(shapes) == 2 * (13 + 2 + 1)


def test_names_of_the_branches_of_v2():
  shapes = diagnosis.model_shapes(_options(atrous_rates=[6, 12, 18, 24]))
  head = {name for name in shapes if not name.startswith('vgg_16/conv')}
  assert head == {
    f'{scope}/{part}'
    for part in ('weights', 'biases')
    for scope in (
      *(f'vgg_16/fc{layer}_{i}' for layer in (6, 7) for i in (1, 2, 3, 4)),
      *(f'logits/semantic{suffix}' for suffix in ('', '_1', '_2', '_3')),
    )
  }


@pytest.mark.parametrize('variant', TABLE_2)
def test_parameters_of_table_2(variant):
  kernel_size, rate, filters, millions = TABLE_2[variant]
  shapes = diagnosis.model_shapes(
    _options(
      outputs_to_num_classes={'semantic': 21},
      atrous_rates=[rate],
      vgg_fc6_kernel_size=kernel_size,
      vgg_fc_filters=filters,
    )
  )
  # The convolutions of VGG-16, fc6, fc7 and the logits, each with biases.
  expected = 14_714_688 + (kernel_size**2 * 512 + 1) * filters
  expected += (filters + 1) * filters + (filters + 1) * 21
  assert sum(map(math.prod, shapes.values())) == expected
  assert round(expected / 1e6, 1) == millions


def test_model_stats_counts_the_same():
  options = _options(
    outputs_to_num_classes={'semantic': 21},
    atrous_rates=[12],
    vgg_fc_filters=1024,
  )
  assert stats.stats(options).parameters == 20_505_429


def test_side_branches_add_640_channels():
  plain, more = (
    diagnosis.model_shapes(_options(vgg_side_branches=sides))
    for sides in (False, True)
  )
  assert plain['logits/semantic/weights'] == (1, 1, 16, 3)
  assert more['logits/semantic/weights'] == (1, 1, 16 + 640, 3)
  assert len(more) == len(plain) + 5 * 4
  assert more['vgg_16/data_conv/weights'] == (3, 3, 3, 128)
  assert more['vgg_16/pool4_conv/weights'] == (3, 3, 512, 128)
  assert more['vgg_16/pool4_fc/weights'] == (1, 1, 128, 128)


# Other heads, training, and what does not go together.


def test_other_heads():
  """v3's ASPP and v3+'s decoder on pool5."""
  options = _options(
    aspp_with_batch_norm=True,
    atrous_rates=[6, 12],
    aspp_convs_filters=8,
    decoder_filters=8,
    output_stride=16,
    decoder_output_stride=[8, 4, 2],
    vgg_fc_filters=1024,
  )
  network = model.build_model(options)
  names = checkpoints.named_variables(network)
  assert names['aspp1_depthwise/depthwise_weights'].shape == (3, 3, 512, 1)
  for suffix, channels in (('', 512), ('_1', 256), ('_2', 128)):
    weights = names[f'decoder/feature_projection0{suffix}/weights']
    assert weights.shape == (1, 1, channels, 48)
  assert not any('fc6' in name for name in names)
  logits = network(_images(33, 33))['semantic']['merged_logits']
  assert logits.shape == (1, 17, 17, 3)


def test_padding_is_the_mean():
  assert feature_extractor.mean_pixel('vgg_16') == list(vgg.MEAN_RGB)
  network = model.build_model(_options())
  variables = checkpoints.named_variables(network)
  _assign(variables)
  for name, variable in variables.items():
    if name.endswith('biases'):
      variable.assign(variable * 0)
  images = np.broadcast_to(np.float32(vgg.MEAN_RGB), (1, 33, 33, 3))
  logits = network(images)['semantic']['merged_logits'].numpy()
  np.testing.assert_allclose(logits, 0.0, atol=1e-5)


def test_dropout_while_training():
  images = _images(33, 33)
  for is_training in (False, True):
    with slim.layer_store() as store:
      tensor = keras.Input((33, 33, 3))
      logits = model.multi_scale_logits(
        tensor, _options(vgg_side_branches=True), is_training=is_training
      )
      network = keras.Model(tensor, logits)
    dropped = [name for name in store.layers if 'dropout' in name]
    assert len(dropped) == (12 if is_training else 0)
    outputs = [
      network(images)['semantic']['merged_logits'].numpy() for _ in range(2)
    ]
    assert np.array_equal(*outputs) != is_training


def test_a_pyramid_shares_its_weights():
  """v2's MSC: the maximum of three scales."""
  options = _options(atrous_rates=[2, 4])
  single = checkpoints.named_variables(model.build_model(options))
  network = model.build_model(options, image_pyramid=[0.5, 0.75, 1.0])
  variables = checkpoints.named_variables(network)
  assert list(variables) == list(single)
  _assign(variables)
  logits = network(_images(33, 33))['semantic']
  merged = logits.pop('merged_logits').numpy()
  assert set(logits) == {'logits_0.50', 'logits_0.75', 'logits_1.00'}
  scales = [value.numpy() for value in logits.values()]
  np.testing.assert_array_equal(merged, np.max(scales, axis=0))
  assert all((merged == value).any() for value in scales)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'decoder_output_stride': [4]}, 'decoder_output_stride does not go with'),
    ({'decoder_output_is_logits': True}, 'decoder_output_is_logits does not'),
    (
      {'logits_kernel_size': 3, 'atrous_rates': [6]},
      'logits_kernel_size does not go with',
    ),
    (
      {'vgg_side_branches': True, 'atrous_rates': [6, 12]},
      'vgg_side_branches join.*at most one',
    ),
    (
      {'vgg_side_branches': True, 'aspp_with_batch_norm': True},
      'vgg_fc_filters applies to.*aspp_with_batch_norm=True',
    ),
    (
      {'vgg_side_branches': True, 'model_variant': 'resnet_v1_50'},
      "vgg_fc_filters applies to.*'resnet_v1_50'",
    ),
    ({'vgg_fc6_kernel_size': 0}, 'vgg_fc6_kernel_size'),
    ({'vgg_fc_filters': 0}, 'vgg_fc_filters'),
  ],
)
def test_what_does_not_go_together(changes, message):
  with pytest.raises(InputError, match=message):
    _options(**changes)


_V1 = ('--model_variant=vgg_16', '--aspp_with_batch_norm=false')


@pytest.mark.parametrize(
  'arguments, message',
  [
    (('--model_variant=xception_65', '--vgg_fc_filters=8'), 'xception_65'),
    (
      ('--model_variant=vgg_16', '--vgg_fc6_kernel_size=4'),
      'fc6_kernel_size applies to .*aspp_with_batch_norm=True',
    ),
    (
      ('--model_variant=vgg_16', '--vgg_fc_filters=1024'),
      'in the place of fc6',
    ),
    ((*_V1, '--multi_grid=1,2,4'), '--multi_grid'),
    ((*_V1, '--batch_norm_decay=0.9'), 'no batch norm'),
    ((*_V1, '--aspp_convs_filters=8'), '--aspp_convs_filters'),
    ((*_V1, '--decoder_output_stride=4'), 'decoder_output_stride does not go'),
  ],
)
def test_flags_without_effect(arguments, message, parse_flags):
  parse_flags(*arguments)
  with pytest.raises(InputError, match=message):
    model_flags.model_options(21, [65, 65])


def test_flags(parse_flags, caplog):
  parse_flags(
    *_V1, '--atrous_rates=6,12', '--vgg_fc6_kernel_size=3', '--output_stride=8'
  )
  with caplog.at_level('WARNING', logger='absl'):
    options = model_flags.model_options(21, [65, 65])
  assert options.vgg_fc6_kernel_size == 3
  # That 1x1 convolutions have no rates is for heads without fc6 to warn of.
  assert not caplog.records


def test_another_output_stride_changes_the_rates(parse_flags, tmp_path):
  stored_options.save(str(tmp_path), _options(atrous_rates=[12]))
  checkpoints.save(str(tmp_path), 0, {})
  parse_flags('--output_stride=16')
  options = model_flags.model_options(3, [65, 65], str(tmp_path))
  assert (options.output_stride, options.atrous_rates) == (16, [6])
  parse_flags('--vgg_fc_filters=8')
  with pytest.raises(InputError, match='contradicts the checkpoint'):
    model_flags.model_options(3, [65, 65], str(tmp_path))

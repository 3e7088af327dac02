"""Blocks after the fourth: the cascade of v3."""

import keras
import numpy as np
import pytest

import recipe
from deeplab import checkpoints, common, diagnosis, slim
from deeplab.common import InputError
from deeplab.core import feature_extractor


def _build(size=(65, 65), **changes):
  """The backbone, from images to its features."""
  options = common.ModelOptions(
    **{
      'outputs_to_num_classes': {'semantic': 4},
      'crop_size': size,
      'model_variant': 'resnet_v1_18_beta',
      'resnet_num_blocks': 7,
      **changes,
    }
  )
  with slim.layer_store():
    images = keras.Input((*size, 3))
    features, _ = feature_extractor.extract_features(images, options)
    return keras.Model(images, features)


def _rates(network):
  """Rates of the 3x3 convolutions, by block from the fourth on."""
  rates = {}
  for layer in network.layers:
    parts = layer.name.split('.')
    if parts[-1] == 'conv2' and parts[1] >= 'block4':
      rates.setdefault(parts[1], []).append(layer.rate)
  return rates


@pytest.mark.parametrize(
  ('output_stride', 'multi_grid', 'expected'),
  [
    # Figure 3 (b) and, with the multi-grid of table 3, section 3.2.1.
    (16, None, [(2, 2, 2), (4, 4, 4), (8, 8, 8), (16, 16, 16)]),
    (16, [1, 2, 1], [(2, 4, 2), (4, 8, 4), (8, 16, 8), (16, 32, 16)]),
    (8, [1, 2, 1], [(4, 8, 4), (8, 16, 8), (16, 32, 16), (32, 64, 32)]),
    # Figure 3 (a), with all strides there are.
    (256, None, [(1, 1, 1)] * 4),
  ],
)
def test_the_rates_of_the_paper(output_stride, multi_grid, expected):
  network = _build(
    model_variant='resnet_v1_50_beta',
    output_stride=output_stride,
    multi_grid=multi_grid,
  )
  assert [tuple(rates) for rates in _rates(network).values()] == expected


def test_sizes_of_the_features():
  for stride, side in ((8, 65), (32, 17), (64, 9), (128, 5), (256, 3)):
    network = _build(size=(513, 513), output_stride=stride)
    assert network.output_shape == (None, side, side, 512)


def test_atrous_features_are_the_strided_ones_between_pixels():
  """All output strides compute the same, at more or fewer places."""
  size = (257, 513)
  images = np.random.default_rng(0).uniform(0, 255, (1, *size, 3))
  features = {}
  for stride in (8, 32, 256):
    network = _build(size=size, output_stride=stride)
    recipe.assign(checkpoints.named_variables(network))
    features[stride] = network(images.astype(np.float32)).numpy()
  assert features[256].shape[1:3] == (2, 3)
  for stride in (8, 32):
    step = 256 // stride
    np.testing.assert_allclose(
      features[stride][:, ::step, ::step],
      features[256],
      atol=1e-4 * features[256].std(),
    )


def test_one_checkpoint_serves_every_output_stride_and_multi_grid(tmp_path):
  network = _build(output_stride=16, multi_grid=[1, 2])
  named = checkpoints.named_variables(network)
  recipe.assign(named)
  prefix = checkpoints.save(str(tmp_path), 1, named)
  images = np.random.default_rng(0).uniform(0, 255, (1, 65, 65, 3))
  outputs = []
  for stride, multi_grid in ((16, [1, 2]), (8, [1, 2]), (16, None)):
    other = _build(output_stride=stride, multi_grid=multi_grid)
    report = checkpoints.restore(other, prefix)
    assert len(report.restored) == len(named) and not report.left_over
    outputs.append(other(images.astype(np.float32)).numpy())
  np.testing.assert_array_equal(outputs[0], network(images).numpy())
  # The options are no decoration.
  assert outputs[1].shape[1] == 9
  assert not np.allclose(outputs[2], outputs[0], atol=1e-2)


@pytest.mark.parametrize('blocks', [4, 5, 7])
def test_copies_of_block4(blocks):
  shapes = {
    name: tuple(variable.shape)
    for name, variable in checkpoints.named_variables(
      _build(model_variant='resnet_v1_50_beta', resnet_num_blocks=blocks)
    ).items()
  }
  found = {name.split('/')[1] for name in shapes if '/block' in name}
  assert found == {f'block{i + 1}' for i in range(blocks)}
  for i in range(5, blocks + 1):
    # The first unit of block4 alone changes the number of channels.
    unit = f'resnet_v1_50/block{i}/unit_1/bottleneck_v1'
    assert shapes[f'{unit}/conv1/weights'] == (1, 1, 2048, 512)
    assert f'{unit}/shortcut/weights' not in shapes


def test_a_checkpoint_tells_its_blocks():
  options = common.ModelOptions(
    {'semantic': 4},
    crop_size=[65, 65],
    model_variant='resnet_v1_50',
    resnet_num_blocks=6,
    aspp_with_batch_norm=False,
  )
  fields = diagnosis.infer_options(diagnosis.model_shapes(options))
  assert fields == {
    'model_variant': 'resnet_v1_50',
    'resnet_num_blocks': 6,
    'aspp_with_batch_norm': False,
    'outputs_to_num_classes': {'semantic': 4},
  }


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'resnet_num_blocks': 8}, 'resnet_num_blocks must be.* at most 7.*=8'),
    ({'resnet_num_blocks': 3}, 'resnet_num_blocks must be.*at least 4.*=3'),
    ({'output_stride': 512}, r'possible are \[.*128, 256\].*=512'),
    ({'multi_grid': [1, 2, 1]}, 'must have 2 values.* copies'),
    (
      {'model_variant': 'mobilenet_v2'},
      "resnet_num_blocks applies to ResNet.*'mobilenet_v2'",
    ),
  ],
)
def test_errors(changes, message):
  with pytest.raises(InputError, match=message):
    _build(**changes)

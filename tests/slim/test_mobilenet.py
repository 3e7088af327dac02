"""The MobileNet engine and its networks."""

import keras
import numpy as np
import pytest

import recipe
from deeplab import common, slim
from deeplab.core import feature_extractor
from deeplab.slim.nets.mobilenet import conv_blocks, mobilenet

_VARIANTS = (
  'mobilenet_v2',
  'mobilenet_v3_large_seg',
  'mobilenet_v3_small_seg',
  'mobilenet_edgetpu',
)


def _build(function, shape):
  """A network (inputs -> whatever `function` returns) and its variables."""
  with slim.layer_store() as store:
    tensor = keras.Input(shape)
    network = keras.Model(tensor, function(tensor))
  variables = {
    slim.official_name(variable): variable
    for layer in store.layers.values()
    for variable in layer.variables
  }
  recipe.assign(variables)
  return network, variables


def _build_variant(variant, output_stride, shape=(65, 97, 3), **changes):
  options = common.ModelOptions(
    {'semantic': 2},
    model_variant=variant,
    output_stride=output_stride,
    **changes,
  )
  return _build(
    lambda images: feature_extractor.extract_features(images, options), shape
  )


def _images(height, width):
  pixels = np.random.default_rng(0).uniform(0, 255, (1, height, width, 3))
  return pixels.astype(np.float32)


@pytest.mark.parametrize(
  'value, divisor, min_value, expected',
  [
    (18, 8, None, 24),  # 16 is more than a tenth less.
    (17, 8, None, 16),
    (3, 8, None, 8),
    (4.5, 1, 1, 5),
    (4.4, 1, 1, 4),
    (20, 8, 32, 32),
  ],
)
def test_make_divisible(value, divisor, min_value, expected):
  assert conv_blocks.make_divisible(value, divisor, min_value) == expected


def test_activations_at_known_points():
  x = np.array([-9, -3, -1.5, 0, 1, 3, 8], np.float32)
  swish, _ = _build(conv_blocks.hard_swish, (7,))
  np.testing.assert_allclose(
    swish(x[np.newaxis])[0], [0, 0, -0.375, 0, 2 / 3, 3, 8], rtol=1e-6
  )
  sigmoid, _ = _build(conv_blocks.hard_sigmoid, (7,))
  # 0.16667 is not quite a sixth.
  expected = [0, 0, 0.250005, 0.50001, 0.66668, 1.00002, 1.00002]
  np.testing.assert_allclose(sigmoid(x[np.newaxis])[0], expected, rtol=1e-6)


def test_squeeze_excite():
  network, variables = _build(conv_blocks.squeeze_excite, (5, 4, 72))
  assert {name: tuple(v.shape) for name, v in variables.items()} == {
    'squeeze_excite/Conv/weights': (1, 1, 72, 24),
    'squeeze_excite/Conv/biases': (24,),
    'squeeze_excite/Conv_1/weights': (1, 1, 24, 72),
    'squeeze_excite/Conv_1/biases': (72,),
  }
  x = np.random.default_rng(0).normal(size=(2, 5, 4, 72)).astype(np.float32)
  w1, b1, w2, b2 = (v.numpy().squeeze() for v in variables.values())
  hidden = np.maximum(x.mean((1, 2)) @ w1 + b1, 0)
  gate = np.clip(hidden @ w2 + b2 + 3, 0, 6) * 0.16667
  assert np.any((gate > 0) & (gate < 1))
  np.testing.assert_allclose(
    network(x), x * gate[:, np.newaxis, np.newaxis], rtol=1e-4, atol=1e-5
  )


def test_fused_unit_without_expansion_has_no_stride():
  with pytest.raises(ValueError, match='no stride'):
    _build(
      lambda x: conv_blocks.fused_conv(
        x, 8, conv_blocks.expand_input_by_factor(1), stride=2
      ),
      (9, 9, 8),
    )


@pytest.mark.parametrize('variant', _VARIANTS)
@pytest.mark.parametrize('output_stride', [8, 16, 32])
def test_output_sizes(variant, output_stride):
  network, _ = _build_variant(variant, output_stride)
  features, end_points = network.output
  assert features.shape[1:3] == (
    64 // output_stride + 1,
    96 // output_stride + 1,
  )
  backbone = feature_extractor.get_backbone(variant)
  for stride in backbone.decoder_end_points:
    low_level = end_points[backbone.decoder_end_point(stride)]
    stride = min(stride, output_stride)
    assert low_level.shape[1:3] == (64 // stride + 1, 96 // stride + 1)


@pytest.mark.parametrize('variant', _VARIANTS)
@pytest.mark.parametrize('output_stride', [5, 64])
def test_output_stride_that_cannot_be_reached(variant, output_stride):
  with pytest.raises(common.InputError, match=f'{output_stride}'):
    _build_variant(variant, output_stride)


@pytest.mark.parametrize('variant', ['mobilenet_v2', 'mobilenet_edgetpu'])
def test_atrous_convolution_computes_the_same_more_densely(variant):
  """Stride 32 is a sampling of any other stride, whatever layers it spans.

  Without squeeze-and-excitation, whose means depend on the density.
  """
  images = _images(65, 97)
  coarse, _ = _build_variant(variant, 32)
  expected = coarse(images)[0].numpy()
  for output_stride in (4, 8, 16):
    dense, _ = _build_variant(variant, output_stride)
    step = 32 // output_stride
    sampled = dense(images)[0].numpy()[:, ::step, ::step]
    np.testing.assert_allclose(
      sampled, expected, rtol=1e-4, atol=1e-4 * expected.std()
    )


def _channels(variables, layer):
  """Number of filters of a scope, by the end of its name."""
  (shape,) = {
    tuple(variable.shape)
    for name, variable in variables.items()
    if name.split('/', 1)[1] == f'{layer}/weights'
  }
  return shape[-1]


@pytest.mark.parametrize(
  'variant, depth_multiplier, divisible_by, first, unit, expanded, last',
  [
    ('mobilenet_v2', 1.0, None, 32, 16, 96, 320),
    ('mobilenet_v2', 0.5, None, 16, 8, 48, 160),
    ('mobilenet_v2', 0.35, None, 11, 6, 40, 112),
    ('mobilenet_v2', 0.35, 8, 16, 8, 48, 112),
    ('mobilenet_v2', 0.75, None, 24, 12, 72, 240),
    ('mobilenet_v2', 0.75, 8, 24, 16, 96, 240),
    ('mobilenet_edgetpu', 0.75, None, 24, 16, 128, 960),
    ('mobilenet_edgetpu', 0.5, 8, 16, 8, 64, 640),
    ('mobilenet_v3_large_seg', 1.0, None, 16, 16, 64, 480),
    ('mobilenet_v3_large_seg', 0.75, None, 16, 16, 64, 360),
    ('mobilenet_v3_large_seg', 0.5, None, 8, 8, 32, 240),
    ('mobilenet_v3_small_seg', 1.0, None, 16, 16, 72, 288),
    ('mobilenet_v3_small_seg', 0.5, 8, 8, 8, 40, 144),
  ],
)
def test_depth_multiplier(
  variant, depth_multiplier, divisible_by, first, unit, expanded, last
):
  _, variables = _build_variant(
    variant, 16, depth_multiplier=depth_multiplier, divisible_by=divisible_by
  )
  last_layer = 'Conv_1'
  if variant == 'mobilenet_v2':
    last_layer = 'expanded_conv_16/project'
  assert (
    _channels(variables, 'Conv'),
    _channels(variables, 'expanded_conv/project'),
    _channels(variables, 'expanded_conv_1/expand'),
    _channels(variables, last_layer),
  ) == (first, unit, expanded, last)


@pytest.mark.parametrize(
  'variant, units, expanded, projected',
  [
    ('mobilenet_v3_large_seg', (12, 13, 14), (336, 480, 480), (80, 80, 80)),
    ('mobilenet_v3_small_seg', (8, 9, 10), (144, 288, 288), (48, 48, 48)),
  ],
)
def test_last_block_is_halved(variant, units, expanded, projected):
  _, variables = _build_variant(variant, 16)
  for i, unit in enumerate(units):
    scope = f'expanded_conv_{unit}'
    assert _channels(variables, f'{scope}/expand') == expanded[i]
    assert _channels(variables, f'{scope}/project') == projected[i]


@pytest.mark.parametrize(
  'unit', [conv_blocks.expanded_conv, conv_blocks.fused_conv]
)
def test_residual(unit):
  def network(**arguments):
    def build(inputs):
      with mobilenet.training_scope(is_training=False):
        return unit(inputs, **{'num_outputs': 16, **arguments})

    return _build(build, (9, 9, 16))[0]

  x = np.random.default_rng(0).normal(size=(1, 9, 9, 16)).astype(np.float32)
  linear = network(residual=False)(x)
  np.testing.assert_allclose(network()(x) - linear, x, atol=1e-5)
  # No shape to add to.
  for arguments in ({'stride': 2}, {'num_outputs': 8}):
    np.testing.assert_array_equal(
      network(**arguments)(x), network(residual=False, **arguments)(x)
    )


@pytest.mark.parametrize('variant', _VARIANTS)
def test_any_image_size(variant):
  """A network built for any size computes what one for that size does."""
  images = _images(50, 71)
  anything, _ = _build_variant(variant, 16, (None, None, 3))
  fixed, _ = _build_variant(variant, 16, (50, 71, 3))
  expected = fixed(images)[0].numpy()
  assert expected.shape[1:3] == (4, 5)
  np.testing.assert_allclose(
    anything(images)[0], expected, rtol=1e-4, atol=1e-5 * expected.std()
  )


def test_edgetpu_has_no_decoder_features():
  with pytest.raises(common.InputError, match=r'none\. Received'):
    feature_extractor.get_backbone('mobilenet_edgetpu').decoder_end_point(4)

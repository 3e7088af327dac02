"""The decoder and its options against NumPy."""

import keras
import numpy as np
import pytest

import recipe
import reference
from deeplab import checkpoints, common, diagnosis, slim
from deeplab.core import decoder

_SIZE = (17, 21)


def _run(gain=1.0, **changes):
  """Features, low-level features, the decoder's output and its values."""
  options = common.ModelOptions(
    **{
      'outputs_to_num_classes': {'semantic': 4},
      'crop_size': [65, 81],
      'output_stride': 16,
      'decoder_output_stride': [4],
      'decoder_filters': 4,
      **changes,
    }
  )
  generator = np.random.default_rng(0)
  shapes = [(2, 5, 6, 3), (2, *_SIZE, 2)]
  inputs = [generator.normal(size=shape).astype(np.float32) for shape in shapes]
  with slim.layer_store():
    tensors = [keras.Input(shape[1:]) for shape in shapes]
    end_points = {'layer_4/depthwise_output': tensors[1]}
    outputs = decoder.refine_by_decoder(
      tensors[0], end_points, options.crop_size, options
    )
    network = keras.Model(tensors, outputs)
  variables = checkpoints.named_variables(network)
  recipe.assign(variables)
  for name, variable in variables.items():
    if name.endswith('gamma'):
      variable.assign(variable * gain)
  values = reference.values_of(variables, 'decoder/')
  return *inputs, network(inputs).numpy(), values


def _check(outputs, expected):
  assert outputs.shape == (2, *_SIZE, 4)
  np.testing.assert_allclose(outputs, expected, atol=1e-5 * expected.std())


@pytest.mark.parametrize('bounded', [False, True])
def test_concatenation(bounded):
  activation = reference.relu6 if bounded else reference.relu
  net, skip, outputs, values = _run(use_bounded_activation=bounded, gain=3.0)
  skip = reference.conv2d(skip, values, 'feature_projection0', activation)
  assert skip.shape[-1] == 48 and (skip.max() > 6) != bounded
  net = np.concatenate([reference.resize(net, _SIZE), skip], axis=-1)
  for i in range(2):
    scope = f'decoder_conv{i}'
    net = reference.separable(net, (1, 1), values, scope, activation)
  _check(outputs, net)


@pytest.mark.parametrize('is_separable', [False, True])
@pytest.mark.parametrize('repetitions', [1, 3])
def test_structures_of_table_2(repetitions, is_separable):
  """v3+, table 2; the channels of the projection are those of table 1."""
  net, skip, outputs, values = _run(
    decoder_num_convs=repetitions,
    decoder_projection_filters=8,
    decoder_use_separable_conv=is_separable,
  )
  skip = reference.conv2d(skip, values, 'feature_projection0')
  assert skip.shape[-1] == 8
  net = np.concatenate([reference.resize(net, _SIZE), skip], axis=-1)
  for i in range(repetitions):
    if is_separable:
      net = reference.separable(net, (1, 1), values, f'decoder_conv{i}')
    else:
      scope = f'decoder_conv0/decoder_conv0_{i + 1}'
      net = reference.conv2d(net, values, scope)
  _check(outputs, net)


def test_a_1x1_convolution_in_the_decoder():
  net, skip, outputs, values = _run(
    decoder_num_convs=1,
    decoder_kernel_size=1,
    decoder_use_separable_conv=False,
  )
  skip = reference.conv2d(skip, values, 'feature_projection0')
  net = np.concatenate([reference.resize(net, _SIZE), skip], axis=-1)
  assert values['decoder_conv0/decoder_conv0_1/weights'].shape == (1, 1, 51, 4)
  net = reference.conv2d(net, values, 'decoder_conv0/decoder_conv0_1')
  _check(outputs, net)


@pytest.mark.parametrize('is_separable', [False, True])
@pytest.mark.parametrize('strides', [[4], [8, 4]])
def test_a_checkpoint_tells_its_structure(strides, is_separable):
  options = common.ModelOptions(
    {'semantic': 4},
    crop_size=[65, 65],
    output_stride=16,
    decoder_output_stride=strides,
    decoder_use_separable_conv=is_separable,
    decoder_num_convs=3,
    decoder_kernel_size=5,
    decoder_filters=32,
    decoder_projection_filters=16,
  )
  fields = diagnosis.infer_options(diagnosis.model_shapes(options))
  found = common.ModelOptions(**fields, output_stride=16, crop_size=[65, 65])
  assert found == options


@pytest.mark.parametrize('is_separable', [False, True])
def test_sum(is_separable):
  """Both terms are bounded, their sum is not."""
  net, skip, outputs, values = _run(
    decoder_use_sum_merge=True,
    decoder_use_separable_conv=is_separable,
    use_bounded_activation=True,
    gain=5.0,
  )
  skip = reference.conv2d(skip, values, 'feature_projection0', reference.relu6)
  net = reference.resize(net, _SIZE)
  if is_separable:
    scope = 'decoder_split_sep_conv0'
    net = reference.separable(net, (1, 1), values, scope, reference.relu6)
  else:
    net = reference.conv2d(net, values, 'decoder_conv0', reference.relu6)
  assert (net + skip).max() > 6
  _check(outputs, net + skip)


def test_the_sum_as_logits():
  """Linear 1x1 convolutions with biases."""
  net, skip, outputs, values = _run(
    decoder_use_sum_merge=True, decoder_output_is_logits=True
  )
  assert values['decoder_conv0/weights'].shape == (1, 1, 3, 4)
  net = reference.resize(net, _SIZE)
  expected = sum(
    reference.conv2d(term, values, scope, reference.identity)
    for term, scope in (
      (net, 'decoder_conv0'),
      (skip, 'feature_projection0'),
    )
  )
  assert expected.min() < 0
  _check(outputs, expected)


def test_the_concatenation_as_logits():
  """Linear 3x3 convolutions with biases, never separable."""
  net, skip, outputs, values = _run(decoder_output_is_logits=True)
  skip = reference.conv2d(
    skip, values, 'feature_projection0', reference.identity
  )
  net = np.concatenate([reference.resize(net, _SIZE), skip], axis=-1)
  for i in (1, 2):
    scope = f'decoder_conv0/decoder_conv0_{i}'
    net = reference.conv2d(net, values, scope, reference.identity)
  _check(outputs, net)

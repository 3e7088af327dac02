"""ASPP and its options against NumPy."""

import keras
import numpy as np
import pytest

import recipe
import reference
from deeplab import checkpoints, common, slim
from deeplab.common import InputError
from deeplab.core import aspp


def _options(**changes):
  return common.ModelOptions(
    **{
      'outputs_to_num_classes': {'semantic': 5},
      # 5x6 at output stride 16.
      'crop_size': [65, 81],
      'output_stride': 16,
      'atrous_rates': [2],
      'aspp_convs_filters': 4,
      **changes,
    }
  )


def _run(options, gain=1.0):
  """Features, the output of ASPP, and its variables' values."""
  features = np.random.default_rng(0).normal(size=(2, 5, 6, 3))
  with slim.layer_store():
    tensor = keras.Input(features.shape[1:])
    outputs = aspp.aspp(
      tensor,
      options,
      weight_decay=0.0,
      is_training=False,
      fine_tune_batch_norm=False,
    )
    network = keras.Model(tensor, outputs)
  variables = checkpoints.named_variables(network)
  recipe.assign(variables)
  for name, variable in variables.items():
    if name.endswith('gamma'):
      variable.assign(variable * gain)
  outputs = network(features.astype(np.float32)).numpy()
  return features, outputs, reference.values_of(variables)


def _branches(features, values, activation=reference.relu):
  return [
    reference.conv2d(features, values, 'aspp0', activation),
    reference.separable(features, (2, 2), values, 'aspp1', activation),
  ]


def _sigmoid(net):
  return 1 / (1 + np.exp(-net))


def _q_sigmoid(net):
  return np.clip(net + 3, 0, 6) * 0.16667


@pytest.mark.parametrize(
  'changes, gate',
  [({}, _sigmoid), ({'image_se_uses_qsigmoid': True}, _q_sigmoid)],
)
def test_squeeze_and_excitation_with_branches(changes, gate):
  features, outputs, values = _run(
    _options(
      aspp_with_squeeze_and_excitation=True,
      image_pooling_crop_size=[33, 49],
      image_pooling_stride=[1, 2],
      **changes,
    )
  )
  # Windows of 3x4 in steps of 1 and 2: 3x2 of them.
  pooled = reference.average_pool(features, (3, 4), (1, 2))
  assert pooled.shape[1:3] == (3, 2)
  pooled = reference.conv2d(pooled, values, 'image_pooling', gate)
  net = np.concatenate(_branches(features, values), axis=-1)
  net = reference.conv2d(net, values, 'concat_projection')
  expected = net * reference.resize(pooled, (5, 6))
  np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_without_projection_the_image_feature_comes_first():
  features, outputs, values = _run(_options(aspp_with_concat_projection=False))
  pooled = features.mean((1, 2), keepdims=True)
  pooled = reference.conv2d(pooled, values, 'image_pooling')
  pooled = np.broadcast_to(pooled, (2, 5, 6, 4))
  expected = np.concatenate([pooled, *_branches(features, values)], axis=-1)
  np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_bounded_activations_spare_the_image_feature():
  features, outputs, values = _run(
    _options(aspp_with_concat_projection=False, use_bounded_activation=True),
    gain=20.0,
  )
  pooled = features.mean((1, 2), keepdims=True)
  pooled = reference.conv2d(pooled, values, 'image_pooling')
  assert pooled.max() > 6
  pooled = np.broadcast_to(pooled, (2, 5, 6, 4))
  branches = _branches(features, values, reference.relu6)
  assert max(branch.max() for branch in branches) == 6
  expected = np.concatenate([pooled, *branches], axis=-1)
  np.testing.assert_allclose(outputs, expected, atol=1e-4)


def test_the_gate_needs_as_many_channels_as_it_has():
  with pytest.raises(InputError, match='needs aspp_with_concat_projection'):
    _options(
      aspp_with_squeeze_and_excitation=True, aspp_with_concat_projection=False
    )

"""Weight-standardised convolutions."""

import keras
import numpy as np
import pytest

import recipe
from deeplab import checkpoints, common, model, slim
from deeplab.common import InputError
from deeplab.core import conv2d_ws


@pytest.mark.parametrize('size', ['9x10', '8x7'])
def test_equals_the_original(testdata, size):
  golden = np.load(testdata / 'units.npz')
  with slim.layer_store() as store:
    tensor = keras.Input(golden[f'conv_{size}_x'].shape[1:])
    outputs = conv2d_ws.conv2d(
      tensor, 4, 3, use_weight_standardization=True, scope='c'
    )
    network = keras.Model(tensor, outputs)
  recipe.assign({slim.official_name(v): v for v in store.layers['c'].variables})
  np.testing.assert_allclose(
    network(golden[f'conv_{size}_x']),
    golden[f'conv_ws_{size}'],
    rtol=1e-5,
    atol=1e-5,
  )


def _options(**changes):
  return common.ModelOptions(
    **{
      'outputs_to_num_classes': {'semantic': 3},
      'crop_size': [33, 33],
      'output_stride': 16,
      'aspp_convs_filters': 16,
      'decoder_filters': 16,
      'decoder_output_stride': [4],
      'model_variant': 'resnet_v1_18_beta',
      **changes,
    }
  )


def _standardise(kernel):
  axes = (0, 1, 2)
  centred = kernel - kernel.mean(axes)
  return centred / np.sqrt(kernel.var(axes) + 1e-5)


def test_it_is_every_convolution_of_a_resnet_and_none_of_the_head():
  images = np.random.default_rng(0).uniform(0, 255, (4, 33, 33, 3))
  logits = []
  for changes in {}, {'use_weight_standardization': True}:
    # Without batch statistics these kernels would let values grow too large.
    network = model.build_model(
      _options(aspp_with_concat_projection=False, **changes),
      is_training=True,
      fine_tune_batch_norm=True,
    )
    variables = checkpoints.named_variables(network)
    recipe.assign(variables)
    if not changes:
      for name, variable in variables.items():
        if name.startswith('resnet') and name.endswith('/weights'):
          variable.assign(_standardise(variable.numpy()))
    logits.append(network(images)['semantic']['merged_logits'].numpy())
  assert 0.1 < logits[0].std() < 100
  np.testing.assert_allclose(*logits, atol=1e-3 * logits[0].std())


def test_the_names_in_a_checkpoint_stay():
  names = [
    list(checkpoints.named_variables(model.build_model(_options(**changes))))
    for changes in ({}, {'use_weight_standardization': True})
  ]
  assert names[0] == names[1]


def test_other_backbones_refuse_it():
  with pytest.raises(InputError, match=r'applies to ResNet.*xception_41'):
    _options(model_variant='xception_41', use_weight_standardization=True)

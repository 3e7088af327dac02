"""Which layer starts from which distribution, as in the original."""

import json
import pathlib

import numpy as np
import pytest

from deeplab import checkpoints, common, model
from deeplab.core import dense_prediction_cell

_GOLDEN = json.loads(
  (pathlib.Path(__file__).parent / 'testdata' / 'initializers.json').read_text()
)
_DEFAULTS = {
  'outputs_to_num_classes': {'semantic': 21},
  'crop_size': [65, 65],
  'output_stride': 16,
}
_HEAD = {'atrous_rates': [6, 12, 18], 'decoder_output_stride': [4]}
_LIGHT_HEAD = {
  'outputs_to_num_classes': {'semantic': 19},
  'output_stride': 32,
  'image_pooling_stride': [4, 5],
  'aspp_convs_filters': 128,
  'aspp_with_concat_projection': False,
  'aspp_with_squeeze_and_excitation': True,
  'decoder_use_sum_merge': True,
  'decoder_filters': 19,
  'decoder_output_is_logits': True,
  'image_se_uses_qsigmoid': True,
  'decoder_output_stride': [8],
}
_OPTIONS = {
  'mobilenet_v2_os16': {'model_variant': 'mobilenet_v2'},
  'mobilenet_v2_aspp_dec4_sum': {
    'model_variant': 'mobilenet_v2',
    'decoder_use_sum_merge': True,
    'decoder_filters': 64,
    **_HEAD,
  },
  'resnet_v1_50_beta_os16': {'model_variant': 'resnet_v1_50_beta', **_HEAD},
  'resnet_v1_50_beta_os16_fullconv': {
    'model_variant': 'resnet_v1_50_beta',
    'aspp_with_separable_conv': False,
    'decoder_use_separable_conv': False,
    **_HEAD,
  },
  'resnet_v1_50_beta_deeplabv2': {
    'model_variant': 'resnet_v1_50_beta',
    'aspp_with_batch_norm': False,
    'logits_kernel_size': 3,
    'atrous_rates': [6, 12, 18, 24],
  },
  'resnet_v1_18_beta_os8_mg': {'model_variant': 'resnet_v1_18_beta', **_HEAD},
  'xception_41_os16': {'model_variant': 'xception_41', **_HEAD},
  'mobilenet_v3_large_seg_os32': {
    'model_variant': 'mobilenet_v3_large_seg',
    **_LIGHT_HEAD,
  },
  'mobilenet_v3_small_seg_os32': {
    'model_variant': 'mobilenet_v3_small_seg',
    **_LIGHT_HEAD,
  },
  'mobilenet_edgetpu_os32': {
    'model_variant': 'mobilenet_edgetpu',
    'output_stride': 32,
  },
  'xception_71_dpc_os16': {
    'outputs_to_num_classes': {'semantic': 19},
    'model_variant': 'xception_71',
    'dense_prediction_cell_config': dense_prediction_cell.read_config(
      'dense_prediction_cell_branch5_top1_cityscapes'
    ),
    'decoder_output_stride': [4],
  },
  'nas_pnasnet_os16': {'model_variant': 'nas_pnasnet', **_HEAD},
  'nas_hnasnet_os8': {
    'model_variant': 'nas_hnasnet',
    'output_stride': 8,
    **_HEAD,
  },
}

# Of a normal distribution cut at two standard deviations, and a uniform one.
_SPREAD = {'normal': 0.8796, 'uniform': 3**-0.5}
_BOUND = {'normal': 2.0, 'uniform': 1.0}


@pytest.mark.parametrize('name', _GOLDEN)
def test_initial_values(name):
  options = common.ModelOptions(**{**_DEFAULTS, **_OPTIONS[name]})
  variables = checkpoints.named_variables(model.build_model(options, seed=1))
  values = {key: variable.numpy() for key, variable in variables.items()}
  for kind, parameter, names in _GOLDEN[name]['kinds']:
    for key in names:
      scaled = values.pop(key) / parameter
      # Five standard errors, and a little for the shape of the tail.
      tolerance = 5 / np.sqrt(2 * scaled.size) + 1e-3
      assert np.abs(scaled).max() <= _BOUND[kind] * (1 + 1e-5), key
      assert scaled.std() == pytest.approx(_SPREAD[kind], rel=tolerance), key
      assert abs(scaled.mean()) < 5 / np.sqrt(scaled.size), key
  # All that is left are gammas and variances, betas, means and biases.
  ones = [v for key, v in values.items() if key.endswith(('gamma', 'variance'))]
  zeros = [v for v in values.values() if not v.any()]
  assert all((value == 1).all() for value in ones)
  assert len(ones) == _GOLDEN[name]['num_ones']
  assert len(zeros) == _GOLDEN[name]['num_zeros']
  assert len(values) == len(ones) + len(zeros)

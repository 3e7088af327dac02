"""Which network a checkpoint is of, and what restoring says about it."""

import keras
import numpy as np
import pytest

from deeplab import checkpoints, common, diagnosis
from deeplab.common import InputError
from deeplab.core import dense_prediction_cell

_RESNET = {'model_variant': 'resnet_v1_18_beta'}
_VGG = {
  'model_variant': 'vgg_16',
  'output_stride': 8,
  'aspp_with_batch_norm': False,
}
_V3_HEAD = {
  'aspp_convs_filters': 128,
  'aspp_with_concat_projection': False,
  'aspp_with_squeeze_and_excitation': True,
  'decoder_output_stride': [8],
  'decoder_use_sum_merge': True,
  'decoder_filters': 19,
  'decoder_output_is_logits': True,
}


def _shapes(fields):
  options = {'output_stride': 16, 'crop_size': [65, 65], **fields}
  return diagnosis.model_shapes(common.ModelOptions(**options))


@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'depth_multiplier': 0.5},
    {'depth_multiplier': 0.35, 'divisible_by': 8},
    {'aspp_with_batch_norm': False},
    {'decoder_output_stride': [8, 4], 'decoder_filters': 64},
    {'decoder_output_stride': [16]},
    {**_RESNET, 'resnet_root_convs': 2, 'atrous_rates': [6, 12, 18]},
    {**_RESNET, 'atrous_rates': [6], 'aspp_with_separable_conv': False},
    {
      **_RESNET,
      'atrous_rates': [6, 12, 18, 24],
      'aspp_with_batch_norm': False,
      'logits_kernel_size': 3,
    },
    {
      **_RESNET,
      'add_image_level_feature': False,
      'aspp_with_concat_projection': False,
      'aspp_convs_filters': 32,
      'decoder_output_stride': [4],
      'decoder_use_separable_conv': False,
    },
    {
      **_RESNET,
      'decoder_output_stride': [4],
      'decoder_use_sum_merge': True,
      'decoder_use_separable_conv': False,
    },
    {'decoder_output_stride': [4], 'decoder_use_sum_merge': True},
    {'model_variant': 'resnet_v1_50'},
    {'depth_multiplier': 0.5, 'quantize_delay_step': 0},
    {
      **_VGG,
      'atrous_rates': [4],
      'vgg_fc6_kernel_size': 7,
      'vgg_fc_filters': 64,
    },
    {**_VGG, 'atrous_rates': [12], 'vgg_side_branches': True},
    {**_VGG, 'atrous_rates': [6, 12, 18, 24], 'vgg_fc_filters': 32},
    {'model_variant': 'vgg_16', 'decoder_output_stride': [4]},
    {'model_variant': 'xception_41', 'atrous_rates': [6, 12, 18]},
    {
      'model_variant': 'mobilenet_v2',
      'dense_prediction_cell_config': dense_prediction_cell.read_config(
        dense_prediction_cell.PUBLISHED_CELL
      ),
    },
    {'model_variant': 'mobilenet_v3_small_seg', **_V3_HEAD},
    {'model_variant': 'mobilenet_edgetpu', 'depth_multiplier': 0.75},
    {
      'model_variant': 'nas_pnasnet',
      'output_stride': 8,
      'nas_architecture_options': {'nas_stem_output_num_conv_filters': 8},
    },
  ],
)
def test_options_from_names_and_shapes(fields):
  fields = {
    'outputs_to_num_classes': {'semantic': 19},
    'model_variant': 'mobilenet_v2',
    **fields,
  }
  found = diagnosis.diagnose(_shapes(fields))
  default = common.ModelOptions.__dataclass_fields__['model_variant'].default
  inferred = {'model_variant': default, **found.fields}
  assert inferred == fields
  assert not found.missing and not found.reshaped and not found.unused
  assert 'Its variables are those of' in str(found)


def test_several_outputs():
  outputs = {'semantic': 7, 'depth_1': 3}
  fields = diagnosis.infer_options(_shapes({'outputs_to_num_classes': outputs}))
  assert fields['outputs_to_num_classes'] == outputs


def test_leaves_nothing_to_initialise():
  """What is only compared must take neither time nor memory later on."""
  state = keras.src.backend.common.global_state
  _shapes({'outputs_to_num_classes': {'semantic': 7}})
  assert not state.get_global_attribute('uninitialized_variables')


def test_a_backbone_alone():
  shapes = {
    name: shape
    for name, shape in _shapes(
      {'outputs_to_num_classes': {'semantic': 3}}
    ).items()
    if name.startswith('MobilenetV2/')
  }
  # What a classification network has besides.
  shapes['MobilenetV2/Logits/Conv2d_1c_1x1/weights'] = (1, 1, 1280, 1001)
  shapes['MobilenetV2/Conv/weights/ExponentialMovingAverage'] = (3, 3, 3, 32)
  found = diagnosis.diagnose(shapes)
  assert found.fields == {'model_variant': 'mobilenet_v2'}
  assert not found.missing
  assert found.unused == ['MobilenetV2/Logits/Conv2d_1c_1x1/weights']
  assert 'a backbone without a head' in str(found)


def test_vgg_16_of_imagenet():
  shapes = _shapes(
    {
      'outputs_to_num_classes': {'semantic': 3},
      **_VGG,
      'vgg_fc6_kernel_size': 7,
      'vgg_fc_filters': 4096,
    }
  )
  classifier = {'vgg_16/fc8/weights': (1, 1, 4096, 1000), 'global_step': ()}
  found = diagnosis.diagnose(
    {n: s for n, s in shapes.items() if not n.startswith('logits')} | classifier
  )
  assert found.fields == {'model_variant': 'vgg_16'} and not found.missing
  assert 'vgg_16/fc6/weights' in found.unused
  assert 'a backbone without a head' in str(found)


def test_rates_of_vgg_are_guessed():
  found = diagnosis.diagnose(
    _shapes({'outputs_to_num_classes': {'semantic': 3}, **_VGG})
  )
  assert found.guessed == ['output_stride', 'atrous_rates']
  assert str(found) == (
    'Its variables are those of --model_variant=vgg_16 '
    '--aspp_with_batch_norm=false --output_stride=8 --atrous_rates=12 '
    '(3 classes).'
  )


def test_names_under_another_scope():
  shapes = _shapes({'outputs_to_num_classes': {'semantic': 3}})
  nested = {f'FeatureExtractor/{name}': shapes[name] for name in shapes}
  text = diagnosis.describe(nested)
  assert 'Closest is --model_variant=mobilenet_v2' in text
  assert 'under FeatureExtractor instead of MobilenetV2' in text


def test_names_of_a_similar_network():
  shapes = _shapes({'outputs_to_num_classes': {'semantic': 3}})
  other = {
    name.replace('MobilenetV2', 'MyNet'): shape
    for name, shape in shapes.items()
    if 'expanded_conv_3/' not in name
  }
  text = diagnosis.describe(other)
  assert '--model_variant=mobilenet_v2' in text and 'under MyNet' in text
  assert 'missing: MobilenetV2/expanded_conv_3/expand/weights' in text


def test_no_network_at_all():
  found = diagnosis.diagnose({'dense/kernel': (3, 4), 'global_step': ()})
  assert found.fields == {} and found.unused == ['dense/kernel']
  assert 'It fits no network' in str(found)


def _save(shapes, folder):
  values = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
  return checkpoints.save(str(folder), 0, values)


def _network(**fields):
  """{name: array}: restoring must fail before it assigns anything."""
  shapes = _shapes({'outputs_to_num_classes': {'semantic': 5}, **fields})
  return {name: np.zeros(shape) for name, shape in shapes.items()}


_SMALL = {
  'outputs_to_num_classes': {'semantic': 5},
  'depth_multiplier': 0.1,
  'aspp_convs_filters': 8,
}


def test_restoring_into_another_network_names_the_right_flags(tmp_path):
  prefix = _save(_shapes(_SMALL), tmp_path)
  right = '--depth_multiplier=0.1 --aspp_convs_filters=8'
  with pytest.raises(InputError, match='xception_41') as error:
    checkpoints.restore(_network(model_variant='xception_41'), prefix)
  assert f'those of --model_variant=mobilenet_v2 {right}' in str(error.value)
  assert '(5 classes)' in str(error.value)
  # Other shapes.
  with pytest.raises(InputError, match='other shapes') as error:
    checkpoints.restore(_network(depth_multiplier=0.5), prefix)
  assert right in str(error.value)
  # Something that the checkpoint has not.
  with pytest.raises(InputError, match='lacks') as error:
    checkpoints.restore(
      _network(depth_multiplier=0.1, aspp_convs_filters=8, atrous_rates=[6]),
      prefix,
      exclude=['concat_projection'],
    )
  assert right in str(error.value) and 'atrous' not in str(error.value)


def test_restoring_what_fits_no_variant_says_what_is_missing(tmp_path):
  shapes = {
    name: shape
    for name, shape in _shapes(_SMALL).items()
    if name != 'MobilenetV2/expanded_conv_5/depthwise/depthwise_weights'
  }
  prefix = _save(shapes, tmp_path)
  with pytest.raises(InputError, match='No variant fits') as error:
    checkpoints.restore(_network(model_variant='resnet_v1_18'), prefix)
  assert '1 missing: MobilenetV2/expanded_conv_5/depthwise' in str(error.value)

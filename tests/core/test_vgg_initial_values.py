"""Training of VGG begins with ImageNet's layers, or with parts of them."""

import numpy as np
import pytest

from deeplab import checkpoints, common, diagnosis, model
from deeplab.common import InputError
from deeplab.core import feature_extractor


def _options(**changes):
  return common.ModelOptions(
    **{
      'outputs_to_num_classes': {'semantic': 3},
      'crop_size': [17, 17],
      'output_stride': 8,
      'model_variant': 'vgg_16',
      'aspp_with_batch_norm': False,
      **changes,
    }
  )


def _stored(kernel_size=7, filters=8, classes=5):
  """{name: value} like those of slim's vgg_16.ckpt, with fewer filters."""
  generator = np.random.default_rng(1)
  shapes = diagnosis.model_shapes(
    _options(vgg_fc6_kernel_size=kernel_size, vgg_fc_filters=filters)
  )
  values = {
    name: generator.normal(size=shape).astype(np.float32)
    for name, shape in shapes.items()
    if not name.startswith('logits/')
  }
  values['vgg_16/fc8/weights'] = np.zeros((1, 1, filters, classes), np.float32)
  values['vgg_16/mean_rgb'] = np.zeros(3, np.float32)
  return values


def _network(**changes):
  """{name: variable} of a network."""
  return checkpoints.named_variables(model.build_model(_options(**changes)))


def _restore(prefix, variables):
  backbone = feature_extractor.get_backbone('vgg_16')
  return checkpoints.restore(
    variables,
    prefix,
    allow_missing=True,
    initial_values=backbone.initial_values,
  )


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory):
  """Values, and the prefix of their checkpoint."""
  values = _stored()
  folder = tmp_path_factory.mktemp('imagenet')
  return values, checkpoints.save(str(folder), 0, values)


def test_the_same_shapes_are_restored_as_they_are(imagenet):
  values, prefix = imagenet
  variables = _network(vgg_fc6_kernel_size=7, vgg_fc_filters=8)
  report = _restore(prefix, variables)
  assert not report.made
  assert report.left_over == ['vgg_16/fc8/weights', 'vgg_16/mean_rgb']
  assert sorted(report.initialized) == [
    'logits/semantic/biases',
    'logits/semantic/weights',
  ]
  for name in ('vgg_16/fc6/weights', 'vgg_16/conv4/conv4_2/biases'):
    np.testing.assert_array_equal(variables[name], values[name])


@pytest.mark.parametrize(
  'kernel_size, places', [(4, [0, 2, 4, 6]), (3, [0, 3, 6]), (1, [3])]
)
def test_decimation(imagenet, kernel_size, places):
  values, prefix = imagenet
  variables = _network(vgg_fc6_kernel_size=kernel_size, vgg_fc_filters=2)
  report = _restore(prefix, variables)
  assert len(report.made) == 4 and 'made from others' in str(report)
  assert (
    f'vgg_16/fc6/weights [{kernel_size}, {kernel_size}, 512, 2] from '
    'vgg_16/fc6/weights [7, 7, 512, 8]'
  ) in report.made
  # Every fourth filter, of fc6 and of what fc7 takes in.
  filters = [0, 4]
  expected = values['vgg_16/fc6/weights'][np.ix_(places, places)][..., filters]
  np.testing.assert_array_equal(variables['vgg_16/fc6/weights'], expected)
  expected = values['vgg_16/fc7/weights'][:, :, filters][..., filters]
  np.testing.assert_array_equal(variables['vgg_16/fc7/weights'], expected)
  expected = values['vgg_16/fc7/biases'][filters]
  np.testing.assert_array_equal(variables['vgg_16/fc7/biases'], expected)


def test_every_branch_begins_with_the_same_values(imagenet):
  values, prefix = imagenet
  variables = _network(vgg_fc_filters=8, atrous_rates=[1, 2])
  report = _restore(prefix, variables)
  assert len(report.made) == 8
  assert 'vgg_16/fc6/weights' not in report.left_over
  for suffix in ('_1', '_2'):
    np.testing.assert_array_equal(
      variables[f'vgg_16/fc6{suffix}/weights'],
      values['vgg_16/fc6/weights'][::3, ::3],
    )
    np.testing.assert_array_equal(
      variables[f'vgg_16/fc7{suffix}/weights'], values['vgg_16/fc7/weights']
    )


def test_larger_layers_are_not_made_up(imagenet):
  _, prefix = imagenet
  variables = _network(vgg_fc_filters=16)
  with pytest.raises(InputError, match='other shapes: vgg_16/fc6/weights is'):
    _restore(prefix, variables)


def test_decimation_is_for_a_training_that_begins(imagenet):
  _, prefix = imagenet
  with pytest.raises(InputError, match='other shapes'):
    checkpoints.restore(_network(vgg_fc_filters=4), prefix, exclude=['logits'])

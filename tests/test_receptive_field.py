"""Receptive fields from the graph, against impulses and published figures."""

import keras
import numpy as np
import pytest

from deeplab import common, model, receptive_field, slim
from deeplab.common import InputError
from deeplab.slim.nets import resnet_utils


def _network(**changes):
  """One whose fully connected layers and ASPP are thin."""
  if not {'model_variant', 'aspp_with_batch_norm'} & {*changes}:
    changes.setdefault('vgg_fc_filters', 4)
  return model.build_model(
    common.ModelOptions(
      **{
        'outputs_to_num_classes': {'semantic': 2},
        'crop_size': [65, 65],
        'output_stride': 8,
        'model_variant': 'vgg_16',
        'aspp_with_batch_norm': False,
        'aspp_convs_filters': 4,
        **changes,
      }
    )
  )


# Kernel and rate of fc6, the paper's field of view, and receptive field.
_VARIANTS = {
  '7x7': (7, 4, 224, 419),
  '4x4': (4, 4, 128, 323),
  '4x4 rate 8': (4, 8, 224, 419),
  'LargeFOV': (3, 12, 224, 435),
}


@pytest.mark.parametrize('variant', _VARIANTS)
def test_variants_of_v1(variant):
  """Table 2: the outer elements of fc6, and a cell of VGG's stride, 32."""
  kernel_size, rate, field_of_view, size = _VARIANTS[variant]
  network = _network(vgg_fc6_kernel_size=kernel_size, atrous_rates=[rate])
  field = receptive_field.of_layer(network, 'vgg_16/fc6')
  assert field.stride == (8, 8)
  assert field.size == (size, size)
  # Images of 321 pixels have 41 x 41 features, whatever the kernel.
  large = _network(
    vgg_fc6_kernel_size=kernel_size, atrous_rates=[rate], crop_size=[321, 321]
  )
  assert large.get_layer('vgg_16.fc6').output.shape[1:3] == (41, 41)
  assert str(field) == f'{size} x {size} pixels at a stride of 8'
  before = receptive_field.of_layer(network, 'vgg_16/conv5/conv5_3')
  assert before.size == (211, 211) and before.stride == (8, 8)
  original = receptive_field.of_layer(_network(output_stride=32), 'vgg_16/fc6')
  layer = network.get_layer('vgg_16.fc6')
  span = (layer.kernel_size[0] - 1) * layer.rate * field.stride[0]
  assert span + original.stride[0] == field_of_view


@pytest.mark.parametrize(
  'variant, layer, size',
  [
    ('resnet_v1_50', 'resnet_v1_50/block4/unit_3/bottleneck_v1/conv3', 483),
    ('mobilenet_v2', 'MobilenetV2/expanded_conv_16/project', 491),
  ],
)
@pytest.mark.parametrize('output_stride', [8, 16, 32])
def test_published_sizes(variant, layer, size, output_stride):
  """Atrous convolution keeps what a feature sees, at every output stride."""
  network = _network(
    model_variant=variant, output_stride=output_stride, atrous_rates=None
  )
  field = receptive_field.of_layer(network, layer)
  assert field.size == (size, size)
  assert field.stride == (output_stride, output_stride)


def _by_impulses(network, length, place):
  """First and last column that a place in the middle row depends on.

  All is positive, so that a larger pixel can only make features larger.
  """
  images = np.zeros((length + 1, 33, length, 3), np.float32)
  for column in range(length):
    images[column, :, column] = 1e4
  outputs = network(images).numpy()
  row = outputs.shape[1] // 2
  values = outputs[:, row, place].max(axis=-1)
  (columns,) = np.nonzero(values[:-1] != values[-1])
  return columns[0], columns[-1]


def _dense(net):
  net = resnet_utils.conv2d_same(net, 2, 3, 2, scope='conv1')
  net = slim.max_pool2d(resnet_utils.fixed_padding(net, 3), 3, stride=2)
  return slim.conv2d(net, 2, 3, rate=3, scope='conv2')


def _same_padding(net):
  net = slim.conv2d(net, 2, 3, stride=2, scope='conv1')
  net = slim.separable_conv2d(net, 2, 5, stride=2, scope='conv2')
  return slim.max_pool2d(net, 2, stride=2, padding='SAME')


def _branches(net):
  net = slim.conv2d(net, 2, (3, 5), normalizer_fn=slim.batch_norm)
  wide = slim.conv2d(net, 2, 4, rate=2, scope='wide')
  wide = slim.avg_pool2d(wide, 3, stride=2, padding='SAME')
  return keras.ops.concatenate([resnet_utils.subsample(net, 2), wide], -1)


@pytest.mark.parametrize('length', [63, 64, 65])
@pytest.mark.parametrize('build', [_dense, _same_padding, _branches])
def test_equals_what_impulses_show(build, length):
  with (
    slim.layer_store(),
    slim.arg_scope([slim.batch_norm], is_training=False),
  ):
    images = keras.Input((33, length, 3))
    outputs = build(images)
    network = keras.Model(images, outputs)
  for variable in network.trainable_variables:
    variable.assign(np.full(variable.shape, 0.5))
  field = receptive_field.of_tensor(outputs)
  place = outputs.shape[2] // 2
  first, last = _by_impulses(network, length, place)
  assert first == place * field.stride[1] + field.first[1]
  assert last == place * field.stride[1] + field.last[1]
  assert field.size[1] == last - first + 1


def test_several_inputs_are_a_union():
  network = _network(atrous_rates=[1, 6], vgg_fc6_kernel_size=3)
  of_layer, logits = receptive_field.of_layer, network.output['semantic']
  parts = [of_layer(network, f'vgg_16/fc6_{i}').size[0] for i in (1, 2)]
  whole = receptive_field.of_tensor(logits['merged_logits'])
  assert whole.size[0] == max(parts) == parts[0] + 2 * 5 * 8
  sides = _network(atrous_rates=[1], vgg_side_branches=True)
  assert of_layer(sides, 'vgg_16/data_conv').size == (3, 3)
  assert of_layer(sides, 'vgg_16/pool2_conv').stride == (8, 8)
  joined = receptive_field.of_tensor(sides.output['semantic']['merged_logits'])
  assert joined == of_layer(sides, 'vgg_16/fc7')


def test_eight_bits_change_nothing():
  fields = [
    receptive_field.of_tensor(
      _network(
        quantize_delay_step=delay, atrous_rates=[12], model_variant=variant
      ).output['semantic']['merged_logits']
    )
    for delay in (-1, 0)
    for variant in ('vgg_16', 'mobilenet_v2')
  ]
  assert fields[:2] == fields[2:]


def test_where_there_is_none():
  network = _network(aspp_with_batch_norm=True)
  with pytest.raises(InputError, match=r'mixes places.*earlier layer'):
    receptive_field.of_layer(network, 'concat_projection')
  with pytest.raises(InputError, match=r"no layer 'vgg_16/conv9'.*conv1_1"):
    receptive_field.of_layer(network, 'vgg_16/conv9')
  assert receptive_field.of_layer(network, 'aspp0').size == (211 + 16,) * 2


def test_images_of_any_size():
  network = _network(crop_size=None, atrous_rates=[4])
  field = receptive_field.of_layer(network, 'vgg_16/fc6')
  # After conv5: two poolings and fc6.
  assert field.size == (211 + 16 + 16 + 64,) * 2
  network = _network(crop_size=None, model_variant='resnet_v1_18')
  with pytest.raises(InputError, match='Give a crop_size'):
    receptive_field.of_layer(network, 'logits/semantic')

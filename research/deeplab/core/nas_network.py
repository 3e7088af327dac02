"""The networks that architecture search found.

* pnasnet: Liu et al., Progressive Neural Architecture Search,
  arXiv:1712.00559.
* hnasnet, Auto-DeepLab: Liu et al., Auto-DeepLab: Hierarchical Neural
  Architecture Search for Semantic Image Segmentation, arXiv:1901.02985. Its
  backbone goes down to output stride 32 and up again to 8.

Every cell works at a level: 0 is output stride 4, 1 is 8, 2 is 16, 3 is 32,
and each level doubles the filters.
"""

import keras

from deeplab import cell_config, common, slim
from deeplab.common import InputError
from deeplab.core import nas_cell, nas_genotypes, utils
from deeplab.slim.nets import resnet_utils

# Keys of nas_training_hyper_parameters, and what their values may be.
_HYPER_PARAMETERS = {
  'drop_path_keep_prob': common.Range(0, 1, above=True),
  'total_training_steps': common.COUNT,
}

_LAST_LEVEL = 3
_HEAD_FILTERS = 2048


def nas_arg_scope(
  weight_decay=0.00004,
  batch_norm_decay=0.9997,
  batch_norm_epsilon=0.001,
  is_training=False,
):
  """Opens slim's defaults for these networks; use in a `with` statement.

  Args:
    weight_decay: of the convolution kernels, the depthwise ones included.
    batch_norm_decay: decay of the moving statistics.
    batch_norm_epsilon: added to the variance.
    is_training: whether batch norm uses batch statistics.

  Returns:
    A context manager.
  """
  return slim.nested_arg_scope(
    (
      [slim.conv2d, slim.separable_conv2d],
      {
        'weights_regularizer': slim.l2_regularizer(weight_decay),
        'weights_initializer': slim.variance_scaling_initializer(
          factor=1 / 3.0, uniform=True
        ),
        'biases_initializer': None,
        'activation_fn': None,
      },
    ),
    (
      [slim.batch_norm],
      {
        'decay': batch_norm_decay,
        'epsilon': batch_norm_epsilon,
        'scale': True,
        'is_training': is_training,
      },
    ),
  )


def pnasnet(
  images,
  options,
  is_training=False,
  weight_decay=0.0001,
  decay=0.9997,
  nas_training_hyper_parameters=None,
):
  """PNASNet with output stride 8, 16 or 32.

  Args:
    images: [batch, height, width, 3].
    options: ModelOptions.
    is_training: whether batch norm uses batch statistics, and paths drop.
    weight_decay: of the convolution kernels, the depthwise ones included.
    decay: of the moving statistics.
    nas_training_hyper_parameters: {'drop_path_keep_prob': share of paths that
      the last cell keeps at the end, 'total_training_steps': when that is},
      or None to keep all.

  Returns:
    The features and a dictionary of end points.

  Raises:
    InputError: the options cannot be built.
  """
  _check_output_stride(options, nas_genotypes.PNASNET_LEVELS)
  return _build(
    images,
    'pnasnet',
    nas_genotypes.PNASNET,
    nas_genotypes.PNASNET_LEVELS[options.output_stride],
    options,
    _drop_path(is_training, nas_training_hyper_parameters),
    nas_arg_scope(weight_decay, decay, is_training=is_training),
  )


def hnasnet(
  images,
  options,
  is_training=False,
  weight_decay=0.0001,
  decay=0.9997,
  nas_training_hyper_parameters=None,
):
  """Auto-DeepLab's network, with features at stride 8.

  With the classification head, which goes on from there, they are at the
  output stride, 8, 16 or 32. Without it the output stride only says where the
  logits are, and must be 8 for an image-level feature.

  Args:
    images: [batch, height, width, 3].
    options: ModelOptions.
    is_training: whether batch norm uses batch statistics, and paths drop.
    weight_decay: of the convolution kernels, the depthwise ones included.
    decay: of the moving statistics.
    nas_training_hyper_parameters: see `pnasnet`.

  Returns:
    The features and a dictionary of end points.

  Raises:
    InputError: the options cannot be built.
  """
  if _architecture(options)['nas_use_classification_head']:
    _check_output_stride(options, (8, 16, 32))
  return _build(
    images,
    'hnasnet',
    nas_genotypes.HNASNET,
    nas_genotypes.HNASNET_LEVELS,
    options,
    _drop_path(is_training, nas_training_hyper_parameters),
    nas_arg_scope(weight_decay, decay, is_training=is_training),
  )


def _architecture(options):
  """nas_architecture_options with the defaults of what is not given."""
  return {
    **common.NAS_ARCHITECTURE_DEFAULTS,
    **(options.nas_architecture_options or {}),
  }


def _check_output_stride(options, possible):
  if options.output_stride not in possible:
    raise InputError(
      f'output_stride of {options.model_variant} must be one of '
      f'{list(possible)} with nas_architecture_options='
      f'{_architecture(options)}. Received: {options.output_stride}.'
    )


def _drop_path(is_training, hyper_parameters):
  """A function (tensor, cell number, number of cells) -> tensor."""
  if hyper_parameters is not None:
    if set(hyper_parameters) != set(_HYPER_PARAMETERS):
      raise InputError(
        'nas_training_hyper_parameters must have the keys '
        f'{sorted(_HYPER_PARAMETERS)}. Received: {sorted(hyper_parameters)}.'
      )
    common.check_ranges(hyper_parameters, _HYPER_PARAMETERS)
  keep_prob = (hyper_parameters or {}).get('drop_path_keep_prob', 1.0)
  if not is_training or keep_prob == 1.0:
    return lambda net, cell, num_cells: net

  def drop_path(net, cell, num_cells):
    schedule = nas_cell.DropPathSchedule(
      keep_prob, hyper_parameters['total_training_steps'], num_cells
    )
    return nas_cell.drop_path(net, schedule, cell)

  return drop_path


def _build(images, scope, genotype, levels, options, drop_path, arg_scope):
  """Stem, cells, and the classification head if it is wanted."""
  architecture = _architecture(options)
  filters = architecture['nas_stem_output_num_conv_filters']
  lowest = _LAST_LEVEL - architecture['nas_remove_os32_stride']
  end_points = {}
  with arg_scope, slim.variable_scope(scope):
    previous, net = _stem(images)
    end_points['Stem'] = net
    last_level = 0
    for cell, level in enumerate(levels):
      # Without the last stride the filters double there all the same.
      step = min(level, lowest) - min(last_level, lowest)
      inputs = net
      if step < 0:
        size = utils.scale_size(utils.spatial_size(net), 2)
        inputs = utils.resize_bilinear(net, size)
      outputs = nas_cell.nas_cell(
        inputs,
        previous,
        genotype,
        filters=filters * 2**level,
        stride=2 if step > 0 else 1,
        drop_path=lambda path, cell=cell: drop_path(path, cell, len(levels)),
        scope=f'cell_{cell}',
      )
      end_points[f'Cell_{cell}'] = outputs
      previous, net, last_level = net, outputs, level
    net = keras.ops.relu(net)
    if architecture['nas_use_classification_head']:
      net = _classification_head(
        net, last_level, options.output_stride, end_points
      )
  _check_size(net, options)
  return net, end_points


def _stem(images):
  """Three convolutions; the last two results, before their activation."""
  net = resnet_utils.conv2d_same(images, 64, 3, stride=2, scope='conv0')
  net = keras.ops.relu(slim.batch_norm(net, scope='conv0_bn'))
  net = resnet_utils.conv2d_same(net, 64, 3, stride=1, scope='conv1')
  first = slim.batch_norm(net, scope='conv1_bn')
  net = resnet_utils.conv2d_same(
    keras.ops.relu(first), 128, 3, stride=2, scope='conv2'
  )
  return first, slim.batch_norm(net, scope='conv2_bn')


def _classification_head(net, level, output_stride, end_points):
  """Goes on to 2048 channels, as for ImageNet, without the classifier.

  Nominally down to output stride 32; strides beyond `output_stride` become
  atrous rates.
  """
  strides_left = output_stride // 2 ** (level + 2)
  rate = 1
  for target in range(level + 1, _LAST_LEVEL + 1):
    stride = 1
    if strides_left > 1:
      stride = 2
      strides_left //= 2
    else:
      rate *= 2
    scope = f'downsample_os{2 ** (target + 2)}'
    net = resnet_utils.conv2d_same(
      net, 128 * 2**target, 3, stride=stride, rate=rate, scope=f'{scope}_conv'
    )
    net = slim.batch_norm(net, scope=f'{scope}_bn')
    end_points[scope] = net
    net = keras.ops.relu(net)
  net = slim.conv2d(net, _HEAD_FILTERS, 1, scope='classification_head_conv')
  net = slim.batch_norm(net, scope='classification_head_bn')
  end_points['classification_head'] = net
  return keras.ops.relu(net)


def _check_size(net, options):
  """The image-level feature must find the features' size where it looks.

  Going up gives 2 * n - 1, so that only some sizes come back to where they
  were.
  """
  pools = options.add_image_level_feature
  if options.dense_prediction_cell_config is not None:
    pools = cell_config.pools(options.dense_prediction_cell_config)
  if not (options.crop_size and options.aspp_with_batch_norm and pools):
    return
  expected = utils.scale_size(options.crop_size, 1.0 / options.output_stride)
  if tuple(net.shape[1:3]) == expected:
    return
  raise InputError(
    f'{options.model_variant} with nas_architecture_options='
    f'{_architecture(options)} gives features of {list(net.shape[1:3])} where '
    f'the image-level feature has {list(expected)}. Use sides of 32 * k + 1 '
    '(for example 513), with hnasnet output stride 8, with pnasnet keep the '
    'stride at output stride 32, or do without the feature. Received: '
    f'crop_size={list(options.crop_size)}, '
    f'output_stride={options.output_stride}.'
  )

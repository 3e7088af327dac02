"""The dense prediction cell: a searched head in the place of ASPP.

Chen et al., Searching for Efficient Multi-Scale Architectures for Dense Image
Prediction (arXiv:1809.04184). A cell is a list of operations, each of which
reads the features of the backbone or the output of an earlier one; all outputs
are concatenated and projected. `cell_config.find_fault` says what an
operation looks like.
"""

import json
import os

import keras
import tensorflow as tf

from deeplab import cell_config, slim
from deeplab.common import InputError
from deeplab.core import aspp, utils

META_ARCHITECTURE_SCOPE = 'meta_architecture'

# The name of the published cell.
PUBLISHED_CELL = 'dense_prediction_cell_branch5_top1_cityscapes'

# Where the original kept its cells; a path there means the file beside this
# module.
_OFFICIAL_FOLDER = 'deeplab/core'


def read_config(path):
  """Reads a dense prediction cell.

  Args:
    path: of a JSON file; also the name of one that comes with this package,
      'dense_prediction_cell_branch5_top1_cityscapes', or its official path
      'deeplab/core/dense_prediction_cell_branch5_top1_cityscapes.json'.

  Returns:
    A list of dictionaries, one for each operation.

  Raises:
    InputError: the file cannot be read or does not describe a cell.
  """
  try:
    with tf.io.gfile.GFile(_find(path)) as file:
      config = json.load(file)
  except tf.errors.OpError as error:
    raise InputError(
      f'{path}: the dense prediction cell cannot be read: {error.message}. '
      f'Give a JSON file, or one of {", ".join(built_in_cells())}.'
    ) from error
  except (ValueError, RecursionError) as error:
    raise InputError(
      f'{path}: not JSON: {error}. Expected a list of operations, like '
      f'{built_in_cells()[0]}.json of this package.'
    ) from error
  fault = cell_config.find_fault(config)
  if fault:
    raise InputError(f'{path}: {fault}')
  return config


def built_in_cells():
  """Names of the cells that come with this package."""
  files = os.listdir(os.path.dirname(__file__))
  return sorted(
    name[: -len('.json')] for name in files if name.endswith('.json')
  )


def _find(path):
  folder, name = os.path.split(path)
  name = name.removesuffix('.json')
  if (
    name in built_in_cells()
    and folder in ('', _OFFICIAL_FOLDER)
    and not tf.io.gfile.exists(path)
  ):
    return os.path.join(os.path.dirname(__file__), f'{name}.json')
  return path


def dense_prediction_cell_hparams():
  """The hyper-parameters of a cell and their official values.

  Returns:
    A dictionary:
      reduction_size: channels of each operation;
      dropout_on_concat_features: dropout before the projection;
      dropout_on_projection_features: dropout after it;
      dropout_keep_prob: share of the values that such dropout keeps;
      concat_channels: channels of the projection;
      conv_rate_multiplier: factor of all rates, which are those of output
        stride 16.
  """
  return {
    'reduction_size': 256,
    'dropout_on_concat_features': True,
    'dropout_on_projection_features': False,
    'dropout_keep_prob': 0.9,
    'concat_channels': 256,
    'conv_rate_multiplier': 1,
  }


def dense_prediction_cell(
  features, options, weight_decay, is_training, fine_tune_batch_norm
):
  """Applies the cell of the options to the features of the backbone.

  Args:
    features: [batch, height, width, channels].
    options: ModelOptions; rates grow as its output stride falls below 16.
    weight_decay: of the convolution kernels.
    is_training: whether there is dropout before the projection.
    fine_tune_batch_norm: whether batch norm uses batch statistics in training.

  Returns:
    [batch, height, width, 256].

  Raises:
    InputError: see `DensePredictionCell.build_cell`.
  """
  cell = DensePredictionCell(
    options.dense_prediction_cell_config,
    {'conv_rate_multiplier': 16 // options.output_stride},
  )
  return cell.build_cell(
    features,
    output_stride=options.output_stride,
    crop_size=options.crop_size,
    image_pooling_crop_size=options.image_pooling_crop_size,
    weight_decay=weight_decay,
    is_training=is_training,
    fine_tune_batch_norm=fine_tune_batch_norm,
    batch_norm_decay=options.batch_norm_decay,
  )


class DensePredictionCell:
  """Builds the head that a list of operations describes."""

  def __init__(self, config, hparams=None):
    """Checks the operations.

    Args:
      config: list of operations; see `cell_config.find_fault`.
      hparams: changes to `dense_prediction_cell_hparams()`.

    Raises:
      InputError: the operations do not describe a cell, or the rate
        multiplier is below 1.
    """
    fault = cell_config.find_fault(config)
    if fault:
      raise InputError(f'dense prediction cell: {fault}')
    self.config = config
    self.hparams = {**dense_prediction_cell_hparams(), **(hparams or {})}
    if self.hparams['conv_rate_multiplier'] < 1:
      raise InputError(
        'conv_rate_multiplier must be at least 1. Received: '
        f'{self.hparams["conv_rate_multiplier"]}.'
      )

  def build_cell(
    self,
    features,
    output_stride=16,
    crop_size=None,
    image_pooling_crop_size=None,
    weight_decay=0.00004,
    is_training=False,
    fine_tune_batch_norm=False,
    scope=None,
    batch_norm_decay=None,
  ):
    """Applies the cell.

    Args:
      features: [batch, height, width, channels].
      output_stride: at which the features were extracted.
      crop_size: [height, width] of the images; only pyramid pooling needs it.
      image_pooling_crop_size: crop size that sets the windows of pyramid
        pooling; crop_size if None.
      weight_decay: of the convolution kernels.
      is_training: whether there is dropout.
      fine_tune_batch_norm: whether batch norm uses batch statistics in
        training.
      scope: name, 'meta_architecture' by default: the cells of the second
        and further scales of an image pyramid become 'meta_architecture_1'
        and so on, with weights of their own, as in the original.
      batch_norm_decay: of the moving statistics, None for the official value.

    Returns:
      [batch, height, width, concat_channels].

    Raises:
      InputError: pyramid pooling without a crop size, or with windows that
        are larger than the features.
    """
    sizes = {
      'output_stride': output_stride,
      'crop_size': crop_size,
      'image_pooling_crop_size': image_pooling_crop_size,
    }
    with (
      aspp.head_arg_scope(
        weight_decay, is_training and fine_tune_batch_norm, batch_norm_decay
      ),
      slim.variable_scope(scope, META_ARCHITECTURE_SCOPE),
    ):
      branches = []
      for i, operation in enumerate(self.config):
        source = operation[cell_config.INPUT]
        net = features if source < 0 else branches[source]
        if operation[cell_config.OP] == cell_config.CONV:
          net = self._convolve(net, operation, weight_decay, f'branch{i}')
        else:
          net = self._pyramid_pool(net, operation, sizes, f'branch{i}')
        branches.append(net)
      return self._project(branches, is_training)

  def _convolve(self, net, operation, weight_decay, scope):
    filters = self.hparams['reduction_size']
    if cell_config.is_pointwise(operation):
      return slim.conv2d(net, filters, 1, scope=scope)
    multiplier = self.hparams['conv_rate_multiplier']
    return utils.split_separable_conv2d(
      net,
      filters,
      kernel_size=operation[cell_config.KERNEL],
      rate=[rate * multiplier for rate in operation[cell_config.RATE]],
      weight_decay=weight_decay,
      scope=scope,
    )

  def _pyramid_pool(self, net, operation, sizes, scope):
    """Means over a grid of overlapping windows, 1x1 convolution, resize."""
    crop_size, stride = sizes['crop_size'], sizes['output_stride']
    if crop_size is None:
      raise InputError(
        'a dense prediction cell with pyramid_pooling needs crop_size: the '
        'windows are parts of it. Received: crop_size=None.'
      )
    pooling_crop = sizes['image_pooling_crop_size'] or crop_size
    window = [
      utils.scale_dimension(side, 1.0 / (stride * grid))
      for side, grid in zip(
        pooling_crop, operation[cell_config.GRID_SIZE], strict=True
      )
    ]
    net = utils.average_pool_crop(net, window, 1, pooling_crop, crop_size)
    net = slim.conv2d(net, self.hparams['reduction_size'], 1, scope=scope)
    return utils.resize_bilinear(net, utils.scale_size(crop_size, 1.0 / stride))

  def _project(self, branches, is_training):
    """Concatenation, and a 1x1 convolution with dropout around it."""
    hparams = self.hparams
    dropout = {
      'keep_prob': hparams['dropout_keep_prob'],
      'is_training': is_training,
      'scope': f'{aspp.CONCAT_PROJECTION_SCOPE}_dropout',
    }
    net = branches[0]
    if len(branches) > 1:
      net = keras.ops.concatenate(branches, axis=-1)
    if hparams['dropout_on_concat_features']:
      net = slim.dropout(net, **dropout)
    net = slim.conv2d(
      net, hparams['concat_channels'], 1, scope=aspp.CONCAT_PROJECTION_SCOPE
    )
    if hparams['dropout_on_projection_features']:
      net = slim.dropout(net, **dropout)
    return net

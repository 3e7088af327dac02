"""The cell of the searched networks, and drop path.

Zoph et al., Learning Transferable Architectures for Scalable Image Recognition
(arXiv:1707.07012); Larsson et al., FractalNet (arXiv:1605.07648) for drop path.
"""

import dataclasses

import keras
import tensorflow as tf

from deeplab import slim
from deeplab.core import utils
from deeplab.slim import keras_layers, scopes
from deeplab.slim.nets import resnet_utils


@dataclasses.dataclass(frozen=True)
class DropPathSchedule:
  """How many paths are kept, by cell and step.

  Attributes:
    keep_prob: of the last cell at the end of the training.
    total_training_steps: when that is.
    num_cells: number of cells.
  """

  keep_prob: float
  total_training_steps: int
  num_cells: int

  def __call__(self, cell, step):
    """The probability that a path is kept.

    It falls from 1 at the first step linearly to the last one's, which falls
    from cell to cell linearly to `keep_prob`.

    Args:
      cell: number of the cell, from 0.
      step: number of finished steps, an integer or a tensor.

    Returns:
      float32 scalar tensor.
    """
    last = 1.0 - (cell + 1) / self.num_cells * (1.0 - self.keep_prob)
    done = tf.cast(step, tf.float32) / float(self.total_training_steps)
    return 1.0 - tf.minimum(1.0, done) * (1.0 - last)


class DropPath(keras.layers.Layer):
  """Sets the images of a batch to zero, each by chance; for training only.

  What is kept is divided by the probability to keep it. Inside
  `slim.train_step_context`, which gives the step, the draw is a function of
  the seed, of the layer's name and of the image's place in the global batch.
  """

  def __init__(self, schedule, cell, name):
    """Makes the layer.

    Args:
      schedule: DropPathSchedule.
      cell: number of the cell.
      name: name of the layer.
    """
    super().__init__(name=name, dtype=scopes.current_dtype_policy())
    self.schedule = schedule
    self.cell = cell

  def compute_output_shape(self, input_shape):
    return input_shape

  def call(self, inputs):
    step = scopes.current_step()
    images = keras_layers.shape_of(inputs)[0]
    draw = scopes.draw_uniform(self.name, [images, 1, 1, 1])
    if step is None or draw is None:
      raise ValueError(
        'drop path follows the training step: call a network that is built '
        'with it inside slim.train_step_context(step, seed).'
      )
    keep_prob = self.schedule(self.cell, step)
    factor = tf.floor(draw + keep_prob) / keep_prob
    return inputs * tf.cast(factor, inputs.dtype)


def drop_path(net, schedule, cell):
  """Applies DropPath under the name `drop_path`."""
  with slim.variable_scope('drop_path') as name:
    layer = scopes.get_layer(
      name, lambda name, seed: DropPath(schedule, cell, name)
    )
    return layer(net)


def nas_cell(net, previous, genotype, filters, stride, drop_path, scope):
  """One cell.

  Args:
    net: output of the last cell, [batch, height, width, channels].
    previous: output of the cell before it, of any size.
    genotype: Genotype.
    filters: channels of each block.
    stride: 1 or 2.
    drop_path: function (tensor) -> tensor, applied to each operation's output.
    scope: name.

  Returns:
    [batch, ceil(height / stride), ceil(width / stride), 5 * filters].
  """
  with slim.variable_scope(scope):
    states = _first_states(net, previous, filters)
    for i, block in enumerate(genotype.blocks):
      sides = []
      for side, (operation, state) in zip(
        ('left', 'right'), block, strict=True
      ):
        with slim.variable_scope(f'comb_iter_{i}/{side}'):
          # What the blocks give has the stride already.
          side_stride = stride if state < 2 else 1
          path = _apply(operation, states[state], filters, side_stride)
          sides.append(path if operation == 'none' else drop_path(path))
      states.append(sides[0] + sides[1])
    return keras.ops.concatenate(states[2:], axis=-1)


def _first_states(net, previous, filters):
  """Both inputs at the size of the first, with `filters` channels."""
  previous = utils.resize_bilinear(previous, utils.spatial_size(net))
  if previous.shape[-1] != filters:
    previous = keras.ops.relu(previous)
    previous = slim.conv2d(previous, filters, 1, scope='prev_1x1')
    previous = slim.batch_norm(previous, scope='prev_bn')
  net = slim.conv2d(keras.ops.relu(net), filters, 1, scope='1x1')
  return [slim.batch_norm(net, scope='beginning_bn'), previous]


def _apply(operation, net, filters, stride):
  """One operation of a genotype."""
  kind, _, rest = operation.partition('_')
  if kind == 'none':
    return net if stride == 1 else _identity(net, filters, stride)
  if kind == 'max':
    kernel_size = int(rest.partition('_')[2].partition('x')[0])
    return slim.max_pool2d(net, kernel_size, stride=stride, padding='SAME')
  size, _, num_layers = rest.partition('_')
  kernel_size = int(size.partition('x')[0])
  if kind == 'atrous':
    return _atrous(net, filters, kernel_size, stride, size)
  for layer in range(1, int(num_layers) + 1):
    net = _separable(net, filters, kernel_size, stride, f'{size}_{layer}')
    stride = 1
  return net


def _identity(net, filters, stride):
  net = slim.conv2d(keras.ops.relu(net), filters, 1, stride=stride, scope='1x1')
  return slim.batch_norm(net, scope='bn_1')


def _atrous(net, filters, kernel_size, stride, suffix):
  """Rate 2; with a stride a bilinear reduction, and rate 1."""
  net = keras.ops.relu(net)
  if stride == 2:
    size = utils.scale_size(utils.spatial_size(net), 0.5)
    net = utils.resize_bilinear(net, size)
  net = slim.conv2d(
    net,
    filters,
    kernel_size,
    rate=2 // stride,
    scope=f'atrous_{suffix}',
  )
  return slim.batch_norm(net, scope=f'bn_atr_{suffix}')


def _separable(net, filters, kernel_size, stride, suffix):
  net = keras.ops.relu(net)
  padding = 'SAME'
  if stride > 1:
    net = resnet_utils.fixed_padding(net, kernel_size)
    padding = 'VALID'
  net = slim.separable_conv2d(
    net,
    filters,
    kernel_size,
    stride=stride,
    padding=padding,
    scope=f'separable_{suffix}',
  )
  return slim.batch_norm(net, scope=f'bn_sep_{suffix}')

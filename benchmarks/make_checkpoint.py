"""Writes the checkpoint of a network that rows and exports read.

  python -m benchmarks.make_checkpoint --output_dir=DIR --crop_size=513,513

Its weights are random, always the same, or those of --trained_checkpoint. Any
flags of the model may be given. The values also lie in weights.npz, for peers
that do not import TensorFlow.
"""

import math
import os
import zlib

import numpy as np
from absl import flags as absl_flags

from deeplab import checkpoints, flags, model, model_flags, stored_options

FLAGS = flags.FLAGS

WEIGHTS_FILE = 'weights.npz'


def _define_flags():
  model_flags.define_model_flags()
  flags.define_list('crop_size', [513, 513], 'Size [height, width].')
  absl_flags.DEFINE_integer('num_classes', 21, 'Number of classes.')
  absl_flags.DEFINE_string('output_dir', None, 'Folder for the checkpoint.')
  absl_flags.DEFINE_string(
    'trained_checkpoint', None, 'Prefix of a checkpoint with the weights.'
  )
  flags.require('output_dir')


def value(name, shape):
  """Values that keep activations at about one size through a deep network.

  Times depend on that: numbers that are too small for the format are slow.

  Args:
    name: official name of the variable.
    shape: its shape.

  Returns:
    float32 array.
  """
  noise = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
  leaf = name.rpartition('/')[2]
  if leaf == 'depthwise_weights':
    noise = noise / math.sqrt(math.prod(shape[:2]))
  elif leaf.endswith('weights'):
    noise = noise * math.sqrt(2 / math.prod(shape[:-1]))
  elif leaf == 'moving_variance':
    noise = np.exp(0.2 * noise)
  elif leaf == 'gamma':
    # Smaller where a branch is added to the trunk.
    ends_branch = 'conv3/BatchNorm' in name or 'conv3_pointwise' in name
    noise = (1 + 0.1 * noise) * (0.4 if ends_branch else 1)
  else:
    noise = 0.1 * noise
  return noise.astype(np.float32)


def main():
  options = model_flags.model_options(FLAGS.num_classes, FLAGS.crop_size, None)
  network = model.build_model(options)
  variables = checkpoints.named_variables(network)
  if FLAGS.trained_checkpoint is None:
    for name, variable in variables.items():
      variable.assign(value(name, variable.shape))
  else:
    checkpoints.restore(network, FLAGS.trained_checkpoint)
  checkpoints.save(FLAGS.output_dir, 0, variables)
  stored_options.save(FLAGS.output_dir, options)
  values = {name: variable.numpy() for name, variable in variables.items()}
  np.savez(os.path.join(FLAGS.output_dir, WEIGHTS_FILE), **values)


if __name__ == '__main__':
  _define_flags()
  flags.run(main)

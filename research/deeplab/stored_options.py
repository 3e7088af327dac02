"""What a checkpoint and the files beside it say about its network."""

import json
import os
import re

import tensorflow as tf

from deeplab import atomic_files, checkpoints, common, diagnosis
from deeplab.common import InputError


def save(directory, options):
  """Writes model_options.json into a directory."""
  atomic_files.write(
    os.path.join(directory, common.MODEL_OPTIONS_FILE), options.to_json()
  )


def load(path):
  """The ModelOptions beside a checkpoint, or None.

  Args:
    path: directory, prefix or file of a checkpoint.

  Raises:
    InputError: model_options.json is there and cannot be understood.
  """
  directory = path if tf.io.gfile.isdir(path) else os.path.dirname(path)
  path = os.path.join(directory, common.MODEL_OPTIONS_FILE)
  if not tf.io.gfile.exists(path):
    return None
  try:
    with tf.io.gfile.GFile(path) as file:
      text = file.read()
    return common.ModelOptions.from_dict(json.loads(text))
  except (ValueError, TypeError, RecursionError, tf.errors.OpError) as error:
    raise InputError(f'{path}: not valid model options: {error}') from error


def rates_at(options, output_stride):
  """The atrous rates that go with another output stride.

  Args:
    options: ModelOptions of a network as it was trained.
    output_stride: of the network as it is to be run.

  Returns:
    Rates that grow as the stride shrinks, as in the papers; None for none.

  Raises:
    InputError: they would not be whole numbers.
  """
  rates = options.atrous_rates
  if not rates:
    return rates
  scaled = [rate * options.output_stride / output_stride for rate in rates]
  if any(rate != int(rate) or rate < 1 for rate in scaled):
    raise InputError(
      f'--output_stride={output_stride} after training at '
      f'{options.output_stride} makes the atrous rates {list(rates)} {scaled}; '
      'give --atrous_rates.'
    )
  return [int(rate) for rate in scaled]


def resnet_root_convs(path):
  """How many 3x3 convolutions the stem of a stored `_beta` ResNet has.

  Args:
    path: directory, prefix or file of a checkpoint.

  Returns:
    2, 3, or None where the checkpoint is of another network.
  """
  names = checkpoints.read(checkpoints.find(path))
  for count in (3, 2):
    if any(re.search(rf'/conv1_{count}/weights$', name) for name in names):
      return count
  return None


def is_quantized(path):
  """Whether a checkpoint comes from quantisation-aware training.

  Args:
    path: directory, prefix or file of a checkpoint.
  """
  return diagnosis.is_quantized(checkpoints.read(checkpoints.find(path)))

"""What the classes of a trained network are called, and their colours."""

import os

import tensorflow as tf
from absl import logging

from deeplab import checkpoints, common, diagnosis, stored_options
from deeplab.common import InputError
from deeplab.datasets import dataset_info

# Of a network whose classes nobody described.
UNKNOWN_NAME = 'unnamed classes'


def find(checkpoint, dataset=None):
  """The classes of a checkpoint's network.

  Args:
    checkpoint: directory, prefix or file of a checkpoint.
    dataset: name of a built-in data set, folder with a dataset_info.json, or
      that file; None for what lies beside the checkpoint.

  Returns:
    A DatasetInfo: that of `dataset`; else of the dataset_info.json that
    training wrote beside the checkpoint; else of the built-in data set that
    has as many classes; else one with numbered classes.

  Raises:
    InputError: `dataset` is not known, a file is broken, or the checkpoint
      does not tell how many classes there are.
  """
  if dataset is not None:
    if dataset_info.is_path(dataset):
      return dataset_info.load(dataset)
    return dataset_info.resolve(dataset)
  folder = checkpoint
  if not tf.io.gfile.isdir(folder):
    folder = os.path.dirname(folder)
  path = os.path.join(folder, dataset_info.FILE_NAME)
  if tf.io.gfile.exists(path):
    return dataset_info.load(path)
  number = _num_classes(checkpoint)
  for info in dataset_info.BUILTIN.values():
    if info.num_classes == number:
      logging.warning(
        'Nothing beside %s says what its %d classes are; names and colours of '
        '%s are taken. Other ones: --dataset.',
        *(checkpoint, number, info.name),
      )
      return info
  return dataset_info.DatasetInfo(UNKNOWN_NAME, number)


def _num_classes(checkpoint):
  """The number of classes, from the options or the variables."""
  options = stored_options.load(checkpoint)
  outputs = options and options.outputs_to_num_classes
  if not outputs:
    outputs = infer_fields(checkpoint).get('outputs_to_num_classes', {})
  if common.OUTPUT_TYPE not in outputs:
    raise InputError(
      f'{checkpoint} does not tell how many classes its network has: it has no '
      'head for semantic segmentation. Give a checkpoint that was trained for '
      'it.'
    )
  return outputs[common.OUTPUT_TYPE]


def options(checkpoint):
  """The network of a checkpoint.

  Args:
    checkpoint: directory, prefix or file of a checkpoint.

  Returns:
    The ModelOptions of model_options.json beside it, or, where there is none,
    what the variables tell; None where these are of no whole network.

  Raises:
    InputError: there is no checkpoint, or a file is broken.
  """
  stored = stored_options.load(checkpoint)
  if stored is not None:
    return stored
  fields = infer_fields(checkpoint)
  if 'outputs_to_num_classes' not in fields:
    return None
  return common.ModelOptions(**{'output_stride': 16, **fields})


def infer_fields(checkpoint):
  """The ModelOptions fields that variables tell; see `diagnosis`.

  Args:
    checkpoint: directory, prefix or file of a checkpoint.
  """
  variables = checkpoints.read(checkpoints.find(checkpoint))
  return diagnosis.infer_options(
    {name: shape for name, (shape, _) in variables.items()}
  )

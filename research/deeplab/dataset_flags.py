"""The flags that say which data to work on.

Only scripts use this module; everything below them takes plain arguments.
"""

import os

import tensorflow as tf
from absl import flags as absl_flags

from deeplab import flags
from deeplab.common import InputError
from deeplab.datasets import dataset_info, tfds_data

FLAGS = flags.FLAGS


def define_dataset_flags():
  """--dataset and --dataset_dir, one of which is enough for most data."""
  absl_flags.DEFINE_string(
    'dataset',
    dataset_info.DEFAULT_NAME,
    'Name of the data set, the folder of its TFRecord files and '
    'dataset_info.json, or tfds:NAME for one that TFDS has prepared.',
  )
  absl_flags.DEFINE_string(
    'dataset_dir',
    None,
    'Folder of the TFRecord files, unless --dataset is that folder. For '
    "tfds:NAME the data_dir of TFDS; unset: TFDS's own default.",
  )


def _is_folder(dataset):
  """Whether --dataset means a folder rather than a name."""
  return dataset not in dataset_info.BUILTIN and (
    '/' in dataset or os.sep in dataset or tf.io.gfile.isdir(dataset)
  )


def find() -> tuple[str | None, str | None]:
  """The data set of the flags.

  Returns:
    Its name, None for what dataset_info.json says, and the folder of its
    TFRecord files, None for the default of TFDS: `dataset_name` and
    `dataset_dir` of data_generator.Dataset.

  Raises:
    InputError: the flags name no folder, or two.
  """
  name = FLAGS.dataset if flags.is_given('dataset') else None
  folder = FLAGS.dataset_dir
  if tfds_data.is_name(name):
    return name, folder
  if name is not None and _is_folder(name):
    if folder is not None and os.path.abspath(folder) != os.path.abspath(name):
      raise InputError(
        f'--dataset={name} is a folder, and --dataset_dir={folder} another '
        'one. Give one of the two.'
      )
    return None, name
  if not folder:
    raise InputError(
      'there are no data: give --dataset=FOLDER, the folder of the TFRecord '
      f'files and {dataset_info.FILE_NAME}, or --dataset_dir=FOLDER, or '
      '--dataset=tfds:NAME. '
      f'Received: --dataset={FLAGS.dataset}, --dataset_dir={folder}.'
    )
  return name, folder

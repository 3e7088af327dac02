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


def _check_folder(folder):
  """Refuses a folder that does not say what its classes are."""
  if not tf.io.gfile.isdir(folder):
    raise InputError(
      f'--dataset={folder}: there is no such folder. Give the folder of the '
      f'TFRecord files and {dataset_info.FILE_NAME}; the scripts of datasets/ '
      'write them.'
    )
  if not tf.io.gfile.exists(os.path.join(folder, dataset_info.FILE_NAME)):
    raise InputError(
      f'--dataset={folder}: the folder has no {dataset_info.FILE_NAME}, which '
      'says what the classes are. The scripts of datasets/ write it; for '
      'records of other code name the data set: '
      f'--dataset={dataset_info.DEFAULT_NAME} --dataset_dir={folder}.'
    )


def _hint(name):
  """What --dataset alone may have meant, for a message."""
  if name is None:
    return ''
  if name not in dataset_info.BUILTIN:
    return (
      f'there is no folder {name!r}, nor is a data set of that name known '
      f'({", ".join(dataset_info.BUILTIN)}); '
    )
  if tf.io.gfile.isdir(name):
    return f'for the folder {name!r} write --dataset=./{name}; or '
  return ''


def find() -> tuple[str | None, str | None]:
  """The data set of the flags.

  Returns:
    Its name, None for what dataset_info.json says, and the folder of its
    TFRecord files, None for the default of TFDS: `dataset_name` and
    `dataset_dir` of data_generator.Dataset.

  Raises:
    InputError: the flags name no folder, or two, or one without
      dataset_info.json as --dataset.
  """
  name = FLAGS.dataset if flags.is_given('dataset') else None
  folder = FLAGS.dataset_dir
  if tfds_data.is_name(name):
    return name, folder
  if name is not None and dataset_info.is_path(name):
    if folder is not None and os.path.abspath(folder) != os.path.abspath(name):
      raise InputError(
        f'--dataset={name} is a folder, and --dataset_dir={folder} another '
        'one. Give one of the two.'
      )
    _check_folder(name)
    return None, name
  if not folder:
    raise InputError(
      f'there are no data: {_hint(name)}give --dataset=FOLDER, the folder of '
      f'the TFRecord files and {dataset_info.FILE_NAME}, or '
      '--dataset_dir=FOLDER, or --dataset=tfds:NAME. '
      f'Received: --dataset={FLAGS.dataset}, --dataset_dir={folder}.'
    )
  return name, folder

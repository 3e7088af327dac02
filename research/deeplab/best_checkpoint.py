"""The best checkpoint of a training run, beside its newest ones.

<train_logdir>/best holds it under its own state file, with the files that
evaluation and export need, and best.json: {"miou": 0.71, "step": 3000,
"checkpoint": "model.ckpt-3000"}. That checkpoint's index is the last file to
come: whatever moment a run is killed at, best.json and the state file mean the
same checkpoint, the new one or, as long as that one has no index, the one
before, which best.json then still has under "before".
"""

import json
import math
import os

import tensorflow as tf
from absl import logging

from deeplab import (
  atomic_files,
  checkpoint_files,
  checkpoint_saving,
  common,
  input_files,
)
from deeplab.common import InputError
from deeplab.datasets import dataset_info

# Names of the folder and of the file in it.
FOLDER = 'best'
FILE = 'best.json'

# What lies beside checkpoints for evaluation, visualisation and export.
_BESIDE = (common.MODEL_OPTIONS_FILE, dataset_info.FILE_NAME)


def read_best(directory, name='miou'):
  """What the best checkpoint so far is and how good it is.

  Args:
    directory: folder of the training run.
    name: what it is the best by.

  Returns:
    {name: value, 'step': training step, 'checkpoint': name of the files in
    the folder `FOLDER`}; None where there is none that is whole.
  """
  folder = os.path.join(directory, FOLDER)
  path = os.path.join(folder, FILE)
  if not tf.io.gfile.exists(path):
    return None
  try:
    with tf.io.gfile.GFile(path) as file:
      record = json.load(file)
  except (ValueError, RecursionError, tf.errors.OpError) as error:
    logging.warning(
      '%s is damaged and is left out: %s',
      path,
      checkpoint_files.first_line(error),
    )
    return None
  while isinstance(record, dict):
    if _is_valid(record, name):
      prefix = os.path.join(folder, record['checkpoint'])
      if checkpoint_files.find_fault(prefix) is None:
        return {key: record[key] for key in (name, 'step', 'checkpoint')}
    record = record.get('before')
  return None


def _is_valid(record, name):
  value, file = record.get(name), record.get('checkpoint')
  return (
    isinstance(value, int | float)
    and math.isfinite(value)
    and isinstance(record.get('step'), int)
    and isinstance(file, str)
    and file == os.path.basename(file)
  )


def keep_best(directory, prefix, value, name='miou'):
  """Copies a checkpoint to the folder `FOLDER` if it is the best so far.

  Args:
    directory: folder of the training run.
    prefix: a checkpoint.
    value: how good it is, more is better; NaN and None never are the best.
    name: what `value` is, the key in best.json.

  Returns:
    Whether it is better than the best one so far.

  Raises:
    InputError: it cannot be read or copied; the best one so far is intact.
  """
  if value is None or math.isnan(value):
    return False
  before = read_best(directory, name)
  if before is not None and value <= before[name]:
    return False
  step = checkpoint_files.global_step(prefix)
  folder = os.path.join(directory, FOLDER)
  try:
    tf.io.gfile.makedirs(folder)
    checkpoint_saving.remove_unfinished(folder)
    if before is not None:
      _remove_others(folder, before)
    target = _free_prefix(folder, step)
    with checkpoint_saving.temporary_prefix(folder) as temporary:
      for file in checkpoint_saving.files_of(prefix):
        tf.io.gfile.copy(file, temporary + file[len(prefix) :])
      _copy_beside(directory, folder)
      record = {
        name: float(value),
        'step': step,
        'checkpoint': os.path.basename(target),
        'before': before,
      }
      atomic_files.write(
        os.path.join(folder, FILE), json.dumps(record, indent=1) + '\n'
      )
      listed = [target] if before is None else [before['checkpoint'], target]
      checkpoint_saving.write_state(folder, listed)
      checkpoint_saving.rename(temporary, target)
    _remove_others(folder, record)
  except (OSError, tf.errors.OpError, InputError) as error:
    raise InputError(
      f'{folder}: the best checkpoint could not be written: '
      f'{checkpoint_files.first_line(error)}. Free some space or make the '
      'directory writable, and start the same command again.'
    ) from error
  return True


def _free_prefix(folder, step):
  """A prefix that no checkpoint has; a run may come to a step twice."""
  prefix = checkpoint_saving.prefix_of(folder, step)
  if tf.io.gfile.exists(f'{prefix}.index'):
    return os.path.join(folder, f'model.ckpt-again-{step}')
  return prefix


def _copy_beside(source, folder):
  for name in _BESIDE:
    path = os.path.join(source, name)
    if tf.io.gfile.exists(path):
      with tf.io.gfile.GFile(path, 'rb') as file:
        atomic_files.write(os.path.join(folder, name), file.read())


def _remove_others(folder, best):
  """Removes the checkpoints of a folder except the one of a record."""
  for name in input_files.list_folder(folder):
    stem, part, _ = name.rpartition('.index')
    if not part:
      stem = name.partition('.data-')[0]
    if stem.startswith('model.ckpt-') and stem != best['checkpoint']:
      checkpoint_saving.remove(os.path.join(folder, stem))

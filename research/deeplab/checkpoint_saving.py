"""Writing checkpoints, and the state file beside them; see `checkpoints`."""

import contextlib
import os
import uuid

import numpy as np
import tensorflow as tf

from deeplab import atomic_files, checkpoint_files, input_files
from deeplab.common import InputError

# TensorFlow 1's name for the moving average of a variable: this, after it.
AVERAGE_SUFFIX = '/ExponentialMovingAverage'

# The number of moving averages. TensorFlow 1 stores none; see
# `checkpoints.restore`.
MOVING_AVERAGES = 'number_of_moving_averages'

# Files of a save that has not finished begin like this.
_UNFINISHED = '.tmp-'

_PREFIX = 'model.ckpt'


def prefix_of(directory, step):
  """The prefix that `save` gives the checkpoint of a step."""
  return os.path.join(directory, f'{_PREFIX}-{step}')


def save(directory, step, values, keep_max=5):
  """Writes model.ckpt-<step> and points the state file at it.

  The files get their names, and the state file is replaced, only when all has
  been written: a crash or a full disk leaves the older checkpoints as they
  were.

  Args:
    directory: where; made if absent.
    step: the training step, stored as `global_step` too.
    values: {official name: variable, tensor or array}. Where moving averages
      are among them, their number is stored as `MOVING_AVERAGES`.
    keep_max: how many checkpoints of the state file to keep, 0 for all.

  Returns:
    The prefix.

  Raises:
    InputError: the files cannot be written. Earlier checkpoints are intact;
      if it was the state file alone, `checkpoint_files.latest` finds the new
      one as well.
  """
  prefix = prefix_of(directory, step)
  values = {name: np.asarray(value) for name, value in values.items()}
  values[checkpoint_files.GLOBAL_STEP] = np.asarray(step, np.int64)
  averages = sum(name.endswith(AVERAGE_SUFFIX) for name in values)
  if averages:
    values[MOVING_AVERAGES] = np.asarray(averages, np.int64)
  try:
    tf.io.gfile.makedirs(directory)
    with temporary_prefix(directory) as temporary:
      tf.raw_ops.SaveV2(
        prefix=temporary,
        tensor_names=list(values),
        shape_and_slices=[''] * len(values),
        tensors=list(values.values()),
      )
      rename(temporary, prefix)
    _update_state(directory, prefix, keep_max)
  except (OSError, tf.errors.OpError, InputError) as error:
    raise InputError(
      f'{prefix}: the checkpoint could not be written: '
      f'{checkpoint_files.first_line(error)}. '
      'Earlier checkpoints are intact. Free some space or make the directory '
      'writable, and start the same command again.'
    ) from error
  return prefix


def rename(source, target):
  """Gives the files of a checkpoint another prefix in the same directory.

  Args:
    source: prefix of a whole checkpoint.
    target: the new prefix.
  """
  # The index last: a checkpoint exists once its index does. An older one of
  # this name goes first, so that its index never meets other data.
  if tf.io.gfile.exists(f'{target}.index'):
    tf.io.gfile.remove(f'{target}.index')
  for file in files_of(source):
    _flush(file)
    tf.io.gfile.rename(file, target + file[len(source) :], overwrite=True)
  _flush(os.path.dirname(target) or '.')


def _flush(path):
  """Has a local file or folder on the disk before older ones are removed."""
  if os.path.exists(path):  # Not of a remote file system.
    descriptor = os.open(path, os.O_RDONLY)
    try:
      os.fsync(descriptor)
    finally:
      os.close(descriptor)


def files_of(prefix):
  """The paths of the files of a checkpoint, the index last."""
  directory, name = os.path.split(prefix)
  paths = [
    os.path.join(directory, file)
    for file in sorted(input_files.list_folder(directory or '.'))
    if file.startswith(f'{name}.')
  ]
  return sorted(paths, key=lambda path: path.endswith('.index'))


def remove(prefix):
  """Removes a checkpoint, its index first: without one it is none."""
  for file in reversed(files_of(prefix)):
    tf.io.gfile.remove(file)


def remove_unfinished(directory):
  """Removes what saves that were killed left in a directory."""
  if not tf.io.gfile.isdir(directory):
    return
  for name in input_files.list_folder(directory):
    if name.startswith(_UNFINISHED):
      tf.io.gfile.remove(os.path.join(directory, name))


@contextlib.contextmanager
def temporary_prefix(directory):
  """A prefix in the same directory; what is left under it is removed."""
  name = f'{_UNFINISHED}{uuid.uuid4().hex}'
  try:
    yield os.path.join(directory, name)
  finally:
    for file in input_files.list_folder(directory):
      if file.startswith(name):
        tf.io.gfile.remove(os.path.join(directory, file))


def write_state(directory, prefixes):
  """Writes the state file of a directory.

  Args:
    directory: its folder.
    prefixes: of checkpoints in it, the newest one last.
  """
  # Names relative to the folder, so that it can be moved.
  names = [os.path.basename(prefix) for prefix in prefixes]
  lines = [f'model_checkpoint_path: "{names[-1]}"'] + [
    f'all_model_checkpoint_paths: "{name}"' for name in names
  ]
  atomic_files.write(
    os.path.join(directory, 'checkpoint'), '\n'.join(lines) + '\n'
  )


def _update_state(directory, prefix, keep_max):
  """Points the state file at a checkpoint; removes the oldest ones."""
  kept = [
    path
    for path in checkpoint_files.listed_by_state(directory)
    if path != prefix
  ] + [prefix]
  dropped = kept[:-keep_max] if keep_max else []
  write_state(directory, kept[len(dropped) :])
  for path in dropped:
    remove(path)

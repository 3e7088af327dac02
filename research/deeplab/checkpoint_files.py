"""Finding and reading the files of checkpoints; see `checkpoints`.

A crash can leave the newest checkpoint torn: its index without its data, or
either of them cut short. What is found here is whole, as far as that can be
told without reading all data.
"""

import glob
import os
import re

import numpy as np
import tensorflow as tf
from absl import logging

from deeplab import frozen_graph, input_files
from deeplab.common import InputError

GLOBAL_STEP = 'global_step'

# TensorFlow's checkpoint reader turns status codes into any of these.
_READ_ERRORS = (tf.errors.OpError, RuntimeError, ValueError, LookupError)

# What has been warned of, once for each file: folders are asked again and
# again while an evaluation waits for the next checkpoint.
_warned = set()


class DamagedError(InputError):
  """The files of a checkpoint are damaged; an older one may be whole."""


# Finding.


def find(path):
  """The prefix of the checkpoint that a path means.

  Args:
    path: a directory (its latest checkpoint; where there is none, its frozen
      graph), a prefix such as 'logs/model.ckpt-30000', one of the files of a
      checkpoint, a frozen graph (.pb), or a V1 checkpoint.

  Returns:
    The prefix; the file itself for the last two.

  Raises:
    InputError: there is no checkpoint.
  """
  path = os.fspath(path)
  prefix = re.sub(r'\.(index|meta|data-\d+-of-\d+)$', '', path)
  if tf.io.gfile.exists(prefix + '.index'):
    return prefix
  if tf.io.gfile.isdir(path):
    prefix = latest(path) or single_file(path)
    if prefix is None:
      check_not_all_damaged(path)
      raise InputError(
        f'{path}: no checkpoint in this directory. Expected files like '
        'model.ckpt-30000.index beside a file called checkpoint, or a '
        f'{frozen_graph.FILE_NAME}.'
      )
    return prefix
  if prefix == path and tf.io.gfile.exists(path):
    return path
  raise InputError(
    f'{path}: no such checkpoint. Expected a directory, a prefix like '
    'model.ckpt-30000, one of its files, or a frozen graph (.pb).'
  )


def single_file(directory):
  """The V1 checkpoint or frozen graph of a directory without others, or None.

  These are read, never written: a training run does not go on from them.
  """
  found = tf.io.gfile.glob(os.path.join(directory, '*.ckpt'))
  if len(found) == 1 and not tf.io.gfile.isdir(found[0]):
    return found[0]
  path = os.path.join(directory, frozen_graph.FILE_NAME)
  return path if tf.io.gfile.exists(path) else None


def latest(directory, known=None):
  """The prefix of the newest whole checkpoint in a directory, or None.

  The state file names it, unless a save was killed just before it could. Where
  that one is not there or is torn, the one with the highest step that is whole
  counts; a warning names what is torn.

  Args:
    directory: local or remote folder.
    known: a prefix that was whole and is not looked at again, or None.
  """
  return next(whole(directory, known), None)


def whole(directory, known=None):
  """Yields the prefixes of whole checkpoints, the newest one first.

  A checkpoint is only looked at when its turn comes, and of the values nothing
  is read but their number: a checksum may still be wrong.

  Args:
    directory: see `latest`.
    known: see `latest`.
  """
  for prefix in _newest_first(directory):
    fault = None if prefix == known else find_fault(prefix)
    if fault is None:
      yield prefix
    else:
      warn_of_damage(prefix, fault)


def warn_of_damage(prefix, fault):
  """Says, once, that an older checkpoint is looked for."""
  if (prefix, fault) not in _warned:
    _warned.add((prefix, fault))
    logging.warning(
      'The checkpoint %s is damaged and is left out: %s. The next older one '
      'is looked for.',
      prefix,
      fault,
    )


def check_not_all_damaged(directory):
  """Raises InputError for a directory with checkpoints of which none is whole.

  Args:
    directory: one where `latest` found nothing.
  """
  damaged = _newest_first(directory)
  if damaged:
    raise InputError(
      f'{directory}: none of its {len(damaged)} checkpoints is whole. '
      f'{os.path.basename(damaged[0])}: {find_fault(damaged[0])}. Bring the '
      'files back from a copy, or remove them.'
    )


def _newest_first(directory):
  """Prefixes of the checkpoints of a directory, torn or not.

  A save that is killed just before it replaces the state file leaves a
  checkpoint that is younger than that file, of a higher step, and not listed
  there. Such a one comes first, then the one that the state file names, then
  the others.
  """
  _check_plain(directory)
  others = sorted(_prefixes(directory), key=_step_of_name, reverse=True)
  state = _read_state(directory)
  named = _named(state)
  if named is None:
    return others
  listed = {named, *state.all_model_checkpoint_paths}
  unlisted = [
    prefix
    for prefix in others
    if prefix not in listed and _step_of_name(prefix) > _step_of_name(named)
  ]
  if unlisted:
    # Local files have whole seconds: the same one may be later.
    written = _modified(os.path.join(directory, 'checkpoint'))
    unlisted = [p for p in unlisted if _modified(f'{p}.index') >= written]
  return list(dict.fromkeys([*unlisted, named, *others]))


def _prefixes(directory):
  return [
    os.path.join(directory, name[: -len('.index')])
    for name in _names(directory)
    # A dot: just being written.
    if name.endswith('.index') and not name.startswith('.')
  ]


def _names(directory):
  """The names of the files of a directory; none if there is no directory."""
  try:
    return input_files.list_folder(directory)
  except tf.errors.NotFoundError:
    return []


def _step_of_name(prefix):
  match = re.search(r'-(\d+)$', prefix)
  return int(match.group(1)) if match else -1


def _modified(path):
  try:
    return tf.io.gfile.stat(path).mtime_nsec
  except tf.errors.NotFoundError:
    return 0


def _read_state(directory):
  """The CheckpointState of a directory; None if there is none that is one."""
  try:
    return tf.train.get_checkpoint_state(directory)
  except ValueError:  # Empty, or no text.
    return None


def listed_by_state(directory):
  """The checkpoints that a state file lists and that are there, oldest first.

  Args:
    directory: local or remote folder.
  """
  state = _read_state(directory)
  return [
    path
    for path in (state.all_model_checkpoint_paths if state else [])
    if tf.io.gfile.exists(f'{path}.index')
  ]


def named_by_state(directory):
  """The checkpoint that the state file of a directory names, if it is there."""
  return _named(_read_state(directory))


def _named(state):
  prefix = state.model_checkpoint_path if state else None
  return prefix if prefix and tf.io.gfile.exists(f'{prefix}.index') else None


# Whether the files are whole.


def find_fault(prefix):
  """What is wrong with the files of a checkpoint; None where they are whole.

  The index is read, and its own checksums are checked. Of the data files only
  the sizes are looked at.

  Args:
    prefix: of a checkpoint in the V2 format.

  Raises:
    InputError: the index is there and cannot be opened, for want of rights for
      example. That is no reason to go on with an older checkpoint.
  """
  index = f'{prefix}.index'
  try:
    reader = tf.compat.v1.train.NewCheckpointReader(prefix)
    shapes = reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()
  except _READ_ERRORS as error:
    _check_access(index)
    return f'{index}: {first_line(error)}'
  files = _data_files(prefix)
  if not files:
    return f'{prefix}.data-00000-of-00001 is missing'
  number = int(next(iter(files)).rpartition('-')[2])
  if len(files) != number:
    return f'{len(files)} of the {number} files {prefix}.data-* are there'
  # A text takes a byte at least.
  needed = sum(
    int(np.prod(shape, dtype=np.int64))
    * (1 if dtypes[name] == tf.string else dtypes[name].size)
    for name, shape in shapes.items()
  )
  found = sum(files.values())
  if found < needed:
    return f'{", ".join(files)}: {found} bytes, where {needed} are needed'
  return None


def _check_plain(path):
  """Refuses paths of checkpoints that can be written, but never read."""
  if glob.has_magic(path):
    raise InputError(
      f'{path}: TensorFlow takes the characters * ? [ in the path of a '
      'checkpoint for a pattern, and does not find it. Rename the folder.'
    )


def _check_access(path):
  """Lets errors through that tell nothing of what is in the file."""
  try:
    with tf.io.gfile.GFile(path, 'rb') as file:
      file.read(1)
  except (tf.errors.NotFoundError, tf.errors.FailedPreconditionError):
    return  # Gone, or a folder.
  except tf.errors.OpError as error:
    raise InputError(f'{path} cannot be read: {first_line(error)}') from error


def _data_files(prefix):
  """{path: size in bytes} of the data files of a checkpoint."""
  # Nearly always one file: asking for it is quicker than listing a folder.
  single = f'{prefix}.data-00000-of-00001'
  try:
    return {single: tf.io.gfile.stat(single).length}
  except tf.errors.NotFoundError:
    pass
  directory, name = os.path.split(prefix)
  pattern = re.compile(re.escape(name) + r'\.data-\d{5}-of-\d{5}')
  return {
    path: tf.io.gfile.stat(path).length
    for path in (
      os.path.join(directory, name)
      for name in sorted(_names(directory or '.'))
      if pattern.fullmatch(name)
    )
  }


# Reading.


def read(prefix):
  """{name: (shape, function that reads the value)} of a checkpoint.

  Args:
    prefix: what `find` returned.

  Raises:
    InputError: the files cannot be read.
  """
  if frozen_graph.is_frozen_graph(prefix):
    return frozen_graph.read(prefix)
  _check_plain(prefix)
  try:
    reader = tf.compat.v1.train.NewCheckpointReader(prefix)
    shapes = reader.get_variable_to_shape_map()
  except _READ_ERRORS as error:
    raise DamagedError(
      f'{prefix}: the checkpoint cannot be read: {first_line(error)}'
    ) from error

  def getter(name):
    def get():
      try:
        return reader.get_tensor(name)
      except _READ_ERRORS as error:
        raise DamagedError(
          f'{prefix}: variable {name} cannot be read, the file is damaged: '
          f'{first_line(error)}'
        ) from error

    return get

  return {name: (tuple(shape), getter(name)) for name, shape in shapes.items()}


def first_line(error):
  """The first line of an error's message."""
  return str(error).partition('\n')[0]


def global_step(path):
  """The training step of a checkpoint: from the file, else from its name.

  Args:
    path: see `find`.

  Raises:
    InputError: there is no checkpoint, or it cannot be read.
  """
  prefix = find(path)
  variables = read(prefix)
  if GLOBAL_STEP in variables:
    return int(variables[GLOBAL_STEP][1]())
  match = re.search(r'-(\d+)$', prefix)
  return int(match.group(1)) if match else 0

"""Official-format checkpoints, both ways.

A checkpoint is `model.ckpt-N.{index,data-...}` in TensorFlow's V2 bundle
format under the TensorFlow 1 variable names, beside a `checkpoint` state file
and model_options.json. Published checkpoints load without conversion, and
what is written here loads in the original code. Where a checkpoint is only
read, a frozen graph (`frozen_graph`) and a single file in the older V1 format
do as well.
"""

import contextlib
import dataclasses
import os
import re
import uuid
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from deeplab import atomic_files, diagnosis, frozen_graph, slim
from deeplab.common import InputError

GLOBAL_STEP = 'global_step'
# The original counts the steps of delayed quantisation on their own.
QUANTIZATION_STEP = 'fake_quantization_step'

# TensorFlow's checkpoint reader turns status codes into any of these.
_READ_ERRORS = (tf.errors.OpError, RuntimeError, ValueError, LookupError)

# Files of a save that has not finished begin like this.
_UNFINISHED = '.tmp-'

_PREFIX = 'model.ckpt'


def named_variables(model):
  """{official name: keras.Variable} of a model, in creation order."""
  layers = [layer for layer in model.layers if hasattr(layer, 'creation_index')]
  layers.sort(key=lambda layer: layer.creation_index)
  return {
    slim.official_name(variable): variable
    for layer in layers
    for variable in layer.variables
  }


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
  if tf.io.gfile.isdir(path):
    prefix = latest(path) or single_file(path)
    if prefix is None:
      raise InputError(
        f'{path}: no checkpoint in this directory. Expected files like '
        'model.ckpt-30000.index beside a file called checkpoint, or a '
        f'{frozen_graph.FILE_NAME}.'
      )
    return prefix
  prefix = re.sub(r'\.(index|meta|data-\d+-of-\d+)$', '', path)
  if tf.io.gfile.exists(prefix + '.index'):
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


def latest(directory):
  """The prefix of the newest complete checkpoint in a directory, or None.

  The state file names it; without one, or where it names a checkpoint that is
  not there, the highest step among the files counts.
  """
  named = named_by_state(directory)
  if named:
    return named
  steps = {}
  for path in tf.io.gfile.glob(os.path.join(directory, '*.index')):
    prefix = path[: -len('.index')]
    if os.path.basename(prefix).startswith('.'):
      continue  # Just being written.
    match = re.search(r'-(\d+)$', prefix)
    steps[int(match.group(1)) if match else -1] = prefix
  return steps[max(steps)] if steps else None


def _read_state(directory):
  """The CheckpointState of a directory; None if there is none that is one."""
  try:
    return tf.train.get_checkpoint_state(directory)
  except UnicodeDecodeError:
    return None


def named_by_state(directory):
  """The checkpoint that the state file of a directory names, if it is there."""
  state = _read_state(directory)
  prefix = state.model_checkpoint_path if state else None
  return prefix if prefix and tf.io.gfile.exists(f'{prefix}.index') else None


def read(prefix):
  """{name: (shape, function that reads the value)} of a checkpoint.

  Args:
    prefix: what `find` returned.

  Raises:
    InputError: the files cannot be read.
  """
  if frozen_graph.is_frozen_graph(prefix):
    return frozen_graph.read(prefix)
  try:
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
  except _READ_ERRORS as error:
    raise InputError(
      f'{prefix}: the checkpoint cannot be read: {_first_line(error)}'
    ) from error

  def getter(name):
    def get():
      try:
        return reader.get_tensor(name)
      except _READ_ERRORS as error:
        raise InputError(
          f'{prefix}: variable {name} cannot be read, the file is damaged: '
          f'{_first_line(error)}'
        ) from error

    return get

  return {name: (tuple(shape), getter(name)) for name, shape in shapes.items()}


def _first_line(error):
  return str(error).splitlines()[0]


def global_step(prefix):
  """The training step of a checkpoint: from the file, else from its name."""
  variables = read(prefix)
  if GLOBAL_STEP in variables:
    return int(variables[GLOBAL_STEP][1]())
  match = re.search(r'-(\d+)$', prefix)
  return int(match.group(1)) if match else 0


# Restoring.


@dataclasses.dataclass(frozen=True)
class RestoreReport:
  """What restoring did, as lists of official names.

  Attributes:
    checkpoint: the prefix.
    restored: read from the file.
    initialized: not in the file, or excluded: keep their initial values.
    left_over: in the file, of no use here; optimiser slots are not counted.
    made: restored ones that `initial_values` made from others, with what of.
  """

  checkpoint: str
  restored: list[str]
  initialized: list[str]
  left_over: list[str]
  made: list[str] = dataclasses.field(default_factory=list)

  def __str__(self):
    lines = [f'Restored {len(self.restored)} variables of {self.checkpoint}.']
    for title, names in (
      ('made from others', self.made),
      ('newly initialised', self.initialized),
      ('left over in the file', self.left_over),
    ):
      if names:
        lines.append(f'  {len(names)} {title}: {_abridge(names)}')
    return '\n'.join(lines)


def _abridge(names, most=6):
  text = ', '.join(names[:most])
  return text + (f', ... ({len(names)} in all)' if len(names) > most else '')


def restore(model, path, exclude=(), allow_missing=False, initial_values=None):
  """Reads a checkpoint into a model.

  Args:
    model: keras.Model, or {official name: variable}.
    path: directory, prefix or file; see `find`.
    exclude: scopes whose variables keep their initial values; a variable is
      of a scope if its name begins with it.
    allow_missing: whether variables may be absent from the file; they keep
      their initial values.
    initial_values: function that makes values of variables from those of
      others in the file; see feature_extractor.Backbone. Only for a training
      that begins: what comes out is another network.

  Returns:
    A RestoreReport.

  Raises:
    InputError: no checkpoint, a shape that differs, a variable that is
      absent, or no variable in common. Nothing is changed then.
  """
  prefix = find(path)
  variables = model if isinstance(model, Mapping) else named_variables(model)
  stored = read(prefix)
  wanted = {
    name: variable
    for name, variable in variables.items()
    if not name.startswith(tuple(exclude))
  }
  left_over = {
    name
    for name in stored
    if name not in variables and not diagnosis.is_slot(name)
  }
  made = []
  if initial_values is not None:
    shapes = {name: tuple(wanted[name].shape) for name in wanted}
    new = initial_values(shapes, stored)
    made = [
      f'{name} {list(shapes[name])} from {source} {list(stored[source][0])}'
      for name, (source, _) in new.items()
    ]
    left_over -= {source for source, _ in new.values()}
    stored = stored | {
      name: (shapes[name], get) for name, (_, get) in new.items()
    }
  found = [name for name in wanted if name in stored]
  missing = [name for name in wanted if name not in stored]
  # The backbone comes first. A head alone may fit that of another network.
  backbone = next(iter(wanted), '').split('/')[0] + '/'
  if wanted and not any(name.startswith(backbone) for name in found):
    raise InputError(
      f'{prefix}: the checkpoint has no variable of {backbone[:-1]}. It holds '
      f'{_scopes(stored)}; the model has {_scopes(variables)}. Is '
      f'--model_variant right? {diagnosis.describe(_shapes(stored))}'
    )
  lost = [name for name in missing if name.startswith(backbone)]
  if missing and (not allow_missing or frozen_graph.is_folded(prefix, lost)):
    raise InputError(
      f'{prefix}: the checkpoint lacks {len(missing)} of the '
      f"model's {len(wanted)} variables: {_abridge(missing)}. It holds "
      f'{_scopes(stored)}.{frozen_graph.explain_missing(prefix, missing)} '
      'Give the model flags it was trained with. '
      f'{diagnosis.describe(_shapes(stored))}'
    )
  _check_shapes(prefix, {name: wanted[name] for name in found}, stored)
  # Read everything before anything is assigned.
  values = {name: stored[name][1]() for name in found}
  for name, value in values.items():
    _check_kind(prefix, name, value, wanted[name])
  for name, value in values.items():
    wanted[name].assign(value)
  return RestoreReport(
    checkpoint=prefix,
    restored=found,
    initialized=[name for name in variables if name not in values],
    left_over=sorted(left_over),
    made=made,
  )


def _check_kind(prefix, name, value, variable):
  """Numbers with a fraction stay such, at whatever precision."""
  found, wanted = tf.as_dtype(value.dtype), tf.as_dtype(variable.dtype)
  if found.is_floating != wanted.is_floating:
    raise InputError(
      f'{prefix}: variable {name} is of the type {found.name} in the file and '
      f'{wanted.name} in the model. The weights of an integer or rewritten '
      'model cannot be restored; give the checkpoint it was made from.'
    )


def _shapes(stored):
  return {name: shape for name, (shape, _) in stored.items()}


def _scopes(names):
  """The first parts of variable names, slots left out."""
  return ', '.join(
    sorted(
      {name.split('/')[0] for name in names if not diagnosis.is_slot(name)}
    )
  )


def _check_shapes(prefix, variables, stored):
  wrong = [
    name
    for name, variable in variables.items()
    if tuple(variable.shape) != stored[name][0]
  ]
  if not wrong:
    return
  details = '; '.join(
    f'{name} is {list(stored[name][0])} in the file and '
    f'{list(variables[name].shape)} in the model'
    for name in wrong[:4]
  )
  if all(
    name.startswith('logits/')
    and tuple(variables[name].shape[:-1]) == stored[name][0][:-1]
    for name in wrong
  ):
    cure = (
      'The number of classes differs. Give the data set (--dataset_dir) or '
      'the --num_classes it was trained with; to fine-tune on other classes, '
      'train with --initialize_last_layer=false (and '
      '--last_layers_contain_logits_only to keep ASPP and decoder).'
    )
  else:
    cure = (
      'Give the model flags it was trained with. Is --model_variant right? '
      f'{diagnosis.describe(_shapes(stored))}'
    )
  raise InputError(
    f'{prefix}: {len(wrong)} variables have other shapes: {details}. {cure}'
  )


# Saving.


def save(directory, step, values, keep_max=5):
  """Writes model.ckpt-<step> and points the state file at it.

  The files get their names, and the state file is replaced, only when all has
  been written: a crash or a full disk leaves the older checkpoints as they
  were.

  Args:
    directory: where; made if absent.
    step: the training step, stored as `global_step` too.
    values: {official name: variable, tensor or array}.
    keep_max: how many checkpoints of the state file to keep, 0 for all.

  Returns:
    The prefix.

  Raises:
    InputError: the files cannot be written.
  """
  prefix = os.path.join(directory, f'{_PREFIX}-{step}')
  values = {name: np.asarray(value) for name, value in values.items()}
  values[GLOBAL_STEP] = np.asarray(step, np.int64)
  try:
    tf.io.gfile.makedirs(directory)
    with _temporary_prefix(directory) as temporary:
      tf.raw_ops.SaveV2(
        prefix=temporary,
        tensor_names=list(values),
        shape_and_slices=[''] * len(values),
        tensors=list(values.values()),
      )
      # The index last: a checkpoint exists once its index does.
      for file in sorted(tf.io.gfile.glob(temporary + '.*')):
        target = prefix + file[len(temporary) :]
        tf.io.gfile.rename(file, target, overwrite=True)
    _update_state(directory, prefix, keep_max)
  except (OSError, tf.errors.OpError) as error:
    raise InputError(
      f'{prefix}: the checkpoint could not be written: {_first_line(error)}. '
      'Earlier checkpoints are intact. Free some space or make the directory '
      'writable, and start the same command again.'
    ) from error
  return prefix


def remove_unfinished(directory):
  """Removes what saves that were killed left in a directory."""
  for file in tf.io.gfile.glob(os.path.join(directory, _UNFINISHED + '*')):
    tf.io.gfile.remove(file)


@contextlib.contextmanager
def _temporary_prefix(directory):
  """A prefix in the same directory; what is left under it is removed."""
  temporary = os.path.join(directory, f'{_UNFINISHED}{uuid.uuid4().hex}')
  try:
    yield temporary
  finally:
    for file in tf.io.gfile.glob(temporary + '*'):
      tf.io.gfile.remove(file)


def _update_state(directory, prefix, keep_max):
  """Points the state file at a checkpoint; removes the oldest ones."""
  state = _read_state(directory)
  kept = [
    path
    for path in (state.all_model_checkpoint_paths if state else [])
    if path != prefix and tf.io.gfile.exists(path + '.index')
  ] + [prefix]
  dropped = kept[:-keep_max] if keep_max else []
  # Paths relative to the folder, so that it can be moved.
  lines = [f'model_checkpoint_path: "{os.path.basename(prefix)}"'] + [
    f'all_model_checkpoint_paths: "{os.path.basename(path)}"'
    for path in kept[len(dropped) :]
  ]
  atomic_files.write(
    os.path.join(directory, 'checkpoint'), '\n'.join(lines) + '\n'
  )
  for path in dropped:
    for file in tf.io.gfile.glob(path + '.*'):
      tf.io.gfile.remove(file)

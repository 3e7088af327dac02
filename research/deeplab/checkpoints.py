"""Official-format checkpoints, both ways.

A checkpoint is `model.ckpt-N.{index,data-...}` in TensorFlow's V2 bundle
format under the TensorFlow 1 variable names, beside a `checkpoint` state file
and model_options.json. Published checkpoints load without conversion, and
what is written here loads in the original code. Where a checkpoint is only
read, a frozen graph (`frozen_graph`) and a single file in the older V1 format
do as well.
"""

import dataclasses
from collections.abc import Mapping

import tensorflow as tf

from deeplab import checkpoint_files, diagnosis, frozen_graph, slim

# Part of this module's interface, wherever they are written.
from deeplab.best_checkpoint import keep_best as keep_best
from deeplab.best_checkpoint import read_best as read_best
from deeplab.checkpoint_files import GLOBAL_STEP as GLOBAL_STEP
from deeplab.checkpoint_files import DamagedError as DamagedError
from deeplab.checkpoint_files import find as find
from deeplab.checkpoint_files import find_fault as find_fault
from deeplab.checkpoint_files import global_step as global_step
from deeplab.checkpoint_files import latest as latest
from deeplab.checkpoint_files import named_by_state as named_by_state
from deeplab.checkpoint_files import read as read
from deeplab.checkpoint_files import single_file as single_file
from deeplab.checkpoint_saving import AVERAGE_SUFFIX as AVERAGE_SUFFIX
from deeplab.checkpoint_saving import MOVING_AVERAGES as MOVING_AVERAGES
from deeplab.checkpoint_saving import prefix_of as prefix_of
from deeplab.checkpoint_saving import remove_unfinished as remove_unfinished
from deeplab.checkpoint_saving import save as save
from deeplab.common import InputError

# The original counts the steps of delayed quantisation on their own.
QUANTIZATION_STEP = 'fake_quantization_step'


def named_variables(model):
  """{official name: keras.Variable} of a model, in creation order."""
  layers = [layer for layer in model.layers if hasattr(layer, 'creation_index')]
  layers.sort(key=lambda layer: layer.creation_index)
  return {
    slim.official_name(variable): variable
    for layer in layers
    for variable in layer.variables
  }


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
    averaged: restored ones that have the value of their moving average.
    not_averaged: restored ones that do not, though the file has an average.
  """

  checkpoint: str
  restored: list[str]
  initialized: list[str]
  left_over: list[str]
  made: list[str] = dataclasses.field(default_factory=list)
  averaged: list[str] = dataclasses.field(default_factory=list)
  not_averaged: list[str] = dataclasses.field(default_factory=list)

  def __str__(self):
    lines = [f'Restored {len(self.restored)} variables of {self.checkpoint}.']
    if self.averaged:
      lines.append(
        f'  {len(self.averaged)} of them are moving averages '
        f'({len(self.restored) - len(self.averaged)} have none).'
      )
    if self.not_averaged:
      lines.append(
        f'  {len(self.not_averaged)} have a moving average in the file, which '
        'is not used.'
      )
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


def restore(
  model,
  path,
  exclude=(),
  allow_missing=False,
  initial_values=None,
  use_moving_averages=None,
):
  """Reads a checkpoint into a model.

  The original reads the variables themselves, also where a file has moving
  averages of them, as published MobileNet classifiers do. By default the
  averages are therefore only taken from files whose training kept them for
  this: `save` notes their number in the file, TensorFlow 1 does not.

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
    use_moving_averages: whether a variable gets its moving average where the
      file has one; None for the files that `save` wrote. A model that has
      variables for the averages, as a training does, gets each as it is.

  Returns:
    A RestoreReport.

  Raises:
    InputError: no checkpoint, a shape that differs, a variable that is
      absent, no variable in common, or no moving averages though they are
      asked for. Nothing is changed then. A DamagedError where it is the files.
  """
  prefix = find(path)
  variables = model if isinstance(model, Mapping) else named_variables(model)
  stored = read(prefix)
  wanted = {
    name: variable
    for name, variable in variables.items()
    if not name.startswith(tuple(exclude))
  }
  averages = {
    name: name + AVERAGE_SUFFIX
    for name in wanted
    if name + AVERAGE_SUFFIX in stored
    and name + AVERAGE_SUFFIX not in variables
  }
  if use_moving_averages and not averages:
    raise InputError(
      f'{prefix}: the checkpoint has no moving averages of the variables of '
      'this network (--use_moving_averages). Leave the flag out, or give a '
      'checkpoint of a training with --moving_average_decay.'
    )
  if use_moving_averages is None:
    use_moving_averages = MOVING_AVERAGES in stored
  averaged = list(averages) if use_moving_averages else []
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
  stored = stored | {name: stored[averages[name]] for name in averaged}
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
    averaged=averaged,
    not_averaged=[
      name for name in averages if name in values and name not in averaged
    ],
  )


def restore_latest(variables, directory, check=None, **options):
  """Restores the newest checkpoint of a training run that is whole.

  Where reading one shows that it is damaged, a warning says so and the next
  older one is taken.

  Args:
    variables: see `restore`.
    directory: folder of the run.
    check: called with the prefix of a checkpoint before it is restored, to
      raise an InputError; None for nothing.
    **options: of `restore`.

  Returns:
    A RestoreReport; None where there is no checkpoint at all.

  Raises:
    InputError: there are checkpoints and none is whole, or what `restore`
      raises for other reasons than damage.
  """
  damage = None
  for prefix in checkpoint_files.whole(directory):
    try:
      if check is not None:
        check(prefix)
      return restore(variables, prefix, **options)
    except DamagedError as error:
      damage = error
      checkpoint_files.warn_of_damage(prefix, str(error))
  if damage is not None:
    raise InputError(
      f'{directory}: none of its checkpoints is whole. {damage}'
    ) from damage
  checkpoint_files.check_not_all_damaged(directory)
  return None


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

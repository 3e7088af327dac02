"""The commands of one row, and what they leave."""

import json
import os

from deeplab.common import InputError
from experiment import report
from experiment.plan import shell_flags
from experiment.records import has_records

# The flags that a row was run with, beside its results.
_EXPERIMENT_FILE = 'experiment.json'

# Left when the last command has succeeded: the seconds each took.
_FINISHED_FILE = 'finished.json'

_CRF_FILE = 'crf_search.json'

# How each script is told to run once.
_ONCE = {'eval': 'max_number_of_evaluations', 'vis': 'max_number_of_iterations'}


class Job:
  """A row in its folder."""

  def __init__(self, row, folder, data, checkpoints, search_crf=False):
    """Nothing is run or written yet.

    Args:
      row: a complete plan.Row.
      folder: that of the recipe's results.
      data: plan.Named with the folders of TFRecord files.
      checkpoints: plan.Named with the initial checkpoints.
      search_crf: whether the parameters of the CRF, where there is one, are
        searched before the evaluation.
    """
    self.row = row
    self._root = folder
    self._data = data
    self._checkpoints = checkpoints
    self._search_crf = search_crf and row.has_crf and row.script == 'eval'

  def _path(self, *names):
    return os.path.join(self._root, self.row.name, *names)

  def is_finished(self):
    """Whether its last command has succeeded."""
    return os.path.exists(self._path(_FINISHED_FILE))

  # Before anything is run.

  def check(self, is_made=False):
    """Finds what is missing now rather than after days of training.

    Args:
      is_made: whether the data set is going to be made.

    Raises:
      InputError: data or a checkpoint is missing, or what lies in the folder
        was run with other flags.
    """
    self._check_experiment()
    if self.is_finished():
      return
    row = self.row
    if not is_made:
      self._data.require(row.data, 'folder of TFRecord files', os.path.isdir)
      folder = self._data.get(row.data)
      for split in self._splits():
        if not has_records(folder, split):
          raise InputError(
            f'--data_dir={row.data}={folder}: row {row.name!r} needs the split '
            f'{split!r}, and there is no {split}-00000-of-*.tfrecord.'
          )
    if row.initial_checkpoint:
      self._checkpoints.require(
        row.initial_checkpoint, 'checkpoint', _is_checkpoint
      )

  def _splits(self):
    scripts = {'train': self.row.train if self.row.trains else None}
    scripts[self.row.script] = self.row.eval
    return [
      values.get(f'{script}_split', {'train': 'train'}.get(script, 'val'))
      for script, values in scripts.items()
      if values is not None
    ]

  def _experiment(self):
    row = self.row
    places = {'data_dir': self._data.get(row.data)}
    if row.initial_checkpoint:
      places['initial_checkpoint'] = self._checkpoints.get(
        row.initial_checkpoint
      )
    return {
      'train': row.train,
      'eval': row.eval or {},
      'runner': {'search_crf': self._search_crf},
      'places': {
        name: os.path.abspath(path) for name, path in places.items() if path
      },
    }

  def _check_experiment(self):
    path = self._path(_EXPERIMENT_FILE)
    if not os.path.exists(path):
      return
    with open(path, encoding='utf-8') as file:
      old = json.load(file)
    new = json.loads(json.dumps(self._experiment()))
    for script, now in new.items():
      before = old.get(script, {})
      if script == 'places':
        # A finished row is kept without its data at hand.
        before = {name: before[name] for name in {*before} & {*now}}
      changed = sorted(
        name for name in {*before, *now} if before.get(name) != now.get(name)
      )
      if changed:
        there, here = (
          ' '.join(shell_flags({name: flags.get(name) for name in changed}))
          for flags in (before, now)
        )
        raise InputError(
          f'{self._path()} holds row {self.row.name!r} with other flags: '
          f'{there} there, {here} now. Give another --output_dir, or delete '
          'that folder.'
        )

  # Running.

  def commands(self):
    """Yields the commands, each a list of a script and its arguments.

    What a command leaves may be in the next one: they are to be run in turn.
    """
    row = self.row
    dataset_dir = self._data.get(row.data) or self._data.placeholder(row.data)
    if row.trains:
      places = {
        'train_logdir': self._path('train'),
        'dataset_dir': dataset_dir,
      }
      if row.start:
        places['tf_initial_checkpoint'] = os.path.join(
          self._root, row.start, 'train'
        )
      elif row.checkpoint:
        places['tf_initial_checkpoint'] = self._checkpoints.get(
          row.checkpoint
        ) or self._checkpoints.placeholder(row.checkpoint)
      yield ['train.py', *shell_flags({**places, **row.train})]
    if row.eval is None:
      return
    places = {
      'checkpoint_dir': os.path.join(
        self._root, row.weights or row.name, 'train'
      ),
      'dataset_dir': dataset_dir,
    }
    flags = dict(row.eval)
    if self._search_crf:
      yield [
        '-m',
        'deeplab.crf_search',
        f'--output={self._path(_CRF_FILE)}',
        *shell_flags({**places, **_without_crf_and_trimap(flags)}),
      ]
      flags.update(self._found_parameters())
    places[f'{row.script}_logdir'] = self._path(row.script)
    places[_ONCE[row.script]] = 1
    yield [f'{row.script}.py', *shell_flags({**places, **flags})]

  def _found_parameters(self):
    """Flags of the CRF that the search found; none in a dry run."""
    path = self._path(_CRF_FILE)
    if not os.path.exists(path):
      return {}
    with open(path, encoding='utf-8') as file:
      best = json.load(file)['best']
    return {f'crf_{name}': best[name] for name in best if name != 'miou'}

  def run(self, run_command):
    """Runs the commands, unless that was done before.

    Args:
      run_command: function (command, path of its log) -> seconds.

    Raises:
      InputError: one of them failed.
    """
    if self.is_finished():
      print(f'{self.row.name}: finished before')
      return
    is_new = not os.path.exists(self._path())
    report.write_json(self._path(_EXPERIMENT_FILE), self._experiment())
    seconds = {}
    for command in self.commands():
      name = name_of(command)
      log = self._path(f'{name}.log')
      print(f'{self.row.name}: {name}, see {log}', flush=True)
      seconds[name] = round(run_command(command, log))
      print(f'{self.row.name}: {name} took {seconds[name]} s', flush=True)
    # A part of the time says nothing.
    report.write_json(self._path(_FINISHED_FILE), seconds if is_new else {})

  def measured(self):
    """Values of a finished row for the table."""
    with open(self._path(_FINISHED_FILE), encoding='utf-8') as file:
      seconds = json.load(file)
    values = {'seconds': seconds} if seconds else {}
    if self.row.eval is not None and self.row.script == 'eval':
      values.update(report.measure(self._path('eval')))
    return values


def name_of(command):
  """Name of the script, or of the module that -m runs."""
  if command[0] == '-m':
    return command[1].rpartition('.')[2]
  return os.path.splitext(command[0])[0]


def _without_crf_and_trimap(flags):
  return {
    name: value
    for name, value in flags.items()
    if not name.startswith(('crf', 'trimap'))
  }


def _is_checkpoint(path):
  """Whether there is a file, a folder with something in it, or a prefix."""
  if os.path.isdir(path):
    return bool(os.listdir(path))
  folder, name = os.path.split(path)
  folder = folder or '.'
  return os.path.isdir(folder) and any(
    entry == name or entry.startswith(f'{name}.')
    for entry in os.listdir(folder)
  )

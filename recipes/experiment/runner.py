"""Runs the experiment of a table: trains and evaluates its rows.

A recipe describes the rows (`plan.Recipe`) and calls `main`. Its flags:

  python recipes/v3_table5.py --scale=small --output_dir=out \
    --camvid_root=CamVid --initial_checkpoint=deeplabv3_mnv2_pascal_trainval

--scale=small runs the experiment with a smaller network on CamVid or on
generated shapes, for a computer without GPU. --dry_run prints the commands.
Everything lands in OUTPUT_DIR/<recipe>_<scale>/: a folder for each row, and
results.json and results.md with the table. The same command goes on where an
earlier one stopped; finished rows are not run again.
"""

import os
import shlex
import subprocess
import sys
import time

from absl import flags as absl_flags

from deeplab import flags
from deeplab.common import InputError
from experiment import report
from experiment.job import Job, name_of
from experiment.plan import SCALES, Named, select_rows
from experiment.records import has_records

FLAGS = flags.FLAGS

_ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), *['..'] * 2))

# Lines of the log of a command that failed.
_LOG_LINES = 15

# Seconds that a command has to clean up when it is interrupted.
_PATIENCE = 60

# Records that the runner makes itself: the folder within the data set's
# folder that holds them, and the command.
_GENERATED = {
  'camvid': ('', ['datasets/build_camvid_data.py']),
  'shapes': (
    'tfrecord',
    [
      'datasets/build_shapes_data.py',
      '--num_train=2000',
      '--num_val=100',
      '--image_size=64,80',
    ],
  ),
}


def define_flags():
  """The flags of a recipe."""
  string, many = absl_flags.DEFINE_string, absl_flags.DEFINE_multi_string
  boolean = absl_flags.DEFINE_boolean
  absl_flags.DEFINE_enum('scale', 'full', SCALES, 'Size of the experiment.')
  string('output_dir', None, 'Folder for everything that is written.')
  many(
    'data_dir',
    [],
    'Folder of the TFRecord files; NAME=FOLDER for those that only some rows '
    'need.',
  )
  string('camvid_root', None, 'Folder of CamVid, to make its TFRecord files.')
  many(
    'initial_checkpoint',
    [],
    'Where training starts; NAME=CHECKPOINT where a recipe needs several.',
  )
  absl_flags.DEFINE_list('rows', None, 'Rows to run, comma separated.')
  absl_flags.DEFINE_integer(
    'steps', None, 'Training steps of each row, for a quick look.'
  )
  many('train_flag', [], 'NAME=VALUE, a further flag of each training.')
  many(
    'eval_flag',
    [],
    'NAME=VALUE, a further flag of each evaluation; crf_... of those with CRF.',
  )
  boolean(
    'search_crf',
    False,
    'Search the parameters of the CRF of each row first, as the papers do '
    '(deeplab.crf_search).',
  )
  boolean('dry_run', False, 'Print the commands and stop.')
  flags.require('output_dir')


def main(recipe):
  """Runs a recipe with the flags of the command line.

  Args:
    recipe: a plan.Recipe.
  """
  define_flags()
  flags.run(lambda: run(recipe))


def run(recipe):
  """What `main` does once the flags are parsed.

  Args:
    recipe: a plan.Recipe.

  Raises:
    InputError: a flag is wrong, something is missing, or a command failed.
  """
  folder = os.path.join(FLAGS.output_dir, f'{recipe.name}_{FLAGS.scale}')
  rows = _changed(select_rows(recipe, FLAGS.scale, FLAGS.rows))
  setting = recipe.settings[FLAGS.scale]
  data = Named(
    'data_dir', FLAGS.data_dir, [row.data for row in rows], setting.data
  )
  checkpoints = Named(
    'initial_checkpoint',
    FLAGS.initial_checkpoint,
    [row.initial_checkpoint for row in rows],
    setting.checkpoint,
  )
  builds = _make_folders(data, [row.data for row in rows])
  if not FLAGS.dry_run and FLAGS.rows is None:
    rows = _available(rows, setting, data, checkpoints)
  jobs = [Job(row, folder, data, checkpoints, FLAGS.search_crf) for row in rows]
  made = [name for name in builds if not has_records(data.get(name))]
  if FLAGS.dry_run:
    for command in [builds[name] for name in made]:
      _print_command(command)
    for job in jobs:
      for command in job.commands():
        _print_command(command)
    return
  for job in jobs:
    job.check(is_made=job.row.data in made)
  os.makedirs(folder, exist_ok=True)
  for name in made:
    print(f'{name}: {builds[name][0]}', flush=True)
    run_command(builds[name], os.path.join(folder, f'{name}.log'))
  for job in jobs:
    job.run(run_command)
    table = _write_table(recipe, folder)
  print(f'\n{table}\nWritten to {folder}/results.md and results.json.')


def _write_table(recipe, folder):
  """The table of all rows, with what is known of them so far."""
  rows = select_rows(recipe, FLAGS.scale)
  jobs = [Job(row, folder, None, None) for row in rows]
  measured = {job.row.name: job.measured() for job in jobs if job.is_finished()}
  return report.write_table(recipe, FLAGS.scale, rows, measured, folder)


def _changed(rows):
  """The rows with what the command line adds to their flags."""
  train, evaluation = _given_flags('train_flag'), _given_flags('eval_flag')
  if FLAGS.steps is not None:
    if FLAGS.steps < 1:
      raise InputError(f'--steps must be positive. Received: {FLAGS.steps}.')
    train['training_number_of_steps'] = FLAGS.steps
  without_crf = {
    name: value
    for name, value in evaluation.items()
    if not name.startswith('crf_')
  }
  return [
    row.change(train, evaluation if row.has_crf else without_crf)
    for row in rows
  ]


def _given_flags(name):
  """{flag: value} of a flag that is given as NAME=VALUE."""
  values = {}
  for text in FLAGS[name].value:
    key, equals, value = text.lstrip('-').partition('=')
    if not equals or not key:
      raise InputError(f'--{name} must be NAME=VALUE. Received: {text!r}.')
    values[key] = value
  return values


def _available(rows, setting, data, checkpoints):
  """Leaves out rows that need something of their own that is not given."""
  left_out = {}
  for row in rows:
    if row.needs in left_out:
      left_out[row.name] = left_out[row.needs]
    elif row.data != setting.data and not data.get(row.data):
      left_out[row.name] = f'--data_dir={row.data}=FOLDER'
    elif row.initial_checkpoint not in (
      None,
      setting.checkpoint,
    ) and not checkpoints.get(row.initial_checkpoint):
      left_out[row.name] = f'--initial_checkpoint={row.checkpoint}=CHECKPOINT'
  if len(left_out) == len(rows):
    raise InputError(f'every row needs {", ".join({*left_out.values()})}.')
  for name, flag in left_out.items():
    print(f'{name}: left out without {flag}')
  return [row for row in rows if row.name not in left_out]


# Data.


def _make_folders(data, names):
  """Commands that make the data sets that are not given, {name: command}."""
  commands = {}
  for name in dict.fromkeys(names):
    if data.get(name) or name not in _GENERATED:
      continue
    folder = os.path.join(FLAGS.output_dir, 'data', name)
    inner, command = _GENERATED[name]
    data.set(name, os.path.join(folder, inner) if inner else folder)
    if name == 'camvid' and not has_records(folder):
      if not FLAGS.camvid_root and not FLAGS.dry_run:
        raise InputError(
          '--camvid_root must name the folder of CamVid with train.txt, train/ '
          'and trainannot/ (or --data_dir its TFRecord files).'
        )
      command = [*command, f'--camvid_root={FLAGS.camvid_root or "CAMVID"}']
    commands[name] = [*command, f'--output_dir={folder}']
  return commands


# Commands.


def _print_command(command):
  print(shlex.join(['python', *command]))


def run_command(command, log_path):
  """Runs a script of the repository, or a module.

  Args:
    command: its path in the repository and its arguments; or '-m', the name of
      a module and its arguments.
    log_path: file that its output is appended to.

  Returns:
    The seconds it took.

  Raises:
    InputError: it failed.
  """
  start = time.monotonic()
  script = command[0] if command[0] == '-m' else os.path.join(_ROOT, command[0])
  with open(log_path, 'a', encoding='utf-8') as log:
    log.write(f'$ {shlex.join(["python", *command])}\n')
    log.flush()
    process = subprocess.Popen(
      [sys.executable, script, *command[1:]],
      stdout=log,
      stderr=subprocess.STDOUT,
    )
    try:
      status = process.wait()
    except BaseException:
      _stop(process)
      raise
  if status:
    with open(log_path, encoding='utf-8', errors='replace') as log:
      tail = ''.join(log.readlines()[-_LOG_LINES:])
    raise InputError(
      f'{name_of(command)} ended with status {status}. Once that is mended, '
      f'the same command goes on from here. {log_path} ends with\n{tail}'
    )
  return time.monotonic() - start


def _stop(process):
  """Ends a command; it cleans up first."""
  process.terminate()
  try:
    process.wait(_PATIENCE)
  except subprocess.TimeoutExpired:
    process.kill()
    process.wait()

"""Measures this project and its peers in one run.

  python -m benchmarks --cases='inference/*_batch1' --output=inference.json

Each implementation of a case runs in a process of its own, one after another,
A B C A B C; ratios to the first one are taken round by round. Beside the JSON
file lie a table (.md) and a plot (.png) of the same name.

  python -m benchmarks --list
  python -m benchmarks --render=inference.json

The second command draws table and plot again. Peers come with
pip install -e '.[benchmark]'; those that are missing are left out, and named.
"""

import json
import os
import sys
import tempfile

from absl import flags as absl_flags
from absl import logging

from benchmarks import (
  artifacts,
  figures,
  machine,
  registry,
  report,
  runner,
  selection,
)
from benchmarks.case import images_of
from deeplab import atomic_files, checkpoints, common, flags
from deeplab.common import InputError

FLAGS = flags.FLAGS

_SUFFIX = '.json'

# Of a run that measures; the two other modes have no use for them.
_MEASURING = (
  'cases',
  'implementations',
  'runs',
  'seconds',
  'threads',
  'timeout',
  'work_dir',
  'smp_python',
  'trained_checkpoint',
  'image',
)


def _define_flags():
  string, integer = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
  flags.define_list(
    'cases', ['*'], "Cases by name, such as 'inference/*'.", str
  )
  flags.define_list(
    'implementations',
    None,
    'Rows of each case by name, the baseline being always one; unset: all.',
    str,
  )
  integer('runs', 3, 'Rounds, in each of which every implementation runs.')
  absl_flags.DEFINE_float(
    'seconds',
    2.0,
    'For the timed calls of each process, more if they are long.',
  )
  integer('threads', None, 'Of each implementation; unset: its own default.')
  absl_flags.DEFINE_float('timeout', 900.0, 'Seconds of a process at most.')
  string('output', None, 'JSON file; table and plot are written beside it.')
  string(
    'work_dir',
    None,
    'Folder that keeps checkpoints, exports and logs for the next run; unset: '
    'none is kept.',
  )
  string(
    'smp_python',
    None,
    'Interpreter that has segmentation_models.pytorch.',
  )
  string(
    'trained_checkpoint',
    None,
    'Prefix of a checkpoint of mobilenet_v2, in place of random weights; with '
    '--image.',
  )
  string('image', None, 'Photograph that is labelled then.')
  string('render', None, 'JSON file to make table and plot of; measures none.')
  absl_flags.DEFINE_boolean('list', False, 'Print the cases and stop.')


def _check_flags():
  """Refuses what would be ignored, and what cannot be."""
  modes = [name for name in ('render', 'list') if FLAGS[name].value]
  idle = _MEASURING if modes else ()
  if len(modes) > 1:
    raise InputError('--list and --render are two commands; give one of them.')
  if modes:
    idle += ('output',)
  elif not FLAGS.output:
    raise InputError(
      '--output=FILE.json must say where the results go. --list shows the '
      'cases.'
    )
  for name in filter(flags.is_given, idle):
    raise InputError(f'--{name} has no effect with --{modes[0]}; leave it out.')
  common.check_ranges(
    {
      f'--{name}': FLAGS[name].value
      for name in ('runs', 'seconds', 'threads', 'timeout')
    },
    {
      '--runs': common.COUNT,
      '--seconds': common.POSITIVE,
      '--threads': common.COUNT,
      '--timeout': common.POSITIVE,
    },
  )
  python = FLAGS.smp_python
  if python is not None and not os.access(python, os.X_OK):
    raise InputError(
      f'--smp_python={python} cannot be run; give the path of a Python '
      'interpreter.'
    )
  if (FLAGS.trained_checkpoint is None) != (FLAGS.image is None):
    raise InputError(
      '--trained_checkpoint and --image need each other; give both or none. '
      f'Received: --trained_checkpoint={FLAGS.trained_checkpoint}, '
      f'--image={FLAGS.image}.'
    )
  if FLAGS.image is not None:
    try:
      images_of({'size': 1, 'image': FLAGS.image})
    except OSError as error:
      raise InputError(
        f'--image={FLAGS.image} cannot be read, give the path of a photograph: '
        f'{error}'
      ) from error
  if FLAGS.output and not FLAGS.output.endswith(_SUFFIX):
    raise InputError(
      f'--output must end in {_SUFFIX}. Received: --output={FLAGS.output}.'
    )


def _cases():
  """What --cases and --implementations choose."""
  cases = selection.select(FLAGS.cases)
  if FLAGS.trained_checkpoint:
    prefix = checkpoints.find(FLAGS.trained_checkpoint)
    weights = artifacts.Weights.of(os.path.abspath(prefix))
    image = os.path.abspath(FLAGS.image)
    cases = selection.with_weights(cases, weights, image)
  return selection.select_rows(cases, FLAGS.implementations)


def _measure():
  """Runs the cases and writes after each of them what there is."""
  cases = _cases()
  settings = runner.Settings(
    FLAGS.runs, FLAGS.seconds, FLAGS.threads, FLAGS.timeout, FLAGS.smp_python
  )
  results = {
    'machine': machine.describe(),
    'settings': {
      name: getattr(settings, name) for name in ('runs', 'seconds', 'threads')
    },
    'command': ['python', '-m', 'benchmarks', *sys.argv[1:]],
    'cases': [],
  }
  with tempfile.TemporaryDirectory() as folder:
    measure = runner.Runner(
      settings,
      FLAGS.work_dir or folder,
      lambda line: logging.info('%s', line),
    )
    for case in cases:
      results['cases'].append(measure.run(case))
      text = json.dumps(results, indent=1) + '\n'
      atomic_files.write(FLAGS.output, text)
      _render(results, FLAGS.output)
  print(report.to_text(results), end='')
  failed = [
    f'{case["name"]} {row["name"]}'
    for case in results['cases']
    for row in case['rows']
    if row['status'].startswith('failed')
  ]
  if failed:
    raise InputError(
      f'{FLAGS.output} is written, but these failed: {", ".join(failed)}. The '
      'table says why; --work_dir keeps their logs.'
    )


def _render(results, path):
  """Writes table and plot beside the JSON file."""
  stem = path.removesuffix(_SUFFIX)
  atomic_files.write(f'{stem}.md', report.to_markdown(results))
  picture = figures.draw(results)
  if picture is not None:
    atomic_files.write(f'{stem}.png', picture)


def _load(path):
  """The results of an earlier run."""
  try:
    with open(path, encoding='utf-8') as file:
      results = json.load(file)
    if {'machine', 'cases'} <= results.keys():
      return results
    reason = 'it has no machine or no cases'
  except (OSError, ValueError, AttributeError) as error:
    reason = str(error)
  raise InputError(
    f'--render={path} is no file that python -m benchmarks --output=... wrote: '
    f'{reason}.'
  )


def main():
  _check_flags()
  if FLAGS.list:
    for case in registry.all_cases():
      print(f'{case.name}: {", ".join(row.name for row in case.rows)}')
  elif FLAGS.render:
    results = _load(FLAGS.render)
    _render(results, FLAGS.render)
    print(report.to_text(results), end='')
  else:
    _measure()


if __name__ == '__main__':
  _define_flags()
  flags.run(main)

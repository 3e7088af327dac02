"""Tasks that do nothing, for tests of the harness; NumPy alone."""

import os
import subprocess
import time

import numpy as np

from benchmarks.case import Task


def _note(context, text):
  with open(context.settings['log'], 'a') as file:
    file.write(f'{context.settings["name"]} {text}\n')


def sleep(context):
  """Sleeps for `ms` at each call and notes beginning and end in `log`."""
  settings = context.settings
  _note(context, 'begins')
  calls = []

  def call():
    calls.append(time.sleep(settings['ms'] / 1000))
    return np.array([settings.get('labels', [0, 1, 2, 3])])

  def facts():
    _note(context, 'ends')
    return {'calls': len(calls), 'threads': int(os.environ['OMP_NUM_THREADS'])}

  # What a library prints must not be taken for the result.
  print('{"a library": "greets"}')
  return Task(call, settings.get('units', 1), lambda labels: labels, facts)


def parent(context):
  """Waits for a process that holds the file `held` open for a minute."""
  held = context.settings['held']
  return Task(lambda: subprocess.run(f'exec sleep 60 >{held}', shell=True))


def broken(context):
  """Fails as a peer does whose interface has changed."""
  del context
  raise ValueError('there is no such kernel')


def large(context):
  """Holds `mib` of memory."""
  kept = []
  size = context.settings['mib'] * 2**20
  return Task(lambda: kept.append(np.ones(size, np.uint8)) if not kept else 0)


def own_times(context):
  """Measures by itself."""
  return Task(units=4, times=lambda: context.settings['times'])

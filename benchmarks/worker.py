"""The process of one row: builds, warms up, measures, prints a line of JSON.

  python -m benchmarks.worker '{"build": "module:function", ...}'

`runner` starts it; see `run` for the keys of the request.
"""

import importlib
import json
import os
import resource
import statistics
import sys
import time

from benchmarks.case import Context

# Calls that are timed at least, unless a few of them take this many times the
# seconds, and at most.
_MIN_CALLS = 3
_MOST_SECONDS = 4
_MAX_CALLS = 1000

# Share of the seconds for calls that are not timed.
_WARM_UP = 0.3

_MISSING = 'missing'


def run(request):
  """Measures.

  Args:
    request: {'build': 'module:function', 'settings', 'artifacts', 'packages':
      as in case.Row, 'threads': number or None, 'seconds': for the timed calls
      (0: a single call), 'started': time.time() before the process began,
      'labels': file for the labels, or None}.

  Returns:
    {'seconds': of each timed call, 'median', 'calls', 'units', 'import_secs',
    'load_secs', 'first_secs', 'peak_bytes', 'growth_bytes', 'facts'}; or
    {'missing': text} where a package is not installed.
  """
  _limit_threads(request['threads'])
  try:
    for package in request['packages']:
      importlib.import_module(package)
  except ImportError as error:
    return {_MISSING: str(error)}
  imported = time.time()
  memory = _memory()
  module, _, function = request['build'].partition(':')
  task = getattr(importlib.import_module(module), function)(
    Context(request['settings'], request['artifacts'], request['threads'])
  )
  loaded = time.time()
  if task.times is not None:
    first, seconds = 0.0, list(task.times())
  else:
    first, seconds = _measure(task, request['seconds'], request['labels'])
  peak = _peak_memory()
  return {
    'seconds': seconds,
    'median': statistics.median(seconds),
    'calls': len(seconds),
    'units': task.units,
    'import_secs': imported - request['started'],
    'load_secs': loaded - imported,
    'first_secs': first,
    'peak_bytes': peak,
    'growth_bytes': peak - memory,
    'facts': dict(task.facts()),
  }


def _measure(task, budget, labels_file):
  """Seconds of the first call, and of each timed one."""
  start = time.perf_counter()
  result = task.call()
  first = time.perf_counter() - start
  if labels_file is not None and task.labels is not None:
    import numpy as np

    np.save(labels_file, task.labels(result).astype(np.int16))
  del result
  if not budget:
    return first, [first]
  _repeat(task.call, _WARM_UP * budget, 1)
  return first, _repeat(task.call, budget, _MIN_CALLS)


def _repeat(call, budget, least):
  """Seconds of each of as many calls as the budget of seconds allows."""
  seconds = []
  while len(seconds) < _MAX_CALLS:
    start = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - start)
    total = sum(seconds)
    if total >= budget and (
      len(seconds) >= least or total >= _MOST_SECONDS * budget
    ):
      break
  return seconds


def _limit_threads(threads):
  """For libraries that read it when they are imported."""
  if threads is None:
    return
  for name in (
    'OMP_NUM_THREADS',
    'TF_NUM_INTRAOP_THREADS',
    'TF_NUM_INTEROP_THREADS',
  ):
    os.environ[name] = str(threads)


# Memory. `ru_maxrss` survives `exec`, so that a small process would show the
# size of the one that started it; it is for systems without /proc alone.


def _memory():
  return _status('VmRSS') or _usage()


def _peak_memory():
  # Or that of a process which the task has run.
  children = _usage(resource.RUSAGE_CHILDREN)
  return max(_status('VmHWM') or _usage(), children)


def _status(key):
  try:
    with open('/proc/self/status') as file:
      for line in file:
        if line.startswith(key + ':'):
          return int(line.split()[1]) * 1024
  except OSError:
    pass
  return None


def _usage(who=resource.RUSAGE_SELF):
  unit = 1 if sys.platform == 'darwin' else 1024
  return resource.getrusage(who).ru_maxrss * unit


def main():
  # Whatever else is printed must not get between the lines of JSON.
  answer = os.dup(1)
  os.dup2(2, 1)
  result = run(json.loads(sys.argv[1]))
  sys.stdout.flush()
  os.write(answer, (json.dumps(result) + '\n').encode())


if __name__ == '__main__':
  main()

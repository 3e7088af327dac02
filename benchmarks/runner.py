"""Runs the rows of cases in turn, each in a process of its own."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from benchmarks import artifacts
from benchmarks.case import MEDIAN
from deeplab.common import InputError

NOT_INSTALLED = "not installed: pip install -e '.[benchmark]'"

_NOT_IN_OTHER_PYTHON = (
  'not installed: --smp_python names an interpreter with it'
)


@dataclasses.dataclass(frozen=True)
class Settings:
  """How to measure.

  Attributes:
    runs: rounds, in each of which every row runs once.
    seconds: for the timed calls of a row.
    threads: of each row; None for the implementations' own default.
    timeout: seconds after which a row counts as failed.
    smp_python: interpreter of the rows with `other_python`, or None.
  """

  runs: int = 3
  seconds: float = 2.0
  threads: int | None = None
  timeout: float = 900.0
  smp_python: str | None = None


class Runner:
  """Measures cases."""

  def __init__(self, settings, work_dir, log: Callable[[str], None] = print):
    """Opens the folder for files.

    Args:
      settings: Settings.
      work_dir: folder for artifacts, labels and logs of rows.
      log: takes lines about the progress.
    """
    self._settings = settings
    self._folder = pathlib.Path(work_dir).resolve()
    self._log = log
    self._store = artifacts.Store(work_dir, log)

  def run(self, case):
    """Measures a case.

    Args:
      case: Case.

    Returns:
      JSON values: the fields of the case, and its `rows` with 'status' ('ok',
      'not installed: ...' or 'failed: ...'), 'runs' (what the worker printed,
      one for each round), 'multiply_adds' of a unit, and 'labels_equal', the
      share of labels that are the baseline's.
    """
    rows = [self._prepare(row) for row in case.rows]
    for number in range(self._settings.runs):
      for row, found in zip(case.rows, rows, strict=True):
        if found['status'] != 'ok':
          continue
        self._measure(case, row, found, is_first=number == 0)
        if found['status'] == 'ok':
          last = found['runs'][-1]
          text = f'{1000 * last["median"]:.1f} ms a call'
        else:
          text = found['status']
        self._log(
          f'{case.name} {row.name}, run {number + 1} of '
          f'{self._settings.runs}: {text}'
        )
    self._compare_labels(case, rows)
    for row in rows:
      del row['artifacts']
    fields = ('name', 'title', 'unit', 'measure', 'kind', 'x_label')
    return {**{name: getattr(case, name) for name in fields}, 'rows': rows}

  def _prepare(self, row):
    """The result of a row before it has run, with the paths it reads."""
    found = {
      'name': row.name,
      'note': row.note,
      'dtype': row.dtype,
      'x': row.x,
      'status': 'ok',
      'runs': [],
      'multiply_adds': row.settings.get('multiply_adds'),
      'labels_equal': None,
      'artifacts': {},
    }
    if row.other_python and not self._settings.smp_python:
      found['status'] = _NOT_IN_OTHER_PYTHON
      return found
    if not row.other_python and not all(map(_is_installed, row.packages)):
      found['status'] = NOT_INSTALLED
      return found
    try:
      found['artifacts'] = {
        name: self._store.make(artifact)
        for name, artifact in row.artifacts.items()
      }
      if row.stats is not None:
        found['multiply_adds'] = self._store.multiply_adds(row.stats)
    except InputError as error:
      found['status'] = f'failed: {error}'
      self._log(f'{row.name}: {found["status"]}')
    return found

  def _measure(self, case, row, found, is_first):
    """Runs a row once and adds to its result."""
    settings = self._settings
    labels = self._labels_file(case, row)
    request = {
      'build': row.build,
      'settings': dict(row.settings),
      'artifacts': found['artifacts'],
      'packages': list(row.packages),
      'threads': settings.threads,
      'seconds': settings.seconds if case.measure == MEDIAN else 0,
      'labels': str(labels) if is_first and row.same_network else None,
      'started': time.time(),
    }
    python = settings.smp_python if row.other_python else sys.executable
    log = self._file('logs', case, row, '.txt')
    with open(log, 'w', encoding='utf-8') as errors:
      try:
        failed, output = _run(
          [python, '-m', 'benchmarks.worker', json.dumps(request)],
          errors,
          settings.timeout,
        )
      except subprocess.TimeoutExpired:
        found['status'] = f'failed: no result in {settings.timeout:g} seconds'
        return
    if failed:
      text = log.read_text(encoding='utf-8', errors='replace')
      found['status'] = f'failed: {artifacts.reason(text)}'
      return
    result = json.loads(output)
    if 'missing' in result:
      cure = _NOT_IN_OTHER_PYTHON if row.other_python else NOT_INSTALLED
      found['status'] = f'{cure} ({result["missing"]})'
    else:
      found['runs'].append(result)

  def _labels_file(self, case, row):
    return self._file('labels', case, row, '.npy')

  def _file(self, kind, case, row, ending):
    name = re.sub(r'[^\w.-]', '_', f'{case.name}.{row.name}') + ending
    (self._folder / kind).mkdir(parents=True, exist_ok=True)
    return self._folder / kind / name

  def _compare_labels(self, case, rows):
    """Sets 'labels_equal' of the rows that have to agree with the first."""
    loaded = []
    for row, found in zip(case.rows, rows, strict=True):
      path = self._labels_file(case, row)
      is_there = row.same_network and found['runs'] and path.exists()
      loaded.append(np.load(path) if is_there else None)
      path.unlink(missing_ok=True)
    for found, labels in zip(rows, loaded, strict=True):
      if labels is not None and loaded[0] is not None:
        found['labels_equal'] = float(np.mean(labels == loaded[0]))


def _run(command, errors, timeout):
  """Runs a worker, which ends together with whatever it has started.

  Args:
    command: list of strings.
    errors: file for what it says.
    timeout: seconds.

  Returns:
    Its exit code and its output.

  Raises:
    subprocess.TimeoutExpired: it took longer.
  """
  with subprocess.Popen(
    command,
    env=_environment(),
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=errors,
    text=True,
    start_new_session=True,
  ) as process:
    try:
      output, _ = process.communicate(timeout=timeout)
    except BaseException:
      # Ctrl-C does not reach another session by itself.
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
      raise
  return process.returncode, output


def _is_installed(package):
  # Of a missing parent `find_spec` raises.
  return importlib.util.find_spec(package.partition('.')[0]) is not None


def _environment():
  """The tasks are importable, and TensorFlow's greeting is left out."""
  paths = [str(artifacts.ROOT), os.environ.get('PYTHONPATH', '')]
  return {
    'TF_CPP_MIN_LOG_LEVEL': '3',
    **os.environ,
    'PYTHONPATH': os.pathsep.join(filter(None, paths)),
  }

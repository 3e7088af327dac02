"""Processes, their order, what they measure, and rows that cannot run."""

import dataclasses
import os
import select
import signal
import sys

import numpy as np
import pytest

from benchmarks import runner, summary
from benchmarks.case import FIRST_PREDICTION, Case, Row

_MIB = 2**20


def _row(name, build='sleep', packages=(), same_network=True, **settings):
  return Row(
    name,
    f'fake_rows:{build}',
    {'name': name, **settings},
    packages,
    same_network=same_network,
  )


@pytest.fixture
def run(tmp_path):
  """Runs rows as a case; returns {name: result of the row} and the lines."""

  def run_rows(rows, measure='median', **settings):
    lines = []
    settings = runner.Settings(**{'runs': 1, 'seconds': 0.01, **settings})
    measure_case = runner.Runner(settings, tmp_path / 'work', lines.append).run
    result = measure_case(Case('group/name', 'A case', rows, measure=measure))
    return result, lines

  return run_rows


def test_processes_run_in_turn_and_one_at_a_time(run, tmp_path):
  log = tmp_path / 'log'
  rows = [_row(name, log=str(log), ms=1) for name in 'abc']
  result, lines = run(rows, runs=2, threads=1)
  expected = [f'{n} {t}' for n in 'abcabc' for t in ('begins', 'ends')]
  assert log.read_text().splitlines() == expected
  assert [len(row['runs']) for row in result['rows']] == [2, 2, 2]
  assert len(lines) == 6
  assert lines[0].startswith('group/name a, run 1 of 2: ')


def test_time_of_a_unit_and_ratio(run, tmp_path):
  log = str(tmp_path / 'log')
  rows = [
    _row('slow', log=log, ms=60),
    _row('fast', log=log, ms=60, units=3),
  ]
  result, _ = run(rows, runs=2, threads=1)
  slow, fast = result['rows']
  # A machine under load sleeps longer, never shorter.
  assert summary.median(result, slow) >= 0.06
  middle, low, high = summary.ratios(result, fast)
  assert low <= middle <= high
  assert middle < 0.7
  assert summary.ratios(result, slow) == (1, 1, 1)


def test_calls_before_the_timed_ones(run, tmp_path):
  result, _ = run([_row('a', log=str(tmp_path / 'log'), ms=1)], threads=3)
  (measured,) = result['rows'][0]['runs']
  assert len(measured['seconds']) == measured['calls'] >= 3
  # The first call, and one at least to warm up.
  assert measured['facts']['calls'] >= measured['calls'] + 2
  assert measured['facts']['threads'] == 3


def test_first_prediction_is_one_call(run, tmp_path):
  rows = [_row('a', log=str(tmp_path / 'log'), ms=50)]
  result, _ = run(rows, FIRST_PREDICTION, threads=1)
  (measured,) = result['rows'][0]['runs']
  assert measured['facts']['calls'] == 1
  assert measured['first_secs'] >= 0.05
  assert 0 < measured['import_secs'] < 60
  parts = [measured[f'{part}_secs'] for part in ('import', 'load', 'first')]
  assert summary.value(result, measured) == pytest.approx(sum(parts))


def test_memory_is_that_of_the_process(run):
  # This process is large; what it starts must not show that.
  ballast = np.ones(300 * _MIB, np.uint8)
  result, _ = run(
    [_row('small', 'large', mib=1), _row('large', 'large', mib=200)]
  )
  small, large = (row['runs'][0] for row in result['rows'])
  assert small['peak_bytes'] < ballast.size
  assert small['growth_bytes'] < 50 * _MIB
  assert 200 * _MIB <= large['growth_bytes'] < 260 * _MIB


def test_task_that_measures_by_itself(run):
  result, _ = run([_row('a', 'own_times', times=[4.0, 8.0, 6.0])])
  assert summary.median(result, result['rows'][0]) == 1.5


def test_labels_are_compared_with_the_baseline(run, tmp_path):
  log = str(tmp_path / 'log')
  rows = [
    _row('base', log=log, ms=1),
    _row('near', log=log, ms=1, labels=[0, 1, 2, 9]),
    _row('other', log=log, ms=1, same_network=False),
  ]
  result, _ = run(rows, threads=1)
  assert [row['labels_equal'] for row in result['rows']] == [1.0, 0.75, None]


def test_rows_that_cannot_run_leave_the_others(run, tmp_path):
  rows = [
    _row('here', log=str(tmp_path / 'log'), ms=1),
    _row('absent', packages=['a_package_that_is_not_there.part']),
    _row('half', packages=['numpy.a_part_that_is_not_there']),
    _row('broken', 'broken'),
    Row('elsewhere', 'fake_rows:sleep', other_python=True),
  ]
  result, _ = run(rows, runs=2, threads=1)
  here, absent, half, broken, elsewhere = result['rows']
  assert here['status'] == 'ok'
  assert len(here['runs']) == 2
  assert absent['status'] == runner.NOT_INSTALLED
  assert "pip install -e '.[benchmark]'" in absent['status']
  assert half['status'].startswith(runner.NOT_INSTALLED)
  assert broken['status'] == 'failed: ValueError: there is no such kernel'
  assert 'not installed: --smp_python names an' in elsewhere['status']
  assert not any(row['runs'] for row in result['rows'][1:])


def test_interpreter_of_its_own(run):
  row = Row(
    'elsewhere',
    'fake_rows:own_times',
    {'times': [1.0]},
    ('a_package_that_is_not_there',),
    other_python=True,
  )
  (result,) = run([row], smp_python=sys.executable)[0]['rows']
  assert 'not installed: --smp_python names an' in result['status']
  row = dataclasses.replace(row, packages=())
  (result,) = run([row], smp_python=sys.executable)[0]['rows']
  assert result['status'] == 'ok'


def test_process_that_does_not_end(run, tmp_path):
  row = _row('endless', log=str(tmp_path / 'log'), ms=60_000)
  result, _ = run([row], timeout=3, threads=1)
  assert result['rows'][0]['status'] == 'failed: no result in 3 seconds'


@pytest.fixture
def held(tmp_path):
  """A pipe, and a function that says whether all its writers have ended."""
  path = tmp_path / 'held'
  os.mkfifo(path)
  end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
  yield str(path), lambda: bool(select.select([end], [], [], 10)[0])
  os.close(end)


def test_timeout_ends_what_the_process_has_started(run, held):
  path, has_ended = held
  result, _ = run([_row('parent', 'parent', held=path)], timeout=4, threads=1)
  assert result['rows'][0]['status'] == 'failed: no result in 4 seconds'
  assert has_ended()


def test_interrupt_ends_what_the_process_has_started(run, held):
  path, has_ended = held
  before = signal.signal(signal.SIGALRM, signal.default_int_handler)
  signal.setitimer(signal.ITIMER_REAL, 4)
  try:
    with pytest.raises(KeyboardInterrupt):
      run([_row('parent', 'parent', held=path)], threads=1)
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
  assert has_ended()

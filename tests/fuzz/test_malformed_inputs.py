"""Damaged inputs: each is harmless, or is refused by name and leaves nothing.

A sample runs each time, a thousand when asked for. `python tests/fuzz` runs
them without pytest, also those of a target or one alone.
"""

import pathlib
import re
import subprocess
import sys
import time

import pytest
from fuzz import harness, network_targets, targets
from fuzz.targets import OUTPUT, Target

from deeplab.common import InputError

_NETWORKS = ('train', 'vis: records', 'vis: photographs')
_QUICK = [
  target
  for target in (*targets.CONVERTERS, *network_targets.TARGETS)
  if target.name not in _NETWORKS
]


@pytest.mark.parametrize('target', _QUICK, ids=lambda target: target.name)
def test_a_sample(target, monkeypatch):
  monkeypatch.setenv('TQDM_DISABLE', '1')
  with harness.Runner(target, seed=2) as runner:
    for number in range(5):
      runner.run(number)


@pytest.mark.slow
def test_a_thousand():
  """In a process of its own, which hangs and crashes end."""
  done = subprocess.run(
    [sys.executable, str(pathlib.Path(__file__).parent)],
    capture_output=True,
    text=True,
    check=False,
  )
  print(done.stdout)
  assert done.returncode == 0, done.stdout + done.stderr[-5000:]
  total = re.search(r'^all +(\d+)', done.stdout, re.MULTILINE)[1]
  assert int(total) >= 1000


# What the harness finds.


def _write(root):
  (root / 'in').mkdir()
  (root / 'in' / 'a.txt').write_text('a\n')


def _run(behave):
  """A target's function, which behaves once the input is damaged."""

  def run(root):
    path = root / 'in' / 'a.txt'
    is_whole = path.is_file() and path.read_bytes() == b'a\n'
    (_accept if is_whole else behave)(root)

  return run


def _accept(root, content='whole'):
  (root / OUTPUT).mkdir(exist_ok=True)
  (root / OUTPUT / 'a').write_text(content)


def _refuse(root):
  raise InputError(f'{root}/in/a.txt is damaged.')


def _refuse_without_a_name(root):
  raise InputError('something is damaged.')


def _leave_a_part(root):
  _accept(root, 'part')
  _refuse(root)


def _leave_a_file(root):
  (root / 'a.tmp').touch()
  _refuse(root)


def _accept_in_part(root):
  _accept(root, 'part')


def _check(root):
  assert (root / OUTPUT / 'a').read_text() == 'whole'


@pytest.mark.parametrize(
  ('behave', 'message'),
  [
    (_refuse, None),
    (_refuse_without_a_name, 'names no file: something'),
    (_leave_a_part, 'refused, but out changed'),
    (_leave_a_file, r'left behind: .*a\.tmp'),
    (_accept_in_part, 'accepted, but the output is not whole'),
    (lambda root: 1 / 0, 'ZeroDivisionError'),
  ],
)
def test_what_is_a_failure(behave, message):
  target = Target('fake', {'list': 'in/*'}, _write, _run(behave), _check)
  failures = []
  with harness.Runner(target) as runner:
    # The second one of each pair of pairs finds earlier results.
    for number in range(2, 8):
      try:
        runner.run(number)
      except harness.Failure as failure:
        failures.append(str(failure))
  if message is None:
    assert not failures
  else:
    assert failures and all(re.search(message, text) for text in failures)


def test_hanging_ends_the_process():
  code = (
    'import time; from fuzz import harness\n'
    'with harness.time_limit(1): time.sleep(60)'
  )
  began = time.monotonic()
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=pathlib.Path(__file__).parent.parent,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode != 0 and 'Timeout' in done.stderr
  assert time.monotonic() - began < 50

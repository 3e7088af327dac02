"""The cases: what they name exists."""

import importlib
import subprocess
import sys

from benchmarks import registry

CASES = registry.all_cases()


def test_names_are_unique():
  names = [case.name for case in CASES]
  assert len(set(names)) == len(names)
  for case in CASES:
    rows = [row.name for row in case.rows]
    assert len(set(rows)) == len(rows), case.name


def test_builders_exist():
  for build in {row.build for case in CASES for row in case.rows}:
    module, _, function = build.partition(':')
    assert callable(getattr(importlib.import_module(module), function)), build


def test_tasks_import_no_framework_by_themselves(repository):
  modules = {row.build.partition(':')[0] for case in CASES for row in case.rows}
  code = (
    f'import sys, {", ".join(sorted(modules))}, benchmarks.worker\n'
    "print({'tensorflow', 'torch', 'keras', 'absl'} & set(sys.modules))"
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=repository,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == 'set()\n'

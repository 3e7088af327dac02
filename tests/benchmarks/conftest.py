"""Makes `benchmarks` and the fake rows importable, here and in workers."""

import os
import pathlib
import sys

import pytest

_HERE = pathlib.Path(__file__).parent
# Last: the root also holds a folder called datasets.
sys.path += [str(_HERE), str(_HERE.parent.parent)]


@pytest.fixture(autouse=True)
def _fake_rows_are_importable(monkeypatch):
  paths = [str(_HERE), os.environ.get('PYTHONPATH', '')]
  monkeypatch.setenv('PYTHONPATH', os.pathsep.join(filter(None, paths)))

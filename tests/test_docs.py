"""The pages that are made from the code are those of the code."""

import importlib.util

from conftest import ROOT


def test_flags_page():
  path = ROOT / 'docs' / 'make_flags.py'
  spec = importlib.util.spec_from_file_location('make_flags', path)
  make_flags = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(make_flags)
  page = (ROOT / 'docs' / 'flags.md').read_text()
  # python docs/make_flags.py
  assert make_flags.make_page() == page

"""The commands of the pages are commands of the scripts."""

import importlib
import importlib.util

import docs_commands
import pytest
from conftest import ROOT


def _load(script):
  """The module of a script's path, or of `python -m`."""
  if not script.endswith('.py'):
    return importlib.import_module(script)
  spec = importlib.util.spec_from_file_location('script', ROOT / script)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.parametrize('page', docs_commands.pages())
def test_flags_are_accepted(page, parse):
  for command in docs_commands.of_page(page):
    if command.script is None:
      continue
    module = _load(command.script)
    define = getattr(module, '_define_flags', None)
    if define is None:
      # It parses with argparse, or is a recipe; see test_recipe_flags.py.
      assert hasattr(module, 'argparse') or hasattr(module, 'RECIPE'), command
      continue
    try:
      parse(module, define, command.arguments)
    except Exception as error:
      raise AssertionError(str(command)) from error

"""The recipes as modules."""

import functools
import importlib.util

from conftest import ROOT

FOLDER = ROOT / 'recipes'

NAMES = sorted(path.stem for path in FOLDER.glob('*.py'))


@functools.cache
def load(path):
  """The module of a file."""
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def load_recipe(name):
  """The plan.Recipe of a recipe."""
  return load(FOLDER / f'{name}.py').RECIPE

"""What the tests share: where the data are, and flags."""

import functools
import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / 'tests'), str(ROOT / 'recipes')]


@pytest.fixture
def testdata():
  """The folder of golden files that the repository carries."""
  return ROOT / 'tests' / 'testdata'


@pytest.fixture
def repository():
  """The root of the repository."""
  return ROOT


def _beside(kind, path):
  """A file or folder outside the repository, or a skip that names it."""
  base = os.environ.get(f'DEEPLAB_TEST_{kind.upper()}')
  base = pathlib.Path(base) if base else ROOT.parent / 'shared' / kind
  if not (base / path).exists():
    pytest.skip(
      f'{path} is not there; point DEEPLAB_TEST_{kind.upper()} at its folder.'
    )
  return base / path


@pytest.fixture
def real_data():
  """Finds real images: real_data('VOCdevkit/VOC2012')."""
  return lambda path: _beside('data', path)


@pytest.fixture
def published_checkpoint():
  """Finds a published checkpoint by its folder's name."""
  return lambda path: _beside('checkpoints', path)


@pytest.fixture
def parse_flags(monkeypatch):
  """Parses arguments as a script with the flags of the model alone does."""
  # Not every test needs TensorFlow, which takes seconds to import.
  from absl import flags as absl_flags

  from deeplab import flag_checks, flags, model_flags

  def parse(*arguments):
    values = absl_flags.FlagValues()
    for module in (flags, flag_checks, model_flags):
      monkeypatch.setattr(module, 'FLAGS', values)
    with monkeypatch.context() as patch:
      for name in dir(absl_flags):
        if name.startswith('DEFINE_'):
          define = functools.partial(
            getattr(absl_flags, name), flag_values=values
          )
          patch.setattr(absl_flags, name, define)
      model_flags.define_model_flags()
    values(['script', *arguments])
    return values

  return parse

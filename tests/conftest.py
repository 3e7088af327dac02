"""What the tests share: where the data are, and flags."""

import functools
import gc
import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / 'tests'), str(ROOT / 'recipes')]

# Networks and graphs are many small objects that stay. Python's default of a
# search for garbage every 700 of them is a tenth of the time of the tests.
gc.set_threshold(50_000, 20, 20)


def pytest_collection_finish():
  """What has been imported stays: no search for garbage looks at it again."""
  gc.collect()
  gc.freeze()


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
def parse(monkeypatch):
  """Parses the command line of a script, each time from new flags.

  parse(module, define, arguments): `module` is the script, `define` its
  function that defines the flags; returns the values.
  """
  # Not every test needs TensorFlow, which takes seconds to import.
  from absl import flags as absl_flags

  # All that read flags are modules of this package, or the script.
  from deeplab import dataset_flags, evaluation_flags, flag_checks  # noqa: F401

  def parse_arguments(module, define, arguments):
    values = absl_flags.FlagValues()
    own = [
      one
      for name, one in sys.modules.items()
      if name.startswith(('deeplab.', 'experiment.'))
    ]
    for one in [*own, module]:
      if 'FLAGS' in vars(one):
        monkeypatch.setattr(one, 'FLAGS', values)
    with monkeypatch.context() as patch:
      names = [name for name in dir(absl_flags) if name.startswith('DEFINE_')]
      for name in [*names, 'mark_flags_as_required', 'register_validator']:
        function = functools.partial(
          getattr(absl_flags, name), flag_values=values
        )
        patch.setattr(absl_flags, name, function)
      define()
    rest = values(['script', *arguments])
    assert rest == ['script']
    return values

  return parse_arguments


@pytest.fixture
def parse_flags(parse):
  """Parses arguments as a script with the flags of the model alone does."""
  from deeplab import model_flags

  return lambda *arguments: parse(
    model_flags, model_flags.define_model_flags, arguments
  )

"""The commands of the pages are commands of the scripts."""

import contextlib
import importlib
import importlib.util
import io
import re
import shutil
import sys
from unittest import mock

import docs_commands
import docs_sandbox
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


def _help(module, arguments):
  """What a command with argparse says of its flags, or of those of a verb."""
  first = [word for word in arguments[:1] if not word.startswith('--')]
  text = io.StringIO()
  with (
    mock.patch.object(sys, 'argv', ['command', *first, '--help']),
    contextlib.redirect_stdout(text),
    contextlib.suppress(SystemExit),
  ):
    module.main()
  return text.getvalue()


@pytest.mark.parametrize('page', docs_commands.pages())
def test_flags_are_accepted(page, parse):
  for command in docs_commands.of_page(page):
    if command.script is None:
      continue
    module = _load(command.script)
    define = getattr(module, '_define_flags', None)
    if hasattr(module, 'RECIPE'):
      # See recipes/test_recipe_flags.py.
      continue
    if define is None:
      text = _help(module, command.arguments)
      names = [word.partition('=')[0] for word in command.arguments]
      flags = [name for name in names if name.startswith('--')]
      assert all(name in text for name in flags), command
      continue
    try:
      parse(module, define, command.arguments)
    except Exception as error:
      raise AssertionError(str(command)) from error


# Commands that are not run here, and why.
_NOT_HERE = {
  r'^(python -m venv|source|pip install)': 'run_tests.sh has installed it',
  r'^bash (run_tests|local_test)\.sh': 'the tests themselves; takes minutes',
  r'model_zoo download': 'needs a network; test_model_zoo.py',
  r'^bash datasets/': 'need a network, or data; test_download_scripts.py',
  r'build_coco_data': 'test_build_coco_data.py',
  r'sbd_root': 'test_voc_sbd.py',
  r'tfds:': 'test_tfds_data.py and test_build_tfds_data.py',
  r'^tfds ': 'needs a network',
  r'gs://': 'needs a TPU',
  r'/shared/': 'needs several hosts; test_cluster.py',
  r'num_clones=8': 'needs eight devices; test_cluster.py',
  r'panoptic_val2017': 'test_eval_coco_format.py',
  r'os16/trimap_30000': 'test_plot_trimap.py',
  r'deeplab\.demo': 'serves until it is stopped; test_demo.py',
  r'crf_search': 'takes minutes; test_crf_search.py',
  r'markdown >': 'test_model_zoo.py',
}

# Pages whose blocks of Python go on from each other, and from the commands.
_PYTHON_PAGES = ('docs/export.md', 'docs/photographs.md')

# One section a checkpoint, each with commands that only differ in names.
_GENERATED = 'docs/model_zoo.md'


def _reason(command):
  """Why a command is not run here; None if it is."""
  found = (why for at, why in _NOT_HERE.items() if re.search(at, command.text))
  return next(found, None)


def test_every_reason_is_still_one():
  texts = [
    c.text for p in docs_commands.pages() for c in docs_commands.of_page(p)
  ]
  for pattern in _NOT_HERE:
    assert any(re.search(pattern, text) for text in texts), pattern


@pytest.fixture(scope='module')
def template(tmp_path_factory):
  folder = tmp_path_factory.mktemp('docs') / 'sandbox'
  docs_sandbox.make(folder)
  return folder


@pytest.mark.slow
@pytest.mark.parametrize(
  'page', [page for page in docs_commands.pages() if page != _GENERATED]
)
def test_commands_run(page, template, tmp_path):
  commands = [c for c in docs_commands.of_page(page) if not _reason(c)]
  code = docs_commands.python_blocks(page) if page in _PYTHON_PAGES else ''
  if not commands and not code:
    pytest.skip('no command of this page can be run here.')
  folder = tmp_path / 'sandbox'
  shutil.copytree(template, folder, symlinks=True)
  for command in commands:
    print(docs_sandbox.text_of(command), flush=True)
    docs_sandbox.run(folder, docs_sandbox.text_of(command))
  if code:
    (folder / 'page.py').write_text(code)
    docs_sandbox.run(folder, 'python page.py')

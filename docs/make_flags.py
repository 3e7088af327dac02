"""Writes docs/flags.md: every flag of the scripts, from the scripts.

python docs/make_flags.py
"""

import contextlib
import functools
import importlib
import importlib.util
import pathlib
import re
from unittest import mock

from absl import flags as absl_flags

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PAGE = _ROOT / 'docs' / 'flags.md'
_SCRIPTS = ('train.py', 'eval.py', 'vis.py', 'export_model.py')
_MODULES = (
  'deeplab.demo',
  'deeplab.crf_search',
  'deeplab.model_stats',
  'deeplab.evaluation.eval_coco_format',
)

_HEAD = """# Flags

Made by `python docs/make_flags.py` from the scripts; do not edit. A list is
given as `--eval_scales=0.5,1` or by repeating the flag; `0.5,...,1.75` goes on
in steps. `--noNAME` is the short form of `--NAME=false`.

| flag | default | scripts | |
| --- | --- | --- | --- |
"""

_OTHER_HEAD = """
## {command}

| flag | default | |
| --- | --- | --- |
"""

# The values of an enum before its help, and a hint after that of a list.
_ADDED_BY_ABSL = re.compile(
  r'^<\S*>: |;\s+repeat this option to specify a list of values$'
)


def _load(script):
  """The module of a path below the root, or of a dotted name."""
  if not script.endswith('.py'):
    return importlib.import_module(script)
  spec = importlib.util.spec_from_file_location('script', _ROOT / script)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def read_flags(script):
  """(name, default, help) of each flag of a script, as Markdown."""
  module = _load(script)
  # Of its own: a flag of two scripts may have two meanings.
  values = absl_flags.FlagValues()
  with contextlib.ExitStack() as stack:
    for name in dir(absl_flags):
      if name.startswith(('DEFINE_', 'mark_flag', 'register_')):
        function = functools.partial(
          getattr(absl_flags, name), flag_values=values
        )
        stack.enter_context(mock.patch.object(absl_flags, name, function))
    module._define_flags()
  for name in sorted(values):
    flag = values[name]
    text = _ADDED_BY_ABSL.sub('', flag.help)
    choices = getattr(flag.parser, 'enum_values', None)
    if choices:
      text = f'{text} One of {", ".join(choices)}.'
    text = ' '.join(text.split()).replace('|', '\\|')
    default = flag.default_as_str
    yield name, '' if default is None else f'`{default.strip(chr(39))}`', text


def _others():
  """(script, command) of the scripts beside the four."""
  for path in sorted((_ROOT / 'datasets').glob('*.py')):
    if 'def _define_flags' in path.read_text():
      yield f'datasets/{path.name}', f'python datasets/{path.name}'
  for module in _MODULES:
    yield module, f'python -m {module}'


def make_page():
  """The text of the page."""
  rows = {}
  for script in _SCRIPTS:
    for row in read_flags(script):
      rows.setdefault(row, []).append(script.removesuffix('.py'))
  lines = [_HEAD]
  for (name, default, text), scripts in sorted(rows.items()):
    lines.append(
      f'| `--{name}` | {default} | {", ".join(scripts)} | {text} |\n'
    )
  for script, command in _others():
    lines.append(_OTHER_HEAD.format(command=f'`{command}`'))
    for name, default, text in read_flags(script):
      lines.append(f'| `--{name}` | {default} | {text} |\n')
  return ''.join(lines)


if __name__ == '__main__':
  _PAGE.write_text(make_page())

"""Writes docs/flags.md: every flag of the scripts, from the scripts.

python docs/make_flags.py
"""

import concurrent.futures
import json
import pathlib
import re
import subprocess
import sys

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PAGE = _ROOT / 'docs' / 'flags.md'
_SCRIPTS = ('train', 'eval', 'vis', 'export_model')

# A process for each: a flag of two scripts may have two meanings.
_READ = """
import importlib, json, sys
sys.path.insert(0, '.')
script = importlib.import_module(sys.argv[1])
before = set(script.FLAGS)
script._define_flags()
flags = [script.FLAGS[name] for name in sorted(set(script.FLAGS) - before)]
print(json.dumps([
  [flag.name, flag.default_as_str, flag.help,
   getattr(flag.parser, 'enum_values', None)] for flag in flags
]))
"""

_HEAD = """# Flags

Made by `python docs/make_flags.py` from the scripts; do not edit. A list is
given as `--eval_scales=0.5,1` or by repeating the flag; `0.5,...,1.75` goes on
in steps. `--noNAME` is the short form of `--NAME=false`.

| flag | default | scripts | |
| --- | --- | --- | --- |
"""

# The values of an enum before its help, and a hint after that of a list.
_ADDED_BY_ABSL = re.compile(
  r'^<\S*>: |;\s+repeat this option to specify a list of values$'
)


def read_flags(script):
  """[name, default as text or None, help, values or None] of each flag."""
  result = subprocess.run(
    [sys.executable, '-c', _READ, script],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  return json.loads(result.stdout.splitlines()[-1])


def make_page():
  """The text of the page."""
  rows = {}
  with concurrent.futures.ThreadPoolExecutor() as pool:
    of_scripts = list(pool.map(read_flags, _SCRIPTS))
  for script, flags in zip(_SCRIPTS, of_scripts, strict=True):
    for name, default, text, values in flags:
      text = _ADDED_BY_ABSL.sub('', text)
      if values:
        text = f'{text} One of {", ".join(values)}.'
      text = ' '.join(text.split()).replace('|', '\\|')
      default = '' if default is None else f'`{default.strip(chr(39))}`'
      rows.setdefault((name, default, text), []).append(script)
  lines = (
    f'| `--{name}` | {default} | {", ".join(scripts)} | {text} |\n'
    for (name, default, text), scripts in sorted(rows.items())
  )
  return _HEAD + ''.join(lines)


if __name__ == '__main__':
  _PAGE.write_text(make_page())

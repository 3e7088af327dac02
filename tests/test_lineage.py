"""The commands of docs/lineage.md: their flags are there and go together."""

import json
import math
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from deeplab import diagnosis, model_flags

_DEFAULTS = """
import json
import math
import train
train._define_flags()
print(json.dumps({name: train.FLAGS[name].default for name in train.FLAGS}))
"""

# Parameters in millions that the page promises.
_MILLIONS = re.compile(r'\| ([\d.]+) M \|$')


def _flags(text):
  """{name: the whole flag}."""
  flags = re.findall(r'(--([a-z]\w*)(?:=[^\s`]+)?)', text)
  return {name: flag for flag, name in flags}


def _networks():
  """(first words of a row, its flags and its command's, millions)."""
  text = (ROOT / 'docs' / 'lineage.md').read_text()
  found, command = [], {}
  blocks = re.split(r'^```$', text.replace('\\\n', ' '), flags=re.MULTILINE)
  for i, block in enumerate(blocks):
    if i % 2:
      if block.strip().startswith('python train.py'):
        command = _flags(block)
        found.append((f'command {len(found)}', command, None))
      continue
    for line in block.splitlines():
      if line.startswith('|') and '`--' in line:
        title = line.split('|')[1].strip()
        millions = _MILLIONS.search(line)
        found.append(
          (
            title,
            command | _flags(line),
            millions and float(millions.group(1)),
          )
        )
  return found


_NETWORKS = _networks()


def test_all_rows_are_found():
  assert len(_NETWORKS) >= 35
  assert sum(millions is not None for *_, millions in _NETWORKS) == 4


def test_every_flag_is_one_of_train():
  result = subprocess.run(
    [sys.executable, '-c', _DEFAULTS],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  known = json.loads(result.stdout.splitlines()[-1])
  for title, flags, _ in _NETWORKS:
    assert set(flags) <= set(known), title


@pytest.mark.parametrize(
  'flags, millions',
  [row[1:] for row in _NETWORKS],
  ids=[row[0] for row in _NETWORKS],
)
def test_the_network_can_be_built(flags, millions, parse_flags):
  known = parse_flags()
  parse_flags(*(flag for name, flag in flags.items() if name in known))
  shapes = diagnosis.model_shapes(model_flags.model_options(21, [65, 65]))
  assert 'logits/semantic/weights' in shapes
  if millions is not None:
    count = sum(map(math.prod, shapes.values()))
    assert round(count / 1e6, 1) == millions

"""The commands of README.md and docs/, as their reader would type them."""

import dataclasses
import pathlib
import re
import shlex

from conftest import ROOT

_BLOCK = re.compile(r'^```(\w*)\n(.*?)^```', re.MULTILINE | re.DOTALL)

# What a line of a block begins with if it is a command.
_PROGRAMS = (
  *('python', 'bash', 'source', 'pip', 'cd', 'git', 'mkdir', 'cp'),
  *('compare_evals', 'curl', 'docker', 'tensorboard', 'tfds'),
)


@dataclasses.dataclass(frozen=True)
class Command:
  """One command of a page.

  Attributes:
    page: its path below the repository.
    line: where it begins, from 1.
    text: the command in one line.
  """

  page: str
  line: int
  text: str

  def __str__(self):
    return f'{self.page}:{self.line}: {self.text}'

  @property
  def words(self):
    """The words of the command, without a comment behind it."""
    return shlex.split(self.text, comments=True)

  @property
  def script(self):
    """The script or module of ours that runs; None for other programs."""
    words = self.words
    if words[0] == 'compare_evals':
      return 'deeplab.evaluation.compare_evals'
    name = words[2] if words[:2] == ['python', '-m'] else words[1]
    is_own = words[0] == 'python' and re.search(r'^deeplab\.|\.py$', name)
    return name if is_own else None

  @property
  def arguments(self):
    """What the script is given."""
    words = self.words
    if words[0] != 'python':
      return words[1:]
    return words[3:] if words[1] == '-m' else words[2:]


def pages():
  """README.md and all pages of docs/, as paths below the repository."""
  paths = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
  return [str(path.relative_to(ROOT)) for path in paths]


def of_page(page):
  """The commands of a page, in its order.

  Args:
    page: one of `pages`.

  Returns:
    A list of Command.
  """
  text = (pathlib.Path(ROOT) / page).read_text()
  found = []
  for block in _BLOCK.finditer(text):
    if block[1] not in ('', 'bash', 'sh'):
      continue
    line = text.count('\n', 0, block.start(2)) + 1
    for whole in re.sub(r'\\\n', '\\\\\0', block[2]).split('\n'):
      command = re.sub(r'\s*\\\0\s*', ' ', whole).strip()
      if command.split(' ')[0] in _PROGRAMS:
        found.append(Command(page, line, command))
      line += whole.count('\0') + 1
  return found


def python_blocks(page):
  """The Python of a page, one block after the other."""
  text = (pathlib.Path(ROOT) / page).read_text()
  blocks = (b[2] for b in _BLOCK.finditer(text) if b[1] == 'python')
  return '\n'.join(blocks)

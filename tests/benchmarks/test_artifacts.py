"""Files that rows read: made once, whole or not at all, by real commands."""

import dataclasses
import pathlib

import pytest

from benchmarks import artifacts, machine, registry
from deeplab.common import InputError

# Appends to a log, so that each run is seen.
_WRITE = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"


@dataclasses.dataclass(frozen=True)
class _Text:
  name: str
  log: str
  needs: tuple = ()
  fails: bool = False

  def command(self, path, make):
    text = '+'.join(pathlib.Path(make(n)).read_text() for n in self.needs)
    with open(self.log, 'a') as file:
      file.write(f'{self.name}\n')
    code = _WRITE
    if self.fails:
      code += "; sys.exit('error: there is no room\\nand more')"
    return ['-c', code, path, f'{self.name}{text}']


@pytest.fixture
def log(tmp_path):
  return tmp_path / 'log'


def test_each_is_made_once(tmp_path, log):
  first = _Text('a/first', str(log))
  second = _Text('second', str(log), (first,))
  store = artifacts.Store(tmp_path / 'work', log=lambda line: None)
  path = pathlib.Path(store.make(second))
  assert path.read_text() == 'seconda/first'
  again = artifacts.Store(tmp_path / 'work', log=lambda line: None)
  assert again.make(second) == str(path)
  assert again.make(first)
  assert log.read_text().split() == ['a/first', 'second']


def test_what_failed_is_not_there_and_not_tried_again(tmp_path, log):
  broken = _Text('broken', str(log), fails=True)
  store = artifacts.Store(tmp_path / 'work', log=lambda line: None)
  for _ in range(2):
    with pytest.raises(InputError, match=r'^broken: error: there is no room$'):
      store.make(_Text('other', str(log), (broken,)))
  assert log.read_text().split() == ['broken']
  # The same folder, later.
  mended = dataclasses.replace(broken, fails=False)
  store = artifacts.Store(tmp_path / 'work', log=lambda line: None)
  assert pathlib.Path(store.make(mended)).read_text() == 'broken'


def test_sources_have_a_folder_each(tmp_path, log, monkeypatch):
  text = _Text('text', str(log))
  work = tmp_path / 'work'
  first = artifacts.Store(work, log=lambda line: None).make(text)
  monkeypatch.setattr(artifacts, '_SOURCES', ('setup.py',))
  second = artifacts.Store(work, log=lambda line: None).make(text)
  assert first != second
  assert log.read_text().split() == ['text', 'text']


def test_folder_depends_on_packages_and_machine(tmp_path, log, monkeypatch):
  text = _Text('text', str(log))
  monkeypatch.delenv('TF_ENABLE_ONEDNN_OPTS', raising=False)

  def path():
    return artifacts.Store(tmp_path, log=lambda line: None).make(text)

  found = {path()}
  monkeypatch.setenv('TF_ENABLE_ONEDNN_OPTS', '0')
  found.add(path())
  monkeypatch.setattr(machine, 'processor', lambda: ('Another one', []))
  found.add(path())
  for changed in ('tensorflow', 'keras', 'tf2onnx'):
    monkeypatch.setattr(machine, 'version', {changed: 'later'}.get)
    found.add(path())
  assert len(found) == 6
  assert path() in found


def test_names_of_artifacts_differ():
  found = {}
  for case in registry.all_cases():
    for row in case.rows:
      for artifact in [*row.artifacts.values(), row.stats]:
        if artifact is not None:
          found.setdefault(artifact.name, set()).add(artifact)
  assert len(found) > 20
  assert all(len(artifacts_) == 1 for artifacts_ in found.values())


@pytest.mark.parametrize(
  ('log_text', 'reason'),
  [
    ('', 'no message'),
    ('one\n two \n\n', 'two'),
    ('error: this\ntrailing', 'error: this'),
    ('KeyError: 1\na.b.OpError: x\n[[{{node}}]]', 'a.b.OpError: x'),
    (
      'FATAL Flags parsing error: x\nPass --help',
      'FATAL Flags parsing error: x',
    ),
  ],
)
def test_reason(log_text, reason):
  assert artifacts.reason(log_text) == reason

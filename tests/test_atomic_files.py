"""Files are there completely or not at all."""

import os
import resource

import pytest

from deeplab import atomic_files
from deeplab.common import InputError


@pytest.mark.parametrize('content', ['text\n', b'\x00\xff'])
def test_text_and_bytes(content, tmp_path):
  path = tmp_path / 'a' / 'b' / 'file'
  for value in (content, content * 2):
    atomic_files.write(str(path), value)
    read = path.read_bytes if isinstance(value, bytes) else path.read_text
    assert read() == value
  assert os.listdir(path.parent) == ['file']


@pytest.mark.parametrize('content', ['x' * 5000, b'x' * 5000])
def test_a_full_disk_leaves_what_was_there(content, tmp_path):
  """Files may not grow beyond 1000 bytes."""
  path = tmp_path / 'file'
  path.write_text('before')
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
  try:
    with pytest.raises(InputError, match='file cannot be written'):
      atomic_files.write(str(path), content)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert os.listdir(tmp_path) == ['file'] and path.read_text() == 'before'


def test_a_folder_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').touch()
  path = str(tmp_path / 'file' / 'folder' / 'text.json')
  with pytest.raises(InputError, match='cannot be written'):
    atomic_files.write(path, 'x')

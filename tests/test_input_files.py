"""Files of users: what is no file, no text or no JSON is refused by name."""

import os
import pathlib

import pytest
import tensorflow as tf

from deeplab import input_files
from deeplab.common import InputError


def test_what_is_read(tmp_path):
  path = tmp_path / 'a.json'
  path.write_bytes(b'\xef\xbb\xbf{"\xc3\xa4": [1]}')
  assert input_files.read_bytes(str(path)) == path.read_bytes()
  assert input_files.read_text(str(path)) == '{"\u00e4": [1]}'
  assert input_files.read_json(str(path)) == {'\u00e4': [1]}


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', r'a\.json is not JSON'),
    (b'{"a": ', r'a\.json is not JSON'),
    (b'[' * 100_000 + b']' * 100_000, r'a\.json is not JSON: .*recursion'),
    (b'9' * 5000, r'a\.json is not JSON: .*4300 digits'),
    (b'"\xff"', r'a\.json is not a text file in UTF-8'),
    (rb'["\u00e4\ud800"]', r'a\.json is not JSON: .*surrogates'),
  ],
)
def test_damaged_json(tmp_path, content, message):
  (tmp_path / 'a.json').write_bytes(content)
  with pytest.raises(InputError, match=message):
    input_files.read_json(str(tmp_path / 'a.json'))


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda path: None, 'No such file'),
    (pathlib.Path.mkdir, 'Is a directory'),
    (lambda path: path.symlink_to(path), 'Too many levels of symbolic links'),
    # Nobody writes to it: opening it would not return.
    (os.mkfifo, 'no regular file'),
    (lambda path: path.symlink_to('/dev/zero'), 'no regular file'),
  ],
)
def test_what_is_no_file(tmp_path, make, message):
  make(tmp_path / 'a')
  with pytest.raises(InputError, match=f'/a cannot be read: .*{message}'):
    input_files.read_bytes(str(tmp_path / 'a'))


def test_names_that_no_file_can_have():
  with pytest.raises(InputError, match=r'a.x00b. cannot be read'):
    input_files.read_bytes('a\0b')


def test_folders_with_names_that_are_no_text(tmp_path):
  """TensorFlow's own listing raises UnicodeDecodeError."""
  for name in ('a', '\u00e4 \U0001f600', os.fsdecode(b'\xff')):
    (tmp_path / name).touch()
  found = input_files.list_folder(str(tmp_path))
  assert sorted(found) == ['a', '\u00e4 \U0001f600']
  with pytest.raises(tf.errors.NotFoundError):
    input_files.list_folder(str(tmp_path / 'none'))


def test_names_in_a_folder_that_are_no_text(tmp_path):
  (tmp_path / 'b').touch()
  (tmp_path / 'a').touch()
  assert input_files.list_names(str(tmp_path)) == ['a', 'b']
  (tmp_path / os.fsdecode(b'\xff')).touch()
  with pytest.raises(InputError, match='is not Unicode text'):
    input_files.list_names(str(tmp_path))


def test_folders_that_may_not_be_read(tmp_path, monkeypatch):
  def listdir(folder):
    raise PermissionError(13, 'Permission denied', folder)

  monkeypatch.setattr(os, 'listdir', listdir)
  for list_ in (input_files.list_names, input_files.list_folder):
    with pytest.raises(InputError, match='cannot be read: Permission denied'):
      list_(str(tmp_path))

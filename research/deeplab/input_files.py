"""Files that users give, read as a whole, and what lies in their folders."""

import json
import os

from deeplab.checking import InputError


def check_regular(path: str):
  """Refuses pipes and devices; opening a pipe waits for whoever writes to it.

  Args:
    path: of a file or folder, which need not be there.

  Raises:
    InputError: it is something else.
  """
  is_other = not (os.path.isfile(path) or os.path.isdir(path))
  if os.path.exists(path) and is_other:
    raise InputError(f'{path} cannot be read: it is no regular file.')


def read_bytes(path: str) -> bytes:
  """The content of a file.

  Args:
    path: of the file.

  Raises:
    InputError: it cannot be read.
  """
  check_regular(path)
  try:
    with open(path, 'rb') as source:
      return source.read()
  except OSError as error:
    raise InputError(f'{path} cannot be read: {error.strerror}.') from error
  except ValueError as error:  # It holds a null character.
    raise InputError(f'{path!r} cannot be read: {error}.') from error


def read_text(path: str) -> str:
  """The text of a file in UTF-8, without a byte order mark.

  Args:
    path: of the file.

  Raises:
    InputError: it cannot be read, or is no such text.
  """
  try:
    return read_bytes(path).decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise InputError(
      f'{path} is not a text file in UTF-8: {error}. Save it as such.'
    ) from error


def read_json(path: str):
  """The content of a JSON file.

  Args:
    path: of the file.

  Raises:
    InputError: it cannot be read, or is not JSON.
  """
  return parse_json(read_text(path), path)


def parse_json(text: str, path: str, **options):
  """The content of a text of JSON.

  Args:
    text: the text.
    path: where it comes from, for messages.
    **options: of `json.loads`.

  Raises:
    InputError: it is not JSON, or holds halves of characters.
  """
  try:
    content = json.loads(text, **options)
    if '\\u' in text:
      # Halves can be escaped, but neither written nor shown.
      json.dumps(content, ensure_ascii=False).encode()
  # What is nested too deep is a RecursionError.
  except (ValueError, RecursionError) as error:
    raise InputError(f'{path} is not JSON: {error}.') from error
  return content


def list_folder(folder: str) -> list[str]:
  """The names of what lies in a folder.

  Args:
    folder: local or remote.

  Returns:
    The names, but for those that are no Unicode text: TensorFlow cannot open
    such files, nor list a folder that holds one.

  Raises:
    InputError: the folder may not be read.
    tf.errors.OpError: there is no such folder.
  """
  if os.path.isdir(folder):
    try:
      return list(filter(_is_text, os.listdir(folder)))
    except OSError as error:
      raise InputError(f'{folder} cannot be read: {error.strerror}.') from error
  # Not every caller needs TensorFlow, which takes seconds to import.
  import tensorflow as tf

  return tf.io.gfile.listdir(folder)


def list_names(folder: str) -> list[str]:
  """The names of what lies in a local folder, all of which have to be text.

  Args:
    folder: the folder.

  Returns:
    The names, sorted.

  Raises:
    InputError: one is none, or the folder cannot be read.
  """
  try:
    names = sorted(os.listdir(folder))
  except OSError as error:
    raise InputError(f'{folder} cannot be read: {error.strerror}.') from error
  for name in names:
    check_name(os.path.join(folder, name))
  return names


def _is_text(name):
  """Whether a name of the file system consists of characters."""
  return os.fsencode(name) == name.encode(errors='replace')


def check_name(path: str):
  """Refuses names that are no text: records and pages cannot hold them.

  Args:
    path: of a file.

  Raises:
    InputError: its name is one.
  """
  if not _is_text(path):
    raise InputError(f'the name of {path!r} is not Unicode text. Rename it.')

"""Files that are written completely or not at all."""

import os

import tensorflow as tf

from deeplab.common import InputError


def write(path, content):
  """Writes a file under a temporary name, then renames it.

  Args:
    path: of the file, local or remote; its folder is made if absent.
    content: text or bytes.

  Raises:
    InputError: it cannot be written.
  """
  temporary = path + '.tmp'
  if os.path.exists(path) and not os.path.isfile(path):
    raise InputError(f'{path} cannot be written: it is no regular file.')
  mode = 'wb' if isinstance(content, bytes) else 'w'
  try:
    tf.io.gfile.makedirs(os.path.dirname(path) or '.')
    with tf.io.gfile.GFile(temporary, mode) as file:
      file.write(content)
    tf.io.gfile.rename(temporary, path, overwrite=True)
  except (OSError, tf.errors.OpError) as error:
    if tf.io.gfile.exists(temporary):
      tf.io.gfile.remove(temporary)
    raise InputError(
      f'{path} cannot be written: {str(error).partition(chr(10))[0]}'
    ) from error

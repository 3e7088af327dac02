"""Small text files that are written completely or not at all."""

import os

import tensorflow as tf

from deeplab.common import InputError


def write_text(path, text):
  """Writes a file under a temporary name, then renames it.

  Args:
    path: of the file; its folder is made if absent.
    text: what to write.

  Raises:
    InputError: it cannot be written.
  """
  temporary = path + '.tmp'
  if os.path.exists(path) and not os.path.isfile(path):
    raise InputError(f'{path} cannot be written: it is no regular file.')
  try:
    tf.io.gfile.makedirs(os.path.dirname(path) or '.')
    with tf.io.gfile.GFile(temporary, 'w') as file:
      file.write(text)
    tf.io.gfile.rename(temporary, path, overwrite=True)
  except (OSError, tf.errors.OpError) as error:
    if tf.io.gfile.exists(temporary):
      tf.io.gfile.remove(temporary)
    raise InputError(
      f'{path} cannot be written: {str(error).splitlines()[0]}'
    ) from error

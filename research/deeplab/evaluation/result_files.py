"""The files that eval.py writes for each checkpoint, and reading them back."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab import common, input_files
from deeplab.common import InputError
from deeplab.evaluation import metrics, trimap

# Of the step of a checkpoint.
MIOU = 'miou_{}.json'
TRIMAP = 'trimap_{}'
CONFUSION = 'confusion_{}.png'
# For people and for compare_evals.
IMAGES_TABLE = 'images_{}.csv'
IMAGES = 'images_{}.npz'


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """A miou_<step>.json.

  Attributes:
    matrix: metrics.ConfusionMatrix.
    class_names: one name for each class.
    values: all of the file, see `evaluator.write_results`.
  """

  matrix: metrics.ConfusionMatrix
  class_names: list[str]
  values: Mapping[str, Any]


# Reading. TensorFlow, which takes seconds to import, is there for remote files.


def _is_remote(path):
  return '://' in path


def exists(path):
  """Whether there is a file, local or remote."""
  if not _is_remote(path):
    return os.path.exists(path)
  import tensorflow as tf

  return tf.io.gfile.exists(path)


def read_bytes(path):
  """The content of a file, local or remote.

  Args:
    path: of the file.

  Raises:
    InputError: it cannot be read.
  """
  if not _is_remote(path):
    return input_files.read_bytes(path)
  import tensorflow as tf

  try:
    with tf.io.gfile.GFile(path, 'rb') as file:
      return file.read()
  except tf.errors.OpError as error:
    raise InputError(f'{path} cannot be read: {error.message}.') from error


def read_json(path):
  """The content of a JSON file, local or remote.

  Args:
    path: of the file.

  Raises:
    InputError: it cannot be read, or is not JSON.
  """
  if not _is_remote(path):
    return input_files.read_json(path)
  text = read_bytes(path).decode(errors='replace')
  return input_files.parse_json(text, path)


def read_evaluation(path):
  """Reads a miou_<step>.json.

  Args:
    path: of the file, local or remote.

  Returns:
    An Evaluation.

  Raises:
    InputError: it cannot be read, or is no such file.
  """
  values = read_json(path)
  try:
    names = [str(row['name']) for row in values['classes']]
    counts = np.array(values['confusion_matrix'])
    matrix = metrics.ConfusionMatrix(len(names))
    matrix.num_images = int(values['num_images'])
    if counts.shape != matrix.counts.shape or counts.dtype.kind != 'i':
      raise ValueError(f'{len(names)} classes, but counts of {counts.shape}')
    if counts.size and counts.min() < 0:
      raise ValueError(f'a count of {counts.min()} pixels')
    fault = 'trimap' in values and find_trimap_fault(values['trimap'])
    if fault:
      raise ValueError(fault)
  except (LookupError, TypeError, ValueError, OverflowError) as error:
    raise InputError(
      f'{path} is no miou_<step>.json of eval.py: '
      f'{type(error).__name__}, {error}. Evaluate again.'
    ) from error
  matrix.counts += counts
  return Evaluation(matrix, names, values)


def find_trimap_fault(values):
  """What is wrong with the values of `trimap.to_dict` in a file.

  Args:
    values: what the file has as "trimap".

  Returns:
    A text, or None if nothing is wrong.
  """
  if not isinstance(values, dict):
    return '"trimap" is no object'
  if values.get('boundary') not in trimap.BOUNDARIES:
    return f'"boundary" is {values.get("boundary")!r}'
  bands = values.get('bands')
  if not isinstance(bands, list) or not bands:
    return '"bands" is no list of widths'
  for row in [*bands, values.get('whole_image')]:
    if not isinstance(row, dict) or 'miou' not in row:
      return 'a band or "whole_image" has no "miou"'
    if row['miou'] is not None and row['miou'] not in common.SHARE:
      return f'"miou" is {row["miou"]!r}'
  widths = [row.get('width') for row in bands]
  try:
    trimap.check_options(widths)
  except InputError:
    return f'the widths are {widths}'
  return None

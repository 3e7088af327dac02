"""The files that eval.py writes for each checkpoint, and reading them back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplab import input_files
from deeplab.common import InputError
from deeplab.evaluation import metrics

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


def read_evaluation(path):
  """Reads a miou_<step>.json.

  Args:
    path: of the file.

  Returns:
    An Evaluation.

  Raises:
    InputError: it cannot be read, or is no such file.
  """
  values = input_files.read_json(path)
  try:
    names = [str(row['name']) for row in values['classes']]
    counts = np.array(values['confusion_matrix'])
    matrix = metrics.ConfusionMatrix(len(names))
    matrix.num_images = int(values['num_images'])
    if counts.shape != matrix.counts.shape or counts.dtype.kind != 'i':
      raise ValueError(f'{len(names)} classes, but counts of {counts.shape}')
    if counts.size and counts.min() < 0:
      raise ValueError(f'a count of {counts.min()} pixels')
  except (LookupError, TypeError, ValueError, OverflowError) as error:
    raise InputError(
      f'{path} is no miou_<step>.json of eval.py: '
      f'{type(error).__name__}, {error}. Evaluate again.'
    ) from error
  matrix.counts += counts
  return Evaluation(matrix, names, values)

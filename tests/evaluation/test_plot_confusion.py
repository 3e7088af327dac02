"""The picture of a confusion matrix, and the command."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deeplab.common import InputError
from deeplab.evaluation import metrics, plot_confusion, result_files


def _matrix(counts):
  matrix = metrics.ConfusionMatrix(len(counts))
  matrix.counts += np.array(counts)
  matrix.num_images = 2
  return matrix


def _pixels(content):
  return np.array(Image.open(io.BytesIO(content)).convert('RGB'), int)


def _count(content, color):
  return int((_pixels(content) == color).all(axis=-1).sum())


def test_right_is_blue_wrong_is_red():
  blue, red = (8, 81, 156), (179, 0, 0)
  right = plot_confusion.draw(_matrix([[9, 0], [0, 9]]))
  wrong = plot_confusion.draw(_matrix([[0, 9], [9, 0]]))
  cell = 10_000
  assert _count(right, blue) > cell and _count(right, red) < 200
  assert _count(wrong, red) > cell and _count(wrong, blue) < 200
  # Classes without labels are neither.
  grey = (230, 230, 230)
  empty = plot_confusion.draw(_matrix([[9, 0], [0, 0]]))
  assert _count(empty, grey) > cell and _count(right, grey) < 200


@pytest.mark.parametrize('number', [1, 25, 26, 151])
def test_sizes(number):
  counts = np.eye(number, dtype=int)
  # Names that matplotlib would take for a formula.
  names = [f'a$^$b_{index}' for index in range(number)]
  content = plot_confusion.draw(_matrix(counts), names, 'a$^$b')
  height, width, _ = _pixels(content).shape
  cell = 40 if number <= 25 else 16
  assert height > cell * number and width > cell * number
  assert max(height, width) < max(cell * number, 200) + 300


def test_values_are_written_where_there_is_room():
  def svg(number):
    counts = np.ones((number, number), int)
    return plot_confusion.draw(_matrix(counts), file_format='svg')

  # A text is a group with an id.
  few, many = (svg(number).count(b'id="text_') for number in (5, 26))
  assert few > 25 and many < 26 * 26


def test_without_a_pixel():
  assert plot_confusion.draw(metrics.ConfusionMatrix(3)).startswith(b'\x89PNG')


def _write(path, **changes):
  values = metrics.to_dict(_matrix([[3, 1], [0, 2]]), ['sky', 'pole'])
  path.write_text(json.dumps({**values, 'step': 3, **changes}))
  return str(path)


def test_reading_an_evaluation(tmp_path):
  found = result_files.read_evaluation(_write(tmp_path / 'miou_3.json'))
  assert found.class_names == ['sky', 'pole'] and found.values['step'] == 3
  np.testing.assert_array_equal(found.matrix.counts, [[3, 1], [0, 2]])
  assert found.matrix.num_images == 2


@pytest.mark.parametrize(
  'changes',
  [
    {'confusion_matrix': [[1]]},
    {'confusion_matrix': [[1.5, 0], [0, 1]]},
    {'confusion_matrix': [[-1, 0], [0, 1]]},
    {'confusion_matrix': [[1, 0], [0]]},
    {'confusion_matrix': [[10**30, 0], [0, 1]]},
    {'classes': None},
    {'classes': [{}, {}]},
    {'num_images': None},
  ],
)
def test_broken_evaluations(changes, tmp_path):
  path = _write(tmp_path / 'miou_3.json', **changes)
  with pytest.raises(InputError, match=r'miou_3\.json is no miou_<step>\.json'):
    result_files.read_evaluation(path)


@pytest.mark.parametrize('text', ['[]', '3', '{}', '{"classes": '])
def test_other_files(text, tmp_path):
  path = tmp_path / 'miou_3.json'
  path.write_text(text)
  with pytest.raises(InputError, match=r'miou_3\.json is not? '):
    result_files.read_evaluation(str(path))


def test_the_command(tmp_path):
  def run(*arguments):
    return subprocess.run(
      [sys.executable, '-m', 'deeplab.evaluation.plot_confusion', *arguments],
      capture_output=True,
      text=True,
      check=False,
    )

  path = _write(tmp_path / 'miou_3.json')
  plot = tmp_path / 'plot.png'
  done = run(path, f'--output={plot}')
  assert done.returncode == 0, done.stderr
  assert 'sky is taken for pole in 25.0% of its pixels (1)' in done.stdout
  assert Image.open(plot).format == 'PNG'
  done = run(str(tmp_path / 'none.json'), f'--output={plot}')
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert 'none.json cannot be read' in done.stderr.splitlines()[-1]

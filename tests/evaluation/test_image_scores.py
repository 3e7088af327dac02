"""Scores of single images: the table for people, the counts for comparing."""

import csv
import io

import numpy as np
import pytest

from deeplab.common import InputError
from deeplab.evaluation import image_scores, metrics

_NAMES = ['sky', 'pole', 'car, parked']


def _scores():
  """Three images: a mixed one, one of nothing that counts, a bad one."""
  matrix = metrics.ConfusionMatrix(3, 255)
  scores = image_scores.ImageScores(3, _NAMES)
  labels = np.array([[0, 0, 0, 1], [255] * 4, [2, 2, 2, 255]])
  predictions = np.array([[0, 0, 0, 0], [0] * 4, [1, 1, 2, 0]])
  names = [b'town/mixed', b'void', 'bäd'.encode()]
  # In two batches.
  for part in (slice(0, 2), slice(2, 3)):
    scores.add(names[part], matrix.update(labels[part], predictions[part]))
  return matrix, scores


def _text(scores):
  """The table, whose mark tells spreadsheets that it is UTF-8."""
  content = scores.to_csv()
  assert content.startswith(b'\xef\xbb\xbfimage,')
  return content.decode('utf-8-sig')


def test_the_table_has_the_worst_image_first():
  rows = list(csv.reader(io.StringIO(_text(_scores()[1]))))
  assert tuple(rows[0]) == image_scores.COLUMNS
  assert rows[1:] == [
    # Classes 1 (never labelled) and 2: IoU 0 and 1/3.
    [
      *('bäd', '0.1667', '0.3333', '3', '2', 'pole', '0.0000'),
      *('car, parked', 'pole', '2'),
    ],
    # Classes 0 and 1: IoU 3/4 and 0.
    [
      *('town/mixed', '0.3750', '0.7500', '4', '2', 'pole', '0.0000'),
      *('pole', 'sky', '1'),
    ],
    ['void', '', '', '0', '0', '', '', '', '', ''],
  ]


def test_an_image_without_a_wrong_pixel():
  matrix = metrics.ConfusionMatrix(2)
  scores = image_scores.ImageScores(2)
  scores.add(['a'], matrix.update(np.ones((1, 2), int), np.ones((1, 2), int)))
  row = _text(scores).splitlines()[1]
  assert row == 'a,1.0000,1.0000,2,1,class_1,1.0000,,,'


def test_counts_are_stored_and_add_up(tmp_path):
  matrix, scores = _scores()
  path = tmp_path / 'images_3.npz'
  path.write_bytes(scores.counts().to_bytes())
  counts = image_scores.load(str(path))
  assert counts.names.tolist() == ['town/mixed', 'void', 'bäd']
  np.testing.assert_array_equal(
    counts.intersections.sum(axis=0), np.diag(matrix.counts)
  )
  np.testing.assert_allclose(counts.miou(), [3 / 8, np.nan, 1 / 6])
  whole = metrics.mean_ious(
    counts.intersections.sum(axis=0), counts.unions.sum(axis=0)
  )
  assert whole == pytest.approx(matrix.mean_iou())


def _npz(**arrays):
  content = io.BytesIO()
  np.savez(content, **arrays)
  return content.getvalue()


def _npy(array):
  content = io.BytesIO()
  np.save(content, array, allow_pickle=True)
  return content.getvalue()


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'no archive',
    _scores()[1].counts().to_bytes()[:200],
    _npy(np.zeros(3)),
    _npy(np.array([{}])),
    _npz(names=np.array(['a'])),
    # Of other kinds and shapes than they should be.
    _npz(names=np.array(['a']), intersections=np.eye(2), unions=np.eye(2)),
    _npz(names=['a'], intersections=[[1]], unions=[[1, 2]]),
    _npz(names=['a', 'b'], intersections=[[1]], unions=[[1]]),
  ],
)
def test_broken_files(content, tmp_path):
  path = tmp_path / 'images_3.npz'
  path.write_bytes(content)
  with pytest.raises(InputError, match=r'images_3\.npz is no .*Evaluate again'):
    image_scores.load(str(path))


def test_a_file_that_is_not_there(tmp_path):
  with pytest.raises(InputError, match=r'none\.npz cannot be read: No such'):
    image_scores.load(str(tmp_path / 'none.npz'))

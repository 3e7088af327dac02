"""How well each image of an evaluation did.

eval.py writes them twice: images_<step>.csv for people, the worst images first,
and images_<step>.npz with the pixel counts of every image and class, from which
`compare_evals` tells what changed and how much of it is chance.
"""

import csv
import dataclasses
import io

import numpy as np

from deeplab.common import InputError
from deeplab.evaluation import metrics, result_files

# Columns of the table. The last three: most of the wrong pixels.
COLUMNS = (
  'image',
  'miou',
  'pixel_accuracy',
  'pixels',
  'classes',
  'worst_class',
  'worst_iou',
  'wrong_label',
  'wrong_prediction',
  'wrong_pixels',
)


@dataclasses.dataclass(frozen=True)
class Counts:
  """Pixels by image and class.

  Attributes:
    names: of the images, str [images].
    intersections: integers [images, classes], pixels whose label and prediction
      are this class.
    unions: integers [images, classes], pixels whose label or prediction is.
  """

  names: np.ndarray
  intersections: np.ndarray
  unions: np.ndarray

  def miou(self):
    """float64 [images]: over the classes in the labels or predictions.

    NaN for an image without a pixel that counts.
    """
    return metrics.mean_ious(self.intersections, self.unions)

  def to_bytes(self):
    """The file images_<step>.npz."""
    content = io.BytesIO()
    np.savez_compressed(content, **vars(self))
    return content.getvalue()


def load(path):
  """Reads an images_<step>.npz.

  Args:
    path: of the file, local or remote.

  Returns:
    Counts.

  Raises:
    InputError: it cannot be read, or is no such file.
  """
  content = result_files.read_bytes(path)
  try:
    with np.load(io.BytesIO(content)) as stored:
      names = [field.name for field in dataclasses.fields(Counts)]
      counts = Counts(**{name: stored[name] for name in names})
  except Exception as error:
    # Broken archives raise errors of many kinds.
    raise InputError(
      f'{path} is no images_<step>.npz of eval.py: {error}. Evaluate again.'
    ) from error
  shape = counts.unions.shape
  if (
    counts.names.dtype.kind != 'U'
    or counts.unions.dtype.kind not in 'iu'
    or counts.intersections.dtype.kind not in 'iu'
    or len(shape) != 2
    or counts.intersections.shape != shape
    or counts.names.shape != shape[:1]
  ):
    raise InputError(
      f'{path} is no images_<step>.npz of eval.py: its arrays do not fit each '
      'other. Evaluate again.'
    )
  return counts


class ImageScores:
  """Collects the scores of images, some numbers a class for each."""

  def __init__(self, num_classes, class_names=None):
    """Starts with no image.

    Args:
      num_classes: labels and predictions are 0..num_classes-1.
      class_names: one name for each class, or None.
    """
    self._num_classes = num_classes
    self._class_names = metrics.names_of(num_classes, class_names)
    self._names, self._intersections, self._unions = [], [], []
    # Label, prediction and number of most of the wrong pixels.
    self._wrong = []

  def add(self, names, counts):
    """Adds a batch.

    Args:
      names: of the images, str or bytes.
      counts: what `ConfusionMatrix.update` returned.
    """
    for name, image in zip(names, counts, strict=True):
      name = name.decode(errors='replace') if isinstance(name, bytes) else name
      self._names.append(str(name))
      right = np.diag(image)
      union = image.sum(axis=0) + image.sum(axis=1) - right
      # An image has less than 2**31 pixels.
      self._intersections.append(right.astype(np.int32))
      self._unions.append(union.astype(np.int32))
      wrong = image.copy()
      np.fill_diagonal(wrong, 0)
      place = int(wrong.argmax())
      self._wrong.append(
        (*divmod(place, self._num_classes), int(wrong.flat[place]))
      )

  def counts(self):
    """What was collected, as Counts in the order of the images."""
    shape = (len(self._names), self._num_classes)
    return Counts(
      np.array(self._names, dtype=str),
      np.array(self._intersections, np.int32).reshape(shape),
      np.array(self._unions, np.int32).reshape(shape),
    )

  def to_csv(self):
    """The bytes of images_<step>.csv: a header, then the worst image first.

    Spreadsheets take it for UTF-8 by the mark at its beginning. What is
    undefined is empty. Images without a pixel that counts come last.
    """
    counts = self.counts()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(COLUMNS)
    # NaN is sorted to the end.
    for index in np.argsort(counts.miou(), kind='stable'):
      writer.writerow(self._row(counts, index))
    return text.getvalue().encode('utf-8-sig')

  def _row(self, counts, index):
    """The cells of an image."""
    right, unions = counts.intersections[index], counts.unions[index]
    # A wrong pixel is in the unions of two classes.
    pixels = int(right.sum() + unions.sum()) // 2
    label, prediction, wrong = self._wrong[index]
    cells = [counts.names[index], '', '', pixels, np.count_nonzero(unions)]
    if pixels:
      iou = metrics.divide(right, unions)
      worst = np.nanargmin(iou)
      cells[1:3] = f'{np.nanmean(iou):.4f}', f'{right.sum() / pixels:.4f}'
      cells += self._class_names[worst], f'{iou[worst]:.4f}'
    if wrong:
      cells += self._class_names[label], self._class_names[prediction], wrong
    return cells + [''] * (len(COLUMNS) - len(cells))

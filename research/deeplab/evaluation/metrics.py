"""Segmentation metrics from one streaming confusion matrix."""

import dataclasses
import math

import numpy as np

from deeplab.common import InputError


def divide(numerator, denominator):
  """Element by element in float64; NaN where the denominator is 0."""
  result = np.full(np.shape(denominator), np.nan)
  return np.divide(numerator, denominator, out=result, where=denominator > 0)


def mean(values):
  """Mean of those that are not NaN; NaN if none is."""
  values = values[~np.isnan(values)]
  return float(values.mean()) if values.size else math.nan


def mean_ious(intersections, unions):
  """mIoU from pixel counts along the last axis, as `ConfusionMatrix.mean_iou`.

  Args:
    intersections: [..., num_classes].
    unions: the same shape.

  Returns:
    float64 [...]; NaN where every union is 0.
  """
  iou = divide(intersections, unions)
  return divide(np.nansum(iou, axis=-1), np.sum(~np.isnan(iou), axis=-1))


def _listing(values, limit=10):
  """'3, 4, 200' with the rest cut off."""
  shown = ', '.join(str(value) for value in values[:limit])
  return shown + (f' and {len(values) - limit} more' * (len(values) > limit))


class ConfusionMatrix:
  """Counts pixels by label and prediction over any number of batches.

  Counts are int64, so the result depends neither on the order of the images nor
  on the batch size.

  Attributes:
    counts: int64 [num_classes, num_classes]; row = label, column = prediction.
    num_images: number of images counted so far.
  """

  def __init__(self, num_classes, ignore_label=None):
    """Starts with no pixels.

    Args:
      num_classes: labels and predictions are 0..num_classes-1.
      ignore_label: pixels with this label do not count.
    """
    self.num_classes = num_classes
    self.ignore_label = ignore_label
    self.reset()

  def reset(self):
    """Forgets every pixel."""
    self.counts = np.zeros((self.num_classes, self.num_classes), np.int64)
    self.num_images = 0

  def update(self, labels, predictions, image_names=None):
    """Adds a batch.

    Args:
      labels: integers [batch, height, width] or [batch, height, width, 1].
      predictions: integers of the same number of pixels in the same order.
      image_names: the batch's image names (str or bytes), for messages.

    Returns:
      What `counts` would be for each image alone, a list of int64
      [num_classes, num_classes].

    Raises:
      InputError: labels or predictions are no integers, or one is outside
        0..num_classes-1 (and not the ignore label); the latter names the image
        and the values.
      ValueError: labels and predictions differ in size.
    """
    counted, pairs = self.pairs(labels, predictions, image_names)
    ends = np.cumsum(counted.sum(axis=1))
    found = [
      np.bincount(part, minlength=self.counts.size).reshape(self.counts.shape)
      for part in np.split(pairs, ends[:-1])
    ]
    for counts in found:
      self.counts += counts
    self.num_images += len(found)
    return found

  def pairs(self, labels, predictions, image_names=None):
    """The labels and predictions that count, as places in `counts`.

    Args:
      labels: see `update`.
      predictions: see `update`.
      image_names: see `update`.

    Returns:
      bool [batch, height * width], whether a pixel counts, and, for those that
      do, int64 [number]: label * num_classes + prediction.

    Raises:
      InputError: see `update`.
      ValueError: see `update`.
    """
    labels = np.asarray(labels).reshape(len(labels), -1)
    predictions = np.asarray(predictions).reshape(len(predictions), -1)
    if labels.shape != predictions.shape:
      raise ValueError(
        'Labels and predictions must have the same number of pixels. '
        f'Received: {labels.shape} and {predictions.shape}.'
      )
    counted = np.ones(labels.shape, bool)
    if self.ignore_label is not None:
      counted = labels != self.ignore_label
    for what, values in (('labels', labels), ('predictions', predictions)):
      if values.dtype.kind not in 'iub':
        raise InputError(f'The {what} must be integers, not {values.dtype}.')
    self._check_range('label', labels, counted, image_names)
    self._check_range('prediction', predictions, counted, image_names)
    pairs = labels[counted].astype(np.int64) * self.num_classes
    pairs += predictions[counted]
    return counted, pairs

  def _check_range(self, what, values, counted, image_names):
    """Raises InputError about the first image with values out of range."""
    wrong = counted & ((values < 0) | (values >= self.num_classes))
    if not wrong.any():
      return
    index = int(np.flatnonzero(wrong.any(axis=1))[0])
    name = f'number {self.num_images + index}'
    if image_names is not None:
      name = image_names[index]
      name = repr(name.decode() if isinstance(name, bytes) else str(name))
    found = _listing(np.unique(values[index][wrong[index]]).tolist())
    ignored = '' if self.ignore_label is None else f' or {self.ignore_label}'
    raise InputError(
      f'Image {name} has {what} values outside 0..{self.num_classes - 1}'
      f'{ignored if what == "label" else ""}: {found}. Correct the image, or '
      'the number of classes and the ignore label of the data set.'
    )

  @property
  def label_pixels(self):
    """int64 [num_classes]: pixels labelled as each class."""
    return self.counts.sum(axis=1)

  @property
  def predicted_pixels(self):
    """int64 [num_classes]: counted pixels predicted as each class."""
    return self.counts.sum(axis=0)

  def row_shares(self):
    """float64, `counts` as shares of their rows; NaN without labels."""
    rows = np.broadcast_to(self.label_pixels[:, None], self.counts.shape)
    return divide(self.counts, rows)

  def class_iou(self):
    """float64 [num_classes]; NaN for classes in neither labels nor predictions.

    A class that is predicted but never labelled has 0.
    """
    union = self.label_pixels + self.predicted_pixels - np.diag(self.counts)
    return divide(np.diag(self.counts), union)

  def class_accuracy(self):
    """float64 [num_classes]; NaN for classes that are not in the labels."""
    return divide(np.diag(self.counts), self.label_pixels)

  def mean_iou(self):
    """Mean of `class_iou` over the classes that occur; NaN without pixels."""
    return mean(self.class_iou())

  def mean_accuracy(self):
    """Mean of `class_accuracy` over the classes in the labels."""
    return mean(self.class_accuracy())

  def pixel_accuracy(self):
    """Share of the counted pixels whose prediction is right."""
    total = self.counts.sum()
    return float(np.trace(self.counts) / total) if total else math.nan


def official_scalars(matrix, tag='miou'):
  """The official TensorBoard tags and their values.

  The official class values are NaN for a class without labels even if it is
  predicted (where `class_iou` has 0); the overall value counts it as 0.

  Args:
    matrix: a ConfusionMatrix.
    tag: see `predictions_tag`.

  Returns:
    {'eval/<tag>_overall': mIoU, 'eval/<tag>_class_0': IoU, ...}.
  """
  iou = np.where(matrix.label_pixels > 0, matrix.class_iou(), np.nan)
  scalars = {f'eval/{tag}_overall': matrix.mean_iou()}
  for index, value in enumerate(iou):
    scalars[f'eval/{tag}_class_{index}'] = float(value)
  return scalars


def predictions_tag(eval_scales=(1.0,), add_flipped_images=False):
  """'miou_0.5_1.0_flipped' for scales 0.5 and 1.0 with flips."""
  scales = [str(float(scale)) for scale in eval_scales]
  return '_'.join(['miou', *scales, *(['flipped'] * add_flipped_images)])


def names_of(num_classes, class_names):
  """The class names as a list, 'class_0' and so on where there are none."""
  if class_names:
    return [str(name) for name in class_names]
  return [f'class_{index}' for index in range(num_classes)]


def or_none(value):
  """A number as JSON can hold it: None for NaN."""
  return None if math.isnan(value) else float(value)


def to_dict(matrix, class_names=None):
  """The metrics as plain JSON values, None where a value is undefined.

  Args:
    matrix: a ConfusionMatrix.
    class_names: one name for each class, or None.

  Returns:
    A dictionary: 'miou', 'pixel_accuracy', 'mean_accuracy', 'num_images',
    'num_pixels', 'classes' (one dictionary a class: 'id', 'name', 'iou',
    'accuracy', 'label_pixels', 'predicted_pixels') and 'confusion_matrix'
    (rows = labels).
  """
  rows = zip(
    names_of(matrix.num_classes, class_names),
    matrix.class_iou(),
    matrix.class_accuracy(),
    matrix.label_pixels.tolist(),
    matrix.predicted_pixels.tolist(),
    strict=True,
  )
  return {
    'miou': or_none(matrix.mean_iou()),
    'pixel_accuracy': or_none(matrix.pixel_accuracy()),
    'mean_accuracy': or_none(matrix.mean_accuracy()),
    'num_images': matrix.num_images,
    'num_pixels': int(matrix.counts.sum()),
    'classes': [
      {
        'id': index,
        'name': name,
        'iou': or_none(iou),
        'accuracy': or_none(accuracy),
        'label_pixels': label_pixels,
        'predicted_pixels': predicted_pixels,
      }
      for index, (name, iou, accuracy, label_pixels, predicted_pixels) in (
        enumerate(rows)
      )
    ],
    'confusion_matrix': matrix.counts.tolist(),
  }


def to_table(matrix, class_names=None):
  """The metrics as text: a row a class, then the means.

  Undefined values show as '-'.
  """

  def cell(value):
    return f'{"-":>9}' if math.isnan(value) else f'{value:9.4f}'

  names = names_of(matrix.num_classes, class_names)
  width = max(len(name) for name in [*names, 'pixel accuracy'])
  share = divide(
    matrix.label_pixels, np.full(matrix.num_classes, matrix.counts.sum())
  )
  rule = '-' * (width + 35)
  lines = [
    f'{"id":>4}  {"class":<{width}}{"IoU":>9}{"accuracy":>9}{"share":>9}'
  ]
  lines.append(rule)
  columns = (names, matrix.class_iou(), matrix.class_accuracy(), share)
  for index, (name, *values) in enumerate(zip(*columns, strict=True)):
    lines.append(
      f'{index:>4}  {name:<{width}}' + ''.join(cell(value) for value in values)
    )
  lines.append(rule)
  for name, value in (
    ('mIoU', matrix.mean_iou()),
    ('pixel accuracy', matrix.pixel_accuracy()),
    ('mean accuracy', matrix.mean_accuracy()),
  ):
    lines.append(f'      {name:<{width}}{cell(value)}')
  return '\n'.join(lines)


@dataclasses.dataclass(frozen=True)
class Confusion:
  """Pixels of one class that are taken for another one.

  Attributes:
    label: name of the class.
    prediction: name of the class that it is taken for.
    share: of the pixels of the label, 0..1.
    pixels: their number.
  """

  label: str
  prediction: str
  share: float
  pixels: int

  def __str__(self):
    return (
      f'{self.label} is taken for {self.prediction} in {self.share:.1%} of its '
      f'pixels ({self.pixels:,})'
    )


def largest_confusions(matrix, class_names=None, limit=5):
  """The confusions with the largest shares of their label's pixels.

  Args:
    matrix: a ConfusionMatrix.
    class_names: one name for each class, or None.
    limit: the most to return.

  Returns:
    Confusions, the largest share first.
  """
  names = names_of(matrix.num_classes, class_names)
  wrong = matrix.counts - np.diag(np.diag(matrix.counts))
  shares = np.nan_to_num(matrix.row_shares() * (wrong > 0))
  order = np.argsort(-shares, axis=None, kind='stable')[:limit]
  places = zip(*np.unravel_index(order, shares.shape), strict=True)
  return [
    Confusion(
      names[row],
      names[column],
      float(shares[row, column]),
      int(wrong[row, column]),
    )
    for row, column in places
    if wrong[row, column]
  ]

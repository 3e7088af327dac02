"""Segmentation metrics near object boundaries: trimaps of several widths.

A pixel belongs to the trimap of width w if a boundary is within w pixels of it,
that is, inside the square of 2w + 1 pixels a side around it. What counts as a
boundary is one of `BOUNDARIES`:

* 'void': a pixel with the ignore label. This is the measure of the papers (v1,
  figure on the trimap; v2, the same; v3+, section "Improvement along object
  boundaries"): they dilate the "void" label, which PASCAL VOC has as a rim of
  some 5 pixels around objects. Their published code does it with a square.
* 'classes': a pixel of another class. It may lie beyond ignored pixels. This is
  the older measure (Kohli, Ladicky and Torr 2009; Kraehenbuehl and Koltun
  2011), for labels without a rim.
* 'any': either of the two, so a pixel of any other label, ignored ones
  included. It serves labels with and without a rim.

Ignored pixels never count themselves. What lies outside the image is no
boundary.
"""

import itertools

import numpy as np

from deeplab import common
from deeplab.common import InputError
from deeplab.evaluation import metrics

ANY, VOID, CLASSES = BOUNDARIES = ('any', 'void', 'classes')

# The metrics of each band, by their names in `metrics.to_dict`.
VALUES = ('num_pixels', 'miou', 'pixel_accuracy', 'mean_accuracy')


def check_options(widths, boundary=ANY):
  """Checks what a Trimap is made from.

  Args:
    widths: integers in pixels.
    boundary: see the module.

  Returns:
    The widths as a list.

  Raises:
    InputError: the widths are not positive or do not ascend, there is none, or
      the boundary is unknown.
  """
  if not np.iterable(widths):
    raise InputError(
      f'trimap_widths must be a list of integers. Received: {widths!r}.'
    )
  widths = list(widths)
  common.check_ranges(
    {'trimap_widths': widths}, {'trimap_widths': common.COUNT}
  )
  pairs = itertools.pairwise(widths)
  if not widths or any(first >= second for first, second in pairs):
    shown = [str(width) for width in widths[:10]] + ['...'] * (len(widths) > 10)
    raise InputError(
      'trimap_widths must be ascending widths in pixels, each of them once, '
      f'for example 1,2,...,40. Received: trimap_widths={",".join(shown)}.'
    )
  if boundary not in BOUNDARIES:
    raise InputError(
      f'trimap_boundary must be one of {", ".join(BOUNDARIES)}. Received: '
      f'trimap_boundary={boundary!r}.'
    )
  return [int(width) for width in widths]


def _spread(values, distance, pick):
  """The largest or smallest value within a distance along rows and columns.

  Args:
    values: [height, width].
    distance: in pixels.
    pick: np.maximum or np.minimum.

  Returns:
    The same shape: `pick` over squares of 2 * distance + 1 pixels a side, of
    which only the part inside the image counts.
  """
  for axis in (0, 1):
    reach = 0
    while reach < distance:
      # A larger step would leave a gap beside the border of the image.
      step = min(reach + 1, distance - reach)
      spread = values.copy()
      source, target = values.swapaxes(0, axis), spread.swapaxes(0, axis)
      pick(target[step:], source[:-step], out=target[step:])
      pick(target[:-step], source[step:], out=target[:-step])
      values = spread
      reach += step
  return values


def bands(labels, ignored, widths, boundary=ANY):
  """The narrowest trimap that each pixel of an image belongs to.

  Args:
    labels: integers of 0 or more, [height, width].
    ignored: bool [height, width]; the labels there do not matter.
    widths: ascending widths in pixels.
    boundary: see the module.

  Returns:
    Unsigned integers [height, width]: an index into `widths`, or their number
    for pixels in no trimap. What it says of ignored pixels has no meaning.
  """
  # A boundary is in reach where the largest and the smallest value are not the
  # same; they start from what is to count as different.
  start = np.where(ignored, 0, labels) if boundary != VOID else 0
  void = int(np.max(start)) + 2
  dtype = np.min_scalar_type(void)
  largest = np.where(ignored, 0 if boundary == CLASSES else void, start + 1)
  largest = largest.astype(dtype)
  smallest = np.where(ignored, void, start + 1).astype(dtype)
  result = np.full(labels.shape, len(widths), np.min_scalar_type(len(widths)))
  reached = 0
  for width in widths:
    largest = _spread(largest, width - reached, np.maximum)
    smallest = _spread(smallest, width - reached, np.minimum)
    reached = width
    # The trimaps are nested.
    result -= largest != smallest
  return result


class Trimap:
  """Confusion matrices of the trimaps of all widths, from one pass.

  Attributes:
    widths: ascending widths in pixels.
    boundary: see the module.
    num_images: number of images counted so far.
  """

  def __init__(self, num_classes, ignore_label, widths, boundary=ANY):
    """Starts with no pixels.

    Args:
      num_classes: labels and predictions are 0..num_classes-1.
      ignore_label: pixels with this label do not count; None for no such label.
      widths: integers, ascending, in pixels.
      boundary: see the module.

    Raises:
      InputError: see `check_options`.
    """
    self.widths = check_options(widths, boundary)
    self.boundary = boundary
    # Its counts are those of the whole images.
    self._whole = metrics.ConfusionMatrix(num_classes, ignore_label)
    # [band, label, prediction]; the last one is what is in no trimap.
    self._counts = np.zeros(
      (len(self.widths) + 1, num_classes, num_classes), np.int64
    )

  @property
  def num_images(self):
    return self._whole.num_images

  def update(self, labels, predictions, image_names=None, sizes=None):
    """Adds a batch.

    Args:
      labels: integers [batch, height, width] or [batch, height, width, 1].
      predictions: integers of the same size.
      image_names: the batch's image names (str or bytes), for messages.
      sizes: (height, width) of each image if they are padded at the bottom and
        at the right; what is beyond them is no part of the image.

    Raises:
      InputError: labels and predictions differ in size, an image's size does
        not fit into them, or a label or prediction is outside
        0..num_classes-1 (and not the ignore label).
    """
    labels, predictions = (
      values[..., 0] if values.ndim == 4 else values
      for values in (np.asarray(labels), np.asarray(predictions))
    )
    if labels.ndim != 3 or labels.shape != predictions.shape:
      raise InputError(
        'Labels and predictions must be [batch, height, width] of one size. '
        f'Received: {list(labels.shape)} and {list(predictions.shape)}.'
      )
    if sizes is None:
      sizes = [labels.shape[1:]] * len(labels)
    sizes = list(sizes)
    if len(sizes) != len(labels):
      raise InputError(
        f'sizes must have one size for each image. Received: {len(sizes)} '
        f'sizes, {len(labels)} images.'
      )
    for index, (height, width) in enumerate(sizes):
      if not (1 <= height <= labels.shape[1] and 1 <= width <= labels.shape[2]):
        raise InputError(
          f'Image number {self.num_images} of {height}x{width} pixels has '
          f'labels of {labels.shape[1]}x{labels.shape[2]}; they must not be '
          'smaller, nor the image empty.'
        )
      self._add(
        labels[index, :height, :width],
        predictions[index, :height, :width],
        None if image_names is None else image_names[index : index + 1],
      )

  def _add(self, labels, predictions, image_names):
    """Adds an image without padding."""
    counted, pairs = self._whole.pairs(
      labels[None], predictions[None], image_names
    )
    counted = counted.reshape(labels.shape)
    band = bands(labels, ~counted, self.widths, self.boundary)
    pairs += band[counted].astype(np.int64) * self._whole.counts.size
    self._counts += np.bincount(pairs, minlength=self._counts.size).reshape(
      self._counts.shape
    )
    self._whole.num_images += 1

  def matrices(self):
    """One metrics.ConfusionMatrix for each width."""
    return self._cumulated()[:-1]

  def whole(self):
    """The metrics.ConfusionMatrix of all pixels, near a boundary or not."""
    return self._cumulated()[-1]

  def _cumulated(self):
    found = []
    for counts in self._counts.cumsum(axis=0):
      matrix = metrics.ConfusionMatrix(len(counts), self._whole.ignore_label)
      matrix.counts = counts
      matrix.num_images = self.num_images
      found.append(matrix)
    return found

  def is_empty(self):
    """Whether no trimap holds a pixel that counts."""
    return not self._counts[:-1].any()

  def empty_error(self, what='the images'):
    """The InputError to raise about a Trimap that `is_empty`.

    Args:
      what: where the images are from, for the message.

    Returns:
      An InputError.
    """
    ignored = f'the ignore label {self._whole.ignore_label}'
    if not self.num_images:
      reason = 'there are none.'
    elif not self._counts.any():
      reason = f'all of their pixels have {ignored}.'
    elif self.boundary == VOID:
      reason = (
        f'none of their pixels is so near to one with {ignored}. Labels '
        f'without a void rim need --trimap_boundary={ANY}.'
      )
    else:
      reason = (
        'none of their pixels is so near to one with another label. Give '
        'larger --trimap_widths, or check the labels.'
      )
    return InputError(
      f'The {self.num_images} labels of {what} have nothing in a trimap of up '
      f'to {self.widths[-1]} pixels: {reason}'
    )


def to_dict(trimap):
  """The metrics as plain JSON values, None where a value is undefined.

  Args:
    trimap: a Trimap.

  Returns:
    A dictionary: 'boundary', 'num_images', 'bands' (one dictionary a width:
    'width', `VALUES`, 'class_iou', a list, and 'num_classes', how many of them
    the mean is over) and 'whole_image' (the same for all pixels, without
    'width').

  Raises:
    InputError: it holds no pixel; see `Trimap.empty_error`.
  """
  if trimap.is_empty():
    raise trimap.empty_error()

  def row(matrix):
    values = metrics.to_dict(matrix)
    iou = [item['iou'] for item in values['classes']]
    return {
      **{name: values[name] for name in VALUES},
      'class_iou': iou,
      'num_classes': sum(value is not None for value in iou),
    }

  return {
    'boundary': trimap.boundary,
    'num_images': trimap.num_images,
    'bands': [
      {'width': width, **row(matrix)}
      for width, matrix in zip(trimap.widths, trimap.matrices(), strict=True)
    ],
    'whole_image': row(trimap.whole()),
  }


def to_table(values):
  """The metrics as text: a row a width, then the whole images.

  Args:
    values: what `to_dict` returned.

  Returns:
    Lines; undefined values show as '-', with a remark on why below.
  """
  names = ('trimap', 'pixels', 'classes', 'mIoU', 'accuracy')
  lines = [_aligned(names)]
  rule = '-' * len(lines[0])
  lines.append(rule)
  for row in values['bands']:
    lines.append(_line(row['width'], row))
  lines += [rule, _line('all', values['whole_image'])]
  empty = [row['width'] for row in values['bands'] if not row['num_pixels']]
  if empty:
    lines.append(
      f'No pixel that counts is within {empty[-1]} pixels of a boundary '
      f'({values["boundary"]}).'
    )
  return '\n'.join(lines)


def _line(name, row):
  means = (
    '-' if row[key] is None else f'{row[key]:.4f}'
    for key in ('miou', 'pixel_accuracy')
  )
  return _aligned((name, f'{row["num_pixels"]:,}', row['num_classes'], *means))


def _aligned(cells):
  sizes = (6, 16, 9, 9, 10)
  return ''.join(
    f'{cell:>{size}}' for cell, size in zip(cells, sizes, strict=True)
  )

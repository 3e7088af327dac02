"""Labels that are shapes, drawn in LabelMe: a JSON file for each image."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from deeplab.common import InputError
from deeplab.datasets import image_folders
from deeplab.datasets.labels import class_table_files, shape_masks
from deeplab.datasets.labels.class_table_files import ClassTable
from deeplab.datasets.labels.label_source import (
  Classes,
  LabelSource,
  check_size,
)
from deeplab.evaluation.coco_format import get_value
from deeplab.input_files import read_json

SHAPES = 'shapes'

# Points outside the image are cut off; those far outside are mistakes.
_MAX_COORDINATE = 1e6

_AREAS = ('polygon', 'oriented_rectangle')
_LINES = ('line', 'linestrip', 'point', 'points')


class LabelMeLabels(LabelSource):
  """The JSON files of a folder, named as the images are."""

  has_background = True

  def __init__(
    self, folder: str, suffix: str = '', line_width: float | None = None
  ):
    """Finds the files.

    Args:
      folder: the folder.
      suffix: what follows the names of the images.
      line_width: width of lines and diameter of points in pixels; None to
        refuse them.

    Raises:
      InputError: see `image_folders.find_files`.
    """
    self.paths = image_folders.find_files(folder, ['json'], suffix)
    self._line_width = line_width

  def find_classes(self, names: Sequence[str]) -> ClassTable:
    found = set()
    for name in names:
      content = read_json(self.paths[name])
      found |= {label for _, label, _ in _shapes(content, self.paths[name])}
    source = 'the shapes of the LabelMe files'
    if not found:
      raise InputError(f'{source} are none. Draw some.')
    return class_table_files.from_names(sorted(found), source)

  def decode(
    self, name: str, size: tuple[int, int], classes: Classes
  ) -> np.ndarray:
    path = self.paths[name]
    content = read_json(path)
    shapes = _shapes(content, path)
    # Files of old versions lack the size.
    if content.get('imageHeight') or content.get('imageWidth'):
      keys = ('imageHeight', 'imageWidth')
      check_size([get_value(content, k, int, path) for k in keys], size, path)
    table = classes.table
    labels = np.full(size, table.background_label, np.uint8)
    for where, label, shape in shapes:
      if label == class_table_files.IGNORE_NAME:
        value = table.ignore_label
      else:
        value = classes.label(label, where)
      box, mask = self._draw(shape, size, where)
      labels[box][mask] = value
    return labels

  def _draw(self, shape, size, where):
    """The region of a shape; see `shape_masks`."""
    kind = shape.get('shape_type') or 'polygon'
    points = _points(shape, where)
    if kind == 'mask':
      return _pasted(shape, points, size, where)
    if kind in _AREAS:
      if len(points) < 3:
        raise InputError(
          f'{where}: a {kind} must have at least 3 points. Received: '
          f'{len(points)}.'
        )
      return shape_masks.fill_polygon(points, *size)
    if kind in ('rectangle', 'circle'):
      if len(points) != 2:
        raise InputError(
          f'{where}: a {kind} must have 2 points. Received: {len(points)}.'
        )
      begin, end = points
      if kind == 'circle':
        radius = np.hypot(*(end - begin))
        return shape_masks.draw_line(points[:1], radius, *size)
      corners = [begin, [end[0], begin[1]], end, [begin[0], end[1]]]
      return shape_masks.fill_polygon(np.array(corners), *size)
    if kind not in _LINES:
      raise InputError(
        f'{where}: shapes of the type {kind!r} are not known. Draw polygons.'
      )
    if self._line_width is None:
      raise InputError(
        f'{where} is a {kind}, which covers no pixels. Give --line_width, in '
        'pixels, or remove it.'
      )
    return shape_masks.draw_line(points, self._line_width / 2, *size)


def _shapes(content, path):
  """[(where it stands, label, shape)] of a file."""
  found = []
  for index, shape in enumerate(get_value(content, SHAPES, list, path)):
    where = f'{path}: shapes[{index}]'
    label = get_value(shape, 'label', str, where).strip()
    found.append((f'{where} ({label!r})', label, shape))
  return found


def _points(shape, where):
  """The points of a shape, float [n, 2]."""
  values = get_value(shape, 'points', list, where)
  return as_points(values, where)


def as_points(values: list, where: str) -> np.ndarray:
  """Points of a JSON file as an array.

  Args:
    values: a list of [x, y].
    where: what they belong to, for messages.

  Returns:
    float64 [n, 2].

  Raises:
    InputError: they are none.
  """
  try:
    points = np.array(values, np.float64)
  except (TypeError, ValueError, OverflowError):
    points = np.empty(0)
  is_list = points.ndim == 2 and points.shape[0] and points.shape[1] == 2
  if not is_list or not (np.abs(points) < _MAX_COORDINATE).all():
    raise InputError(
      f'{where}: expected points [[x, y], ...], numbers of pixels. Received: '
      f'{str(values)[:60]}.'
    )
  return points


def _pasted(shape, points, size, where):
  """The region of a shape that is an image of its bounding box."""
  text = get_value(shape, 'mask', str, where)
  try:
    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
      mask = np.asarray(image.convert('L')) > 0
  except MemoryError:
    raise
  except Exception as error:  # Decoders stumble in every possible way.
    raise InputError(
      f'{where}: the mask must be a PNG file as base64 text: {error}.'
    ) from error
  left, top = points[0].astype(int).tolist()
  bottom, right = top + mask.shape[0], left + mask.shape[1]
  if min(left, top) < 0 or bottom > size[0] or right > size[1]:
    raise InputError(
      f'{where}: the mask of {mask.shape[0]} x {mask.shape[1]} pixels at '
      f'{points[0].tolist()} (x, y) is not within the image of {size[0]} x '
      f'{size[1]} (height x width).'
    )
  return (slice(top, bottom), slice(left, right)), mask

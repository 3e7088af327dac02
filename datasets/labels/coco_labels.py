"""Labels in the formats of COCO: a JSON file for all images.

`CocoInstances` reads objects that are polygons or run lengths,
`CocoPanoptic` a folder of PNG files of segments beside the JSON.
"""

import collections
import os
import posixpath
from collections.abc import Sequence

import numpy as np

from deeplab import input_files
from deeplab.common import InputError
from deeplab.datasets.labels import class_table_files, shape_masks
from deeplab.datasets.labels.class_table_files import ClassTable
from deeplab.datasets.labels.label_source import (
  Classes,
  LabelSource,
  check_size,
)
from deeplab.datasets.labels.labelme_labels import as_points
from deeplab.evaluation import coco_format
from deeplab.evaluation.coco_format import get_value

ANNOTATIONS = 'annotations'
IMAGES = 'images'
SEGMENTS = 'segments_info'


def _image_name(file_name, where):
  """The name of an image: its path without the extension."""
  if not file_name or '\0' in file_name:
    raise InputError(f'{where}: {file_name!r} is no name of a file.')
  path = posixpath.normpath(file_name.replace('\\', '/'))
  return os.path.splitext(path)[0]


def _names_by_id(content, path):
  """{category id: name}, in the order of ids."""
  names = {}
  for index, item in enumerate(get_value(content, 'categories', list, path)):
    where = f'{path}: categories[{index}]'
    category = get_value(item, 'id', int, where)
    if category in names:
      raise InputError(f'{where}: there is a category {category} already.')
    names[category] = get_value(item, 'name', str, where).strip()
  return dict(sorted(names.items()))


def _category(item, names, where):
  """The name of an annotation's category."""
  category = get_value(item, 'category_id', int, where)
  if category not in names:
    raise InputError(
      f'{where}: there is no category {category}. Categories: {list(names)}.'
    )
  return names[category]


class CocoInstances(LabelSource):
  """Objects; smaller ones lie on larger ones, crowds are ignored."""

  has_background = True

  def __init__(self, path: str):
    """Reads the file.

    Args:
      path: the JSON file.

    Raises:
      InputError: it cannot be read, or is of another form.
    """
    content = input_files.read_json(path)
    self._path = path
    self._categories = _names_by_id(content, path)
    self._images = {}
    ids = {}
    for index, item in enumerate(get_value(content, IMAGES, list, path)):
      where = f'{path}: images[{index}]'
      name = _image_name(get_value(item, 'file_name', str, where), where)
      image_id = get_value(item, 'id', (int, str), where)
      if name in self._images or image_id in ids:
        raise InputError(
          f'{where}: the file name {name!r} or the id {image_id!r} occurs '
          'twice.'
        )
      self._images[name] = item
      ids[image_id] = name
    self.paths = dict.fromkeys(sorted(self._images), path)
    self._objects = collections.defaultdict(list)
    for index, item in enumerate(get_value(content, ANNOTATIONS, list, path)):
      where = f'{path}: annotations[{index}]'
      image_id = get_value(item, 'image_id', (int, str), where)
      if image_id not in ids:
        raise InputError(f'{where}: there is no image with id {image_id!r}.')
      self._objects[ids[image_id]].append((where, item))

  def find_classes(self, names: Sequence[str]) -> ClassTable:
    source = f'the categories of {self._path}'
    return class_table_files.from_names(self._categories.values(), source)

  def decode(
    self, name: str, size: tuple[int, int], classes: Classes
  ) -> np.ndarray:
    image, where = self._images[name], f'{self._path}: the image {name!r}'
    keys = ('height', 'width')
    check_size([get_value(image, k, int, where) for k in keys], size, where)
    labels = np.full(size, classes.table.background_label, np.uint8)
    # The area of the smallest object that a pixel belongs to.
    smallest = np.full(size, np.inf)
    for where, item in self._objects[name]:
      category = _category(item, self._categories, where)
      mask = _object_mask(item, size, where)
      area, label = mask.sum(), classes.label(category, where)
      if item.get('iscrowd'):
        area, label = np.inf, classes.table.ignore_label
      mask &= smallest >= area
      labels[mask], smallest[mask] = label, area
    return labels


def _object_mask(item, size, where):
  """The pixels of an object."""
  shape = get_value(item, 'segmentation', (list, dict), where)
  if isinstance(shape, dict):
    return _from_runs(shape, size, where)
  if not shape:
    raise InputError(
      f'{where} has no segmentation, perhaps a box alone. Remove it, or '
      'outline the object.'
    )
  mask = np.zeros(size, bool)
  for polygon in shape:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
      raise InputError(
        f'{where}: a polygon must be a list [x, y, x, y, ...] of at least 3 '
        f'points. Received: {str(polygon)[:60]}.'
      )
    pairs = list(zip(polygon[::2], polygon[1::2], strict=True))
    mask |= shape_masks.fill_polygon(as_points(pairs, where), *size)
  return mask


def _from_runs(shape, size, where):
  """The mask of run lengths, compressed or not."""
  found = get_value(shape, 'size', list, where)
  if found != list(size):
    raise InputError(
      f'{where}: the run lengths are for the size {str(found)[:60]}, but the '
      f'image has {list(size)} (height, width).'
    )
  counts = get_value(shape, 'counts', (str, list), where)
  try:
    if isinstance(counts, str):
      counts = shape_masks.unpack_counts(counts)
    elif not all(type(count) is int for count in counts):
      raise ValueError('the run lengths must be integers')
    return shape_masks.decode_runs(counts, *size)
  except ValueError as error:
    raise InputError(f'{where}: {error}.') from error


class CocoPanoptic(LabelSource):
  """Segments; what belongs to none is ignored."""

  def __init__(self, path: str):
    """Reads the file.

    Args:
      path: the JSON file; its PNG files lie in the folder of its name, or
        beside it.

    Raises:
      InputError: it cannot be read, or is of another form.
    """
    content = input_files.read_json(path)
    folder = os.path.splitext(path)[0]
    if not os.path.isdir(folder):
      folder = os.path.dirname(path)
    self._path = path
    self._categories = _names_by_id(content, path)
    annotations = coco_format.parse_annotations(
      content, path, folder, self._categories, has_crowds=False
    )
    self._annotations = {}
    for annotation in annotations.values():
      name = _image_name(os.path.relpath(annotation.path, folder), path)
      if name in self._annotations:
        raise InputError(f'{path}: the PNG file of {name!r} occurs twice.')
      self._annotations[name] = annotation
    self.paths = {
      name: annotation.path
      for name, annotation in sorted(self._annotations.items())
    }

  def find_classes(self, names: Sequence[str]) -> ClassTable:
    source = f'the categories of {self._path}'
    return class_table_files.from_names(self._categories.values(), source)

  def decode(
    self, name: str, size: tuple[int, int], classes: Classes
  ) -> np.ndarray:
    annotation = self._annotations[name]
    where = f'{self._path}: {annotation.path}'
    ids = coco_format.read_segment_ids(annotation.path)
    check_size(ids.shape, size, where)
    labels = {0: classes.table.ignore_label} | {
      segment.id: classes.label(self._categories[segment.category_id], where)
      for segment in annotation.segments
    }
    present, inverse = np.unique(ids, return_inverse=True)
    unknown = sorted(set(present.tolist()) - set(labels))
    if unknown:
      raise InputError(
        f'{where} has the segments {coco_format.listing(unknown)}, which are '
        'not in its segments_info.'
      )
    table = np.array([labels[i] for i in present.tolist()], np.uint8)
    return table[inverse].reshape(ids.shape)

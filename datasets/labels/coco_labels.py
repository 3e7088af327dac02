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
from deeplab.evaluation import base_metric, coco_format
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


def _parse_images(content, path):
  """{image id: (name, the image's entry)}."""
  images, names = {}, set()
  for index, item in enumerate(get_value(content, IMAGES, list, path)):
    where = f'{path}: images[{index}]'
    name = _image_name(get_value(item, 'file_name', str, where), where)
    image_id = get_value(item, 'id', (int, str), where)
    if name in names or image_id in images:
      raise InputError(
        f'{where}: the file name {name!r} or the id {image_id!r} occurs twice.'
      )
    names.add(name)
    images[image_id] = (name, item)
  return images


def _parse_categories(content, path):
  """{category id: (name, colour or None)}, in the order of ids."""
  categories = {}
  for index, item in enumerate(get_value(content, 'categories', list, path)):
    where = f'{path}: categories[{index}]'
    category = get_value(item, 'id', int, where)
    if category in categories:
      raise InputError(f'{where}: there is a category {category} already.')
    name = get_value(item, 'name', str, where).strip()
    color = item.get('color')
    if color is not None:
      color = class_table_files.as_color(color, name, where)
    categories[category] = (name, color)
  return dict(sorted(categories.items()))


class _CocoLabels(LabelSource):
  """What both formats have in common: the file, and its categories."""

  is_indexed = True

  def _read(self, path):
    """Reads the file and keeps its categories; returns what it holds."""
    self._path = path
    content = input_files.read_json(path)
    categories = _parse_categories(content, path)
    self._categories = {key: name for key, (name, _) in categories.items()}
    self._colors = [color for _, color in categories.values()]
    return content

  def find_classes(self, names: Sequence[str]) -> ClassTable:
    return class_table_files.from_names(
      self._categories.values(),
      f'the categories of {self._path}',
      None if None in self._colors else self._colors,
    )


def _category(item, names, where):
  """The name of an annotation's category."""
  category = get_value(item, 'category_id', int, where)
  if category not in names:
    raise InputError(
      f'{where}: there is no category {category}. Categories: {list(names)}.'
    )
  return names[category]


class CocoInstances(_CocoLabels):
  """Objects; smaller ones lie on larger ones, crowds are ignored."""

  has_background = True

  def __init__(self, path: str):
    """Reads the file.

    Args:
      path: the JSON file.

    Raises:
      InputError: it cannot be read, or is of another form.
    """
    content = self._read(path)
    images = _parse_images(content, path)
    self._images = dict(images.values())
    self.paths = dict.fromkeys(sorted(self._images), path)
    self._objects = collections.defaultdict(list)
    for index, item in enumerate(get_value(content, ANNOTATIONS, list, path)):
      where = f'{path}: annotations[{index}]'
      image_id = get_value(item, 'image_id', (int, str), where)
      if image_id not in images:
        raise InputError(f'{where}: there is no image with id {image_id!r}.')
      self._objects[images[image_id][0]].append((where, item))

  def decode(
    self, name: str, size: tuple[int, int], classes: Classes
  ) -> np.ndarray:
    image, where = self._images[name], f'{self._path}: the image {name!r}'
    keys = ('height', 'width')
    check_size([get_value(image, k, int, where) for k in keys], size, where)
    labels = np.full(size, classes.table.background_label, np.uint8)
    # The area of the smallest object that a pixel belongs to.
    crowd = size[0] * size[1] + 1
    smallest = np.full(size, crowd, np.int32)
    for where, item in self._objects[name]:
      category = _category(item, self._categories, where)
      box, mask = _object_region(item, size, where)
      area, label = mask.sum(), classes.label(category, where)
      if item.get('iscrowd'):
        area, label = crowd, classes.table.ignore_label
      mask = mask & (smallest[box] >= area)
      labels[box][mask], smallest[box][mask] = label, area
    return labels


def _object_region(item, size, where):
  """The region of an object; see `shape_masks`."""
  shape = get_value(item, 'segmentation', (list, dict), where)
  if isinstance(shape, dict):
    return _from_runs(shape, size, where)
  if not shape:
    raise InputError(
      f'{where} has no segmentation, perhaps a box alone. Remove it, or '
      'outline the object.'
    )
  regions = []
  for polygon in shape:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
      raise InputError(
        f'{where}: a polygon must be a list [x, y, x, y, ...] of at least 3 '
        f'points. Received: {str(polygon)[:60]}.'
      )
    pairs = list(zip(polygon[::2], polygon[1::2], strict=True))
    points = as_points(pairs, where)
    regions.append(shape_masks.fill_polygon(points, *size))
  return shape_masks.unite(regions)


def _from_runs(shape, size, where):
  """The region of run lengths, compressed or not."""
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


class CocoPanoptic(_CocoLabels):
  """Segments; what belongs to none is ignored."""

  def __init__(self, path: str):
    """Reads the file.

    Args:
      path: the JSON file; its PNG files lie in the folder of its name, or
        beside it.

    Raises:
      InputError: it cannot be read, or is of another form.
    """
    content = self._read(path)
    folder = os.path.splitext(path)[0]
    if not os.path.isdir(folder):
      folder = os.path.dirname(path)
    # Without a list of images, these have the names of the PNG files.
    images = _parse_images(content, path) if IMAGES in content else None
    annotations = coco_format.parse_annotations(
      content, path, folder, self._categories, has_crowds=False
    )
    self._annotations = {}
    for image_id, annotation in annotations.items():
      if images is None:
        name = _image_name(os.path.relpath(annotation.path, folder), path)
      elif image_id in images:
        name = images[image_id][0]
      else:
        raise InputError(
          f'{path}: the annotation {annotation.path} is of the image '
          f'{image_id!r}, which is not among the images.'
        )
      if name in self._annotations:
        raise InputError(f'{path}: the PNG file of {name!r} occurs twice.')
      self._annotations[name] = annotation
    self.paths = {
      name: annotation.path
      for name, annotation in sorted(self._annotations.items())
    }

  def decode(
    self, name: str, size: tuple[int, int], classes: Classes
  ) -> np.ndarray:
    annotation = self._annotations[name]
    where = f'{self._path}: {annotation.path}'
    ids = coco_format.read_segment_ids(annotation.path)
    check_size(ids.shape, size, where)
    labels = {
      segment.id: classes.label(self._categories[segment.category_id], where)
      for segment in annotation.segments
    }
    values, lengths = base_metric.label_runs(ids)
    present, inverse = np.unique(values, return_inverse=True)
    coco_format.check_same(annotation, set(labels), set(present.tolist()))
    # What belongs to no segment, unless the file says otherwise.
    labels.setdefault(coco_format.VOID_ID, classes.table.ignore_label)
    table = np.array([labels[i] for i in present.tolist()], np.uint8)
    return np.repeat(table[inverse], lengths).reshape(ids.shape)

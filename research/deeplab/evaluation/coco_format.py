"""Reads segmentations in the panoptic format of COCO.

A data set is a JSON file and a folder of PNG files. A pixel's colour is the id
of its segment, `R + 256 * G + 256**2 * B`; id 0 is void unless the JSON says
otherwise. The JSON holds a list of 'annotations', each with 'image_id',
'file_name' and 'segments_info', a list of segments with 'id', 'category_id'
and, in the ground truth, 'iscrowd'; and the ground truth's 'categories' with
'id', 'name' and 'isthing'.
"""

import collections
import dataclasses
import json
import os

import numpy as np
from PIL import Image

from deeplab import input_files
from deeplab.common import InputError
from deeplab.evaluation import base_metric

_MAX_SEGMENT_ID = 256**3 - 1

# The colour of pixels without a segment.
VOID_ID = 0


@dataclasses.dataclass(frozen=True)
class Segment:
  """One segment of an image; crowds occur in the ground truth only."""

  id: int
  category_id: int
  is_crowd: bool = False


@dataclasses.dataclass(frozen=True)
class Annotation:
  """The segments of one image.

  Attributes:
    image_id: the image's id in the JSON file, an integer or a string.
    path: the PNG file.
    segments: its Segments in the order of the JSON file.
  """

  image_id: int | str
  path: str
  segments: tuple[Segment, ...]


@dataclasses.dataclass(frozen=True)
class Category:
  """A kind of segment: a thing, which is countable, or stuff."""

  id: int
  name: str
  is_thing: bool


def default_folder(json_file, flag):
  """The folder of PNG files: the JSON file's path without '.json'.

  Args:
    json_file: path.
    flag: name of the flag that gives another one, for the message.

  Raises:
    InputError: the path does not end in '.json'.
  """
  stem, extension = os.path.splitext(json_file)
  if extension.lower() != '.json':
    raise InputError(
      f'{json_file} does not end in .json, so the folder of its PNG files must '
      f'be given: --{flag}=...'
    )
  return stem


# JSON.


def get_value(item, key, kind, where):
  """The value of a key, which must be there and of a kind.

  Args:
    item: what should be a dictionary.
    key: the key.
    kind: a type, or a tuple of types; a bool is no int.
    where: what `item` is, for the message.

  Raises:
    InputError: it is not there, or of another kind.
  """
  if not isinstance(item, dict):
    raise InputError(
      f'{where} must be an object with the key {key!r}. Received: '
      f'{json.dumps(item)[:60]}.'
    )
  if key not in item:
    raise InputError(
      f'{where} lacks the key {key!r}. Its keys: {sorted(item)}.'
    )
  value = item[key]
  kinds = kind if isinstance(kind, tuple) else (kind,)
  if not isinstance(value, kinds) or isinstance(value, bool):
    names = ' or '.join(kind.__name__ for kind in kinds)
    raise InputError(
      f'{where}: {key!r} must be of type {names}. Received: '
      f'{json.dumps(value)[:60]}.'
    )
  return value


def _get_flag(item, key, where):
  """The value of a key that is 0 or 1 (or false or true)."""
  value = item.get(key) if isinstance(item, dict) else None
  if not isinstance(value, bool):
    value = get_value(item, key, int, where)
  if value not in (0, 1):
    raise InputError(f'{where}: {key!r} must be 0 or 1. Received: {value}.')
  return bool(value)


def parse_categories(content, path):
  """The categories of a ground truth.

  Args:
    content: what the JSON file holds.
    path: the JSON file, for messages.

  Returns:
    {category id: Category} in ascending order of ids.

  Raises:
    InputError: a key is missing or wrong, or an id occurs twice.
  """
  categories = {}
  for index, item in enumerate(get_value(content, 'categories', list, path)):
    where = f'{path}: categories[{index}]'
    category_id = get_value(item, 'id', int, where)
    if category_id < 0 or category_id in categories:
      raise InputError(
        f"{where}: 'id' must be 0 or more, and of one category only. "
        f'Received: {category_id}.'
      )
    name = str(item.get('name', f'category_{category_id}'))
    categories[category_id] = Category(
      category_id, name, _get_flag(item, 'isthing', where)
    )
  if not categories:
    raise InputError(f"{path}: 'categories' is empty.")
  return dict(sorted(categories.items()))


def parse_annotations(content, path, folder, category_ids, has_crowds):
  """The annotations of a ground truth or of predictions.

  Args:
    content: what the JSON file holds.
    path: the JSON file, for messages.
    folder: the folder of its PNG files.
    category_ids: the category ids that segments may have.
    has_crowds: whether 'iscrowd' counts, and must be there.

  Returns:
    {image id: Annotation} in the order of the file.

  Raises:
    InputError: a key is missing or wrong, an image occurs twice, a segment id
      occurs twice in an image, or a category is unknown.
  """
  annotations = {}
  for index, item in enumerate(get_value(content, 'annotations', list, path)):
    where = f'{path}: annotations[{index}]'
    image_id = get_value(item, 'image_id', (int, str), where)
    where += f' (image {image_id!r})'
    if image_id in annotations:
      raise InputError(f'{where}: the image has an annotation already.')
    annotations[image_id] = Annotation(
      image_id=image_id,
      path=os.path.join(folder, get_value(item, 'file_name', str, where)),
      segments=_parse_segments(item, where, category_ids, has_crowds),
    )
  return annotations


def _parse_segments(annotation, where, category_ids, has_crowds):
  """The Segments of an annotation."""
  segments = {}
  infos = get_value(annotation, 'segments_info', list, where)
  for index, info in enumerate(infos):
    place = f'{where}: segments_info[{index}]'
    segment_id = get_value(info, 'id', int, place)
    category_id = get_value(info, 'category_id', int, place)
    if not 0 <= segment_id <= _MAX_SEGMENT_ID or segment_id in segments:
      raise InputError(
        f"{place}: 'id' must be from 0 to {_MAX_SEGMENT_ID}, and of one "
        f'segment only. Received: {segment_id}.'
      )
    if category_id not in category_ids:
      raise InputError(
        f'{place} (segment {segment_id}): category {category_id} is not among '
        "the ground truth's categories."
      )
    is_crowd = has_crowds and _get_flag(info, 'iscrowd', place)
    segments[segment_id] = Segment(segment_id, category_id, is_crowd)
  return tuple(segments.values())


# PNG.


def read_segment_ids(path):
  """The segment ids of a PNG file, int32 [height, width].

  An alpha channel is left out of account.

  Raises:
    InputError: the file is missing, broken, no PNG or not in colour.
  """
  input_files.check_regular(path)
  try:
    with Image.open(path) as image:
      if image.format != 'PNG' or image.mode not in ('RGB', 'RGBA'):
        raise InputError(
          f'{path} must be a PNG file with 8-bit RGB colours, which are the '
          f'segment ids. Received: {image.format}, mode {image.mode}.'
        )
      colours = np.asarray(image)
  except FileNotFoundError as error:
    raise InputError(f'{path} is missing; the JSON file names it.') from error
  except (InputError, MemoryError):
    raise
  # Decoders stumble over broken files in every possible way.
  except Exception as error:
    raise InputError(f'{path!r} cannot be read: {error}.') from error
  ids = colours[..., 2].astype(np.int32)
  for channel in (1, 0):
    ids <<= 8
    ids += colours[..., channel]
  return ids


def read_category_and_instance(
  annotation, ignored_label, max_instances_per_category
):
  """The category and the instance of every pixel of an image.

  Instances count from 0 within their category in the order of the JSON file.
  Pixels without a segment are void, which is instance 0 of the ignored label.
  Crowds, and segments whose category is the ignored label, are its further
  instances.

  Args:
    annotation: an Annotation.
    ignored_label: a category.
    max_instances_per_category: what an image may have.

  Returns:
    Two arrays, int32 [height, width].

  Raises:
    InputError: see `read_segment_ids`; the PNG and the JSON do not name the
      same segments; or there are too many instances of a category.
  """
  segments = _number(annotation, ignored_label, max_instances_per_category)
  ids = read_segment_ids(annotation.path)
  values, lengths = base_metric.label_runs(ids)
  present, inverse = np.unique(values, return_inverse=True)
  check_same(annotation, set(segments), set(present.tolist()))
  segments.setdefault(VOID_ID, (ignored_label, 0))
  table = np.array([segments[i] for i in present.tolist()], np.int32)
  return tuple(
    np.repeat(column[inverse], lengths).reshape(ids.shape) for column in table.T
  )


def _number(annotation, ignored_label, max_instances_per_category):
  """{segment id: (category, instance)} of an annotation."""
  # Instance 0 of the ignored label is void.
  counts = collections.Counter({ignored_label: 1})
  segments = {}
  for segment in annotation.segments:
    category = ignored_label if segment.is_crowd else segment.category_id
    segments[segment.id] = (category, counts[category])
    counts[category] += 1
  category, count = counts.most_common(1)[0]
  if count > max_instances_per_category:
    void = ', void and crowds included' if category == ignored_label else ''
    raise InputError(
      f'image {annotation.image_id!r} ({annotation.path}) has more than '
      f'max_instances_per_category={max_instances_per_category} instances of '
      f'category {category}{void}: {count}. Give '
      f'--max_instances_per_category={count}.'
    )
  return segments


def check_same(annotation, named, present):
  """Raises unless the JSON and the PNG have the same segments.

  Args:
    annotation: the Annotation, for messages.
    named: segment ids in the JSON.
    present: those in the PNG, where VOID_ID need not be named.

  Raises:
    InputError: they differ.
  """
  where = f'image {annotation.image_id!r} ({annotation.path})'
  for found, missing, less in (
    ('the PNG', "the JSON's segments_info", present - named - {VOID_ID}),
    ("the JSON's segments_info", 'the PNG', named - present),
  ):
    if less:
      raise InputError(
        f'{where}: segment ids {listing(sorted(less))} are in {found} but not '
        f'in {missing}.'
      )


def listing(values, limit=10):
  """'3, 4, 200' with the rest cut off."""
  shown = ', '.join(repr(value) for value in values[:limit])
  return shown + (f' and {len(values) - limit} more' * (len(values) > limit))

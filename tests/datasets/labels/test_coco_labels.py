"""Objects and segments in COCO's formats."""

import json

import numpy as np
import pytest

import coco_files
from deeplab.common import InputError
from deeplab.datasets.labels import coco_labels
from deeplab.datasets.labels.label_source import Classes

_SIZE = (6, 8)


def _classes(source, ignores_unknown=False, table=None):
  table = table or source.find_classes(list(source.paths))
  if source.has_background:
    table = table.with_background()
  return Classes(table, table.info('mine'), ignores_unknown)


def _box(left, top, right, bottom):
  return [[left, top, right, top, right, bottom, left, bottom]]


def _write(folder, objects, **changes):
  """An instance file of one image, with [(category, segmentation, more)]."""
  content = {
    'images': [{'id': 5, 'file_name': 's/a.jpg', 'height': 6, 'width': 8}],
    'categories': [{'id': 9, 'name': 'dog'}, {'id': 2, 'name': 'cat'}],
    'annotations': [
      {'image_id': 5, 'category_id': category, 'segmentation': shape, **more}
      for category, shape, more in objects
    ],
  }
  path = folder / 'instances.json'
  path.write_text(json.dumps(content | changes))
  return str(path)


def _decode(path):
  source = coco_labels.CocoInstances(path)
  return source.decode('s/a', _SIZE, _classes(source))


def test_categories_are_numbered_in_the_order_of_ids(tmp_path):
  source = coco_labels.CocoInstances(_write(tmp_path, []))
  assert list(source.paths) == ['s/a']
  info = _classes(source).info
  assert info.class_names == ['background', 'cat', 'dog']
  assert (source.decode('s/a', _SIZE, _classes(source)) == 0).all()


def test_small_objects_lie_on_large_ones_and_all_on_crowds(tmp_path):
  runs = {'size': [6, 8], 'counts': [0, 12, 36]}
  objects = [
    (9, _box(4, 2, 6, 4), {}),
    (2, _box(3, 1, 7, 5), {'iscrowd': 0}),
    (2, runs, {'iscrowd': 1}),
    (9, _box(0, 0, 1, 1) + _box(0, 5, 1, 6), {}),
  ]
  expected = np.zeros(_SIZE, np.uint8)
  expected[:, :2] = 255
  expected[1:5, 3:7] = 1
  expected[2:4, 4:6] = 2
  expected[[0, 5], 0] = 2
  path = _write(tmp_path, objects)
  for order in (objects, objects[::-1]):
    path = _write(tmp_path, order)
    np.testing.assert_array_equal(_decode(path), expected)


def test_compressed_run_lengths(tmp_path):
  # pycocotools' text of a mask of 7 x 9.
  runs = {'size': [7, 9], 'counts': '5192K00000d0'}
  image = {'id': 5, 'file_name': 's/a.jpg', 'height': 7, 'width': 9}
  path = _write(tmp_path, [(2, runs, {})], images=[image])
  source = coco_labels.CocoInstances(path)
  expected = np.zeros((7, 9), np.uint8)
  expected[1:4, 2:6] = expected[5, 0] = 1
  found = source.decode('s/a', (7, 9), _classes(source))
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
  'segmentation, message',
  [
    ([], 'has no segmentation'),
    (None, "'segmentation' must be of type list or dict"),
    ([[1, 2, 3, 4]], 'at least 3 points'),
    ([[1, 2, 3, 4, 5, 6, 7]], 'at least 3 points'),
    ([1, 2, 3, 4, 5, 6], 'at least 3 points'),
    ([[1, 2, 3, 4, 5, 'x']], 'expected points'),
    ({'size': [8, 6], 'counts': [48]}, r'size \[8, 6\].*image has \[6, 8\]'),
    ({'size': [6, 8], 'counts': [47]}, 'cover 47 pixels of 6 x 8'),
    ({'size': [6, 8], 'counts': [47.0, 1]}, 'must be integers'),
    ({'size': [6, 8], 'counts': '!'}, "'!' does not belong"),
    ({'size': [6, 8]}, "lacks the key 'counts'"),
  ],
)
def test_bad_segmentations(tmp_path, segmentation, message):
  path = _write(tmp_path, [(2, segmentation, {})])
  with pytest.raises(InputError, match=rf'annotations\[0\].*{message}'):
    _decode(path)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'images': []}, r'annotations\[0\]: there is no image with id 5'),
    ({'images': [{'id': 5}]}, r"images\[0\] lacks the key 'file_name'"),
    (
      {'images': [{'id': 5, 'file_name': 's/a'}] * 2},
      r'images\[1\]: .*occurs twice',
    ),
    (
      {'images': [{'id': 5, 'file_name': 's/a', 'height': 1, 'width': 2}]},
      "the image 's/a' is for an image of 1 x 2 pixels",
    ),
    ({'images': [{'id': 5, 'file_name': 's/a'}]}, "lacks the key 'height'"),
    ({'images': [{'id': 5, 'file_name': '\0'}]}, r"'\\x00' is no name"),
    ({'categories': [{'id': 2}]}, r"categories\[0\] lacks the key 'name'"),
    (
      {'categories': [{'id': 2, 'name': 'a'}, {'id': 2, 'name': 'b'}]},
      r'categories\[1\]: there is a category 2 already',
    ),
    (
      {'categories': [{'id': 3, 'name': 'a'}]},
      r'annotations\[0\]: there is no category 2',
    ),
    (
      {'categories': [{'id': 2, 'name': 'a'}, {'id': 3, 'name': 'a'}]},
      "the name 'a' stands in",
    ),
    ({'annotations': {}}, "'annotations' must be of type list"),
  ],
)
def test_bad_instance_files(tmp_path, changes, message):
  path = _write(tmp_path, [(2, _box(0, 0, 1, 1), {})], **changes)
  with pytest.raises(InputError, match=message):
    _decode(path)


# Panoptic files.


def _panoptic(folder, ids, segments):
  images = [
    ('a', ids, [{'id': i, 'category_id': c} for i, c in segments.items()])
  ]
  path = coco_files.write(
    folder, 'panoptic', images, categories=coco_files.CATEGORIES
  )
  return str(path)


def test_segments_become_their_category(tmp_path):
  ids = np.array([[0, 7, 7], [300, 300, 70000]])
  path = _panoptic(tmp_path, ids, {7: 3, 300: 1, 70000: 3})
  source = coco_labels.CocoPanoptic(path)
  classes = _classes(source)
  assert classes.info.class_names == ['person', 'sky', 'bird']
  assert source.paths == {'a': str(tmp_path / 'panoptic/a.png')}
  found = source.decode('a', (2, 3), classes)
  np.testing.assert_array_equal(found, [[255, 2, 2], [0, 0, 2]])
  assert found.dtype == np.uint8
  with pytest.raises(InputError, match=r'2 x 3 pixels .* has 3 x 2'):
    source.decode('a', (3, 2), classes)


def test_png_files_may_lie_beside_the_json(tmp_path):
  path = _panoptic(tmp_path, [[7]], {7: 3})
  (tmp_path / 'panoptic/a.png').rename(tmp_path / 'a.png')
  (tmp_path / 'panoptic').rmdir()
  source = coco_labels.CocoPanoptic(path)
  assert source.decode('a', (1, 1), _classes(source)) == 2


def test_segments_that_are_not_in_the_json(tmp_path):
  source = coco_labels.CocoPanoptic(_panoptic(tmp_path, [[7, 8]], {7: 3}))
  with pytest.raises(
    InputError, match=r'a\.png\): segment ids 8 are in the PNG'
  ):
    source.decode('a', (1, 2), _classes(source))


def test_images_are_those_that_the_json_names(tmp_path):
  """Some tools call the PNG file of x.jpg x_panoptic.png."""
  path = tmp_path / 'panoptic.json'
  images = [('x_panoptic', [[7]], [{'id': 7, 'category_id': 3}])]
  categories = [
    {**category, 'color': [9, 9, category['id'] // 2]}
    for category in coco_files.CATEGORIES
  ]
  coco_files.write(tmp_path, 'panoptic', images, categories=categories)
  content = json.loads(path.read_text())
  content['images'] = [{'id': 'x_panoptic', 'file_name': 's/x.jpg'}]
  path.write_text(json.dumps(content))
  source = coco_labels.CocoPanoptic(str(path))
  assert list(source.paths) == ['s/x']
  classes = _classes(source)
  # Colours may be equal: masks of segments do not go by them.
  assert classes.info.colors == [[9, 9, 0], [9, 9, 1], [9, 9, 1]]
  assert source.decode('s/x', (1, 1), classes) == 2
  path.write_text(path.read_text().replace('"id": "x_panoptic"', '"id": "y"'))
  with pytest.raises(InputError, match="'x_panoptic', which is not among the"):
    coco_labels.CocoPanoptic(str(path))

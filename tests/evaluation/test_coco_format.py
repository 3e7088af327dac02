"""The reader of COCO's panoptic format: what it reads and what it refuses."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

import coco_files
from deeplab.common import InputError
from deeplab.evaluation import coco_format
from deeplab.evaluation.eval_coco_format import eval_coco_format


def test_categories_and_instances(tmp_path):
  """Numbering in the order of the JSON; void, crowds and other ids."""
  ids = np.array([[0, 256, 65536, 16777215], [7, 7, 256, 9]])
  infos = [
    {'id': 256, 'category_id': 3, 'iscrowd': 0},
    {'id': 7, 'category_id': 2, 'iscrowd': 0},
    {'id': 65536, 'category_id': 3, 'iscrowd': 0},
    {'id': 16777215, 'category_id': 3, 'iscrowd': 1},
    {'id': 9, 'category_id': 5, 'iscrowd': 0},
  ]
  path = coco_files.write(tmp_path, 'gt', [('a', ids, infos)])
  annotation = coco_format.parse_annotations(
    json.loads(path.read_text()), path, tmp_path / 'gt', {2, 3, 5}, True
  )['a']
  category, instance = coco_format.read_category_and_instance(annotation, 5, 4)
  np.testing.assert_array_equal(category, [[5, 3, 3, 5], [2, 2, 3, 5]])
  np.testing.assert_array_equal(instance, [[0, 0, 1, 1], [0, 0, 0, 2]])


# Faults.


def _tiny(folder, gt=None, pred=None, gt_json=None, pred_json=None):
  """A data set of one image, with changes to the maps or the JSON."""
  info = {'id': 5, 'category_id': 1, 'iscrowd': 0}
  plain = [[5, 0]]
  files = []
  for name, ids, change in (
    ('gt', gt, gt_json),
    ('pred', pred, pred_json),
  ):
    path = coco_files.write(
      folder,
      name,
      [(17, plain if ids is None else ids, [dict(info)])],
      categories=coco_files.CATEGORIES,
    )
    content = json.loads(path.read_text())
    if change:
      change(content)
    path.write_text(json.dumps(content))
    files.append(str(path))
  return files


def _info(content):
  return content['annotations'][0]['segments_info'][0]


_FAULTS = {
  'unknown segment in the ground truth': (
    {'gt': [[5, 6]]},
    r'image 17 \(.*gt/17.png\): segment ids 6 are in the PNG but not in the',
  ),
  'unknown segment in the prediction': (
    {'pred': [[5, 6]]},
    r'pred/17.png\): segment ids 6 are in the PNG but not in the JSON',
  ),
  'segment without pixels': (
    {'pred': [[0, 0]]},
    r"pred/17.png\): segment ids 5 are in the JSON's segments_info but not",
  ),
  'sizes': ({'pred': [[5], [0]]}, 'image 17: .* Received: 2x1 and 1x2'),
  'no annotations': (
    {'pred_json': lambda c: c.pop('annotations')},
    r"pred.json lacks the key 'annotations'",
  ),
  'no categories': (
    {'gt_json': lambda c: c.pop('categories')},
    r"gt.json lacks the key 'categories'",
  ),
  'empty categories': (
    {'gt_json': lambda c: c['categories'].clear()},
    r"'categories' is empty",
  ),
  'category twice': (
    {'gt_json': lambda c: c['categories'].append(coco_files.CATEGORIES[0])},
    r'categories\[3\].* of one category only. Received: 1',
  ),
  'isthing': (
    {'gt_json': lambda c: c['categories'][1].pop('isthing')},
    r"categories\[1\] lacks the key 'isthing'",
  ),
  'isthing beyond 0 and 1': (
    {'gt_json': lambda c: c['categories'][1].update(isthing=2)},
    r"categories\[1\]: 'isthing' must be 0 or 1. Received: 2",
  ),
  'category beyond num_categories': (
    {'gt_json': lambda c: c['categories'][2].update(id=9)},
    r'gt.json has category ids of num_categories=4 and more: 9. .*=10',
  ),
  'unknown category': (
    {'pred_json': lambda c: _info(c).update(category_id=77)},
    r'pred.json: annotations\[0\] \(image 17\): segments_info\[0\] '
    r'\(segment 5\): category 77 is not',
  ),
  'category as text': (
    {'pred_json': lambda c: _info(c).update(category_id='1')},
    r"'category_id' must be of type int. Received: \"1\"",
  ),
  'no iscrowd': (
    {'gt_json': lambda c: _info(c).pop('iscrowd')},
    r"gt.json.*segments_info\[0\] lacks the key 'iscrowd'",
  ),
  'segment twice': (
    {
      'gt_json': lambda c: c['annotations'][0]['segments_info'].append(_info(c))
    },
    r'segments_info\[1\].* segment only. Received: 5',
  ),
  'segment id out of range': (
    {'gt_json': lambda c: _info(c).update(id=256**3)},
    r"'id' must be from 0 to 16777215",
  ),
  'segments_info': (
    {'gt_json': lambda c: c['annotations'][0].update(segments_info={})},
    r"annotations\[0\] \(image 17\): 'segments_info' must be of type list",
  ),
  'annotation is no object': (
    {'gt_json': lambda c: c['annotations'].append(3)},
    r"annotations\[1\] must be an object with the key 'image_id'",
  ),
  'image twice': (
    {'pred_json': lambda c: c['annotations'].append(c['annotations'][0])},
    r'pred.json: annotations\[1\] \(image 17\): the image has an annotation',
  ),
  'no prediction': (
    {'pred_json': lambda c: c['annotations'].clear()},
    r'1 of the 1 images of .*gt.json are not in .*pred.json: 17',
  ),
  'no ground truth': (
    {'gt_json': lambda c: c['annotations'][0].update(image_id='x')},
    r"gt.json are not in .*pred.json: 'x'",
  ),
  'nothing': (
    {
      'gt_json': lambda c: c['annotations'].clear(),
      'pred_json': lambda c: c['annotations'].clear(),
    },
    r"gt.json: 'annotations' is empty",
  ),
}


@pytest.mark.parametrize('fault', _FAULTS)
def test_faults(tmp_path, fault):
  changes, message = _FAULTS[fault]
  with pytest.raises(InputError, match=message):
    eval_coco_format(*_tiny(tmp_path, **changes), num_categories=4)


def test_predictions_without_ground_truth(tmp_path):
  def add(content):
    content['annotations'] += [
      {**content['annotations'][0], 'image_id': i} for i in range(20)
    ]
    content['annotations'].pop(18)

  with pytest.raises(InputError, match=r'19 of the 20 .* 8, 9 and 9 more'):
    eval_coco_format(*_tiny(tmp_path, pred_json=add), num_categories=4)


def test_png_faults(tmp_path):
  gt, pred = _tiny(tmp_path)
  png = tmp_path / 'pred' / '17.png'

  def message():
    with pytest.raises(InputError) as error:
      eval_coco_format(gt, pred, num_categories=4)
    assert str(png) in str(error.value)
    return str(error.value)

  whole = png.read_bytes()
  png.write_bytes(whole[: len(whole) // 2])
  assert 'cannot be read' in message()
  png.write_bytes(b'')
  assert 'cannot be read' in message()
  Image.new('P', (2, 1)).save(png)
  assert 'Received: PNG, mode P' in message()
  Image.new('RGB', (2, 1)).save(png, format='JPEG')
  assert 'Received: JPEG' in message()
  png.unlink()
  assert 'is missing' in message()
  png.write_bytes(whole)
  Image.open(png).convert('RGBA').save(png)
  assert eval_coco_format(gt, pred, num_categories=4)['All']['pq'] == 1


def test_too_many_instances(tmp_path):
  infos = [{'id': i, 'category_id': 1, 'iscrowd': 0} for i in (1, 2, 3)]
  images = [(4, [[1, 2, 3]], infos)]
  gt = coco_files.write(
    tmp_path, 'gt', images, categories=coco_files.CATEGORIES
  )
  pred = coco_files.write(tmp_path, 'pred', images)
  with pytest.raises(
    InputError, match=r'image 4 .*=2 instances of category 1: 3\. Give'
  ):
    eval_coco_format(gt, pred, num_categories=4, max_instances_per_category=2)
  results = eval_coco_format(
    gt, pred, num_categories=4, max_instances_per_category=3
  )
  assert results['All']['pq'] == 1


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'metric': 'miou'}, "must be 'pq' or 'pc'"),
    ({'num_categories': 0}, 'num_categories must be'),
    ({'num_categories': 10**9}, 'num_categories must be'),
    ({'output_json': '/dev/null'}, '--output_json=/dev/null'),
    ({'ignored_label': -1}, 'ignored_label must be'),
    ({'intersection_offset': 3}, 'offset must be above'),
    ({'num_workers': -2}, 'num_workers must be'),
    ({'print_digits': -1}, 'print_digits must be'),
    ({'output_json': '/no/such/folder/x.json'}, '--output_json=/no/such'),
  ],
)
def test_wrong_settings(tmp_path, settings, message):
  with pytest.raises(InputError, match=message):
    eval_coco_format(*_tiny(tmp_path), **{'num_categories': 4, **settings})


def test_json_faults(tmp_path):
  gt, pred = _tiny(tmp_path)
  with pytest.raises(InputError, match=r'none\.json cannot be read'):
    eval_coco_format(gt, str(tmp_path / 'none.json'))
  pathlib.Path(pred).write_text('{"annotations": [')
  with pytest.raises(InputError, match=r'pred\.json is not JSON'):
    eval_coco_format(gt, pred)
  pathlib.Path(pred).write_text('[' * 100_000)
  with pytest.raises(InputError, match=r'pred\.json is not JSON'):
    eval_coco_format(gt, pred)
  with pytest.raises(InputError, match=r'x00b\.png. cannot be read'):
    coco_format.read_segment_ids('a\0b.png')
  with pytest.raises(InputError, match='--pred_folder'):
    eval_coco_format(gt, str(tmp_path / 'pred'))

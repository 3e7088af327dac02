"""COCO: the classes of COCO-Stuff, and those of panoptic annotations."""

import json

import converter_files
import numpy as np
import pytest
from converter_files import write_image, write_mask

import coco_files
from deeplab.common import InputError
from deeplab.datasets import build_coco_data, dataset_info
from deeplab.datasets.build_coco_data import CLASS_OF_STUFF_VALUE

_COLORS = [[220, 20, 60], [70, 130, 180], [255, 179, 240]]
_CATEGORIES = [
  {**category, 'color': color}
  for category, color in zip(coco_files.CATEGORIES, _COLORS, strict=True)
]
# Listed out of order, with a gap in the ids.
_CATEGORIES = [{**_CATEGORIES[2], 'id': 200}, *_CATEGORIES[:2]]


def _convert(root, labels):
  return build_coco_data.convert(str(root), labels, str(root / 'out'))


def _write_stuff(root, folder, values, name='000000000009'):
  mask = np.full([6, 8], 255, np.uint8)
  mask.flat[: len(values)] = values
  write_image(root / folder / f'{name}.jpg')
  write_mask(root / f'stuffthingmaps/{folder}/{name}.png', mask)


def _write_panoptic(root, folder, images, categories=_CATEGORIES):
  for image_id, _, _ in images:
    write_image(root / folder / f'{image_id}.jpg')
  coco_files.write(
    root / 'annotations', f'panoptic_{folder}', images, categories=categories
  )


def _image(image_id='000000000009', crowd=0):
  """One image: void, two persons, sky and a bird."""
  ids = np.zeros([6, 8], np.int64)
  ids.flat[1:5] = [7, 300, 70000, 8]
  categories = {7: 1, 300: 1, 70000: 2, 8: 200}
  infos = [
    {'id': segment, 'category_id': category, 'iscrowd': crowd}
    for segment, category in categories.items()
  ]
  return image_id, ids, infos


def test_classes_of_coco_stuff():
  """The values, from the ids that the data set documents."""
  info = dataset_info.BUILTIN['coco_stuff']
  assert len(set(info.class_names)) == info.num_classes == 171
  named = {
    value: info.class_names[label]
    for value, label in CLASS_OF_STUFF_VALUE.items()
    if value != 255
  }
  # Ids less one: the first and last of each group, and beside the holes.
  known = {1: 'person', 11: 'fire hydrant', 13: 'stop sign', 27: 'backpack'}
  known |= {
    44: 'bottle',
    46: 'wine glass',
    67: 'dining table',
    90: 'toothbrush',
  }
  known |= {92: 'banner', 149: 'road', 169: 'tree', 182: 'wood'}
  for category_id, name in known.items():
    assert named[category_id - 1] == name
  assert sorted(CLASS_OF_STUFF_VALUE.values()) == [*range(171), 255]
  holes = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
  assert {value + 1 for value in range(182)} - {v + 1 for v in named} == holes


def test_stuff(tmp_path):
  _write_stuff(tmp_path, 'train2017', [0, 12, 91, 181])
  _write_stuff(tmp_path, 'val2017', [0])
  result = converter_files.run(
    'build_coco_data.py',
    f'--coco_root={tmp_path}',
    f'--output_dir={tmp_path}/out',
  )
  assert result.returncode == 0, result.stderr
  assert "coco_stuff: {'train': 1, 'val': 1}" in result.stdout
  (record,) = converter_files.read_records(tmp_path / 'out', 'train')
  labels = converter_files.labels(record)
  assert labels.flat[:5].tolist() == [0, 11, 80, 170, 255]
  assert converter_files.names([record]) == ['000000000009']
  found = converter_files.check_readable(tmp_path / 'out', None, 'train')
  assert found == {0, 11, 80, 170, 255}


def test_stuff_with_unknown_values(tmp_path):
  _write_stuff(tmp_path, 'val2017', [0, 11, 182])
  with pytest.raises(InputError, match=r'009\.png holds .*: 11 \(.*, 182'):
    _convert(tmp_path, 'stuff')
  (tmp_path / 'stuffthingmaps/val2017/000000000009.png').unlink()
  with pytest.raises(InputError, match=r'there is no .*000000000009\.png'):
    _convert(tmp_path, 'stuff')
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('crowd', [0, 1])
def test_panoptic(tmp_path, crowd):
  _write_panoptic(tmp_path, 'val2017', [_image(crowd=crowd), _image('b')])
  info = _convert(tmp_path, 'panoptic')
  assert (info.name, info.splits) == ('coco_panoptic', {'val': 2})
  assert info.class_names == ['person', 'sky', 'bird']
  assert info.colors == _COLORS
  records = converter_files.read_records(tmp_path / 'out', 'val')
  assert converter_files.names(records) == ['000000000009', 'b']
  labels = converter_files.labels(records[0])
  assert labels.flat[:6].tolist() == [255, 0, 0, 1, 2, 255]
  found = converter_files.check_readable(tmp_path / 'out', None, 'val')
  assert found == {0, 1, 2, 255}


def test_panoptic_script(tmp_path):
  _write_panoptic(tmp_path, 'train2017', [_image()])
  arguments = f'--coco_root={tmp_path}', f'--output_dir={tmp_path}/out'
  result = converter_files.run(
    'build_coco_data.py', *arguments, '--labels=panoptic'
  )
  assert "coco_panoptic: {'train': 1}" in result.stdout, result.stderr
  result = converter_files.run('build_coco_data.py', *arguments)
  assert result.returncode == 1
  assert 'no annotations for --labels=stuff' in result.stderr


def test_panoptic_without_colours(tmp_path):
  _write_panoptic(tmp_path, 'val2017', [_image()], coco_files.CATEGORIES)
  path = tmp_path / 'annotations/panoptic_val2017.json'
  path.write_text(path.read_text().replace('200', '3'))
  info = _convert(tmp_path, 'panoptic')
  assert info.colors[:2] == [[0, 0, 0], [128, 0, 0]]


def _change_json(root, change):
  path = root / 'annotations/panoptic_val2017.json'
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


def _bad_colour(content):
  content['categories'][0]['color'] = 7


def _unknown_category(content):
  content['annotations'][0]['segments_info'][0]['category_id'] = 5


def _other_segments(content):
  content['annotations'][0]['segments_info'].pop()


def _too_many(content):
  content['categories'] = [
    {'id': index, 'name': str(index), 'isthing': 1} for index in range(256)
  ]


@pytest.mark.parametrize(
  'change, message',
  [
    (_bad_colour, r"val2017\.json: categories\[0\]: the colour of 'bird'"),
    (_unknown_category, r'category 5 is not among'),
    (_other_segments, r'segment ids 8 are in the PNG but not'),
    (_too_many, r'has 256 classes .*Expected 1 to 255'),
    (lambda content: content['annotations'].clear(), "'annotations' is empty"),
    (lambda content: content.pop('categories'), "lacks the key 'categories'"),
  ],
)
def test_bad_json(tmp_path, change, message):
  _write_panoptic(tmp_path, 'val2017', [_image()])
  _change_json(tmp_path, change)
  with pytest.raises(InputError, match=message):
    _convert(tmp_path, 'panoptic')
  assert not (tmp_path / 'out').exists()


def test_panoptic_files_that_are_missing(tmp_path):
  _write_panoptic(tmp_path, 'val2017', [_image()])
  image = tmp_path / 'val2017/000000000009.jpg'
  image.rename(tmp_path / 'image.jpg')
  with pytest.raises(InputError, match=r'no .*val2017/000000000009\.jpg'):
    _convert(tmp_path, 'panoptic')
  (tmp_path / 'image.jpg').rename(image)
  (tmp_path / 'annotations/panoptic_val2017/000000000009.png').unlink()
  with pytest.raises(InputError, match=r'no .*val2017/000000000009\.png'):
    _convert(tmp_path, 'panoptic')


def test_different_categories(tmp_path):
  _write_panoptic(tmp_path, 'val2017', [_image()])
  categories = [*_CATEGORIES, {'id': 300, 'name': 'other', 'isthing': 0}]
  _write_panoptic(tmp_path, 'train2017', [_image()], categories)
  with pytest.raises(InputError, match="have different 'categories'"):
    _convert(tmp_path, 'panoptic')

"""From folders to a data set: the script, the options and what they refuse."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab.common import InputError
from deeplab.datasets import (
  build_image_folder_data,
  class_tables,
  dataset_info,
  folder_examples,
  records,
)
from deeplab.datasets.build_image_folder_data import Options

_TABLE = 'road,128,64,128\ncar,64,0,128\nvoid,0,0,0\n'
_COLORS = np.array([[128, 64, 128], [64, 0, 128], [0, 0, 0]], np.uint8)
_LABEL = np.array([[0, 0, 1, 2], [0, 1, 1, 2], [0, 1, 1, 1]], np.uint8)


def _save(path, pixels, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path, **options)


def _photo(seed=0):
  return np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)


@pytest.fixture
def data(tmp_path):
  """Ten photographs, two of them in a subfolder, with masks of colours."""
  for i in range(10):
    name = f'{"street/" if i > 7 else ""}p{i}'
    _save(tmp_path / f'photos/{name}.JPG', _photo(i), format='JPEG')
    _save(tmp_path / f'masks/{name}.png', _COLORS[np.roll(_LABEL, i, 1)])
  (tmp_path / 'classes.csv').write_text(_TABLE)
  return tmp_path


def _convert(root, labels='masks', images='photos', num_shards=None, **options):
  return build_image_folder_data.convert(
    str(root / images), str(root / labels), str(root / 'out'), None,
    Options(**options), num_shards,
  )[:2]  # fmt: skip


def _with_table(root, **options):
  return _convert(root, class_table=str(root / 'classes.csv'), **options)


def _records(root, split):
  """{name: (format, image, labels or None)} of a split."""
  found = {}
  for path in sorted((root / 'out').glob(f'{split}-*.tfrecord')):
    for serialized in tf.data.TFRecordDataset(str(path)):
      feature = tf.train.Example.FromString(serialized.numpy()).features.feature
      get = lambda key, f=feature: f[key].bytes_list.value[0]
      label = None
      if records.LABEL_KEY in feature:
        data = io.BytesIO(get(records.LABEL_KEY))
        label = np.asarray(Image.open(data))
      name = get(records.NAME_KEY).decode()
      kind = get('image/format').decode()
      found[name] = kind, get(records.IMAGE_KEY), label
  return found


def _script(root, *arguments):
  script = os.path.join('datasets', 'build_image_folder_data.py')
  repository = os.path.dirname(build_image_folder_data.__file__)
  return subprocess.run(
    [sys.executable, os.path.join(repository, '..', script), *arguments],
    cwd=root,
    capture_output=True,
    text=True,
  )


def test_script(data):
  arguments = [
    '--image_folder=photos',
    '--label_folder=masks',
    '--class_table=classes.csv',
    '--ignore_classes=void',
    '--output_dir=mydata',
  ]
  result = _script(data, *arguments)
  assert result.returncode == 0, result.stderr
  lines = result.stdout.splitlines()
  assert lines[0] == 'mydata: 2 classes'
  rows = [line.split() for line in lines]
  assert ['0', 'road', '128', '64', '128', '33.33%', '33.33%'] in rows
  assert ['255', '(ignored)', '16.67%', '16.67%'] in rows
  assert '  python train.py --dataset=mydata --train_logdir=train' in lines
  info = dataset_info.load(str(data / 'mydata'))
  assert (info.name, info.class_names) == ('mydata', ['road', 'car'])
  assert sum(info.splits.values()) == 10 and set(info.splits) == {
    'train',
    'val',
  }

  (data / 'masks/p3.png').unlink()
  before = sorted((data / 'mydata').iterdir())
  result = _script(data, *arguments)
  assert result.returncode == 1
  assert 'error: images without a label are 1: p3.' in result.stderr
  assert 'Traceback' not in result.stderr
  assert sorted((data / 'mydata').iterdir()) == before


def test_records(data):
  info, pixels = _with_table(data, ignore_classes=['void'])
  found = _records(data, 'train') | _records(data, 'val')
  assert set(found) == {*(f'p{i}' for i in range(8)), 'street/p8', 'street/p9'}
  kind, image, label = found['street/p9']
  assert kind == 'jpeg'
  assert image == (data / 'photos/street/p9.JPG').read_bytes()
  expected = np.where(_LABEL == 2, 255, _LABEL)
  np.testing.assert_array_equal(label, np.roll(expected, 9, 1))
  assert info.colors == _COLORS[:2].tolist()
  for split, counts in pixels.items():
    labels = [label for _, _, label in _records(data, split).values()]
    np.testing.assert_array_equal(
      counts, np.bincount(np.ravel(labels), minlength=256)
    )


def test_later_images_do_not_move_others(data):
  _with_table(data, val_fraction=0.4, seed=3)
  before = set(_records(data, 'val'))
  for i in range(10, 15):
    _save(data / f'photos/p{i}.JPG', _photo(i), format='JPEG')
    _save(data / f'masks/p{i}.png', _COLORS[_LABEL])
  _with_table(data, val_fraction=0.4, seed=3)
  after = set(_records(data, 'val'))
  assert before == after - {f'p{i}' for i in range(10, 15)}


def test_masks_of_indices_need_no_table(data):
  for i in range(10):
    name = f'{"street/" if i > 7 else ""}p{i}'
    _save(data / f'masks/{name}.png', _LABEL)
  info, _ = _convert(data)
  assert info.class_names == ['class_0', 'class_1', 'class_2']
  assert info.colors == class_tables.pascal_colormap(3)


def test_lists(data):
  (data / 'lists').mkdir()
  (data / 'lists/train.txt').write_text('p1.jpg\nstreet/p8\n')
  (data / 'lists/test.txt').write_text('p3\n')
  (data / 'masks/p3.png').unlink()
  (data / 'masks/p4.png').unlink()
  info, _ = _with_table(data, list_folder=str(data / 'lists'))
  assert info.splits == {'test': 1, 'train': 2}
  assert list(_records(data, 'train')) == ['p1', 'street/p8']
  assert _records(data, 'test')['p3'][2] is None


def test_one_split_after_the_other(data):
  _with_table(data, split='train')
  info, _ = _with_table(data, split='val')
  assert info.splits == {'train': 10, 'val': 10}


def test_a_random_split_does_not_mix_with_an_earlier_one(data):
  _with_table(data, test_fraction=0.3)
  with pytest.raises(InputError, match=r"the splits \['test'\] of an earlier"):
    _with_table(data)
  info, _ = _with_table(data, test_fraction=0.2)
  assert set(info.splits) == {'train', 'val', 'test'}


def test_number_of_shards(data):
  _with_table(data, num_shards=7)
  assert len(list((data / 'out').glob('train-*-of-00007.tfrecord'))) == 7


def test_masks_beside_their_images(data):
  for path in (data / 'masks').rglob('*.png'):
    name = path.relative_to(data / 'masks').with_suffix('')
    path.rename(data / 'photos' / f'{name}_L.png')
  with pytest.raises(InputError, match=r'in one folder.*--label_suffix=_mask'):
    _with_table(data, labels='photos')
  info, _ = _with_table(data, labels='photos', label_suffix='_L')
  assert sum(info.splits.values()) == 10


def test_masks_in_a_folder_within_that_of_the_images(data):
  (data / 'masks').rename(data / 'photos/masks')
  info, _ = _with_table(data, labels='photos/masks')
  assert sum(info.splits.values()) == 10


def test_unlabelled_images(data):
  (data / 'masks/p3.png').unlink()
  with pytest.raises(InputError, match=r'label are 1: p3\..*--skip_unlabelled'):
    _with_table(data)
  info, _ = _with_table(data, skip_unlabelled=True)
  assert sum(info.splits.values()) == 9


@pytest.mark.parametrize('by_list', [True, False])
def test_images_left_out_are_told(data, by_list):
  options = {'skip_unlabelled': True, 'split': 'train'}
  if by_list:
    (data / 'lists').mkdir()
    names = [f'p{i}' for i in range(8) if i != 3] + ['street/p8']
    (data / 'lists/train.txt').write_text('\n'.join(names))
    options = {'list_folder': str(data / 'lists')}
  else:
    for name in ('p3', 'street/p9'):
      (data / f'masks/{name}.png').unlink()
  result = build_image_folder_data.convert(
    str(data / 'photos'),
    str(data / 'masks'),
    str(data / 'out'),
    None,
    Options(class_table=str(data / 'classes.csv'), **options),
  )
  lines = build_image_folder_data.summary(*result).splitlines()
  assert lines[2] == ' in no split 2: p3, street/p9'


def test_nothing_is_read_before_it_is_asked_for(data):
  """The examples are what a check looks at; faults of pairs are collected."""
  (data / 'masks/p3.png').unlink()
  (data / 'masks/p4.png').write_text('no mask')
  faults = []
  found = folder_examples.find(
    str(data / 'photos'),
    str(data / 'masks'),
    'mine',
    Options(class_table=str(data / 'classes.csv'), ignore_classes=['void']),
    faults.append,
  )
  assert len(faults) == 1 and found.left_out == ['p3']
  assert found.info.class_names == ['road', 'car']
  examples = {e.name: e for members in found.splits.values() for e in members}
  assert len(examples) == 9
  label = examples['p5'].decode_label(examples['p5'].label_path)
  expected = np.roll(np.where(_LABEL == 2, 255, _LABEL), 5, 1)
  np.testing.assert_array_equal(label, expected)
  with pytest.raises(InputError, match=r'p4\.png is not an image'):
    examples['p4'].decode_label(examples['p4'].label_path)


def test_exif_rotation(data):
  exif = Image.Exif()
  exif[0x0112] = 6
  _save(data / 'photos/p0.JPG', _photo(), format='JPEG', exif=exif)
  with pytest.raises(InputError, match=r'p0\.JPG has the EXIF.*--apply_exif'):
    _with_table(data)
  with pytest.raises(InputError, match='has 4 x 3 pixels'):
    _with_table(data, apply_exif_rotation=True)
  _save(data / 'masks/p0.png', np.rot90(_COLORS[_LABEL], -1).copy())
  _with_table(data, apply_exif_rotation=True)
  found = _records(data, 'train') | _records(data, 'val')
  assert found['p0'][0] == 'png' and found['p1'][0] == 'jpeg'


def _labelme(root, label='car'):
  """LabelMe's files beside the images."""
  for path in (root / 'photos').rglob('*.JPG'):
    shape = {'label': label, 'points': [[1, 1], [3, 3]]}
    shape['shape_type'] = 'rectangle'
    content = {'shapes': [shape], 'imageHeight': 3, 'imageWidth': 4}
    path.with_suffix('.json').write_text(json.dumps(content))
  return 'photos'


def _instances(root):
  """A JSON file of COCO."""
  images, annotations = [], []
  paths = sorted((root / 'photos').rglob('*.JPG'))
  for i, path in enumerate(paths):
    name = path.relative_to(root / 'photos').as_posix()
    images.append({'id': i, 'file_name': name, 'height': 3, 'width': 4})
    polygon = [1, 1, 3, 1, 3, 3, 1, 3]
    annotations.append(
      {'image_id': i, 'category_id': 7, 'segmentation': [polygon]}
    )
  content = {
    'images': images,
    'annotations': annotations,
    'categories': [{'id': 7, 'name': 'car'}],
  }
  (root / 'instances.json').write_text(json.dumps(content))
  return 'instances.json'


@pytest.mark.parametrize('write', [_labelme, _instances])
def test_shapes_are_found_by_themselves(data, write):
  info, _ = _convert(data, write(data))
  assert info.class_names == ['background', 'car']
  expected = np.zeros((3, 4), np.uint8)
  expected[1:3, 1:3] = 1
  for _, _, label in _records(data, 'train').values():
    np.testing.assert_array_equal(label, expected)


def test_a_background_that_is_drawn(data):
  """It is class 0 as one that is added would be, however it is written."""
  _labelme(data, 'aeroplane')
  for i in range(3):
    path = data / f'photos/p{i}.json'
    path.write_text(path.read_text().replace('aeroplane', 'Background'))
  info, _ = _convert(data, 'photos')
  assert info.class_names == ['Background', 'aeroplane']


def _panoptic(root):
  """A folder of segments and its JSON file, in one folder."""
  annotations = []
  for path in sorted((root / 'masks').rglob('*.png')):
    name = path.relative_to(root / 'masks').as_posix()
    _save(root / 'labels/panoptic' / name, np.full((3, 4, 3), 1, np.uint8))
    segments = [{'id': 1 + 256 + 256**2, 'category_id': 3}]
    annotations.append(
      {'image_id': name, 'file_name': name, 'segments_info': segments}
    )
  categories = [{'id': 3, 'name': 'sea'}, {'id': 1, 'name': 'sky'}]
  content = {'annotations': annotations, 'categories': categories}
  (root / 'labels/panoptic.json').write_text(json.dumps(content))
  return 'labels'


def test_segments_are_found_by_themselves(data):
  info, pixels = _convert(data, _panoptic(data))
  assert info.class_names == ['sky', 'sea']
  assert pixels['train'][1] == 12 * info.splits['train']


def test_a_folder_of_two_kinds(data):
  _labelme(data)
  (data / 'photos/p0.json').rename(data / 'masks/p0.json')
  with pytest.raises(InputError, match=r'holds labelme and mask\. Give --la'):
    _with_table(data)
  info, _ = _with_table(data, label_format='mask')
  assert sum(info.splits.values()) == 10


@pytest.mark.parametrize(
  'options, message',
  [
    ({'split': 'a', 'seed': 1}, 'in one way. Received: --split as well as'),
    ({'list_folder': 'x', 'val_fraction': 0.0}, 'in one way'),
    ({'val_fraction': 1.5}, 'val_fraction must be a finite number'),
    ({'line_width': 0.0}, 'line_width must be'),
    ({'split': 'a/b'}, '--split must be a name'),
    ({'unknown': 'ignore'}, '--unknown=ignore is about'),
    ({'skip_unlabelled': True, 'list_folder': 'x'}, 'does not go with'),
  ],
)
def test_bad_options(options, message):
  with pytest.raises(InputError, match=message):
    Options(**options)


@pytest.mark.parametrize(
  'options, message',
  [
    ({'line_width': 3.0}, '--line_width is for labels of the format labelme'),
    ({'num_shards': 0}, 'num_shards must be an integer'),
    ({'images': 'none'}, 'no folder .*none'),
    ({'labels': 'none'}, 'no --label_folder=.*none'),
    ({'labels': 'empty'}, 'holds neither masks nor JSON'),
    ({'images': 'empty'}, 'no images in .*empty'),
    ({'image_suffix': '_x'}, 'no images .*--image_suffix'),
    ({'label_suffix': '_x'}, 'neither masks whose .*--label_suffix=_x nor'),
    ({'labels': 'classes.csv'}, r'classes\.csv is not JSON'),
    ({'label_format': 'coco_instances'}, 'holds 0 JSON files'),
    ({'ignore_classes': ['sky']}, r"names \['sky'\]"),
  ],
)
def test_bad_folders(data, options, message):
  (data / 'empty').mkdir()
  with pytest.raises(InputError, match=message):
    _with_table(data, **options)
  assert not (data / 'out').exists()


@pytest.mark.slow
def test_real_photographs_train_and_evaluate(real_data, repository, tmp_path):
  """40 photographs of CamVid with masks of colours, as a user has them."""
  root = real_data('camvid')
  colors = np.zeros((12, 3), np.uint8)
  colors[:11] = class_tables.CAMVID_COLORS
  for name in (root / 'train.txt').read_text().split()[::9][:40]:
    (photo,) = (root / 'train').glob(f'{name}.*')
    (tmp_path / 'photos').mkdir(exist_ok=True)
    (tmp_path / 'photos' / photo.name).write_bytes(photo.read_bytes())
    label = np.asarray(Image.open(root / 'trainannot' / f'{name}.png'))
    _save(tmp_path / f'masks/{name}_L.png', colors[label])
  names = [*class_tables.CAMVID_NAMES, 'void']
  rows = zip(colors.tolist(), names, strict=True)
  lines = [' '.join(map(str, [*color, name])) for color, name in rows]
  (tmp_path / 'label_colors.txt').write_text('\n'.join(lines))
  for command in (
    'datasets/build_image_folder_data.py --image_folder=photos '
    '--label_folder=masks --label_suffix=_L --class_table=label_colors.txt '
    '--ignore_classes=void --output_dir=mydata',
    'train.py --dataset=mydata --train_logdir=train --depth_multiplier=0.1 '
    '--training_number_of_steps=3 --train_crop_size=65,65 '
    '--train_batch_size=2',
    'eval.py --dataset=mydata --checkpoint_dir=train --eval_logdir=eval '
    '--max_number_of_evaluations=1',
  ):
    script, *arguments = command.split()
    result = subprocess.run(
      [sys.executable, str(repository / script), *arguments],
      cwd=tmp_path,
      capture_output=True,
      text=True,
    )
    assert result.returncode == 0, result.stderr
  assert 'bicyclist' in result.stdout and 'mIoU' in result.stdout

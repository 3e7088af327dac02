"""Cityscapes: ids, splits and records like the original's."""

import itertools
import shutil

import converter_files
import numpy as np
import pytest
from converter_files import write_image, write_mask

from deeplab.common import InputError
from deeplab.datasets import build_cityscapes_data, data_generator, image_files
from deeplab.datasets.class_tables import TRAIN_ID_OF_ID

# The classes by their ids, as the data set documents them.
_ID_OF_CLASS = {
  'road': 7,
  'sidewalk': 8,
  'building': 11,
  'wall': 12,
  'fence': 13,
  'pole': 17,
  'traffic light': 19,
  'traffic sign': 20,
  'vegetation': 21,
  'terrain': 22,
  'sky': 23,
  'person': 24,
  'rider': 25,
  'car': 26,
  'truck': 27,
  'bus': 28,
  'train': 31,
  'motorcycle': 32,
  'bicycle': 33,
}
# The label id of each train id.
_LABEL_ID = np.zeros(256, np.uint8)
_LABEL_ID[:19] = list(_ID_OF_CLASS.values())

# From unlabelled to trailer, and the licence plate.
_IGNORED_IDS = [*range(7), 9, 10, 14, 15, 16, 18, 29, 30, 255]


def _files(root, folder, name, labels, kind='gtFine', ending='labelTrainIds'):
  """Writes an image and its mask; no mask for None."""
  city = name.split('_')[0]
  write_image(root / f'leftImg8bit/{folder}/{city}/{name}_leftImg8bit.png')
  if labels is not None:
    path = root / f'{kind}/{folder}/{city}/{name}_{kind}_{ending}.png'
    write_mask(path, labels)


def _convert(root, splits=None):
  info = build_cityscapes_data.convert(str(root), str(root / 'out'), splits)
  return info.splits


def _mask(*values):
  """A mask whose first row begins with the values; ignored elsewhere."""
  mask = np.full([6, 8], 255, np.uint8)
  mask.flat[: len(values)] = values
  return mask


def test_ids():
  names = build_cityscapes_data.INFO.class_names
  assert {
    id_: names[label] for id_, label in TRAIN_ID_OF_ID.items() if label < 255
  } == {id_: name for name, id_ in _ID_OF_CLASS.items()}
  ignored = [id_ for id_, label in TRAIN_ID_OF_ID.items() if label == 255]
  assert sorted(ignored) == _IGNORED_IDS


def _unpack_golden(testdata, root, with_ids):
  """Writes the files that the golden records were made of.

  Args:
    with_ids: for each image in turn, whether its mask holds label ids.
  """
  golden = testdata / 'cityscapes_tfrecord'
  for folder in ('train', 'val', 'test'):
    for record in converter_files.read_records(golden, f'{folder}_fine'):
      name = record['filename'].decode()
      city = f'{folder}/{name.split("_")[0]}'
      labels = converter_files.labels(record)
      if next(with_ids):
        _files(root, folder, name, _LABEL_ID[labels], ending='labelIds')
      else:
        _files(root, folder, name, labels)
        mask = root / f'gtFine/{city}/{name}_gtFine_labelTrainIds.png'
        mask.write_bytes(record['segmentation/class/encoded'])
      image = root / f'leftImg8bit/{city}/{name}_leftImg8bit.png'
      image.write_bytes(record['encoded'])


@pytest.mark.parametrize('with_ids', [[False], [True], [True, False]])
def test_same_records_as_the_original(testdata, tmp_path, with_ids):
  """From train ids, from label ids, and from some of both."""
  _unpack_golden(testdata, tmp_path, itertools.cycle(with_ids))
  counts = {'test_fine': 1, 'train_fine': 3, 'val_fine': 2}
  assert _convert(tmp_path, list(counts)) == counts
  folders = tmp_path / 'out', testdata / 'cityscapes_tfrecord'
  for split in counts:
    pair = [converter_files.read_records(folder, split) for folder in folders]
    for ours, theirs in zip(*pair, strict=True):
      np.testing.assert_array_equal(
        converter_files.labels(ours), converter_files.labels(theirs)
      )
      if any(with_ids):
        # The same labels, but not the same PNG file.
        for record in (ours, theirs):
          del record['segmentation/class/encoded']
      assert ours == theirs
  # The same examples in each shard: one in each of the first ones.
  for path in folders[1].glob('*.tfrecord'):
    assert (folders[0] / path.name).stat().st_size > 0
  assert len(list(folders[0].glob('*.tfrecord'))) == 30


def test_train_ids_come_first(tmp_path):
  _files(tmp_path, 'val', 'a_000000_000019', _mask(3))
  _files(tmp_path, 'val', 'a_000000_000019', _mask(7), ending='labelIds')
  _convert(tmp_path)
  (record,) = converter_files.read_records(tmp_path / 'out', 'val_fine')
  np.testing.assert_array_equal(converter_files.labels(record), _mask(3))


def test_all_splits_that_are_there(tmp_path):
  for folder in ('train', 'val', 'train_extra', 'test'):
    for kind in ('gtFine', 'gtCoarse'):
      name = f'{folder.replace("_", "")}_000000_000019'
      _files(tmp_path, folder, name, _mask(7), kind, 'labelIds')
  shutil.rmtree(tmp_path / 'gtFine/train_extra')
  assert _convert(tmp_path) == {
    'train_fine': 1,
    'val_fine': 1,
    'trainval_fine': 2,
    'test_fine': 1,
    'train_coarse': 2,
    'trainval_coarse': 3,
  }
  records = converter_files.read_records(tmp_path / 'out', 'trainval_coarse')
  assert converter_files.names(records) == [
    f'{city}_000000_000019' for city in ('train', 'trainextra', 'val')
  ]
  shutil.rmtree(tmp_path / 'gtCoarse')
  shutil.rmtree(tmp_path / 'out')
  shutil.rmtree(tmp_path / 'leftImg8bit/train')
  assert _convert(tmp_path) == {'val_fine': 1, 'test_fine': 1}


@pytest.mark.parametrize('ending', ['labelTrainIds', 'labelIds', None])
def test_split_test_without_labels(tmp_path, ending):
  """The published masks of the test split hold ignored ids alone."""
  for name in ('a_000000_000019', 'b_000000_000019'):
    mask = None
    if ending:
      mask = _mask() if ending == 'labelTrainIds' else _mask() * 0 + 3
    _files(tmp_path, 'test', name, mask, ending=ending)
  assert _convert(tmp_path) == {'test_fine': 2}
  records = converter_files.read_records(tmp_path / 'out', 'test_fine')
  assert not any('segmentation/class/encoded' in record for record in records)
  dataset = data_generator.Dataset(
    'cityscapes', 'test_fine', str(tmp_path / 'out'), 1, (65, 65)
  )
  assert not dataset.has_labels


def test_bad_masks(tmp_path):
  name = 'a_000000_000019'
  _files(tmp_path, 'val', name, _mask(34, 7), ending='labelIds')
  with pytest.raises(
    InputError, match=r'a_000000_000019_gtFine_labelIds.*no class: 34 '
  ):
    _convert(tmp_path)
  _files(tmp_path, 'val', name, _mask(19), ending='labelTrainIds')
  with pytest.raises(InputError, match=r'labelTrainIds\.png holds.*class: 19 '):
    _convert(tmp_path)
  _files(tmp_path, 'val', name, np.zeros([6, 9]), ending='labelTrainIds')
  with pytest.raises(InputError, match='must have one size'):
    _convert(tmp_path)
  assert not (tmp_path / 'out').exists()


def test_missing_files(tmp_path):
  with pytest.raises(InputError, match=r'has no split.*leftImg8bit/train'):
    _convert(tmp_path)
  _files(tmp_path, 'val', 'a_000000_000019', None)
  (tmp_path / 'gtFine/val').mkdir(parents=True)
  with pytest.raises(
    InputError, match=r'neither .*TrainIds\.png nor .*Ids\.png'
  ):
    _convert(tmp_path)
  with pytest.raises(InputError, match=r'no folder .*leftImg8bit/train\.'):
    _convert(tmp_path, ['train_fine'])
  (tmp_path / 'leftImg8bit/train').mkdir()
  with pytest.raises(InputError, match='has no images <city>'):
    _convert(tmp_path, ['train_fine'])
  with pytest.raises(InputError, match=r"\['val'\] are no splits.*val_fine"):
    _convert(tmp_path, ['val'])


def test_script(tmp_path):
  _files(tmp_path, 'val', 'a_000000_000019', _mask(7, 33, 0), ending='labelIds')
  out = tmp_path / 'out'
  arguments = f'--cityscapes_root={tmp_path}', f'--output_dir={out}'
  result = converter_files.run(
    'build_cityscapes_data.py', *arguments, '--splits=val_fine'
  )
  assert result.returncode == 0, result.stderr
  assert "cityscapes: {'val_fine': 1}" in result.stdout
  found = converter_files.check_readable(out, 'cityscapes', 'val_fine')
  assert found == {0, 18, 255}
  result = converter_files.run(
    'build_cityscapes_data.py', *arguments, '--splits=train_fine'
  )
  assert result.returncode == 1
  assert result.stderr.splitlines()[-1].startswith('error: there is no folder')


def test_real_cityscapes(real_data, tmp_path):
  """Label ids made of real train ids give the same labels again."""
  root = real_data('cityscapes')
  build_cityscapes_data.convert(str(root), str(tmp_path / 'out'))
  records = converter_files.read_records(tmp_path / 'out', 'val_fine')
  assert len(records) == 6
  for record in records[:2]:
    name, labels = record['filename'].decode(), converter_files.labels(record)
    assert labels.shape == (1024, 2048)
    path = tmp_path / f'{name}.png'
    write_mask(path, _LABEL_ID[labels])
    decoded = image_files.decode_ids(str(path), TRAIN_ID_OF_ID)
    np.testing.assert_array_equal(decoded, labels)

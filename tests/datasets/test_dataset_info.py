"""What dataset_info.json says, and where a description is taken from."""

import json

import numpy as np
import pytest

from deeplab.common import InputError
from deeplab.datasets import class_tables, dataset_info


def _info(**changes):
  return dataset_info.DatasetInfo(
    **{
      'name': 'fruit',
      'num_classes': 2,
      'class_names': ['table', 'apple'],
      'colors': [[0, 0, 0], [255, 0, 0]],
      'splits': {'train': 3},
      **changes,
    }
  )


def _write(folder, **values):
  (folder / 'dataset_info.json').write_text(json.dumps(values))


@pytest.mark.parametrize(
  'name, num_classes, ignore_label, splits',
  [
    (
      'pascal_voc_seg',
      21,
      255,
      {'train': 1464, 'train_aug': 10582, 'trainval': 2913, 'val': 1449},
    ),
    (
      'cityscapes',
      19,
      255,
      {
        'train_fine': 2975,
        'train_coarse': 22973,
        'trainval_fine': 3475,
        'trainval_coarse': 23473,
        'val_fine': 500,
        'test_fine': 1525,
      },
    ),
    ('ade20k', 151, 0, {'train': 20210, 'val': 2000}),
  ],
)
def test_official_data_sets(name, num_classes, ignore_label, splits):
  info = dataset_info.resolve(name)
  assert info.num_classes == num_classes
  assert info.ignore_label == ignore_label
  assert info.splits == splits
  assert len(set(info.class_names)) == num_classes


def test_official_colors(testdata):
  golden = np.load(testdata / 'colormaps.npz')
  golden = {key.removeprefix('colormap__'): golden[key] for key in golden}
  np.testing.assert_array_equal(
    class_tables.pascal_colormap(256), golden['pascal'][:256]
  )
  for name in ('cityscapes', 'ade20k'):
    colors = dataset_info.BUILTIN[name].colors
    np.testing.assert_array_equal(colors, golden[name][: len(colors)])


def test_names_of_two_words_and_first_and_last():
  assert class_tables.CITYSCAPES_NAMES[6] == 'traffic light'
  assert class_tables.PASCAL_VOC_NAMES[20] == 'tvmonitor'
  assert class_tables.ADE20K_NAMES[1] == 'wall'
  assert class_tables.ADE20K_NAMES[150] == 'flag'


def test_save_and_load(tmp_path):
  info = _info()
  path = info.save(str(tmp_path / 'new'))
  assert dataset_info.load(path) == info
  assert dataset_info.load(str(tmp_path / 'new')) == info
  keys = set(json.loads((tmp_path / 'new/dataset_info.json').read_text()))
  assert keys == {
    'name',
    'num_classes',
    'ignore_label',
    'class_names',
    'colors',
    'splits',
  }
  assert [p.name for p in (tmp_path / 'new').iterdir()] == ['dataset_info.json']


def test_short_file_is_filled_in(tmp_path):
  _write(tmp_path, name='mine', num_classes=3, ignore_label=7)
  info = dataset_info.load(str(tmp_path))
  assert info.class_names == ['class_0', 'class_1', 'class_2']
  assert info.colors == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
  assert info.ignore_label == 7


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'num_classes': 3}, 'class_names must be 3 texts'),
    ({'num_classes': 0}, 'num_classes'),
    ({'num_classes': '2'}, 'num_classes'),
    ({'ignore_label': 256}, 'ignore_label=256'),
    ({'colors': [[0, 0, 0], [256, 0, 0]]}, 'colors'),
    ({'colors': [[0, 0, 0]]}, 'colors'),
    ({'splits': {'train': -1}}, 'splits'),
    ({'name': ''}, 'name'),
  ],
)
def test_bad_values(changes, message):
  with pytest.raises(InputError, match=message):
    _info(**changes)


def test_bad_files(tmp_path):
  with pytest.raises(InputError, match='cannot read'):
    dataset_info.load(str(tmp_path))
  _write(tmp_path, name='mine')
  with pytest.raises(InputError, match='num_classes'):
    dataset_info.load(str(tmp_path))
  _write(tmp_path, name='mine', num_classes=2, ignored=3)
  with pytest.raises(InputError, match='ignored'):
    dataset_info.load(str(tmp_path))
  _write(tmp_path, name='mine', num_classes=2, splits=5)
  with pytest.raises(InputError, match=r'dataset_info\.json: .* another kind'):
    dataset_info.load(str(tmp_path))
  (tmp_path / 'dataset_info.json').write_text('[' * 100_000)
  with pytest.raises(InputError, match=r'is not JSON: .*recursion'):
    dataset_info.load(str(tmp_path))
  (tmp_path / 'dataset_info.json').write_text('{')
  with pytest.raises(InputError, match='is not JSON'):
    dataset_info.load(str(tmp_path))


def test_resolve_prefers_the_file(tmp_path):
  folder = str(tmp_path)
  assert dataset_info.resolve(None, folder).name == 'pascal_voc_seg'
  assert dataset_info.resolve('cityscapes', folder).num_classes == 19
  info = _info()
  info.save(folder)
  assert dataset_info.resolve(None, folder) == info
  assert dataset_info.resolve('fruit', folder) == info


def test_resolve_names_both_when_they_differ(tmp_path):
  _info().save(str(tmp_path))
  with pytest.raises(InputError, match=r"cityscapes.*'fruit'"):
    dataset_info.resolve('cityscapes', str(tmp_path))


def test_resolve_unknown(tmp_path):
  with pytest.raises(InputError, match=r'fruit.*ade20k.*dataset_info\.json'):
    dataset_info.resolve('fruit', str(tmp_path))

"""Masks of indices, palettes and colours, with and without a table."""

import numpy as np
import pytest
from PIL import Image

from deeplab.common import InputError
from deeplab.datasets import class_tables
from deeplab.datasets.labels import mask_labels
from deeplab.datasets.labels.class_table_files import ClassTable, Row
from deeplab.datasets.labels.label_source import Classes

_LABEL = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)
_COLORS = np.zeros((256, 3), np.uint8)
_COLORS[:3] = [[0, 0, 0], [9, 9, 9], [1, 2, 3]]
_COLORS[255] = [7, 7, 7]
_TABLE = ClassTable(
  [
    Row('sky', (0, 0, 0)),
    Row('road', (9, 9, 9)),
    Row('car', (1, 2, 3)),
    Row('void', (7, 7, 7)),
  ],
  frozenset(['void']),
)
_NAMES = ClassTable([Row('sky'), Row('road'), Row('car')])


def _save(folder, pixels, palette=None, name='a', **options):
  image = Image.fromarray(np.asarray(pixels))
  if palette is not None:
    image.putpalette(np.asarray(palette, np.uint8).ravel().tolist())
  image.save(folder / f'{name}.png', **options)


def _decode(folder, table=_TABLE, ignores_unknown=False, **options):
  labels = mask_labels.MaskLabels(str(folder), **options)
  classes = Classes(table, table.info('mine'), ignores_unknown)
  return labels.decode('a', (2, 3), classes)


def _find(folder, **options):
  labels = mask_labels.MaskLabels(str(folder), **options)
  return labels, labels.find_classes(list(labels.paths))


@pytest.mark.parametrize('table', [_TABLE, _NAMES])
@pytest.mark.parametrize('kind', ['grey', 'palette', 'rgb of indices'])
def test_indices(tmp_path, table, kind):
  if kind == 'rgb of indices':
    _save(tmp_path, np.stack([_LABEL] * 3, -1))
    found = _decode(tmp_path, table, values='index')
  else:
    _save(tmp_path, _LABEL, _COLORS if kind == 'palette' else None)
    found = _decode(tmp_path, table)
  np.testing.assert_array_equal(found, _LABEL)


def test_indices_count_ignored_rows(tmp_path):
  _save(tmp_path, np.array([[3, 1, 2], [0, 0, 3]], np.uint8))
  table = _TABLE.without(['sky'])
  expected = [[255, 0, 1], [255, 255, 255]]
  np.testing.assert_array_equal(_decode(tmp_path, table), expected)


def test_colours(tmp_path):
  _save(tmp_path, _COLORS[_LABEL])
  np.testing.assert_array_equal(_decode(tmp_path), _LABEL)
  palette = np.array(class_tables.pascal_colormap())
  _save(tmp_path, palette[_LABEL].astype(np.uint8))
  np.testing.assert_array_equal(_decode(tmp_path, _NAMES), _LABEL)


def test_palette_whose_colours_tell(tmp_path):
  """An editor numbers the colours of its palette as it likes."""
  order = [2, 255, 0, 1]
  numbers = {label: number for number, label in enumerate(order)}
  shuffled = np.vectorize(numbers.get)(_LABEL).astype(np.uint8)
  _save(tmp_path, shuffled, _COLORS[order])
  with pytest.raises(InputError, match=r'two ways.*--mask_values=color'):
    _decode(tmp_path)
  np.testing.assert_array_equal(_decode(tmp_path, values='color'), _LABEL)
  expected = np.array([0, 1, 2, 255])[shuffled]
  np.testing.assert_array_equal(_decode(tmp_path, values='index'), expected)


def test_black_and_white(tmp_path):
  table = ClassTable([Row('no', (0, 0, 0)), Row('yes', (255, 255, 255))])
  mask = _LABEL % 2 == 1
  # A grey PNG of 1 bit has no indices, so its colours count.
  _save(tmp_path, mask)
  np.testing.assert_array_equal(_decode(tmp_path, table), mask)
  _save(tmp_path, mask.astype(np.uint8) * 255)
  with pytest.raises(InputError, match='two ways'):
    _decode(tmp_path, table)
  found = _decode(tmp_path, table, values='color')
  np.testing.assert_array_equal(found, mask)


def test_all_masks_are_read_in_one_way(tmp_path):
  """Of PASCAL VOC, with a table of some of its classes."""
  colors = class_tables.pascal_colormap()
  table = ClassTable(
    [Row(str(i), tuple(colors[i])) for i in (0, 7, 15)],
  )
  for name, label in (('a', 7), ('b', 1), ('c', 15), ('d', 0)):
    pixels = np.array([[0, label, 0], [0, 0, 255 * (name == 'b')]], np.uint8)
    _save(tmp_path, pixels, colors, name)
  labels = mask_labels.MaskLabels(str(tmp_path))
  decode = lambda name, unknown=False, labels=labels: labels.decode(
    name, (2, 3), Classes(table, table.info('mine'), unknown)
  )
  np.testing.assert_array_equal(decode('d'), np.zeros((2, 3)))
  assert decode('a').max() == 1 and decode('c').max() == 2
  for unknown in (False, True):
    with pytest.raises(
      InputError, match=r'values of .*b\.png are .*a\.png only.*_values=color'
    ):
      decode('b', unknown)
  labels = mask_labels.MaskLabels(str(tmp_path), values='color')
  found = decode('b', True, labels)
  np.testing.assert_array_equal(found, [[0, 255, 0], [0, 0, 255]])
  assert decode('c', False, labels).max() == 2


def test_grey_masks_saved_as_rgb(tmp_path):
  _save(tmp_path, np.stack([_LABEL] * 3, -1))
  np.testing.assert_array_equal(_decode(tmp_path, _NAMES), _LABEL)
  np.testing.assert_array_equal(_decode(tmp_path), _LABEL)
  # Colours of the table come first in a file of colours.
  table = ClassTable([Row('no', (0, 0, 0)), Row('yes', (255, 255, 255))])
  mask = _LABEL % 2 == 1
  _save(tmp_path, np.stack([mask.astype(np.uint8) * 255] * 3, -1))
  np.testing.assert_array_equal(_decode(tmp_path, table), mask)


def test_unknown_colours(tmp_path):
  pixels = _COLORS[_LABEL]
  pixels[0, 0] = pixels[1, 2] = [1, 2, 5]
  pixels[0, 1] = [8, 9, 9]
  _save(tmp_path, pixels)
  message = (
    r'a\.png .*2 colours .*in 3 pixels: \[1, 2, 5\] \(2 pixels, nearest: '
    r"'car' \[1, 2, 3\]\); \[8, 9, 9\] \(1 pixels, nearest: 'road'"
  )
  with pytest.raises(InputError, match=message):
    _decode(tmp_path)
  found = _decode(tmp_path, ignores_unknown=True)
  np.testing.assert_array_equal(found, [[255, 255, 2], [2, 255, 255]])


def test_unknown_values(tmp_path):
  _save(tmp_path, np.array([[0, 1, 3], [9, 9, 255]], np.uint8))
  message = r'a\.png holds 2 values .*: 3 \(1 pixels\), 9 \(2 .*0\.\.2'
  with pytest.raises(InputError, match=message):
    _decode(tmp_path, _NAMES)
  found = _decode(tmp_path, _NAMES, ignores_unknown=True)
  np.testing.assert_array_equal(found, [[0, 1, 255], [255, 255, 255]])
  with pytest.raises(InputError, match=r'Nor do its colours.*--mask_values'):
    _decode(tmp_path, ignores_unknown=True)


def test_classes_are_found(tmp_path):
  _save(tmp_path, _LABEL)
  _save(tmp_path, _LABEL // 2 + 2, name='b')
  _, table = _find(tmp_path)
  info = table.info('mine')
  assert info.class_names == [f'class_{i}' for i in range(130)]
  _save(tmp_path, _LABEL.clip(max=2), name='b')
  _, table = _find(tmp_path)
  assert table.info('x').colors == class_tables.pascal_colormap(3)


@pytest.mark.parametrize('is_grey', [False, True])
def test_the_palettes_colours_are_taken(tmp_path, is_grey):
  palette = np.arange(256).repeat(3) if is_grey else _COLORS
  for name in 'ab':
    _save(tmp_path, _LABEL, palette, name=name)
  labels, table = _find(tmp_path)
  expected = class_tables.pascal_colormap(3) if is_grey else _COLORS[:3]
  assert table.info('x').colors == np.asarray(expected).tolist()
  found = labels.decode('a', (2, 3), Classes(table, table.info('x')))
  np.testing.assert_array_equal(found, _LABEL)


def test_palettes_must_agree(tmp_path):
  _save(tmp_path, _LABEL, _COLORS)
  _save(tmp_path, _LABEL, _COLORS[::-1], name='b')
  with pytest.raises(InputError, match=r'palettes of .*b\.png and .*a\.png'):
    _find(tmp_path)


@pytest.mark.parametrize('values', [[0, 255], [0], [255]])
def test_one_class_is_none(tmp_path, values):
  _save(tmp_path, np.array([values], np.uint8))
  with pytest.raises(InputError, match=r'not two classes.*name,255,255,255'):
    _find(tmp_path)


def test_colours_need_a_table(tmp_path):
  _save(tmp_path, _COLORS[_LABEL])
  with pytest.raises(
    InputError, match=r'colours of this(.|\n)*\nclass_1,1,2,3\n'
  ):
    _find(tmp_path)
  noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
  _save(tmp_path, noise)
  with pytest.raises(InputError, match='has 81 colours: probably'):
    _find(tmp_path)
  with pytest.raises(InputError, match='give --class_table'):
    _find(tmp_path, values='color')
  with pytest.raises(InputError, match='which has no indices'):
    _decode(tmp_path, values='index')

"""Tables of classes: every form of file, and what is refused."""

import json
import time

import pytest

from deeplab.common import InputError
from deeplab.datasets import dataset_info
from deeplab.datasets.labels import class_table_files

_ROAD = ('road', (128, 64, 128))
_LIGHT = ('traffic light', (250, 170, 30))


def _read(folder, text, name='classes.csv'):
  path = folder / name
  path.write_text(text if isinstance(text, str) else json.dumps(text))
  return class_table_files.read(str(path))


def _rows(table):
  return [(row.name, row.color) for row in table.rows]


@pytest.mark.parametrize(
  'text',
  [
    'road,128,64,128\ntraffic light,250,170,30\n',
    '\ufeffname,red,green,blue\r\nroad, 128, 64, 128\r\n'
    '"traffic light",250,170,30',
    'name r g b\nroad 128 64 128\n\ntraffic light 250 170 30',
    # The label_colors.txt of CamVid.
    '128 64 128\t\troad\n250 170 30\t\ttraffic light\n',
    'r,g,b,name\n128,64,128,road\n250,170,30,traffic light',
    # The labelmap.txt of CVAT.
    '# label:color_rgb:parts:actions\nroad:128,64,128::\n'
    'traffic light:250,170,30::\n',
    'road;#804080\ntraffic light;#FAAA1E',
    'label,color\nroad,#804080\ntraffic light,#FAAA1E',
  ],
)
def test_text_files_with_colours(tmp_path, text):
  table = _read(tmp_path, text)
  assert _rows(table) == [_ROAD, _LIGHT]
  assert table.label_of_color == {_ROAD[1]: 0, _LIGHT[1]: 1}


@pytest.mark.parametrize(
  'content',
  [
    dict((_ROAD, _LIGHT)),
    [{'name': name, 'color': color} for name, color in (_ROAD, _LIGHT)],
    {'road': '#804080', 'traffic light': '#faaa1e'},
    {
      'name': 'x',
      'num_classes': 2,
      'class_names': ['road', 'traffic light'],
      'colors': [_ROAD[1], _LIGHT[1]],
    },
  ],
)
def test_json_files(tmp_path, content):
  assert _rows(_read(tmp_path, content, 'x.JSON')) == [_ROAD, _LIGHT]


@pytest.mark.parametrize('name', ['labels.txt', 'labels.json'])
def test_names_alone_have_pascals_colours(tmp_path, name):
  names = ['__ignore__', '_background_', 'traffic light', 'car']
  text = names if name.endswith('json') else '\n'.join(names)
  table = _read(tmp_path, text, name)
  assert table.label_of_row == [255, 0, 1, 2]
  assert table.label_of_color == {
    (0, 0, 0): 0,
    (128, 0, 0): 1,
    (0, 128, 0): 2,
    (224, 224, 192): 255,
  }
  info = table.info('mine')
  assert info.class_names == names[1:]
  assert info.colors == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
  assert table.with_background() is table


def test_ignored_rows_are_no_classes(tmp_path):
  table = _read(tmp_path, 'void,0,0,0\nroad,1,1,1\nother,2,2,2\ncar,3,3,3')
  table = table.without(['void', 'other'])
  assert table.label_of_row == [255, 0, 255, 1]
  assert table.label_of_color == {
    (0, 0, 0): 255,
    (1, 1, 1): 0,
    (2, 2, 2): 255,
    (3, 3, 3): 1,
  }
  assert table.info('x').colors == [[1, 1, 1], [3, 3, 3]]
  with pytest.raises(InputError, match=r"ignore_classes names \['sky'\].*road"):
    table.without(['sky'])
  with pytest.raises(InputError, match='has 0 classes'):
    table.without(['road', 'car'])


@pytest.mark.parametrize('header', ['name', 'Class', 'label', 'Labels'])
def test_the_header_of_one_column_is_no_class(tmp_path, header):
  table = _read(tmp_path, f'{header}\nsky\nlane 1\n{header}')
  assert [row.name for row in table.rows] == ['sky', 'lane 1', header]


@pytest.mark.parametrize(
  'line',
  [
    '0,road,128,64,128',
    'road,7,128,64,128',
    'road,128,64,128,255',
    'road,flat,128,64,128',
    '0 128 64 128 road',
    'road 128 64 128 255',
    '0,road,#804080',
    '0 road',
    '0: road',
  ],
)
def test_further_columns(tmp_path, line):
  with pytest.raises(
    InputError, match=r'line 2: there are columns besides name and colour'
  ):
    _read(tmp_path, f'# own\n{line}\n')


@pytest.mark.parametrize(
  'line, name',
  [
    ('lane 1,128,64,128', 'lane 1'),
    ('"lane,1",128,64,128', 'lane,1'),
    ('"lane 1" 128 64 128', 'lane 1'),
    ('128 64 128 "2 lanes"', '2 lanes'),
    ('"2 lanes"', '2 lanes'),
    ('lane1 128 64 128', 'lane1'),
  ],
)
def test_names_with_numbers(tmp_path, line, name):
  assert _read(tmp_path, line).rows[0].name == name


def test_ignored_rows_beside_the_ignore_label_of_a_class(tmp_path):
  """A class behind the ignored ones would get the label to ignore."""
  ade = dataset_info.BUILTIN['ade20k']
  ade.save(str(tmp_path))
  table = class_table_files.read(str(tmp_path / 'dataset_info.json'))
  for names in (['background'], ['wall'], ['background', 'wall']):
    changed = table.without(names)
    kept = [n for n in ade.class_names if n not in ('background', *names)]
    info = changed.info('mine')
    assert info.class_names == kept and info.ignore_label == 255
    assert changed.label_of_row == [
      kept.index(name) if name in kept else 255 for name in ade.class_names
    ]
  assert table.without([]).ignore_label == 0


def test_a_background_before_an_ignore_label(tmp_path):
  info = dataset_info.DatasetInfo('x', 2, 2, ['sky', 'road'])
  info.save(str(tmp_path))
  table = class_table_files.read(str(tmp_path / 'dataset_info.json'))
  assert table.without(['sky']).ignore_label == 2
  table = table.with_background()
  assert table.ignore_label == 255 and table.label_of_row == [0, 1, 2]


def test_a_background_of_another_spelling(tmp_path):
  table = _read(tmp_path, 'road\nBackground\ncar')
  assert table.with_background() is table
  assert table.background_label == 1
  table = table.with_background(to_front=True)
  assert [row.name for row in table.rows] == ['Background', 'road', 'car']
  assert table.background_label == 0


def test_a_background_is_added_in_a_free_colour(tmp_path):
  table = _read(tmp_path, 'road,0,0,0\ncar,3,3,3').with_background()
  assert _rows(table)[0] == ('background', (128, 0, 0))
  assert table.background_label == 0
  assert table.without(['background']).background_label == 255


def test_dataset_info_keeps_its_ignore_label_and_equal_colours(tmp_path):
  dataset_info.BUILTIN['ade20k'].save(str(tmp_path))
  table = class_table_files.read(str(tmp_path / 'dataset_info.json'))
  info = table.info('ade20k')
  assert info == dataset_info.BUILTIN['ade20k'].replace(splits={})
  with pytest.raises(InputError, match=r'class \d+: the colour .* class 7'):
    assert table.label_of_color


@pytest.mark.parametrize(
  'text, message',
  [
    ('road,1,2,3\ncar,1,2,300', r"csv, line 2: the colour of 'car'.*1, 2, 300"),
    ('road,1,2,3\ncar,1,2,-3', r'line 2: .*0 to 255'),
    ('road,1,2,3\n\ncar,1,2', r"line 3: Expected 'name,red.*'car,1,2'"),
    ('road,1,2,3\ncar', r"line 2: 'car' has no colour, unlike 'road'"),
    ('road\ncar,1,2,3', r"line 2: 'car' has a colour, unlike"),
    ('road,1,2,3\nroad,1,2,4', r"line 2: the name 'road' stands in .*line 1"),
    ('road,1,2,3\ncar,1,2,3', r'line 2: the colour \(1, 2, 3\) stands in'),
    ('id,name,r,g,b\n0,road,1,2,3', 'line 1: Expected'),
    # Python refuses to read such a number.
    ('road,1,2,3\ncar,1,2,' + '9' * 5000, 'line 2: Expected'),
    ('', 'names no classes'),
    ('name,r,g,b', 'names no classes'),
    ('\n'.join(f'c{i}' for i in range(256)), 'has 256 classes.*1 to 255'),
  ],
)
def test_bad_text_files(tmp_path, text, message):
  with pytest.raises(InputError, match=message):
    _read(tmp_path, text)


@pytest.mark.parametrize(
  'text, message',
  [
    ('{"road": [1, 2', 'is not JSON'),
    ('{"a": [1, 2, 3], "a": [1, 2, 4]}', r"\['a'\] occur several times"),
    ('{"a": [1, 2]}', r"entry 1: the colour of 'a' must be.*\[1, 2\]"),
    ('{"a": "#12"}', 'entry 1: the colour'),
    ('{"a": [1, 2, true]}', 'entry 1: the colour'),
    ('["a", 7]', 'entry 2: expected a name.*Received: 7'),
    ('[{"label": "a"}]', 'entry 1: expected a name'),
    ('3', 'entry 1: expected a name'),
    ('[]', 'names no classes'),
    ('{"num_classes": 3}', 'at least name and num_classes'),
  ],
)
def test_bad_json_files(tmp_path, text, message):
  with pytest.raises(InputError, match=message):
    _read(tmp_path, text, 'classes.json')


@pytest.mark.parametrize('separator', [',', ' ,', ': '])
def test_long_lines_take_no_time(tmp_path, separator):
  """Hours, if the time went with the square of the length."""
  began = time.monotonic()
  with pytest.raises(InputError, match='line 1: Expected'):
    _read(tmp_path, f'a,{separator * 200_000}x')
  assert time.monotonic() - began < 20


def test_unreadable_files(tmp_path):
  with pytest.raises(InputError, match=r'none\.csv cannot be read: No such'):
    class_table_files.read(str(tmp_path / 'none.csv'))
  (tmp_path / 'a.csv').write_bytes(b'\xff\xfe')
  with pytest.raises(InputError, match='not a text file'):
    class_table_files.read(str(tmp_path / 'a.csv'))

"""The shapes of LabelMe's files."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from deeplab.common import InputError
from deeplab.datasets.labels import class_table_files, labelme_labels
from deeplab.datasets.labels.label_source import Classes

_SIZE = (6, 8)


def _shape(label, points, kind='polygon', **more):
  return {'label': label, 'points': points, 'shape_type': kind, **more}


def _box(label, left, top, right, bottom):
  return _shape(label, [[left, top], [right, bottom]], 'rectangle')


def _write(folder, shapes, height=6, width=8, name='a'):
  content = {'shapes': shapes, 'imageHeight': height, 'imageWidth': width}
  (folder / f'{name}.json').write_text(json.dumps(content))


def _decode(folder, names=('cat', 'dog'), ignores_unknown=False, **options):
  labels = labelme_labels.LabelMeLabels(str(folder), **options)
  table = class_table_files.from_names(names, 'here').with_background()
  classes = Classes(table, table.info('mine'), ignores_unknown)
  return labels.decode('a', _SIZE, classes)


def _png(mask):
  with io.BytesIO() as output:
    Image.fromarray(mask).save(output, 'PNG')
    return base64.b64encode(output.getvalue()).decode()


def test_later_shapes_lie_on_earlier_ones(tmp_path):
  corners = [[1, 1], [5, 1], [5, 4], [1, 4]]
  shapes = [
    _shape('cat', corners),
    _box('dog', 7, 5, 3, 2),
    _shape('__ignore__', [[0, 5], [8, 5], [8, 6], [0, 6]], None),
  ]
  _write(tmp_path, shapes)
  expected = np.zeros(_SIZE, np.uint8)
  expected[1:4, 1:5] = 1
  expected[2:5, 3:7] = 2
  expected[5] = 255
  found = _decode(tmp_path)
  np.testing.assert_array_equal(found, expected)
  assert found.dtype == np.uint8


def test_circles_masks_and_lines(tmp_path):
  mask = np.array([[True, False], [True, True]])
  shapes = [
    _shape('cat', [[3, 3], [3, 5]], 'circle'),
    _shape('dog', [[6, 0], [7, 1]], 'mask', mask=_png(mask)),
    _shape('dog', [[0, 5], [8, 5]], 'linestrip'),
  ]
  _write(tmp_path, shapes)
  y, x = np.mgrid[:6, :8] + 0.5
  expected = (np.hypot(x - 3, y - 3) <= 2).astype(np.uint8)
  expected[:2, 6:][mask] = 2
  expected[4:6] = 2
  np.testing.assert_array_equal(_decode(tmp_path, line_width=2), expected)
  with pytest.raises(
    InputError, match=r"shapes\[2\] \('dog'\) is a line.*--li"
  ):
    _decode(tmp_path)


def test_classes_are_found(tmp_path):
  _write(tmp_path, [_box('dog', 0, 0, 1, 1), _box('__ignore__', 0, 0, 1, 1)])
  _write(tmp_path, [_box('cat ', 0, 0, 1, 1)], name='sub')
  labels = labelme_labels.LabelMeLabels(str(tmp_path))
  table = labels.find_classes(['a', 'sub']).with_background()
  assert table.info('x').class_names == ['background', 'cat', 'dog']
  assert table.label_of_name['__ignore__'] == 255
  _write(tmp_path, [])
  with pytest.raises(InputError, match=r'none\. Draw some'):
    labels.find_classes(['a'])


def test_the_tables_own_background(tmp_path):
  _write(tmp_path, [_box('cat', 0, 0, 8, 1)])
  found = _decode(tmp_path, ['cat', '_background_'])
  np.testing.assert_array_equal(found[:, 0], [0, 1, 1, 1, 1, 1])


def test_unknown_classes(tmp_path):
  _write(tmp_path, [_box('cow', 0, 0, 8, 1)])
  with pytest.raises(InputError, match=r"a\.json: shapes\[0\].*'cow'.*'cat'"):
    _decode(tmp_path)
  assert (_decode(tmp_path, ignores_unknown=True)[0] == 255).all()


@pytest.mark.parametrize(
  'shape, message',
  [
    (_shape('cat', [[0, 0], [1, 1]]), 'at least 3 points. Received: 2'),
    (_shape('cat', [[0, 0]], 'rectangle'), 'must have 2 points. Received: 1'),
    (_shape('cat', [[0, 0]], 'spline'), "type 'spline' are not known"),
    (_shape('cat', [], 'polygon'), r'expected points .*Received: \[\]'),
    (_shape('cat', [[0], [1, 2]]), 'expected points'),
    (_shape('cat', [[0, float('nan')]] * 3), 'expected points'),
    (_shape('cat', [[0, 1e300]] * 3), 'expected points'),
    (_shape('cat', [['x', 0]] * 3), 'expected points'),
    (_shape(3, [[0, 0]]), "'label' must be of type str"),
    (_shape('cat', 7), "'points' must be of type list"),
    (_shape('cat', [[0, 0]], 'mask'), "lacks the key 'mask'"),
    (_shape('cat', [[0, 0]], 'mask', mask='x'), 'PNG file as base64'),
    (
      _shape('cat', [[7, 5]], 'mask', mask=_png(np.ones((2, 2), bool))),
      r'the mask of 2 x 2 pixels at \[7.0, 5.0\].*not within',
    ),
    (
      _shape('cat', [[-1, 0]], 'mask', mask=_png(np.ones((2, 2), bool))),
      'not within the image',
    ),
    ('cat', "lacks|must be an object with the key 'label'"),
  ],
)
def test_bad_shapes(tmp_path, shape, message):
  _write(tmp_path, [shape])
  with pytest.raises(InputError, match=rf'a\.json: shapes\[0\].*({message})'):
    _decode(tmp_path)


def test_bad_files(tmp_path):
  _write(tmp_path, [], height=8, width=6)
  with pytest.raises(InputError, match=r'8 x 6 .*the image has 6 x 8.*EXIF'):
    _decode(tmp_path)
  for text in ('[]', '{}', '{"shapes": 1}', '{"shapes', '\0'):
    (tmp_path / 'a.json').write_text(text)
    with pytest.raises(InputError, match=r'a\.json'):
      _decode(tmp_path)
  # Files of old versions have no size.
  (tmp_path / 'a.json').write_text('{"shapes": []}')
  assert (_decode(tmp_path) == 0).all()

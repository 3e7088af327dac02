"""The plot of trimaps, its table, and the command."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deeplab.common import InputError
from deeplab.evaluation import plot_trimap


def _values(miou=(None, 0.4, 0.5), whole=0.6, boundary='void'):
  return {
    'boundary': boundary,
    'num_images': 1,
    'bands': [
      {'width': 2 * index + 1, 'miou': value}
      for index, value in enumerate(miou)
    ],
    'whole_image': {'miou': whole},
  }


def _write(path, values):
  path.parent.mkdir(exist_ok=True)
  path.write_text(json.dumps({'step': 3, 'trimap': values}))
  return str(path)


def _count(content, color):
  """Pixels of a colour in the picture."""
  picture = np.array(Image.open(io.BytesIO(content)).convert('RGB'))
  return int((picture == color).all(axis=-1).sum())


def test_the_picture_has_a_curve_each():
  # matplotlib's first two colours.
  blue, orange = (31, 119, 180), (255, 127, 14)
  # Labels that matplotlib would hide, or fail to read as a formula.
  curves = [
    plot_trimap.Curve('_os16', _values()),
    plot_trimap.Curve('a$^$b$', _values((0.3, 0.35, 0.4), whole=None)),
  ]
  one, two = plot_trimap.draw(curves[:1]), plot_trimap.draw(curves)
  assert _count(one, blue) > 200 and not _count(one, orange)
  assert _count(two, blue) > 200 and _count(two, orange) > 200
  assert plot_trimap.draw(curves, 'svg').startswith(b'<?xml')


def test_a_curve_without_any_value():
  assert plot_trimap.draw([plot_trimap.Curve('a', _values((None,), None))])


def test_table():
  curves = [
    plot_trimap.Curve('left', _values()),
    plot_trimap.Curve('right', _values((0.25,), whole=None)),
  ]
  lines = [line.split() for line in plot_trimap.to_table(curves).splitlines()]
  assert lines[0] == ['trimap', 'left', 'right']
  assert lines[2:5] == [
    ['1', '-', '0.2500'],
    ['3', '0.4000', '-'],
    ['5', '0.5000', '-'],
  ]
  assert lines[-1] == ['all', '0.6000', '-']


def test_load(tmp_path):
  path = _write(tmp_path / 'trimap_3.json', _values())
  assert plot_trimap.load(path) == _values()


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('{', 'is not JSON'),
    ('[]', r'no result of eval.py --trimap_widths=...: it has no "trimap"'),
    ('{"miou": 0.5}', 'it has no "trimap"'),
    ('{"trimap": 3}', '"trimap" is no object'),
    ('{"trimap": {"boundary": "edge"}}', '"boundary" is \'edge\''),
    ('{"trimap": {"boundary": "any", "bands": []}}', '"bands"'),
    (
      '{"trimap": {"boundary": "any", "bands": [{"width": 1, "miou": 0.5}]}}',
      'has no "miou"',
    ),
    (json.dumps({'trimap': _values((2.0,))}), '"miou" is 2.0'),
    (json.dumps({'trimap': _values(('high',))}), '"miou" is \'high\''),
  ],
)
def test_files_are_checked(text, message, tmp_path):
  path = tmp_path / 'trimap_3.json'
  path.write_text(text)
  with pytest.raises(InputError, match=message) as error:
    plot_trimap.load(str(path))
  assert str(path) in str(error.value)


def test_widths_in_files_are_checked(tmp_path):
  for width in ('1', None, 0, 5):
    values = _values()
    values['bands'][0]['width'] = width
    path = _write(tmp_path / 'trimap_3.json', values)
    with pytest.raises(InputError, match='the widths are'):
      plot_trimap.load(path)


def test_a_file_that_is_not_there(tmp_path):
  with pytest.raises(InputError, match=r'none\.json cannot be read: No such'):
    plot_trimap.load(str(tmp_path / 'none.json'))
  with pytest.raises(InputError, match='cannot be read: Is a directory'):
    plot_trimap.load(str(tmp_path))


def test_curves_must_fit_each_other(tmp_path):
  one = _write(tmp_path / 'one' / 't.json', _values())
  two = _write(tmp_path / 'two' / 't.json', _values(boundary='any'))
  with pytest.raises(InputError, match=r'one/t.json has void, .*t.json any'):
    plot_trimap.load_curves([one, two])


def test_labels_of_curves(tmp_path):
  paths = [
    _write(tmp_path / name / 't.json', _values()) for name in ('one', 'two')
  ]
  curves = plot_trimap.load_curves(paths)
  assert [curve.label for curve in curves] == ['one', 'two']
  curves = plot_trimap.load_curves(paths, 'stride 16, stride 8')
  assert [curve.label for curve in curves] == ['stride 16', 'stride 8']


def _run(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'deeplab.evaluation.plot_trimap', *arguments],
    capture_output=True,
    text=True,
    check=False,
  )


def test_the_command(tmp_path):
  one = _write(tmp_path / 'one' / 't.json', _values())
  two = _write(tmp_path / 'two' / 't.json', _values((0.3, 0.35, 0.4)))
  plot = tmp_path / 'plot.png'
  done = _run(one, two, f'--output={plot}')
  assert done.returncode == 0, done.stderr
  assert done.stdout.split()[:3] == ['trimap', 'one', 'two']
  assert Image.open(plot).size == (768, 528)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'one',
    'plot.png',
    'two',
  ]


@pytest.mark.parametrize(
  ('output', 'message'),
  [
    ('plot.bmp', r'must end in .png, .pdf, .svg. Received'),
    ('none/plot.png', 'a file in a folder that exists'),
    ('folder.png', 'a file in a folder that exists'),
  ],
)
def test_the_output_is_checked(output, message, tmp_path):
  (tmp_path / 'folder.png').mkdir()
  done = _run('t.json', f'--output={tmp_path / output}')
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert message in done.stderr.splitlines()[-1].replace('\\', '')

"""Names of what is compared, where a plot goes, and texts in it."""

import warnings

import pytest

from deeplab.common import InputError
from deeplab.utils import plots, text_table


@pytest.mark.parametrize(
  ('paths', 'labels'),
  [
    (['x/t.json'], ['x/t.json']),
    (['x/os8/t.json', 'x/os16/t.json'], ['os8', 'os16']),
    (['t_1.json', 't_2.json'], ['t_1.json', 't_2.json']),
    (['a/b/t.json', 'a/c/d/t.json'], ['b', 'c/d']),
    (['a/t.json', 'a/b/t.json'], ['t.json', 'b/t.json']),
    # A folder within another one.
    (['run', 'run/eval'], ['run', 'run/eval']),
    (['run/', 'other'], ['run', 'other']),
  ],
)
def test_labels_are_what_paths_differ_in(paths, labels):
  assert plots.name_paths(paths) == labels


def test_given_labels():
  assert plots.name_paths(['a', 'b'], 'stride 16, stride 8') == [
    'stride 16',
    'stride 8',
  ]
  with pytest.raises(InputError, match='A path is given twice'):
    plots.name_paths(['a/b', 'a/../a/b'])
  with pytest.raises(InputError, match=r'each of the 1 paths. .*: 2, a, b'):
    plots.name_paths(['a'], 'a,b')
  for labels in ('a,a', 'a,'):
    with pytest.raises(InputError, match='a label of its own'):
      plots.name_paths(['a', 'b'], labels)


def test_where_a_plot_goes(tmp_path):
  assert plots.check_output(str(tmp_path / 'plot.SVG')) == 'svg'
  assert plots.check_output(str(tmp_path / 'a.json'), ['json']) == 'json'
  with pytest.raises(InputError, match=r"must end in .png, .*'plot.bmp'"):
    plots.check_output('plot.bmp')
  (tmp_path / 'folder.png').mkdir()
  for path in ('none/plot.png', 'folder.png'):
    with pytest.raises(InputError, match='a file in a folder that exists'):
      plots.check_output(str(tmp_path / path))


def test_a_legend_takes_any_label():
  canvas = plots.new_figure(4, 3)
  axes = canvas.add_subplot()
  # What matplotlib would hide, or fail to read as a formula.
  labels = ['_hidden', 'a$^$b']
  plots.add_legend(axes, axes.plot([[0, 1], [1, 2]]), labels)
  texts = axes.get_legend().get_texts()
  assert [text.get_text() for text in texts] == labels
  assert plots.to_bytes(canvas).startswith(b'\x89PNG')


def test_a_table_of_text():
  rows = [['class', 'IoU'], ['sky', '0.5'], ['pole', '-']]
  assert text_table.align(rows) == ['class  IoU', 'sky    0.5', 'pole     -']
  assert text_table.align(rows, left=0)[1] == '  sky  0.5'


def test_characters_that_a_font_does_not_have():
  canvas = plots.new_figure(1, 1)
  canvas.suptitle('\u6b63')
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    assert plots.to_bytes(canvas).startswith(b'\x89PNG')

"""Numbers, tables and plots of results that are known."""

import io
import json
import re
import subprocess
import sys

import pytest
from PIL import Image

import benchmarks.__main__ as command
from benchmarks import figures, report, summary
from benchmarks.case import FIRST_PREDICTION, GROWTH
from deeplab.common import InputError

_MIB = 2**20


def _run(median, units=1, growth=100, **changes):
  return {
    'seconds': [median],
    'median': median,
    'calls': 1,
    'units': units,
    'import_secs': 3.0,
    'load_secs': 1.0,
    'first_secs': 0.5,
    'peak_bytes': (growth + 500) * _MIB,
    'growth_bytes': growth * _MIB,
    'facts': {},
    **changes,
  }


def _row(name, runs, **changes):
  return {
    'name': name,
    'note': '',
    'dtype': 'float32',
    'x': None,
    'status': 'ok',
    'runs': runs,
    'multiply_adds': None,
    'labels_equal': None,
    **changes,
  }


def _case(name, rows, **changes):
  return {
    'name': name,
    'title': f'Title of {name}',
    'unit': 'image',
    'measure': 'median',
    'kind': 'ratios',
    'x_label': '',
    'rows': rows,
    **changes,
  }


def _growth():
  rows = [
    _row(str(x), [_run(x**2, growth=x)], x=x, multiply_adds=10**9 * x**2)
    for x in (2, 1, 4)
  ]
  return _case('growth/side', rows, kind=GROWTH, x_label='side')


@pytest.fixture
def results():
  """One case of each kind, with rows that have run and rows that have not."""
  products = [_row('float32', [_run(0.01)], multiply_adds=10**9)]
  compared = [
    _row('base', [_run(1.0), _run(2.0), _run(1.0)], multiply_adds=10**10),
    _row(
      'fast',
      [_run(0.5), _run(1.2), _run(0.9)],
      multiply_adds=10**10,
      labels_equal=0.995,
    ),
    _row('absent', [], status='not installed: pip', note='a | b'),
  ]
  start = [_row('a', [_run(9.0)]), _row('b', [_run(9.0, load_secs=5.5)])]
  return {
    'machine': {
      'processor': 'A processor',
      'processors': 2,
      'flags': ['avx2'],
      'memory_gib': 24,
      'system': 'Linux 6',
      'python': '3.11.7',
      'packages': {'numpy': '2.4', 'torch': None},
    },
    'cases': [
      _case('machine/matrix_product', products, unit='product'),
      _case('group/one', compared),
      _case('start_up/one', start, unit='process', measure=FIRST_PREDICTION),
      _growth(),
    ],
  }


def _cells(text, title):
  """{name of a row: cells} of a table in Markdown, and its head."""
  lines = text.split(f'### {title}\n')[1].split('\n### ')[0].splitlines()
  table = [
    [cell.strip() for cell in line.strip('|').split(' | ')]
    for line in lines
    if line.startswith('|')
  ]
  return table[0], {row[0]: row[1:] for row in table[2:]}


def test_ratios_are_taken_round_by_round(results):
  case = results['cases'][1]
  # Of the medians it would be 0.9.
  assert summary.ratios(case, case['rows'][1]) == (0.6, 0.5, 0.9)
  assert summary.ratios(case, case['rows'][2]) is None


def test_markdown(results):
  text = report.to_markdown(results)
  assert text.startswith('2 processors of A processor (avx2), 24 GiB')
  assert 'numpy 2.4' in text
  assert 'torch' not in text
  head, rows = _cells(text, 'Title of group/one')
  assert [name.strip() for name in head][1:] == [
    *('ms/image', 'images/s', 'ratio', 'GFLOP/s', 'of limit', 'labels equal'),
    *('peak MiB', 'beyond imports MiB', 'remarks'),
  ]
  # The limit is 200 GFLOP/s.
  assert rows['fast'] == [
    *('900.0', '1.11', '0.60 (0.50-0.90)', '22', '11%', '99.50%', '600', '100'),
    '',
  ]
  assert rows['base'][2] == '1'
  assert rows['absent'][-1] == 'not installed: pip; a \\| b'
  assert rows['absent'][:-1] == [''] * 8


def test_start_up_has_its_parts(results):
  head, rows = _cells(report.to_markdown(results), 'Title of start_up/one')
  assert head[1:5] == ['ms/process', 'import s', 'load s', 'first s']
  assert rows['b'][:5] == ['9000.0', '3.00', '5.50', '0.50', '2.00 (2.00-2.00)']


def test_growth(results):
  case = results['cases'][-1]
  points = summary.points(case)
  assert [point['x'] for point in points] == [1, 2, 4]
  power = summary.exponent(points, 'multiply_adds', 'seconds')
  assert power == pytest.approx(1)
  assert summary.exponent(points, 'x', 'seconds') == pytest.approx(2)
  text = report.to_markdown(results)
  _, rows = _cells(text, 'Title of growth/side')
  assert rows['4'][:1] == ['16000.0']
  assert rows['4'][-3:] == ['4.00', '4.00', '2.00']
  assert 'Time grows with the power 1.00 of the multiply-adds' in text
  assert 'Memory grows with the power 0.50 of the multiply-adds' in text


def test_text_has_the_same_numbers(results):
  text = report.to_text(results)
  assert '0.60 (0.50-0.90)' in text
  assert 'Title of growth/side' in text


def test_plot(results):
  picture = Image.open(io.BytesIO(figures.draw(results)))
  assert picture.format == 'PNG'
  assert picture.width > 800
  assert picture.convert('L').getextrema()[0] < 100
  results['cases'] = results['cases'][:1]
  assert figures.draw(results) is None


def test_growth_without_its_baseline(results):
  case = results['cases'][-1]
  case['rows'][0].update(runs=[], status='failed: it broke')
  _, rows = _cells(report.to_markdown(results), 'Title of growth/side')
  assert rows['2'][-1] == 'failed: it broke'
  assert rows['4'][0] == '16000.0'
  assert figures.draw(results)


def test_render_command(results, tmp_path, repository):
  path = tmp_path / 'results.json'
  path.write_text(json.dumps(results))
  done = subprocess.run(
    [sys.executable, '-m', 'benchmarks', f'--render={path}'],
    cwd=repository,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == report.to_text(results)
  assert (tmp_path / 'results.md').read_text() == report.to_markdown(results)
  assert (tmp_path / 'results.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], '--output=FILE.json must say where the results go'),
    (['--output=x.txt'], 'must end in .json. Received: --output=x.txt'),
    (['--render=setup.py'], '--render=setup.py is no file that python -m'),
    (['--render=x.json', '--runs=2'], '--runs has no effect with --render'),
    (['--output=x.json', '--image=y.jpg'], 'need each other'),
    (
      ['--output=x.json', '--trained_checkpoint=x', '--image=y.jpg'],
      '--image=y.jpg cannot be read, give the path of a photograph: [Errno 2]',
    ),
    (
      ['--output=x.json', '--trained_checkpoint=x', '--image=setup.py'],
      '--image=setup.py cannot be read, give the path of a photograph: cannot ',
    ),
    (['--output=x.json', '--cases=infer'], "no case is called 'infer'"),
    (
      ['--output=x.json', '--implementations=saved_model,torch'],
      "--implementations: no row of these cases is called 'torch'. There are:",
    ),
    (['--output=x.json', '--runs=0'], '--runs must be an integer, at least 1'),
  ],
)
def test_bad_flags(parse, arguments, message):
  parse(command, command._define_flags, arguments)
  with pytest.raises(InputError, match=re.escape(message)):
    command.main()

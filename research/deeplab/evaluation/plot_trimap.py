"""Plots mIoU against trimap width, of one evaluation or of several.

  python -m deeplab.evaluation.plot_trimap eval_os16/trimap_30000.json \
    eval_os8/trimap_30000.json --output=trimap.png

The files are what `eval.py --trimap_widths=...` writes: trimap_<step>.json or
miou_<step>.json. Prints the values as a table, too. Curves are named by what
their paths differ in, or with --labels='stride 16,stride 8'. --output may end
in .png, .pdf or .svg.
"""

import argparse
import dataclasses
import io
import itertools
import json
import math
import os
import sys
from collections.abc import Mapping
from typing import Any

from deeplab import atomic_files, common, flags
from deeplab.common import InputError
from deeplab.evaluation import trimap

_FORMATS = ('png', 'pdf', 'svg')


@dataclasses.dataclass(frozen=True)
class Curve:
  """One evaluation.

  Attributes:
    label: its name in the plot.
    values: what `trimap.to_dict` returned.
  """

  label: str
  values: Mapping[str, Any]

  def miou(self):
    """{width: mIoU}, NaN where it is undefined."""
    return {
      row['width']: math.nan if row['miou'] is None else row['miou']
      for row in self.values['bands']
    }


def draw(curves, file_format='png'):
  """Draws mIoU against trimap width.

  Args:
    curves: Curves.
    file_format: 'png', 'pdf' or 'svg'.

  Returns:
    The file's bytes.
  """
  # Not every evaluation draws. No pyplot: it would choose a window system and
  # keep every figure.
  from matplotlib import figure, ticker

  canvas = figure.Figure(figsize=(6.4, 4.4), dpi=120, layout='constrained')
  axes = canvas.add_subplot()
  lines = []
  for curve in curves:
    points = curve.miou()
    lines += axes.plot(
      list(points), list(points.values()), marker='o', markersize=3
    )
    whole = curve.values['whole_image']['miou']
    if whole is not None:
      axes.axhline(whole, color=lines[-1].get_color(), linestyle=':')
  rule = curves[0].values['boundary']
  axes.set_xlabel(f'trimap width in pixels (boundaries: {rule})')
  axes.set_ylabel('mIoU (dotted: whole images)')
  axes.set_xlim(left=0)
  axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  axes.grid(alpha=0.3)
  legend = axes.legend(lines, [str(index) for index in range(len(lines))])
  for text, curve in zip(legend.get_texts(), curves, strict=True):
    # A path may hold what matplotlib takes for a formula or a hidden label.
    text.set(text=curve.label, parse_math=False)
  content = io.BytesIO()
  canvas.savefig(content, format=file_format)
  return content.getvalue()


def to_table(curves):
  """mIoU as text: a row a width, a column a curve, '-' where undefined."""
  columns = [curve.miou() for curve in curves]
  widths = sorted(set().union(*columns))
  rows = [['trimap', *(curve.label for curve in curves)]]
  for width in widths:
    values = (column.get(width, math.nan) for column in columns)
    rows.append([str(width), *map(_cell, values)])
  whole = (curve.values['whole_image']['miou'] for curve in curves)
  rows.append(['all', *map(_cell, whole)])
  sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
    '  '.join(cell.rjust(size) for cell, size in zip(row, sizes, strict=True))
    for row in rows
  ]
  rule = '-' * len(lines[0])
  return '\n'.join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _cell(value):
  return '-' if value is None or math.isnan(value) else f'{value:.4f}'


# Reading.


def load(path):
  """Reads the trimap of an evaluation.

  Args:
    path: of a trimap_<step>.json or miou_<step>.json.

  Returns:
    What `trimap.to_dict` returned.

  Raises:
    InputError: it cannot be read, or is no such file.
  """
  try:
    with open(path, encoding='utf-8') as file:
      content = json.load(file)
  except OSError as error:
    raise InputError(f'{path} cannot be read: {error.strerror}.') from error
  except (ValueError, RecursionError) as error:
    raise InputError(f'{path} is no JSON file: {error}.') from error
  values = content.get('trimap') if isinstance(content, dict) else None
  fault = 'it has no "trimap"' if values is None else _find_fault(values)
  if fault:
    raise InputError(
      f'{path} is no result of eval.py --trimap_widths=...: {fault}.'
    )
  return values


def _find_fault(values):
  """What is wrong with a `trimap.to_dict`; None if nothing is."""
  if not isinstance(values, dict):
    return '"trimap" is no object'
  if values.get('boundary') not in trimap.BOUNDARIES:
    return f'"boundary" is {values.get("boundary")!r}'
  bands = values.get('bands')
  if not isinstance(bands, list) or not bands:
    return '"bands" is no list of widths'
  for row in [*bands, values.get('whole_image')]:
    if not isinstance(row, dict) or 'miou' not in row:
      return 'a band or "whole_image" has no "miou"'
    if row['miou'] is not None and row['miou'] not in common.SHARE:
      return f'"miou" is {row["miou"]!r}'
  widths = [row.get('width') for row in bands]
  try:
    trimap.check_options(widths)
  except InputError:
    return f'the widths are {widths}'
  return None


def default_labels(paths):
  """What paths differ in: 'os8' and 'os16' for os8/t.json and os16/t.json.

  Args:
    paths: of files.

  Returns:
    One label for each.
  """
  if len(paths) == 1:
    return list(paths)
  split = [os.path.abspath(path).split(os.sep) for path in paths]
  start = _num_equal(split)
  # One path may be the start and the end of another: sub/x/t and sub/t.
  shortest = min(map(len, split))
  end = min(_num_equal([parts[::-1] for parts in split]), shortest - start - 1)
  return ['/'.join(parts[start : len(parts) - end]) for parts in split]


def _num_equal(lists):
  """How many first items all lists have in common."""
  columns = zip(*lists, strict=False)
  equal = itertools.takewhile(lambda items: len(set(items)) == 1, columns)
  return len(list(equal))


def load_curves(paths, labels=None):
  """Reads evaluations to compare.

  Args:
    paths: see `load`.
    labels: a name for each, or None for `default_labels`.

  Returns:
    Curves.

  Raises:
    InputError: a file cannot be read; files or labels repeat, or are not as
      many; or the files are of different kinds of boundaries.
  """
  if len({os.path.abspath(path) for path in paths}) < len(paths):
    raise InputError(f'A file is given twice. Received: {", ".join(paths)}.')
  if labels is None:
    labels = default_labels(paths)
  if len(labels) != len(paths):
    raise InputError(
      f'--labels must name each of the {len(paths)} files. Received: '
      f'{len(labels)}, {", ".join(labels)}.'
    )
  if not all(labels) or len(set(labels)) < len(labels):
    raise InputError(
      'Each curve needs a label of its own. Received: '
      f'--labels={",".join(labels)}.'
    )
  curves = [
    Curve(label, load(path)) for label, path in zip(labels, paths, strict=True)
  ]
  for path, curve in zip(paths, curves, strict=True):
    first, other = curves[0].values['boundary'], curve.values['boundary']
    if first != other:
      raise InputError(
        'Curves of different kinds of boundaries cannot be compared: '
        f'{paths[0]} has {first}, {path} {other}. Evaluate both with one '
        '--trimap_boundary.'
      )
  return curves


# The command.


def _check_output(path):
  """Before the work, not after it.

  Returns:
    The format that the name ends in.
  """
  file_format = os.path.splitext(path)[1][1:].lower()
  if file_format not in _FORMATS:
    endings = ', '.join(f'.{name}' for name in _FORMATS)
    raise InputError(f'--output must end in {endings}. Received: {path!r}.')
  is_other = os.path.exists(path) and not os.path.isfile(path)
  if is_other or not os.path.isdir(os.path.dirname(path) or '.'):
    raise InputError(f'--output={path} must be a file in a folder that exists.')
  return file_format


def _parser():
  parser = argparse.ArgumentParser(
    prog='python -m deeplab.evaluation.plot_trimap',
    description='Plots mIoU against trimap width.',
    allow_abbrev=False,
  )
  parser.add_argument(
    'files', nargs='+', metavar='FILE', help='trimap_<step>.json of eval.py.'
  )
  parser.add_argument(
    '--output', required=True, help='The plot: .png, .pdf or .svg.'
  )
  parser.add_argument(
    '--labels', help='Names of the curves, comma separated, in order.'
  )
  return parser


def main():
  """Runs the command of the command line."""
  values = _parser().parse_args()
  del sys.argv[1:]

  def plot():
    file_format = _check_output(values.output)
    labels = values.labels
    if labels is not None:
      labels = [label.strip() for label in labels.split(',')]
    curves = load_curves(values.files, labels)
    print(to_table(curves))
    atomic_files.write(values.output, draw(curves, file_format))
    print(f'Plot: {values.output}')

  flags.run(plot)


if __name__ == '__main__':
  main()

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
import math
import sys
from collections.abc import Mapping
from typing import Any

from deeplab import atomic_files, flags
from deeplab.common import InputError
from deeplab.evaluation import result_files
from deeplab.utils import plots, text_table


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
  from matplotlib import ticker

  canvas = plots.new_figure(6.4, 4.4)
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
  plots.add_legend(axes, lines, [curve.label for curve in curves])
  return plots.to_bytes(canvas, file_format)


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
  lines = text_table.align(rows, left=0)
  rule = '-' * len(lines[0])
  return '\n'.join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _cell(value):
  return '-' if value is None or math.isnan(value) else f'{value:.4f}'


# Reading.


def load(path):
  """Reads the trimap of an evaluation.

  Args:
    path: of a trimap_<step>.json or miou_<step>.json, local or remote.

  Returns:
    What `trimap.to_dict` returned.

  Raises:
    InputError: it cannot be read, or is no such file.
  """
  content = result_files.read_json(path)
  values = content.get('trimap') if isinstance(content, dict) else None
  fault = 'it has no "trimap"'
  if values is not None:
    fault = result_files.find_trimap_fault(values)
  if fault:
    raise InputError(
      f'{path} is no result of eval.py --trimap_widths=...: {fault}.'
    )
  return values


def load_curves(paths, labels=None):
  """Reads evaluations to compare.

  Args:
    paths: see `load`.
    labels: see `plots.name_paths`.

  Returns:
    Curves.

  Raises:
    InputError: a file cannot be read; files or labels repeat, or are not as
      many; or the files are of different kinds of boundaries.
  """
  labels = plots.name_paths(paths, labels)
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
    file_format = plots.check_output(values.output)
    curves = load_curves(values.files, values.labels)
    print(to_table(curves))
    atomic_files.write(values.output, draw(curves, file_format))
    print(f'Plot: {values.output}')

  flags.run(plot)


if __name__ == '__main__':
  main()

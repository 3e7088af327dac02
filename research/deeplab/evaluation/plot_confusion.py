"""Plots which class is taken for which.

  python -m deeplab.evaluation.plot_confusion eval/miou_30000.json \
    --output=confusion.pdf

eval.py draws it as confusion_<step>.png by itself. A row holds the pixels with
one label, as shares of them; what is right is on the diagonal, in blue.
--output may end in .png, .pdf or .svg.
"""

import argparse
import sys

import numpy as np

from deeplab import atomic_files, flags
from deeplab.evaluation import metrics, result_files
from deeplab.utils import plots

# So many classes at most have their values written into the cells.
_MAX_CLASSES_WITH_VALUES = 25

# Inches of a cell: with its value, without, and the least that has a name.
_LARGE, _SMALL, _LEAST = 0.4, 0.16, 0.1

# Inches of all cells of a row, at most.
_MAX_SIDE = 60

# Inches of the bar of colours, at most.
_BAR = 4

# Below 1, so that small shares can be told from none.
_GAMMA = 0.5

# Shares from here on have white values, smaller ones are not written.
_DARK, _VISIBLE = 0.45, 0.005


def draw(matrix, class_names=None, title='', file_format='png'):
  """Draws a confusion matrix.

  Args:
    matrix: a metrics.ConfusionMatrix.
    class_names: one name for each class, or None.
    title: what was evaluated.
    file_format: 'png', 'pdf' or 'svg'.

  Returns:
    The file's bytes.
  """
  number = matrix.num_classes
  has_values = number <= _MAX_CLASSES_WITH_VALUES
  cell = min(_LARGE if has_values else _SMALL, _MAX_SIDE / number)
  side = max(cell * number, 2)
  canvas = plots.new_figure(side + 2.5, side + 1.7, dpi=100)
  axes = canvas.add_subplot()
  shares = matrix.row_shares()
  _draw_cells(canvas, axes, shares)
  if has_values:
    _write_values(axes, shares)
  names = metrics.names_of(number, class_names)
  _name_axes(axes, names if cell >= _LEAST else [])
  plots.take_literally([canvas.suptitle(title, fontsize=10)])
  return plots.to_bytes(canvas, file_format)


def _draw_cells(canvas, axes, shares):
  """Blue for what is right, red for what is wrong, grey without labels."""
  from matplotlib import colors, ticker

  is_right = np.eye(len(shares), dtype=bool)
  axes.set_facecolor('0.9')
  for shade, hidden in (('#08519c', ~is_right), ('#b30000', is_right)):
    picture = axes.imshow(
      np.ma.array(shares, mask=hidden | np.isnan(shares)),
      cmap=colors.LinearSegmentedColormap.from_list('', ['white', shade]),
      norm=colors.PowerNorm(_GAMMA, 0, 1),
      interpolation='nearest',
    )
  lines = np.arange(1, len(shares)) - 0.5
  axes.hlines(lines, -0.5, len(shares) - 0.5, colors='0.85', linewidths=0.5)
  axes.vlines(lines, -0.5, len(shares) - 0.5, colors='0.85', linewidths=0.5)
  bar = canvas.colorbar(
    picture,
    ax=axes,
    shrink=min(0.7, _BAR / canvas.get_figheight()),
    aspect=25,
    pad=0.01,
    anchor=(0, 1),
    label='wrong (blue: right)',
  )
  bar.ax.yaxis.set_major_formatter(ticker.PercentFormatter(1))


def _write_values(axes, shares):
  """Percentages, in the cells that have any."""
  for row, column in zip(*np.nonzero(shares >= _VISIBLE), strict=True):
    share = shares[row, column]
    axes.text(
      column,
      row,
      f'{100 * share:.0f}',
      color='white' if share > _DARK else 'black',
      fontsize=8,
      horizontalalignment='center',
      verticalalignment='center',
    )


def _name_axes(axes, names):
  """Names of labels and predictions; at both ends where they are many."""
  places = range(len(names))
  size = 8 if len(names) <= _MAX_CLASSES_WITH_VALUES else 7
  axes.set_xticks(places, names, rotation=90, fontsize=size)
  axes.set_yticks(places, names, fontsize=size)
  is_large = len(names) > _MAX_CLASSES_WITH_VALUES
  axes.tick_params(length=0, labeltop=is_large, labelright=is_large)
  plots.take_literally([*axes.get_xticklabels(), *axes.get_yticklabels()])
  axes.set_xlabel('prediction')
  axes.set_ylabel('label (a row adds up to 100 %)')


def title_of(matrix, step):
  """'step 30000: mIoU 0.7728, pixel accuracy 0.9650, 30 images'."""
  return (
    f'step {step}: mIoU {matrix.mean_iou():.4f}, pixel accuracy '
    f'{matrix.pixel_accuracy():.4f}, {matrix.num_images} images'
  )


# The command.


def _parser():
  parser = argparse.ArgumentParser(
    prog='python -m deeplab.evaluation.plot_confusion',
    description='Plots a confusion matrix.',
    allow_abbrev=False,
  )
  parser.add_argument('file', help='miou_<step>.json of eval.py.')
  parser.add_argument(
    '--output', required=True, help='The plot: .png, .pdf or .svg.'
  )
  return parser


def main():
  """Runs the command of the command line."""
  values = _parser().parse_args()
  del sys.argv[1:]

  def plot():
    file_format = plots.check_output(values.output)
    found = result_files.read_evaluation(values.file)
    title = title_of(found.matrix, found.values.get('step'))
    content = draw(found.matrix, found.class_names, title, file_format)
    for confusion in metrics.largest_confusions(
      found.matrix, found.class_names
    ):
      print(confusion)
    atomic_files.write(values.output, content)
    print(f'Plot: {values.output}')

  flags.run(plot)


if __name__ == '__main__':
  main()

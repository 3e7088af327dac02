"""Plots of results."""

from benchmarks import summary
from benchmarks.case import GROWTH
from deeplab.utils import plots

_WIDTH, _LINE, _CURVE = 9, 0.26, 3.2


def draw(results):
  """Bars of the ratios of each case, and the curves of growth.

  Args:
    results: what `python -m benchmarks` writes as JSON.

  Returns:
    Bytes of a PNG file; None where nothing has run that could be shown.
  """
  cases = [c for c in results['cases'] if any(r['runs'] for r in c['rows'])]
  bars = [c for c in cases if c['kind'] != GROWTH and len(_compared(c)) > 1]
  curves = [c for c in cases if c['kind'] == GROWTH]
  if not bars and not curves:
    return None
  heights = [_LINE * len(_compared(case)) + 0.9 for case in bars]
  heights += [_CURVE] * len(curves)
  figure = plots.new_figure(_WIDTH, sum(heights))
  grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
  for row, case in enumerate(bars):
    _draw_bars(figure.add_subplot(grid[row, :]), case)
  for row, case in enumerate(curves, len(bars)):
    both = [figure.add_subplot(grid[row, column]) for column in (0, 1)]
    _draw_curve(both, case)
  return plots.to_bytes(figure)


def _compared(case):
  """The rows that have a ratio to the baseline."""
  return [row for row in case['rows'] if summary.ratios(case, row)]


def _draw_bars(axes, case):
  rows = _compared(case)
  ratios = [summary.ratios(case, row) for row in rows]
  medians = [middle for middle, _, _ in ratios]
  spread = [
    [middle - low for middle, low, _ in ratios],
    [high - middle for middle, _, high in ratios],
  ]
  bars = axes.barh(range(len(rows)), medians, xerr=spread, color='#7a9cc6')
  axes.bar_label(bars, [f'{ratio:.2f}' for ratio in medians], padding=4)
  axes.set_yticks(range(len(rows)), [row['name'] for row in rows])
  plots.take_literally(axes.get_yticklabels())
  axes.invert_yaxis()
  axes.axvline(1, color='black', linewidth=0.8)
  axes.margins(x=0.1)
  axes.set_xlabel(f'time in relation to {rows[0]["name"]}')
  axes.set_title(case['title'], fontsize='medium')


def _draw_curve(both, case):
  """Time and memory on logarithmic scales, with a line of proportion."""
  from matplotlib import ticker

  points = summary.points(case)
  both[0].set_title(case['title'], fontsize='medium', loc='left')
  for axes, key, scale, label in zip(
    both,
    ('seconds', 'bytes'),
    (1e3, 2**-20),
    ('ms', 'MiB beyond the imports'),
    strict=True,
  ):
    xs = [point['x'] for point in points]
    axes.plot(xs, [scale * p[key] for p in points], 'o-', label='measured')
    for base in points:
      if base['x'] == case['rows'][0]['x']:
        unit = scale * base[key] / base['multiply_adds']
        line = [unit * point['multiply_adds'] for point in points]
        axes.plot(xs, line, '--', label='as the multiply-adds')
    axes.set(xscale='log', yscale='log', xlabel=case['x_label'], ylabel=label)
    axes.set_xticks(xs, [f'{x:g}' for x in xs])
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter('{x:g}')
    axes.minorticks_off()
    axes.legend(fontsize='small')

"""The numbers of a report, from the runs of each row."""

import math
import statistics

import numpy as np

from benchmarks.case import FIRST_PREDICTION

MATRIX_PRODUCTS = 'machine/matrix_product'


def value(case, run):
  """Seconds of one run, for one unit of the case.

  Args:
    case: result of `Runner.run`.
    run: one of the 'runs' of its rows.
  """
  if case['measure'] == FIRST_PREDICTION:
    return sum(run[f'{part}_secs'] for part in ('import', 'load', 'first'))
  return run['median'] / run['units']


def median(case, row):
  """Median of `value` over the runs of a row."""
  return statistics.median(value(case, run) for run in row['runs'])


def median_of(row, key):
  """Median of something that each run of a row gives."""
  return statistics.median(run[key] for run in row['runs'])


def ratios(case, row):
  """Ratios to the baseline, round by round.

  Args:
    case: result of `Runner.run`.
    row: one of its rows.

  Returns:
    (median, smallest, largest), or None where one of the two has no runs.
  """
  pairs = zip(row['runs'], case['rows'][0]['runs'], strict=False)
  found = [value(case, run) / value(case, base) for run, base in pairs]
  if not found:
    return None
  return statistics.median(found), min(found), max(found)


def rate(case, row):
  """Arithmetic in operations a second, two for a multiply-add; or None."""
  if row['multiply_adds'] is None or case['measure'] == FIRST_PREDICTION:
    return None
  return 2 * row['multiply_adds'] / median(case, row)


def limits(results):
  """{dtype: operations a second} of the matrix products, where they ran."""
  return {
    row['name']: rate(case, row)
    for case in results['cases']
    if case['name'] == MATRIX_PRODUCTS
    for row in case['rows']
    if row['runs']
  }


def points(case):
  """The points of a curve, in order.

  Args:
    case: result of `Runner.run` of kind GROWTH.

  Returns:
    A list of {'x', 'seconds', 'bytes', 'multiply_adds'} of whole calls.
  """
  found = [
    {
      'x': row['x'],
      'seconds': median_of(row, 'median'),
      'bytes': median_of(row, 'growth_bytes'),
      'multiply_adds': (row['multiply_adds'] or math.nan)
      * row['runs'][0]['units'],
    }
    for row in case['rows']
    if row['runs']
  ]
  return sorted(found, key=lambda point: point['x'])


def exponent(points_of_case, x, y):
  """The power of x that y grows with: a line fitted to the logarithms.

  Args:
    points_of_case: what `points` returned.
    x: a key of them.
    y: another one.

  Returns:
    A number, or None where x does not vary by a tenth at least.
  """
  xs, ys = ([point[key] for point in points_of_case] for key in (x, y))
  if len(xs) < 2 or not min(*xs, *ys) > 0 or max(xs) < 1.1 * min(xs):
    return None
  return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])

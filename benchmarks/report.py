"""Tables of results, as text and as Markdown."""

from benchmarks import machine, summary
from benchmarks.case import FIRST_PREDICTION, GROWTH
from deeplab.utils import text_table

_MIB = 2**20


def to_text(results):
  """The tables for a terminal.

  Args:
    results: what `python -m benchmarks` writes as JSON.

  Returns:
    Text, the last line ended too.
  """
  lines = [machine.as_text(results['machine']), '']
  for title, rows, remarks in _tables(results):
    lines += [title, *text_table.align(rows), *remarks, '']
  return '\n'.join(lines)


def to_markdown(results):
  """The tables for a page; arguments as `to_text`."""
  lines = [machine.as_text(results['machine']), '']
  for title, (head, *rows), remarks in _tables(results):
    lines += [f'### {title}', '', _line(head)]
    lines.append(_line(['---', *['---:'] * (len(head) - 1)]))
    lines += [_line([cell.replace('|', '\\|') for cell in row]) for row in rows]
    lines += ['', *(f'{remark}\n' for remark in remarks)]
  return '\n'.join(lines)


def _line(cells):
  return f'| {" | ".join(cells)} |'


def _tables(results):
  """Yields title, rows of cells with the head first, and lines below."""
  limits = summary.limits(results)
  for case in results['cases']:
    columns = _growth_columns if case['kind'] == GROWTH else _columns
    table = {}
    for row in case['rows']:
      cells = columns(case, row, limits) if row['runs'] else {}
      cells = {'': row['name'], **cells, 'remarks': _remarks(row)}
      for head, cell in cells.items():
        table.setdefault(head, {})[row['name']] = cell
    # What no row has is left out; remarks come last.
    heads = [head for head, column in table.items() if any(column.values())]
    heads.sort(key=lambda head: head == 'remarks')
    rows = [
      [table[head].get(row['name'], '') for head in heads]
      for row in case['rows']
    ]
    remarks = _exponents(case) if case['kind'] == GROWTH else []
    yield case['title'], [heads, *rows], remarks


def _remarks(row):
  """Why there are no numbers, or what they are of."""
  texts = [] if row['status'] == 'ok' else [row['status']]
  return '; '.join([*texts, *filter(None, [row['note']])])


def _columns(case, row, limits):
  """{head: cell} of a row that has run."""
  seconds = summary.median(case, row)
  rate = summary.rate(case, row)
  limit = limits.get(row['dtype'])
  share = rate / limit if rate and limit else None
  if case['name'] == summary.MATRIX_PRODUCTS:
    share = None
  cells = {f'ms/{case["unit"]}': f'{1000 * seconds:.1f}'}
  if case['measure'] == FIRST_PREDICTION:
    for part in ('import', 'load', 'first'):
      cells[f'{part} s'] = f'{summary.median_of(row, f"{part}_secs"):.2f}'
  else:
    cells[f'{case["unit"]}s/s'] = f'{1 / seconds:.2f}'
  cells['ratio'] = _ratio(case, row)
  cells |= {
    'GFLOP/s': f'{rate / 1e9:.0f}' if rate else '',
    'of limit': _percent(share, 0),
    'labels equal': _percent(row['labels_equal'], 2),
    'waiting': _percent(row['runs'][0]['facts'].get('waiting'), 1),
  }
  return cells | _memory(row)


def _percent(share, digits):
  return '' if share is None else f'{share:.{digits}%}'


def _ratio(case, row):
  found = summary.ratios(case, row)
  if found is None or len(case['rows']) == 1:
    return ''
  if row is case['rows'][0]:
    return '1'
  return '{:.2f} ({:.2f}-{:.2f})'.format(*found)


def _memory(row):
  """Peak of the process, and how much of that came after the imports."""
  peak, growth = (
    summary.median_of(row, key) / _MIB for key in ('peak_bytes', 'growth_bytes')
  )
  return {'peak MiB': f'{peak:.0f}', 'beyond imports MiB': f'{growth:.0f}'}


# Growth.


def _growth_columns(case, row, limits):
  """Times of whole calls, and their ratios to the first row's."""
  del limits
  base = case['rows'][0]
  seconds = summary.median_of(row, 'median')
  cells = {'ms': f'{1000 * seconds:.1f}', **_memory(row)}
  if row['multiply_adds']:
    count = row['multiply_adds'] * row['runs'][0]['units']
    cells['G multiply-adds'] = f'{count / 1e9:.2f}'
  if not base['runs']:
    return cells
  cells['time ratio'] = f'{seconds / summary.median_of(base, "median"):.2f}'
  if row['multiply_adds']:
    base_count = base['multiply_adds'] * base['runs'][0]['units']
    cells['arithmetic ratio'] = f'{count / base_count:.2f}'
  growth = summary.median_of(row, 'growth_bytes')
  base_growth = summary.median_of(base, 'growth_bytes')
  cells['memory ratio'] = f'{growth / base_growth:.2f}'
  return cells


def _exponents(case):
  """What the curve says in a line each."""
  points = summary.points(case)
  lines = []
  for y, name in (('seconds', 'Time'), ('bytes', 'Memory')):
    parts = [
      f'the power {power:.2f} of {label}'
      for x, label in (
        ('multiply_adds', 'the multiply-adds'),
        ('x', f'the {case["x_label"]}'),
      )
      if (power := summary.exponent(points, x, y)) is not None
    ]
    if parts:
      lines.append(f'{name} grows with {", with ".join(parts)}.')
  return lines

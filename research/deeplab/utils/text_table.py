"""Tables of plain text."""


def align(rows, left=1):
  """Puts cells into columns.

  Args:
    rows: lists of texts, all of one length.
    left: number of the first columns that are flush left; others are right.

  Returns:
    A line for each row.
  """
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for row in rows:
    cells = [
      cell.ljust(width) if index < left else cell.rjust(width)
      for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    lines.append('  '.join(cells).rstrip())
  return lines

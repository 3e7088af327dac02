"""The report of `dataset_checks` as a text and as JSON."""

import json
from collections.abc import Iterator, Sequence

import numpy as np

from deeplab.datasets.checks.check_tally import SplitTally
from deeplab.datasets.checks.dataset_checks import Report
from deeplab.datasets.dataset_info import DatasetInfo

# Places that the text lists for a finding.
_MOST_PLACES = 10


def size_range(tally: SplitTally) -> dict[str, tuple[int, int]]:
  """The smallest, the median and the largest side, each way.

  Args:
    tally: the figures of a split with an image.

  Returns:
    {'smallest', 'median' or 'largest': (height, width)}.
  """
  counts = list(tally.sizes.values())
  sides = [np.repeat(axis, counts) for axis in zip(*tally.sizes, strict=True)]
  functions = {'smallest': np.min, 'median': np.median, 'largest': np.max}
  return {
    name: tuple(int(function(side)) for side in sides)
    for name, function in functions.items()
  }


def table_of_splits(report: Report) -> tuple[list[str], list[list]]:
  """The figures of the splits.

  Args:
    report: the report.

  Returns:
    The header, and a row for each split.
  """
  header = ['split', 'images', 'with label', 'smallest', 'median', 'largest']
  header += ['sizes', 'files', 'ignored', 'one class', 'wholly ignored']
  rows = []
  for tally in report.splits:
    sizes = ['', '', '']
    if tally.sizes:
      sizes = [f'{h} x {w}' for h, w in size_range(tally).values()]
    kinds = '; '.join(f'{n} {kind}' for kind, n in tally.kinds.most_common())
    rows.append(
      [
        tally.name,
        tally.num_examples,
        tally.num_labels,
        *sizes,
        len(tally.sizes),
        kinds,
        percent(tally.ignored_share),
        tally.num_one_class,
        len(tally.ignored),
      ]
    )
  return header, rows


def percent(share: float) -> str:
  """A share, 0..1, with as many digits as tell it from nothing."""
  return f'{100 * share:.3g} %' if share else '0 %'


def class_shares(tally: SplitTally) -> np.ndarray:
  """Share of each class in the pixels that count, [num_classes]."""
  pixels = tally.class_pixels
  return pixels / max(pixels.sum(), 1)


def to_text(report: Report) -> str:
  """The report for a terminal.

  Args:
    report: the report.

  Returns:
    Lines, the findings last but for the suggestions.
  """
  return '\n'.join(_lines(report)) + '\n'


def _lines(report):
  info = report.info
  yield (
    f'{info.name} ({report.source}): {info.num_classes} classes, ignore label '
    f'{info.ignore_label}. Sizes are height x width.'
  )
  yield ''
  yield from _aligned(*table_of_splits(report))
  yield ''
  yield from _aligned(*_table_of_classes(report))
  yield ''
  yield from _findings(report)
  if report.suggestions:
    yield ''
    yield 'Flags that suit these data:'
  for suggestion in report.suggestions:
    yield f'{suggestion.flag}'
    yield f'  {suggestion.reason}.'


def _table_of_classes(report):
  """Share of each class in the pixels that count, and images with it."""
  header = ['', 'class']
  for tally in report.splits:
    header += [tally.name, 'images']
  columns = [
    (class_shares(tally), tally.occurrences) for tally in report.splits
  ]
  rows = []
  for label, name in enumerate(report.info.class_names):
    row = [label, name]
    for shares, images in columns:
      row += [percent(shares[label]), int(images[label])]
    rows.append(row)
  return header, rows


def _aligned(header: Sequence[str], rows: Sequence[Sequence]) -> Iterator[str]:
  """The lines of a table; numbers to the right."""
  texts = [header, *([str(value) for value in row] for row in rows)]
  widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
  is_number = [
    all(_is_number(row[i]) for row in rows) for i in range(len(header))
  ]
  for row in texts:
    cells = (
      text.rjust(width) if right else text.ljust(width)
      for text, width, right in zip(row, widths, is_number, strict=True)
    )
    yield '  '.join(cells).rstrip()


def _is_number(value):
  return isinstance(value, int) or str(value).endswith(' %')


def _findings(report):
  errors = report.num_errors
  hints = len(report.findings) - errors
  yield f'Errors: {errors}. Hints: {hints}.'
  for finding in report.findings:
    where = f' ({", ".join(finding.splits)})' if finding.splits else ''
    yield f'{finding.level}{where}: {finding.text}'
    for place in finding.places[:_MOST_PLACES]:
      yield f'    {place}'
    rest = len(finding.places) - _MOST_PLACES
    if rest > 0:
      yield f'    ... and {rest} more; --json lists all.'


def to_json(report: Report) -> str:
  """All figures of the report.

  Args:
    report: the report.

  Returns:
    The text of a JSON file.
  """
  values = {
    'dataset': _info_values(report.info),
    'source': report.source,
    'errors': report.num_errors,
    'splits': {tally.name: _split_values(tally) for tally in report.splits},
    'findings': [
      {
        'level': finding.level,
        'splits': list(finding.splits),
        'text': finding.text,
        'places': list(finding.places),
      }
      for finding in report.findings
    ],
    'overlaps': [
      {'splits': pair, **places} for pair, places in report.overlaps.items()
    ],
    'suggestions': {
      suggestion.name: {'value': suggestion.value, 'reason': suggestion.reason}
      for suggestion in report.suggestions
    },
  }
  return json.dumps(values, indent=1) + '\n'


def _info_values(info: DatasetInfo):
  return {
    'name': info.name,
    'num_classes': info.num_classes,
    'ignore_label': info.ignore_label,
    'class_names': info.class_names,
  }


def _split_values(tally):
  """The figures of a split as JSON has them."""
  count = tally.info.num_classes
  return {
    'examples': tally.num_examples,
    'images': tally.num_images,
    'labels': tally.num_labels,
    'sizes': [
      {'height': height, 'width': width, 'images': number}
      for (height, width), number in sorted(tally.sizes.items())
    ],
    'files': dict(tally.kinds),
    'pixels': tally.class_pixels.tolist(),
    'shares': class_shares(tally).tolist(),
    'images_with_class': tally.occurrences[:count].tolist(),
    'label_values': {
      str(value): int(tally.pixels[value])
      for value in np.flatnonzero(tally.pixels)
    },
    'ignored_share': float(tally.ignored_share),
    'one_class_images': tally.num_one_class,
    'ignored_images': tally.ignored,
    'illegal_labels': tally.illegal,
    'faults': dict(tally.faults),
    'repeated_names': tally.repeated_names,
    'repeated_images': tally.repeated_images,
  }

"""What plots and comparisons share: figures, and how files are named.

matplotlib is imported where a figure is made, since not every run draws. Never
pyplot: it would choose a window system and keep every figure.
"""

import io
import itertools
import os
import warnings

from deeplab.common import InputError

FORMATS = ('png', 'pdf', 'svg')


def new_figure(width, height, dpi=120):
  """An empty matplotlib Figure that arranges its parts itself.

  Args:
    width: in inches.
    height: in inches.
    dpi: pixels of an inch in a PNG.
  """
  from matplotlib import figure

  return figure.Figure(figsize=(width, height), dpi=dpi, layout='constrained')


def to_bytes(canvas, file_format='png'):
  """The file of a Figure, one of `FORMATS`."""
  content = io.BytesIO()
  with warnings.catch_warnings():
    # Once for each character: names in scripts that its font does not have.
    warnings.filterwarnings('ignore', 'Glyph .* missing from')
    canvas.savefig(content, format=file_format)
  return content.getvalue()


def take_literally(texts):
  """Has matplotlib's texts shown as they are, whatever they hold.

  A path or a name may hold what matplotlib takes for a formula.
  """
  for text in texts:
    text.set_parse_math(False)


def add_legend(axes, lines, labels, **options):
  """A legend whose labels may be any text.

  Args:
    axes: matplotlib Axes.
    lines: what to name.
    labels: a name for each.
    **options: of `Axes.legend`.
  """
  # Labels that begin with an underscore would be left out.
  legend = axes.legend(
    lines, [str(index) for index in range(len(lines))], **options
  )
  take_literally(legend.get_texts())
  for text, label in zip(legend.get_texts(), labels, strict=True):
    text.set_text(label)


def check_output(path, formats=FORMATS):
  """Checks where a file is to go: before the work, not after it.

  Args:
    path: the value of --output, local or remote.
    formats: what it may end in.

  Returns:
    The format that the name ends in.

  Raises:
    InputError: it ends in something else, or cannot be a file there.
  """
  file_format = os.path.splitext(path)[1][1:].lower()
  if file_format not in formats:
    endings = ', '.join(f'.{name}' for name in formats)
    raise InputError(f'--output must end in {endings}. Received: {path!r}.')
  if '://' in path:
    return file_format
  is_other = os.path.exists(path) and not os.path.isfile(path)
  if is_other or not os.path.isdir(os.path.dirname(path) or '.'):
    raise InputError(f'--output={path} must be a file in a folder that exists.')
  return file_format


# Names.


def name_paths(paths, labels=None):
  """A name for each of several files or folders.

  Args:
    paths: of files or folders.
    labels: the value of --labels, names separated by commas; None for what the
      paths differ in.

  Returns:
    A list of names.

  Raises:
    InputError: paths or labels repeat, or are not as many.
  """
  if len({os.path.abspath(path) for path in paths}) < len(paths):
    raise InputError(f'A path is given twice. Received: {", ".join(paths)}.')
  if labels is None:
    return default_labels(paths)
  labels = [label.strip() for label in labels.split(',')]
  if len(labels) != len(paths):
    raise InputError(
      f'--labels must name each of the {len(paths)} paths. Received: '
      f'{len(labels)}, {", ".join(labels)}.'
    )
  if not all(labels) or len(set(labels)) < len(labels):
    raise InputError(
      'Each path needs a label of its own. Received: '
      f'--labels={",".join(labels)}.'
    )
  return labels


def default_labels(paths):
  """What paths differ in: 'os8' and 'os16' for os8/t.json and os16/t.json.

  Args:
    paths: of files or folders, all different.

  Returns:
    One label for each.
  """
  if len(paths) == 1:
    return list(paths)
  split = [os.path.abspath(path).split(os.sep) for path in paths]
  start = _num_equal(split)
  # One path may be the start and the end of another: sub/x/t and sub/t.
  shortest = min(map(len, split))
  # Nor is a name left empty where a folder lies within another.
  start = min(start, shortest - 1)
  end = min(_num_equal([parts[::-1] for parts in split]), shortest - start - 1)
  return ['/'.join(parts[start : len(parts) - end]) for parts in split]


def _num_equal(lists):
  """How many first items all lists have in common."""
  columns = zip(*lists, strict=False)
  equal = itertools.takewhile(lambda items: len(set(items)) == 1, columns)
  return len(list(equal))

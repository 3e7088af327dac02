"""Compares evaluations: which classes and images changed, and what is chance.

  python -m deeplab.evaluation.compare_evals eval_os16/miou_30000.json \
    eval_os8/miou_30000.json

The files are what eval.py writes, local or remote. Prints what was evaluated
differently, IoU of every class (largest loss first), the means, mIoU of the
trimaps that all have, and, from the images_<step>.npz beside the files, the
images that changed most and a 95 % interval of the difference in mIoU: what
another choice of images would give. (Another seed of the training may well give
more.) Of several files, each is compared with the first one, and the column of
differences is that of the last one.

Evaluations are named by what their paths differ in, or with
--labels='stride 16,stride 8'. --output=comparison.json writes all of it. The
command is installed as `compare_evals`, too.
"""

import argparse
import dataclasses
import itertools
import json
import os
import sys

import numpy as np

from deeplab import flags
from deeplab.common import InputError
from deeplab.evaluation import image_scores, metrics, result_files
from deeplab.utils import plots, text_table

_BOUNDARY = 'trimap_boundary'

# What of the settings is shown if it differs.
_SETTINGS = (
  'step',
  'checkpoint',
  'tag',
  'output_stride',
  'crf',
  _BOUNDARY,
  'num_images',
  'num_pixels',
)

# {name: title} of the means.
_MEANS = {
  'miou': 'mIoU',
  # mIoU is a mean over what occurs in labels or predictions: an evaluation with
  # one wrong pixel of a class that no label has counts this class as 0.
  'miou_same_classes': 'mIoU, same classes',
  'pixel_accuracy': 'pixel accuracy',
  'mean_accuracy': 'mean accuracy',
}

# Of the bootstrap: how often images are drawn, so many times at once, and what
# of the differences is the interval.
_NUM_RESAMPLES, _CHUNK = 2000, 100
_PERCENTILES = (2.5, 97.5)

# Images that are printed.
_NUM_IMAGES = 5


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """One of the evaluations to compare.

  Attributes:
    label: its name.
    path: of its file.
    stored: the result_files.Evaluation.
    images: image_scores.Counts; None where there are none.
    remark: why there are none, or ''.
  """

  label: str
  path: str
  stored: result_files.Evaluation
  images: image_scores.Counts | None
  remark: str


def load(paths, labels=None):
  """Reads evaluations to compare.

  Args:
    paths: of miou_<step>.json files, at least two.
    labels: see `plots.name_paths`.

  Returns:
    Evaluations.

  Raises:
    InputError: there are less than two, one cannot be read, paths or labels
      repeat, or the classes are not the same.
  """
  if len(paths) < 2:
    raise InputError(
      f'Give two miou_<step>.json or more to compare. Received: {paths[0]}.'
    )
  found = []
  for path, label in zip(paths, plots.name_paths(paths, labels), strict=True):
    stored = result_files.read_evaluation(path)
    found.append(Evaluation(label, path, stored, *_load_images(path, stored)))
  for other in found[1:]:
    _check_classes(found[0], other)
  return found


def _load_images(path, stored):
  """The image_scores.Counts beside a file, or None and why."""
  step = stored.values.get('step')
  images_path = os.path.join(
    os.path.dirname(path), result_files.IMAGES.format(step)
  )
  if not result_files.exists(images_path):
    return None, f'there is no {images_path}; evaluate again'
  images = image_scores.load(images_path)
  right = np.diag(stored.matrix.counts)
  unions = stored.matrix.label_pixels + stored.matrix.predicted_pixels - right
  # Another evaluation of the same step may have replaced it.
  if not (
    np.array_equal(images.intersections.sum(axis=0), right)
    and np.array_equal(images.unions.sum(axis=0), unions)
  ):
    return None, f'{images_path} is of another evaluation than {path}'
  return images, ''


def _check_classes(first, other):
  """Raises InputError unless the classes are the same."""
  names, others = (item.stored.class_names for item in (first, other))
  if names == others:
    return
  if len(names) != len(others):
    difference = f'{len(names)} and {len(others)} classes'
  else:
    index = next(i for i, name in enumerate(names) if name != others[i])
    difference = f'class {index} is {names[index]!r} and {others[index]!r}'
  raise InputError(
    f'{first.path} and {other.path} are of different classes: {difference}. '
    'Only evaluations of one data set can be compared.'
  )


# Comparing.


def _pair(first, other):
  """The counts of two evaluations for the same images in the same order.

  Returns:
    (image_scores.Counts, image_scores.Counts) and '', or None and why not.
  """
  for item in (first, other):
    if item.images is None:
      return None, item.remark
  one, two = first.images, other.images
  orders = [np.argsort(images.names, kind='stable') for images in (one, two)]
  one, two = (
    image_scores.Counts(*(value[order] for value in vars(images).values()))
    for images, order in zip((one, two), orders, strict=True)
  )
  if not len(one.names) or not np.array_equal(one.names, two.names):
    return None, f'{first.label} and {other.label} are of different images'
  if not (one.unions.any() and two.unions.any()):
    return None, 'no pixel counts'
  return (one, two), ''


def miou_interval(one, two, seed=0):
  """A 95 % interval of the difference in mIoU: a paired bootstrap over images.

  Images are drawn with replacement, the same ones for both, and both mIoUs are
  computed from them. What their difference varies by is what the choice of the
  images accounts for.

  Args:
    one: image_scores.Counts.
    two: those of the same images in the same order.
    seed: of the draws.

  Returns:
    [low, high] of mIoU of two less that of one.
  """
  number = len(one.names)
  generator = np.random.default_rng(seed)
  # Sums of pixels are exact in float64, whose products are the fast ones.
  tables = [
    np.float64(table)
    for counts in (one, two)
    for table in (counts.intersections, counts.unions)
  ]
  differences = []
  for _ in range(_NUM_RESAMPLES // _CHUNK):
    draws = generator.integers(number, size=(_CHUNK, number))
    # How often each image is drawn.
    weights = np.stack([np.bincount(draw, minlength=number) for draw in draws])
    sums = [np.float64(weights) @ table for table in tables]
    differences.append(
      metrics.mean_ious(*sums[2:]) - metrics.mean_ious(*sums[:2])
    )
  return np.nanpercentile(differences, _PERCENTILES).tolist()


def compare(evaluations):
  """Compares evaluations with the first of them.

  Args:
    evaluations: what `load` returned.

  Returns:
    Plain JSON values, None where one is undefined:
      'evaluations': 'label', 'path', settings and means of each.
      'settings_that_differ': their names.
      'classes': 'id', 'name', 'iou' of each evaluation, and 'difference' of the
        last one to the first, by which they are sorted.
      'trimaps', the widths that all have with one kind of boundary: 'width',
        'miou' of each evaluation, and 'difference' as above.
      'comparisons', one for each but the first: 'label', 'miou_difference',
        'interval' (see `miou_interval`, or None), 'images' ('name', 'miou' of
        the two, 'difference', by which they are sorted) and 'remark', why there
        is no interval and no image, or ''.
  """
  iou = np.stack([item.stored.matrix.class_iou() for item in evaluations])
  first, *others = evaluations
  summaries = [_summary(item, iou) for item in evaluations]
  return {
    'evaluations': summaries,
    'settings_that_differ': [
      name
      for name in _SETTINGS
      if any(row[name] != summaries[0][name] for row in summaries)
    ],
    'classes': _compare_classes(first.stored.class_names, iou),
    'trimaps': _compare_trimaps(evaluations),
    'comparisons': [_compare_images(first, other) for other in others],
  }


def _summary(evaluation, all_iou):
  """Name, settings and means of an evaluation.

  Args:
    evaluation: an Evaluation.
    all_iou: float64 [evaluations, classes], NaN where a class does not occur.
  """
  matrix = evaluation.stored.matrix
  occurs = ~np.isnan(all_iou).any(axis=0)
  means = {
    'miou': matrix.mean_iou(),
    'miou_same_classes': metrics.mean(matrix.class_iou()[occurs]),
    'pixel_accuracy': matrix.pixel_accuracy(),
    'mean_accuracy': matrix.mean_accuracy(),
  }
  values = evaluation.stored.values
  settings = {**values, _BOUNDARY: values.get('trimap', {}).get('boundary')}
  return {
    'label': evaluation.label,
    'path': evaluation.path,
    **{name: settings.get(name) for name in _SETTINGS},
    **{name: metrics.or_none(value) for name, value in means.items()},
  }


def _compare_classes(names, iou):
  """See `compare`; iou is float64 [evaluations, classes]."""
  differences = iou[-1] - iou[0]
  return [
    {
      'id': int(index),
      'name': names[index],
      'iou': [metrics.or_none(value) for value in iou[:, index]],
      'difference': metrics.or_none(differences[index]),
    }
    for index in np.argsort(differences, kind='stable')
  ]


def _compare_trimaps(evaluations):
  """See `compare`."""
  trimaps = [item.stored.values.get('trimap') for item in evaluations]
  if None in trimaps or len({found['boundary'] for found in trimaps}) > 1:
    return []
  columns = [
    {row['width']: row['miou'] for row in found['bands']} for found in trimaps
  ]
  rows = []
  for width in sorted(set.intersection(*map(set, columns))):
    miou = [column[width] for column in columns]
    difference = None if None in (miou[0], miou[-1]) else miou[-1] - miou[0]
    rows.append({'width': width, 'miou': miou, 'difference': difference})
  return rows


def _compare_images(first, other):
  """See `compare`."""
  miou = other.stored.matrix.mean_iou() - first.stored.matrix.mean_iou()
  pair, remark = _pair(first, other)
  interval, images = None, []
  if pair:
    interval = miou_interval(*pair)
    values = np.stack([counts.miou() for counts in pair])
    differences = values[1] - values[0]
    images = [
      {
        'name': str(pair[0].names[index]),
        'miou': [metrics.or_none(value) for value in values[:, index]],
        'difference': metrics.or_none(differences[index]),
      }
      for index in np.argsort(differences, kind='stable')
    ]
  return {
    'label': other.label,
    'miou_difference': metrics.or_none(miou),
    'interval': interval,
    'images': images,
    'remark': remark,
  }


# Text.


def to_text(values):
  """What `compare` returned, as text."""
  labels = [row['label'] for row in values['evaluations']]
  parts = [_settings_text(values), _classes_text(values, labels)]
  parts += [
    _comparison_text(labels[0], comparison)
    for comparison in values['comparisons']
  ]
  return '\n\n'.join(part for part in parts if part)


def _settings_text(values):
  """The settings that differ; empty if none does."""
  lines = []
  for name in values['settings_that_differ']:
    lines.append(f'{name}:')
    lines += [f'  {row["label"]}: {row[name]}' for row in values['evaluations']]
  return '\n'.join(lines)


def _classes_text(values, labels):
  """A row a class, then the means, then the trimaps."""
  means = []
  for name, title in _MEANS.items():
    found = [row[name] for row in values['evaluations']]
    defined = None not in (found[0], found[-1])
    difference = found[-1] - found[0] if defined else None
    means.append([title, *map(_cell, found), _signed(difference)])
  parts = [
    [['IoU', *labels, 'difference']],
    [[row['name'], *_iou_cells(row, 'iou')] for row in values['classes']],
    means,
    [
      [f'mIoU, trimap {row["width"]}', *_iou_cells(row, 'miou')]
      for row in values['trimaps']
    ],
  ]
  lines = iter(text_table.align(list(itertools.chain(*parts))))
  texts = [
    '\n'.join(itertools.islice(lines, len(part))) for part in parts if part
  ]
  rule = '-' * len(texts[0])
  return f'\n{rule}\n'.join(texts)


def _iou_cells(row, name):
  """Cells of a class or of a trimap."""
  return [*map(_cell, row[name]), _signed(row['difference'])]


def _comparison_text(first, comparison):
  """What changed from the first evaluation to another one."""
  label = comparison['label']
  if comparison['remark']:
    return (
      f'{label} against {first}: no comparison by image: '
      f'{comparison["remark"]}.'
    )
  images = [row for row in comparison['images'] if row['difference']]
  lines = [f'{label} against {first}: {_verdict(comparison)}']
  for title, rows in (
    ('lost', [row for row in images if row['difference'] < 0]),
    ('gained', [row for row in images[::-1] if row['difference'] > 0]),
  ):
    if rows:
      header = [f'images that {title}: {len(rows)}', first, label]
      header.append('difference')
      lines += ['', *text_table.align([header, *_image_rows(rows)])]
  return '\n'.join(lines)


def _image_rows(rows):
  """Cells of the first few of images."""
  return [
    [row['name'], *map(_cell, row['miou']), _signed(row['difference'])]
    for row in rows[:_NUM_IMAGES]
  ]


def _verdict(comparison):
  """How large the difference is, and how much of it is chance."""
  low, high = comparison['interval']
  explains = low <= 0 <= high
  return (
    f'mIoU {_signed(comparison["miou_difference"])}.\n95 % interval '
    f'{_signed(low)} to {_signed(high)} (paired bootstrap over '
    f'{len(comparison["images"])} images):\nthe choice of the images '
    f'{"may well explain" if explains else "hardly explains"} it.'
  )


def _cell(value):
  return '-' if value is None else f'{value:.4f}'


def _signed(value):
  return '-' if value is None else f'{value:+.4f}'


# The command.


def _parser():
  parser = argparse.ArgumentParser(
    prog='python -m deeplab.evaluation.compare_evals',
    description='Compares evaluations.',
    allow_abbrev=False,
  )
  parser.add_argument(
    'files', nargs='+', metavar='FILE', help='miou_<step>.json of eval.py.'
  )
  parser.add_argument('--output', help='All of it as JSON.')
  parser.add_argument(
    '--labels', help='Names of the evaluations, comma separated, in order.'
  )
  return parser


def main():
  """Runs the command of the command line."""
  arguments = _parser().parse_args()
  del sys.argv[1:]

  def run():
    output = arguments.output
    if output is not None:
      plots.check_output(output, ['json'])
    values = compare(load(arguments.files, arguments.labels))
    print(to_text(values))
    if output is not None:
      # Its TensorFlow takes seconds to import.
      from deeplab import atomic_files

      atomic_files.write(output, json.dumps(values, indent=1) + '\n')
      print(f'Comparison: {output}')

  flags.run(run)


if __name__ == '__main__':
  main()

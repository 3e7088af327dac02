"""Searches the parameters of the dense CRF on held-out images.

  python -m deeplab.crf_search --checkpoint_dir=logs/train \
    --dataset_dir=data/tfrecord --num_images=100 --output=crf_search.json

As in the papers (v1, section 4.1; v2, section 4): w2 = 3, sigma_gamma = 3 and
ten iterations are fixed; w1, sigma_alpha and sigma_beta are searched by mIoU,
first on a coarse grid, then around its best point in steps half as large. The
network runs once; its probabilities are kept on disk meanwhile (16 MB for an
image of VOC). Prints the best points and the flags to use, and writes every
point as JSON.
"""

import dataclasses
import itertools
import json
import os
import tempfile

import numpy as np
import tensorflow as tf
from absl import flags as absl_flags
from tqdm import tqdm

from deeplab import atomic_files, common, evaluation_flags, flags
from deeplab.common import InputError
from deeplab.core import dense_crf
from deeplab.evaluation import metrics, prediction

FLAGS = flags.FLAGS

# What is searched, and the coarse grid of v2.
GRID = {
  'w1': (3, 4, 5, 6),
  'sigma_alpha': (30, 40, 50, 60, 70, 80, 90, 100),
  'sigma_beta': (3, 4, 5, 6),
}

_TABLE_ROWS = 10


@dataclasses.dataclass(frozen=True)
class Sample:
  """An image with its labels and the network's probabilities.

  Attributes:
    name: of the image.
    image: uint8 [height, width, 3].
    labels: integers [height, width].
    path: file with the probabilities, float32 [height, width, classes].
  """

  name: str
  image: np.ndarray
  labels: np.ndarray
  path: str

  def probabilities(self):
    """float32 [height, width, classes]."""
    return np.load(self.path)


def collect(predict, dataset, num_images, folder):
  """Runs a network on some images, evenly spread over a split.

  Args:
    predict: a prediction.Predictor with weights.
    dataset: a data_generator.Dataset that is neither shuffled nor repeated.
    num_images: how many; all if there are no more.
    folder: where to put the probabilities.

  Returns:
    A list of Sample.

  Raises:
    InputError: the split has no labels, or the folder cannot be written to.
  """
  if not dataset.has_labels:
    raise InputError(
      f'--eval_split={dataset.split_name} has no labels to search with. Choose '
      'another split.'
    )
  total = dataset.num_examples
  places = np.linspace(0, total - 1, min(num_images, total)).round()
  wanted = np.isin(np.arange(total), places)
  samples, seen = [], 0
  for batch in prediction.batches(dataset, 'Predicting'):
    names = batch[common.IMAGE_NAME]
    chosen = np.flatnonzero(wanted[seen : seen + len(names)])
    seen += len(names)
    if not len(chosen):
      continue
    images = tf.gather(batch[common.IMAGE], chosen)
    sizes = prediction.valid_sizes(batch)[chosen]
    for index, (image, probabilities) in zip(
      chosen, predict.probabilities(images, sizes), strict=True
    ):
      path = os.path.join(folder, f'{len(samples)}.npy')
      with prediction.clear_write_errors(folder):
        np.save(path, probabilities)
      height, width = image.shape[:2]
      labels = batch[common.LABEL][index, :height, :width, 0]
      samples.append(Sample(names[index].decode(), image, labels, path))
  return samples


def mean_ious(samples, settings, make_matrix):
  """mIoU of each setting of the CRF.

  Args:
    samples: list of Sample.
    settings: list of dense_crf.Parameters.
    make_matrix: makes an empty metrics.ConfusionMatrix.

  Returns:
    {setting: mIoU}.
  """
  matrices = {setting: make_matrix() for setting in settings}
  # The kernels are those of all settings that differ in weights alone.
  groups = {}
  for setting in settings:
    groups.setdefault(dataclasses.replace(setting, w1=0.0), []).append(setting)
  with tqdm(total=len(samples) * len(settings), unit='CRF') as bar:
    for sample in samples:
      probabilities = sample.probabilities()
      for first, group in groups.items():
        kernels = dense_crf.Kernels(sample.image, first)
        for setting in group:
          marginals = dense_crf.mean_field(
            probabilities, kernels, setting.w1, setting.w2, setting.iterations
          )
          matrices[setting].update(
            sample.labels[None], marginals.argmax(axis=2)[None], [sample.name]
          )
        bar.update(len(group))
  return {setting: matrix.mean_iou() for setting, matrix in matrices.items()}


def mean_iou_without(samples, make_matrix):
  """mIoU of the network alone; see `mean_ious`."""
  matrix = make_matrix()
  for sample in samples:
    labels = sample.probabilities().argmax(axis=2)
    matrix.update(sample.labels[None], labels[None], [sample.name])
  return matrix.mean_iou()


def search(evaluate, grid, refinements):
  """Coarse to fine.

  Args:
    evaluate: maps a list of dense_crf.Parameters to {setting: mIoU}.
    grid: {name: ascending values} for some fields of Parameters.
    refinements: how often to look around the best point so far, in steps half
      as large as before. A parameter with one value stays at it.

  Yields:
    {setting: mIoU} of the grid and of each refinement; fewer when nothing is
    left to refine.

  Raises:
    InputError: a value is out of range.
  """
  steps = {
    name: min(np.diff(values)) if len(values) > 1 else 0
    for name, values in grid.items()
  }
  known = {}
  for _ in range(refinements + 1):
    points = itertools.product(*grid.values())
    settings = [
      dense_crf.Parameters(**dict(zip(grid, point, strict=True)))
      for point in points
    ]
    new = [setting for setting in settings if setting not in known]
    if not new:
      return
    found = evaluate(new)
    yield found
    known.update(found)
    best = best_of(known)
    steps = {name: step / 2 for name, step in steps.items()}
    grid = {
      name: _around(name, getattr(best, name), step)
      for name, step in steps.items()
    }


def _around(name, value, step):
  """A value and its two neighbours, as far as they are possible."""
  values = [value - step, value, value + step] if step else [value]
  return [value for value in values if value in dense_crf.RANGES[name]]


def best_of(results):
  """The setting with the highest mIoU; the first one of several."""
  return max(results, key=results.get)


def to_table(results):
  """The best settings, line by line."""
  best = sorted(results, key=results.get, reverse=True)[:_TABLE_ROWS]
  header = ''.join(f'{name:>12}' for name in (*GRID, 'mIoU'))
  rows = [
    ''.join(f'{getattr(setting, name):12g}' for name in GRID)
    + f'{results[setting]:12.4%}'
    for setting in best
  ]
  return '\n'.join([header, *rows])


def flags_of(setting):
  """The flags of eval.py and vis.py for a setting."""
  defaults = dense_crf.Parameters()
  given = [
    f'--crf_{name}={value:g}'
    for name, value in vars(setting).items()
    if name in GRID or value != getattr(defaults, name)
  ]
  return ' '.join(['--crf', *given])


# The script.


def _define_flags():
  evaluation_flags.define_data_flags('eval')
  for name, values in GRID.items():
    flags.define_list(name, list(values), 'Coarse grid of the search.', float)
  absl_flags.DEFINE_integer(
    'refinements', 1, 'Searches around the best point, the steps halved.'
  )
  absl_flags.DEFINE_integer('num_images', 100, 'Images to search on.')
  absl_flags.DEFINE_string('output', 'crf_search.json', 'File for the results.')


def _grid():
  """{name: ascending values} from the flags."""
  grid = {name: sorted(set(FLAGS[name].value)) for name in GRID}
  for name, values in grid.items():
    for value in values:
      try:
        dense_crf.Parameters(**{name: value})
      except InputError as error:
        raise InputError(f'--{error}') from error
  common.check_ranges(
    {f'--{name}': FLAGS[name].value for name in ('refinements', 'num_images')},
    {'--refinements': common.Range(whole=True), '--num_images': common.COUNT},
  )
  return grid


def _check_output(path):
  """Before the work, not after it."""
  is_other = os.path.exists(path) and not os.path.isfile(path)
  if not path or is_other:
    raise InputError(f'--output must name a file. Received: --output={path}.')


def main():
  _check_output(FLAGS.output)
  grid = _grid()
  (run,) = evaluation_flags.make_job('eval').runs()
  data = run.dataset

  def make_matrix():
    return metrics.ConfusionMatrix(data.num_of_classes, data.ignore_label)

  with tempfile.TemporaryDirectory() as folder:
    samples = collect(run.predict, data, FLAGS.num_images, folder)
    before = mean_iou_without(samples, make_matrix)
    if before != before:
      raise InputError(
        f'--eval_split={data.split_name}: all pixels of its images have the '
        'ignore label. Choose another split.'
      )
    print(f'{len(samples)} images, without CRF: mIoU {before:.4%}', flush=True)

    def evaluate(settings):
      return mean_ious(samples, settings, make_matrix)

    results, rounds = {}, []
    for found in search(evaluate, grid, FLAGS.refinements):
      rounds.append(found)
      results.update(found)
      print(to_table(results), flush=True)
      _write(FLAGS.output, run, len(samples), before, rounds)
  best = best_of(results)
  print(f'{flags_of(best)}\nmIoU {results[best]:.4%}: {FLAGS.output}')


def _write(path, run, num_images, before, rounds):
  """Writes what is known so far."""
  results = {key: value for found in rounds for key, value in found.items()}
  best = best_of(results)
  values = {
    'checkpoint': run.prefix,
    'step': run.step,
    'split': run.dataset.split_name,
    'num_images': num_images,
    'miou_without_crf': before,
    'best': {**dataclasses.asdict(best), 'miou': results[best]},
    'flags': flags_of(best),
    'rounds': [
      [
        {**dataclasses.asdict(setting), 'miou': miou}
        for setting, miou in found.items()
      ]
      for found in rounds
    ],
  }
  atomic_files.write(path, json.dumps(values, indent=1) + '\n')


if __name__ == '__main__':
  _define_flags()
  flags.run(main)

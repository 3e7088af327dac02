"""Evaluates a network on a labelled split, once or as training goes on."""

import json
import os

import tensorflow as tf

from deeplab import common, text_files
from deeplab.common import InputError
from deeplab.evaluation import metrics, prediction

# The newest evaluation, beside one miou_<step>.json for each.
LATEST_FILE = 'miou_latest.json'


def evaluate(predict, dataset):
  """Counts labels against predictions over a whole split.

  Args:
    predict: images, float32 [batch, height, width, 3] in 0..255, to integer
      labels [batch, height, width].
    dataset: a data_generator.Dataset that is neither shuffled nor repeated.

  Returns:
    A metrics.ConfusionMatrix.

  Raises:
    InputError: the split has no labels, or something in it is broken.
  """
  if not dataset.has_labels:
    raise InputError(
      f'--eval_split={dataset.split_name} has no labels to evaluate with. '
      'Choose another split, or look at its predictions with vis.py.'
    )
  matrix = metrics.ConfusionMatrix(dataset.num_of_classes, dataset.ignore_label)
  for batch in prediction.batches(dataset, 'Evaluating'):
    matrix.update(
      batch[common.LABEL],
      predict(batch[common.IMAGE]),
      batch[common.IMAGE_NAME],
    )
  return matrix


def write_results(matrix, logdir, writer, step, prefix, tag, class_names=None):
  """Writes an evaluation as JSON files and for TensorBoard.

  Args:
    matrix: a metrics.ConfusionMatrix.
    logdir: folder for miou_<step>.json and miou_latest.json.
    writer: tf.summary writer for the scalars.
    step: training step of the checkpoint.
    prefix: the checkpoint.
    tag: see `metrics.predictions_tag`.
    class_names: one name for each class, or None.

  Returns:
    The values written as JSON: those of `metrics.to_dict`, and 'step',
    'checkpoint', 'tag' and 'scalars' (the official TensorBoard tags, None for
    NaN).
  """
  scalars = metrics.official_scalars(matrix, tag)
  values = {
    'step': step,
    'checkpoint': prefix,
    'tag': tag,
    **metrics.to_dict(matrix, class_names),
    'scalars': {
      name: None if value != value else value for name, value in scalars.items()
    },
  }
  text = json.dumps(values, indent=1, allow_nan=False) + '\n'
  for name in (f'miou_{step}.json', LATEST_FILE):
    text_files.write_text(os.path.join(logdir, name), text)
  with writer.as_default(step=step):
    for name, value in scalars.items():
      tf.summary.scalar(name, value)
  writer.flush()
  return values


def run(job, eval_logdir):
  """Evaluates a checkpoint, or the checkpoints of a training run in turn.

  Prints a table for each and writes it under `eval_logdir`.

  Args:
    job: a prediction.Job.
    eval_logdir: folder for the files of `write_results` and TensorBoard.

  Returns:
    The values of the last evaluation (see `write_results`).
  """
  tag = metrics.predictions_tag(job.eval_scales, job.add_flipped_images)
  values = writer = None
  # Now rather than after an hour of waiting or evaluation.
  with prediction.clear_write_errors(eval_logdir):
    tf.io.gfile.makedirs(eval_logdir)
  for item in job.runs():
    with prediction.clear_write_errors(eval_logdir):
      writer = writer or tf.summary.create_file_writer(eval_logdir)
    names = item.dataset.info.class_names
    matrix = evaluate(item.predict, item.dataset)
    print(metrics.to_table(matrix, names))
    with prediction.clear_write_errors(eval_logdir):
      values = write_results(
        matrix, eval_logdir, writer, item.step, item.prefix, tag, names
      )
    path = os.path.join(eval_logdir, f'miou_{item.step}.json')
    print(f'{tag} of {matrix.num_images} images: {path}', flush=True)
  return values

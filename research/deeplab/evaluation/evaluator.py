"""Evaluates a network on a labelled split, once or as training goes on."""

import dataclasses
import json
import math
import os

import tensorflow as tf
from absl import logging

from deeplab import atomic_files, common
from deeplab.common import InputError
from deeplab.evaluation import (
  image_scores,
  metrics,
  plot_confusion,
  plot_trimap,
  prediction,
  result_files,
)
from deeplab.evaluation import trimap as trimap_lib

# The newest evaluation, beside one miou_<step>.json for each.
LATEST_FILE = 'miou_latest.json'


def evaluate(predict, dataset, trimap=None, scores=None):
  """Counts labels against predictions over a whole split.

  Args:
    predict: images, float32 [batch, height, width, 3] in 0..255, to integer
      labels [batch, height, width].
    dataset: a data_generator.Dataset that is neither shuffled nor repeated.
    trimap: a trimap.Trimap to count with as well, or None.
    scores: an image_scores.ImageScores to add every image to, or None.

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
    counted = (
      batch[common.LABEL],
      prediction.label_batch(predict, batch),
      batch[common.IMAGE_NAME],
    )
    counts = matrix.update(*counted)
    if scores is not None:
      scores.add(batch[common.IMAGE_NAME], counts)
    if trimap is not None:
      # Where the padding begins is no boundary.
      trimap.update(*counted, sizes=prediction.valid_sizes(batch))
  return matrix


def write_results(
  matrix,
  logdir,
  writer,
  step,
  prefix,
  tag,
  class_names=None,
  trimap=None,
  crf=None,
  scores=None,
  output_stride=None,
):
  """Writes an evaluation as JSON files, pictures and for TensorBoard.

  Pictures are nothing to end a training for: any fault of them is a warning.

  Args:
    matrix: a metrics.ConfusionMatrix.
    logdir: folder for miou_<step>.json, miou_latest.json and
      confusion_<step>.png.
    writer: tf.summary writer for the scalars.
    step: training step of the checkpoint.
    prefix: the checkpoint.
    tag: see `metrics.predictions_tag`.
    class_names: one name for each class, or None.
    trimap: a trimap.Trimap that holds pixels, for trimap_<step>.json and .png
      as well; or None.
    crf: dense_crf.Parameters of the CRF behind the network, or None.
    scores: an image_scores.ImageScores of the same images, for
      images_<step>.csv and .npz as well; or None.
    output_stride: that of the network, or None if it is not known.

  Returns:
    The values written as JSON: those of `metrics.to_dict`, and 'step',
    'checkpoint', 'tag', 'output_stride', 'crf' (its parameters or None),
    'scalars' (the official TensorBoard tags, None for NaN) and, if there is
    one, 'trimap' (see `trimap.to_dict`).
  """

  def write(name, content):
    atomic_files.write(os.path.join(logdir, name.format(step)), content)

  scalars = metrics.official_scalars(matrix, tag)
  values = {
    'step': step,
    'checkpoint': prefix,
    'tag': tag,
    'output_stride': output_stride,
    'crf': crf and dataclasses.asdict(crf),
    **metrics.to_dict(matrix, class_names),
    'scalars': {
      name: None if value != value else value for name, value in scalars.items()
    },
  }
  if trimap is not None:
    values['trimap'] = trimap_lib.to_dict(trimap)
    scalars.update(_trimap_scalars(values))
    write(f'{result_files.TRIMAP}.json', _trimap_json(values, class_names))
  for name in (result_files.MIOU, LATEST_FILE):
    write(name, _to_json(values))
  if scores is not None:
    write(result_files.IMAGES_TABLE, scores.to_csv())
    write(result_files.IMAGES, scores.counts().to_bytes())
  with writer.as_default(step=step):
    for name, value in scalars.items():
      tf.summary.scalar(name, value)
  writer.flush()
  for name, draw in _pictures(matrix, class_names, values).items():
    try:
      write(name, draw())
    except Exception as error:
      logging.warning('%s is not drawn: %s', name.format(step), error)
  return values


def _to_json(values):
  return json.dumps(values, indent=1, allow_nan=False) + '\n'


def _trimap_json(values, class_names):
  """The file trimap_<step>.json; the arguments are those of `_pictures`."""
  header = {name: values[name] for name in ('step', 'checkpoint', 'tag')}
  header['class_names'] = class_names and list(class_names)
  return _to_json({**header, 'trimap': values['trimap']})


def _trimap_scalars(values):
  """{TensorBoard tag: mIoU} of the values of `write_results`."""
  return {
    f'trimap/{values["tag"]}_width_{row["width"]}': (
      math.nan if row['miou'] is None else row['miou']
    )
    for row in values['trimap']['bands']
  }


def _pictures(matrix, class_names, values):
  """The pictures of an evaluation.

  Args:
    matrix: a metrics.ConfusionMatrix.
    class_names: one name for each class, or None.
    values: what `write_results` is going to return.

  Returns:
    {name of the file, for the step: function that draws it}.
  """
  step = values['step']

  def draw_confusion():
    title = plot_confusion.title_of(matrix, step)
    return plot_confusion.draw(matrix, class_names, title)

  def draw_trimap():
    return plot_trimap.draw([plot_trimap.Curve(f'step {step}', trimap)])

  trimap = values.get('trimap')
  pictures = {result_files.CONFUSION: draw_confusion}
  if trimap is not None:
    pictures[f'{result_files.TRIMAP}.png'] = draw_trimap
  return pictures


class _Recorder:
  """Evaluates one network after another; all results go into one folder."""

  def __init__(
    self,
    eval_logdir,
    tag,
    crf=None,
    trimap_widths=None,
    trimap_boundary=trimap_lib.ANY,
  ):
    """Makes the folder: now rather than after an hour of waiting.

    Args:
      eval_logdir: see `run`.
      tag: see `metrics.predictions_tag`.
      crf: dense_crf.Parameters of the CRF behind the networks, or None.
      trimap_widths: see `run`.
      trimap_boundary: see `run`.

    Raises:
      InputError: an argument is not acceptable.
    """
    if trimap_widths is not None:
      trimap_lib.check_options(trimap_widths, trimap_boundary)
    self._logdir = eval_logdir
    self._tag = tag if crf is None else f'{tag}_crf'
    self._crf = crf
    self._trimap_options = (trimap_widths, trimap_boundary)
    self._writer = None
    with prediction.clear_write_errors(eval_logdir):
      tf.io.gfile.makedirs(eval_logdir)

  def record(self, predict, dataset, prefix, step):
    """Evaluates, prints and writes.

    Args:
      predict: see `evaluate`.
      dataset: see `evaluate`.
      prefix: the checkpoint of `predict`.
      step: its training step.

    Returns:
      The values of `write_results`.

    Raises:
      InputError: see `run`.
    """
    with prediction.clear_write_errors(self._logdir):
      self._writer = self._writer or tf.summary.create_file_writer(self._logdir)
    names = dataset.info.class_names
    trimap = self._make_trimap(dataset)
    scores = image_scores.ImageScores(dataset.num_of_classes, names)
    matrix = evaluate(predict, dataset, trimap, scores)
    print(metrics.to_table(matrix, names))
    confusions = metrics.largest_confusions(matrix, names)
    if confusions:
      print('\n  '.join(['Largest confusions:', *map(str, confusions)]))
    has_trimap = trimap is not None and not trimap.is_empty()
    with prediction.clear_write_errors(self._logdir):
      values = write_results(
        matrix,
        self._logdir,
        self._writer,
        step,
        prefix,
        self._tag,
        names,
        trimap if has_trimap else None,
        self._crf,
        scores,
        # As with the CRF: any function may predict.
        getattr(predict, 'output_stride', None),
      )
    if has_trimap:
      print(trimap_lib.to_table(values['trimap']))
    print(self._describe(matrix, step, has_trimap), flush=True)
    if trimap is not None and not has_trimap:
      raise trimap.empty_error(f'--eval_split={dataset.split_name}')
    return values

  def _describe(self, matrix, step, has_trimap):
    """The last line of an evaluation: what it came to, and where it is."""
    names = [result_files.MIOU, result_files.CONFUSION]
    names += [result_files.IMAGES_TABLE, result_files.IMAGES]
    if has_trimap:
      names += [f'{result_files.TRIMAP}.json', f'{result_files.TRIMAP}.png']
    names = [name.format(step) for name in names]
    # A picture may not have been drawn.
    first, *others = (
      name
      for name in names
      if tf.io.gfile.exists(os.path.join(self._logdir, name))
    )
    return (
      f'mIoU {matrix.mean_iou():.4f} ({self._tag}) of {matrix.num_images} '
      f'images at step {step}: {os.path.join(self._logdir, first)}, beside it '
      f'{", ".join(others)}'
    )

  def _make_trimap(self, dataset):
    widths, boundary = self._trimap_options
    if widths is None:
      return None
    return trimap_lib.Trimap(
      dataset.num_of_classes, dataset.ignore_label, widths, boundary
    )


class Evaluation:
  """Evaluates checkpoints of one network from within its training.

  The network is built once, with variables of its own.
  """

  def __init__(
    self,
    options,
    dataset,
    crop_size,
    eval_logdir,
    image_pyramid=None,
    use_moving_averages=None,
    strategy=None,
  ):
    """Builds the network; the weights come with `evaluate`.

    Args:
      options: ModelOptions of the training; their crop size gives way to
        `crop_size`.
      dataset: a data_generator.Dataset that is neither shuffled nor repeated,
        with the same crop size.
      crop_size: [height, width] that images are padded to.
      eval_logdir: folder for the files of `write_results` and TensorBoard.
      image_pyramid: see `prediction.Predictor`.
      use_moving_averages: see `checkpoints.restore`.
      strategy: see `prediction.Predictor`.

    Raises:
      InputError: the options cannot be built, or the folder not be written to.
    """
    self._recorder = _Recorder(
      eval_logdir, metrics.predictions_tag([1.0], False)
    )
    self._dataset = dataset
    self._predictor = prediction.Predictor(
      options.replace(crop_size=list(crop_size)),
      crop_size,
      image_pyramid=image_pyramid,
      use_moving_averages=use_moving_averages,
      strategy=strategy,
    )

  def evaluate(self, prefix, step=None):
    """Evaluates a checkpoint on the whole split.

    Prints a table and writes it under `eval_logdir`, as `run` does.

    Args:
      prefix: the checkpoint.
      step: its training step; None for the one in the file.

    Returns:
      The values of `write_results`, 'miou' among them.

    Raises:
      InputError: it is no checkpoint of this network, the split has no labels
        or something in it is broken, or the results cannot be written.
    """
    stored_step = self._predictor.restore(prefix)
    step = stored_step if step is None else step
    return self._recorder.record(self._predictor, self._dataset, prefix, step)


def run(job, eval_logdir, trimap_widths=None, trimap_boundary=trimap_lib.ANY):
  """Evaluates a checkpoint, or the checkpoints of a training run in turn.

  Prints a table for each and writes it under `eval_logdir`.

  Args:
    job: a prediction.Job.
    eval_logdir: folder for the files of `write_results` and TensorBoard.
    trimap_widths: ascending widths in pixels of bands around boundaries that
      are evaluated on their own as well; None for none.
    trimap_boundary: what a boundary is; see `trimap`.

  Returns:
    The values of the last evaluation (see `write_results`).

  Raises:
    InputError: something given is not acceptable; or no trimap holds a pixel
      that counts (the rest is written before).
  """
  recorder = _Recorder(
    eval_logdir,
    metrics.predictions_tag(job.eval_scales, job.add_flipped_images),
    job.crf,
    trimap_widths,
    trimap_boundary,
  )
  values = None
  for item in job.runs():
    values = recorder.record(item.predict, item.dataset, item.prefix, item.step)
  return values

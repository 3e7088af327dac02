"""Writes a network's predictions on a split as pictures, and a page of them."""

import dataclasses
import os

import numpy as np
import tensorflow as tf
from absl import logging

from deeplab import common
from deeplab.common import InputError
from deeplab.datasets import dataset_info
from deeplab.datasets.data_generator import RESIZED_HEIGHT, RESIZED_WIDTH
from deeplab.evaluation import contact_sheet, metrics, prediction
from deeplab.utils import get_dataset_colormap, save_annotation

# Folders of the official script.
PREDICTION_FOLDER = 'segmentation_results'
RAW_PREDICTION_FOLDER = 'raw_segmentation_results'

# The evaluation server of Cityscapes wants these ids instead of 0, 1, 2, ...
CITYSCAPES_NAME = 'cityscapes'
CITYSCAPES_EVAL_IDS = (
  *(7, 8, 11, 12, 13, 17, 19, 20, 21, 22),
  *(23, 24, 25, 26, 27, 28, 31, 32, 33),
)

# Layers with the levels of a photograph, which hardly compress.
_PHOTO_LAYERS = (
  contact_sheet.IMAGE,
  contact_sheet.OVERLAY,
  contact_sheet.ERROR,
)

_IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.gif', '.tif', '.tiff')


def _text(image_name):
  """The name in a record, which may be any bytes, as text."""
  return image_name.decode(errors='replace')


def raw_name(image_name):
  """Name, without extension, of the file of an image's raw prediction.

  Args:
    image_name: name in the record, bytes: with or without folders and with or
      without the extension of an image.
  """
  name = os.path.basename(_text(image_name))
  stem, extension = os.path.splitext(name)
  # '2007_000.33' has no extension, whatever splitext thinks.
  return stem if extension.lower() in _IMAGE_EXTENSIONS else name


def _resize(values, size, method):
  """Resizes [height, width, channels] with aligned corners."""
  resized = tf.compat.v1.image.resize(
    values[None], size, method=method, align_corners=True
  )
  return resized[0].numpy()


def _to_size(labels, resized_size, size):
  """Takes the padding off labels and brings them to the file's size."""
  height, width = resized_size
  labels = labels[:height, :width]
  if tuple(resized_size) != tuple(size):
    labels = _resize(
      labels[..., None], size, tf.image.ResizeMethod.NEAREST_NEIGHBOR
    )[..., 0]
  return labels


def undo_preprocessing(image, labels, resized_size, size):
  """Takes the padding off, and brings labels back to the file's size.

  Args:
    image: [crop height, crop width, 3], the network's input.
    labels: integers [crop height, crop width], its output.
    resized_size: [height, width] of the image before it was padded.
    size: [height, width] of the image in the file.

  Returns:
    (image, labels): uint8 of `resized_size` and integers of `size`.
  """
  height, width = resized_size
  # Whole numbers unless the image was resized; cut off as the original does.
  image = np.asarray(image[:height, :width]).astype(np.uint8)
  return image, _to_size(labels, resized_size, size)


@dataclasses.dataclass(frozen=True)
class _Sample:
  """An image of a split and what was predicted.

  Attributes:
    name: name in the record, bytes.
    image: see `undo_preprocessing`.
    labels: the prediction; see `undo_preprocessing`.
    truth: the labels of the split, in the same way; None without any, or where
      they are no classes.
    scores: a metrics.ConfusionMatrix of this image, or None. It counts before
      anything is brought back to the file's size, as evaluation does.
  """

  name: bytes
  image: np.ndarray
  labels: np.ndarray
  truth: np.ndarray | None = None
  scores: metrics.ConfusionMatrix | None = None


def _samples(predict, dataset):
  """Yields a _Sample of every image of a split."""
  scorer = _Scorer(dataset)
  for batch in prediction.batches(dataset, 'Visualizing'):
    labels = prediction.label_batch(predict, batch)
    images = batch[common.IMAGE].numpy()
    for index, name in enumerate(batch[common.IMAGE_NAME]):
      sizes = (
        (batch[RESIZED_HEIGHT][index], batch[RESIZED_WIDTH][index]),
        (batch[common.HEIGHT][index], batch[common.WIDTH][index]),
      )
      image, label = undo_preprocessing(images[index], labels[index], *sizes)
      truth = scores = None
      if common.LABEL in batch:
        # The padding has the ignore label and does not count.
        truth = batch[common.LABEL][index, ..., 0]
        scores = scorer.score(truth, labels[index], name)
        truth = None if scores is None else _to_size(truth, *sizes)
      yield _Sample(name, image, label, truth, scores)


class _Scorer:
  """Scores images one by one, and warns once if it cannot."""

  def __init__(self, dataset):
    self._arguments = dataset.num_of_classes, dataset.ignore_label
    self._warned = False

  def score(self, truth, labels, name):
    """A metrics.ConfusionMatrix of one image; None if its labels are broken."""
    scores = metrics.ConfusionMatrix(*self._arguments)
    try:
      scores.update(truth[None], labels[None], [name])
    # The pictures are worth as much without; evaluation refuses such labels.
    except InputError as error:
      if not self._warned:
        logging.warning(
          'This image, and others like it, are shown without labels: %s', error
        )
      self._warned = True
      return None
    return scores


def save_sample(
  stem,
  image,
  labels,
  folder,
  colormap,
  truth=None,
  ignore_label=None,
  image_extension='png',
):
  """Saves the pictures of an image: itself, its coloured labels, both in one.

  Args:
    stem: what the files' names begin with, before '_image.png' and so on.
    image: uint8 [height, width, 3].
    labels: integers [height, width], of the same size or another one, to which
      the image is then brought for the pictures that show both.
    folder: where the pictures go; must exist.
    colormap: name of a colour map, or an array [entries, 3].
    truth: labels to compare with, of the size of `labels`; None for none. With
      them there are two more pictures: these labels, and the errors.
    ignore_label: the value in `truth` of pixels that do not count.
    image_extension: of the picture of the image itself: 'png', or 'jpg' for
      files of a tenth of the size.

  Returns:
    {contact_sheet.IMAGE, ...: name of the file in `folder`}.

  Raises:
    InputError: a file cannot be written.
  """
  pictures = {
    contact_sheet.IMAGE: image,
    contact_sheet.PREDICTION: get_dataset_colormap.label_to_color_image(
      labels, colormap
    ),
  }
  if image.shape[:2] != labels.shape:
    image = _resize(image, labels.shape, tf.image.ResizeMethod.BILINEAR)
  pictures[contact_sheet.OVERLAY] = save_annotation.overlay(
    image, labels, colormap
  )
  if truth is not None:
    pictures[contact_sheet.LABEL] = save_annotation.ground_truth(
      truth, ignore_label, colormap
    )
    pictures[contact_sheet.ERROR] = save_annotation.error_map(
      image, labels, truth, ignore_label
    )
  # The layers' names are the official endings of the files' names.
  names = {layer: f'{stem}_{layer}.png' for layer in pictures}
  names[contact_sheet.IMAGE] = f'{stem}_{contact_sheet.IMAGE}.{image_extension}'
  for layer, picture in pictures.items():
    save_annotation.save_picture(
      picture, os.path.join(folder, names[layer]), layer in _PHOTO_LAYERS
    )
  return names


def _new_name(image_name, names, where):
  """`raw_name` of an image, noted in `names`, where it must be new."""
  raw, image_name = raw_name(image_name), _text(image_name)
  if raw in names:
    raise InputError(
      f'{where}: the raw predictions of the images {names[raw]!r} and '
      f'{image_name!r} would both be {raw}.png. Give the images different '
      'names.'
    )
  names[raw] = image_name
  return raw


def _save_raw(labels, folder, name, is_cityscapes):
  """Saves the labels themselves."""
  if is_cityscapes:
    labels = np.array(CITYSCAPES_EVAL_IDS, np.uint8)[labels]
  save_annotation.save_annotation(labels, folder, name, add_colormap=False)


def visualize(
  predict, dataset, vis_logdir, colormap='pascal', also_save_raw=False, step=0
):
  """Writes the pictures of a whole split, and a page that shows them.

  Args:
    predict: images, float32 [batch, height, width, 3] in 0..255, to integer
      labels [batch, height, width].
    dataset: a data_generator.Dataset that is neither shuffled nor repeated, or
      photos.Photos, whose files' names the pictures get instead of numbers.
    vis_logdir: folder for the page and the folders of pictures.
    colormap: name of a colour map, or an array [entries, 3].
    also_save_raw: write the labels themselves too, one grey image each; those
      of the records of Cityscapes in the ids of its evaluation server.
    step: training step of the network, for the page's title.

  Returns:
    The number of images.

  Raises:
    InputError: two images' raw predictions would go to the same file.
  """
  folder, raw_folder = output_folders(vis_logdir)
  with prediction.clear_write_errors(vis_logdir):
    tf.io.gfile.makedirs(folder)
    tf.io.gfile.makedirs(raw_folder)
  sheet = _contact_sheet(vis_logdir, dataset, colormap)
  count = 0
  try:
    for files, sample in _saved(
      predict, dataset, folder, colormap, raw_folder if also_save_raw else None
    ):
      sheet.add(
        _text(sample.name),
        sample.labels.shape,
        {layer: f'{PREDICTION_FOLDER}/{name}' for layer, name in files.items()},
        sample.scores,
        sample.labels,
      )
      count += 1
  finally:
    # Whatever ended it, what has been done is there to be seen.
    if count:
      sheet.write(f'{dataset.info.name} {dataset.split_name}, step {step}')
  return count


def output_folders(vis_logdir):
  """Where the pictures and the raw predictions go: two paths."""
  return [
    os.path.join(vis_logdir, name)
    for name in (PREDICTION_FOLDER, RAW_PREDICTION_FOLDER)
  ]


def _saved(predict, dataset, folder, colormap, raw_folder):
  """Saves the pictures of each image; yields (see `save_sample`, _Sample).

  Args:
    predict: see `visualize`.
    dataset: see `visualize`.
    folder: for the pictures.
    colormap: see `visualize`.
    raw_folder: for the labels themselves; None to leave them.
  """
  has_names = dataset.names_results
  # Classes of photographs may be guessed, and no server evaluates them.
  is_cityscapes = not has_names and dataset.info.name == CITYSCAPES_NAME
  names = {}
  for count, sample in enumerate(_samples(predict, dataset)):
    stem = sample.name.decode() if has_names else f'{count:06d}'
    with prediction.clear_write_errors(os.path.dirname(folder)):
      files = save_sample(
        stem,
        sample.image,
        sample.labels,
        folder,
        colormap,
        sample.truth,
        dataset.ignore_label,
        'jpg' if has_names else 'png',
      )
      if raw_folder is not None:
        raw = (
          stem if has_names else _new_name(sample.name, names, dataset.where)
        )
        _save_raw(sample.labels, raw_folder, raw, is_cityscapes)
    yield files, sample


def _contact_sheet(vis_logdir, dataset, colormap):
  """An empty page, whose legend has the colours of the pictures."""
  if isinstance(colormap, str):
    colormap = get_dataset_colormap.create_label_colormap(colormap)
  colors = np.asarray(colormap)[: dataset.num_of_classes].tolist()
  return contact_sheet.ContactSheet(
    vis_logdir, dataset.info.replace(colors=colors)
  )


def _colormap(colormap_type, dataset):
  """The colour map to use, an array [entries, 3] with all classes."""
  if colormap_type is None:
    folder = dataset.dataset_dir
    if folder is None or tf.io.gfile.exists(
      os.path.join(folder, dataset_info.FILE_NAME)
    ):
      return get_dataset_colormap.colormap_from_info(dataset.info)
    colormap_type = get_dataset_colormap.get_pascal_name()
  colormap = get_dataset_colormap.create_label_colormap(colormap_type)
  if len(colormap) < dataset.num_of_classes:
    raise InputError(
      f'--colormap_type={colormap_type} has {len(colormap)} colours, but the '
      f'data set {dataset.info.name!r} has {dataset.num_of_classes} classes. '
      'Choose another one.'
    )
  return colormap


def run(job, vis_logdir, colormap_type=None, also_save_raw=False):
  """Visualises a checkpoint, or the checkpoints of a training run in turn.

  The pictures and the page of a checkpoint replace those of the one before.

  Args:
    job: a prediction.Job.
    vis_logdir: see `visualize`.
    colormap_type: name of a colour map; None takes the colours of
      dataset_info.json and, where there is none, those of PASCAL.
    also_save_raw: see `visualize`.

  Returns:
    The number of images.

  Raises:
    InputError: among others, the colour map has too few colours.
  """
  count = 0
  for item in job.runs():
    colormap = _colormap(colormap_type, item.dataset)
    count = visualize(
      item.predict, item.dataset, vis_logdir, colormap, also_save_raw, item.step
    )
    path = os.path.join(vis_logdir, contact_sheet.FILE_NAME)
    print(f'{count} images: {path}', flush=True)
  return count

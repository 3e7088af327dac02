"""Writes label maps as PNG files, and pictures."""

import io
import os

import numpy as np
from PIL import Image

from deeplab import atomic_files
from deeplab.utils import get_dataset_colormap

# Of 100; what is lost is hard to see.
_JPEG_QUALITY = 92

# Stripes of two greys where labels are ignored, which no class is drawn in.
_STRIPES = np.array([[88] * 3, [122] * 3], np.uint8)
_STRIPE_WIDTH = 4

# Wrong pixels, mixed with the image's grey levels; right ones are faded.
_WRONG = np.array([225, 29, 46], np.float32)
_FADED = np.array([250, 250, 250], np.float32)

# The colours of both, right ones first, for each sum of three levels.
_GREY = np.arange(3 * 255 + 1, dtype=np.float32)[:, None] / 3
_ERROR_COLORS = np.rint(
  [0.3 * _GREY + 0.7 * _FADED, 0.25 * _GREY + 0.75 * _WRONG]
).astype(np.uint8)


def save_picture(array, path, is_photo=False):
  """Writes an image so that the file is either whole or not there.

  Args:
    array: uint8 array [height, width] or [height, width, 3].
    path: the file to write, local or remote (gs://...): JPEG where it ends in
      .jpg, else PNG.
    is_photo: a PNG file is packed less, in a sixth of the time, for files of
      photographs that are a tenth larger.

  Raises:
    InputError: it cannot be written.
  """
  kind = 'JPEG' if path.endswith('.jpg') else 'PNG'
  options = {'quality': _JPEG_QUALITY} if kind == 'JPEG' else {}
  if kind == 'PNG' and is_photo:
    options = {'compress_level': 1}
  # Encoded in memory first: PIL seeks in the file, which remote files cannot.
  encoded = io.BytesIO()
  array = np.ascontiguousarray(array, np.uint8)
  Image.fromarray(array).save(encoded, kind, **options)
  atomic_files.write(path, encoded.getvalue())


def _to_unit_values(label):
  """`label` stretched to 0..1; unchanged where it holds one value only."""
  low, high = label.min(), label.max()
  return (label - low) / (high - low) if high != low else label


def save_annotation(
  label,
  save_dir,
  filename,
  add_colormap=True,
  normalize_to_unit_values=False,
  scale_values=False,
  colormap_type='pascal',
):
  """Saves a label map, or any image, as `save_dir`/`filename`.png.

  Args:
    label: array [height, width] of labels; with add_colormap=False also
      [height, width, 3].
    save_dir: folder, which must exist.
    filename: name of the file without '.png'.
    add_colormap: write the labels' colours instead of the labels.
    normalize_to_unit_values: without colours, stretch the values to 0..1.
    scale_values: without colours, multiply the values by 255 (after that).
    colormap_type: name of a colour map, or an array [entries, 3]; see
      `get_dataset_colormap.label_to_color_image`.

  Raises:
    ValueError: a label has no colour, or a value does not fit into 0..255.
  """
  label = np.asarray(label)
  if add_colormap:
    values = get_dataset_colormap.label_to_color_image(label, colormap_type)
  else:
    values = _to_unit_values(label) if normalize_to_unit_values else label
    values = values * 255.0 if scale_values else values
  if values.size and (values.min() < 0 or values.max() > 255):
    raise ValueError(
      f'{filename}.png can hold values of 0..255 only. '
      f'Received: {values.min()}..{values.max()}.'
    )
  save_picture(
    values.astype(np.uint8), os.path.join(save_dir, f'{filename}.png')
  )


def overlay(image, label, colormap_type, opacity=0.5):
  """Lays the colours of a label map over an image.

  Args:
    image: array [height, width, 3] of 0..255.
    label: integer array [height, width].
    colormap_type: as in `save_annotation`.
    opacity: 0 shows the image only, 1 the colours only.

  Returns:
    uint8 array [height, width, 3].

  Raises:
    ValueError: the sizes differ, or a label has no colour.
  """
  image = np.asarray(image)
  colors = get_dataset_colormap.label_to_color_image(label, colormap_type)
  if image.shape != colors.shape:
    raise ValueError(
      f'The image has shape {image.shape}, its coloured labels {colors.shape}.'
    )
  mixed = np.empty(image.shape, np.uint8)
  # Row by row: the numbers of a large image would fill the memory.
  for row, image_row, colors_row in zip(mixed, image, colors, strict=True):
    values = (1 - opacity) * image_row.astype(np.float32)
    values += opacity * colors_row.astype(np.float32)
    row[:] = np.rint(values).clip(0, 255)
  return mixed


def _fill_ignored(colors, label, ignore_label):
  """Draws stripes over the ignored pixels of `colors`, in place."""
  rows, columns = np.nonzero(label == ignore_label)
  colors[rows, columns] = _STRIPES[(rows + columns) // _STRIPE_WIDTH % 2]


def ground_truth(label, ignore_label, colormap_type):
  """Colours labels like predictions, and shows where they are ignored.

  Args:
    label: integer array [height, width].
    ignore_label: labels to draw as stripes.
    colormap_type: as in `save_annotation`.

  Returns:
    uint8 array [height, width, 3].

  Raises:
    ValueError: a label has no colour.
  """
  label = np.asarray(label)
  known = np.where(label == ignore_label, 0, label)
  colors = get_dataset_colormap.label_to_color_image(known, colormap_type)
  colors = colors.astype(np.uint8)
  _fill_ignored(colors, label, ignore_label)
  return colors


def error_map(image, prediction, label, ignore_label):
  """Shows where a prediction is wrong.

  Args:
    image: array [height, width, 3] of 0..255.
    prediction: integer array [height, width].
    label: integer array [height, width].
    ignore_label: label of pixels that do not count.

  Returns:
    uint8 array [height, width, 3]: the image, faint and grey, where the
    prediction is right, red where it is wrong, striped where labels are
    ignored.

  Raises:
    ValueError: the sizes differ.
  """
  image, prediction, label = map(np.asarray, (image, prediction, label))
  if not image.shape[:2] == prediction.shape == label.shape:
    raise ValueError(
      'The image, its prediction and its labels must have the same size. '
      f'Received: {image.shape}, {prediction.shape}, {label.shape}.'
    )
  levels = image.astype(np.uint8).sum(axis=2, dtype=np.uint16)
  is_wrong = (prediction != label).astype(np.uint8)
  colors = _ERROR_COLORS[is_wrong, levels]
  _fill_ignored(colors, label, ignore_label)
  return colors

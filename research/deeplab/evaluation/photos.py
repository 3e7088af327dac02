"""Image files of any kind and size as a data set without labels."""

import collections
import contextlib
import functools
import glob
import io
import itertools
import os
import re
import threading
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image, ImageOps, UnidentifiedImageError

from deeplab import common, input_files, input_preprocess
from deeplab.common import InputError
from deeplab.core import preprocess_utils
from deeplab.datasets import data_generator

# What a folder or a pattern takes; a file that is named may be called anything.
EXTENSIONS = (
  *('.avif', '.bmp', '.gif', '.jfif', '.jp2', '.jpe', '.jpeg', '.jpg', '.pgm'),
  *('.png', '.ppm', '.tga', '.tif', '.tiff', '.webp'),
)

# Pixels of the largest image that is read: 16384 x 16384. Some phones take
# pictures of more than Pillow allows, which is 179 millions.
MAX_PIXELS = 1 << 28

# Bytes of the name of an image's results, of the 255 that file systems allow:
# endings follow.
_NAME_BYTES = 180

# Levels of 16 bits for each one of 8 bits.
_LEVELS_16 = 257

# Files that a message names at most.
_SHOWN_FAULTS = 10

# What is transparent is shown on this, as on a page.
_BACKGROUND = 'white'


# Reading.


def read_rgb(path: str) -> np.ndarray:
  """Reads an image as people see it: upright, in red, green and blue.

  Rotations of EXIF are carried out, 16 bits become 8, what is transparent is
  laid on white. Of several pictures in a file the first one counts.

  Args:
    path: a file in one of the formats that EXTENSIONS stand for, whatever it
      is called.

  Returns:
    uint8 [height, width, 3].

  Raises:
    InputError: it cannot be read, is too large, or its pixels have no levels.
  """
  data = input_files.read_bytes(path)
  try:
    with (
      _without_limit(),
      Image.open(io.BytesIO(data), formats=_formats()) as image,
    ):
      _check_size(image, path)
      return np.asarray(_to_rgb(ImageOps.exif_transpose(image), path))
  except UnidentifiedImageError as error:
    raise InputError(
      f'{path} is not an image that can be read, or is damaged at its '
      f'beginning ({len(data)} bytes). Convert it to JPEG or PNG.'
    ) from error
  except (InputError, MemoryError):
    raise
  # Decoders stumble over broken files in every possible way.
  except Exception as error:
    raise InputError(
      f'{path} is damaged or truncated and cannot be decoded: {error}. '
      'Replace the file.'
    ) from error


@functools.cache
def _formats():
  """Pillow's names of what EXTENSIONS stand for.

  Others are not tried: PostScript, for one, is a program, which would be run.
  """
  Image.init()
  wanted = {Image.EXTENSION.get(extension) for extension in EXTENSIONS}
  return [name for name in Image.ID if name in wanted]


_limit_lock = threading.Lock()


@contextlib.contextmanager
def _without_limit():
  """Has Pillow read images of any size; it can only be told so globally."""
  with _limit_lock:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
      yield
    finally:
      Image.MAX_IMAGE_PIXELS = limit


def _check_size(image, path):
  """Refuses images of too many pixels, before they are decoded."""
  width, height = image.size
  if width * height > MAX_PIXELS:
    raise InputError(
      f'{path} has {height}x{width} pixels (height x width), more than '
      f'{MAX_PIXELS}. Shrink it, or cut it into parts.'
    )


def _to_rgb(image, path):
  """A Pillow image as an RGB one."""
  if image.mode.startswith('I') or image.mode == 'F':
    levels = np.asarray(image)
    if image.mode == 'F' or levels.min() < 0 or levels.max() > 65535:
      raise InputError(
        f'{path} has pixels of the kind {image.mode}, from {levels.min()} to '
        f'{levels.max()}, which are no levels of 8 or 16 bits. Convert it to '
        'one of these.'
      )
    image = Image.fromarray(np.rint(levels / _LEVELS_16).astype(np.uint8))
  if image.has_transparency_data:
    image = image.convert('RGBA')
    ground = Image.new('RGBA', image.size, _BACKGROUND)
    image = Image.alpha_composite(ground, image)
  return image.convert('RGB')


# Finding.


def _natural(path):
  """A key that sorts frame2 before frame10."""
  return [
    (0, int(part), '') if part.isdecimal() else (1, 0, part)
    for part in re.split(r'(\d+)', path.lower())
  ], path


def find(patterns: Sequence[str], without: Sequence[str] = ()) -> list[str]:
  """The image files that patterns mean.

  Args:
    patterns: each a pattern of paths, in which ** stands for any folders; a
      folder, for the images in it; or a file.
    without: folders whose files are left out, such as those of the results.

  Returns:
    Paths in natural order, pattern by pattern, each once. Patterns and folders
    take what has an extension of EXTENSIONS.

  Raises:
    InputError: a pattern means no image.
  """
  paths = {}
  for pattern in patterns:
    paths.update(
      dict.fromkeys(sorted(_matches(pattern, without), key=_natural))
    )
  return list(paths)


def _is_below(path, folders):
  """Whether a file is in one of some folders, or in a folder in it."""
  path = os.path.realpath(path)
  return any(
    path.startswith(os.path.join(os.path.realpath(folder), ''))
    for folder in folders
  )


def _matches(pattern, without):
  """The image files of one pattern."""
  if os.path.isfile(pattern):
    return [pattern]
  if '://' in pattern:
    raise InputError(
      f'--image_glob={pattern}: remote files are not read. Copy them here '
      'first.'
    )
  is_folder = os.path.isdir(pattern)
  inside = os.path.join(glob.escape(pattern), '*') if is_folder else pattern
  files = list(filter(os.path.isfile, glob.iglob(inside, recursive=True)))
  images = [name for name in files if name.lower().endswith(EXTENSIONS)]
  kept = [name for name in images if not _is_below(name, without)]
  if kept:
    return kept
  if images:
    raise InputError(
      f'--image_glob={pattern}: all {len(images)} images, such as {images[0]}, '
      f'are where the results go ({", ".join(without)}). Give others, or have '
      'the results go elsewhere.'
    )
  if files:
    raise InputError(
      f'--image_glob={pattern}: none of the {len(files)} files, such as '
      f'{files[0]}, is called as images are ({" ".join(EXTENSIONS)}). Convert '
      'others, such as HEIC, to JPEG.'
    )
  what = 'a folder without images' if is_folder else 'no such file'
  raise InputError(
    f'--image_glob={pattern}: {what}. Give a folder, or a pattern in quotes '
    "such as --image_glob='photos/*.jpg' or 'photos/**/*.png'."
  )


def output_names(paths: Sequence[str]) -> list[str]:
  """A name for the results of each file: short, and none twice.

  Args:
    paths: of the files.

  Returns:
    The name without extension; where several files share it, with the folders
    below those that all have in common; where they still do, with the
    extension. What is too long for the files is cut off. Two names differ in
    more than upper and lower case.
  """
  # Names of files may be no text; those of results are.
  paths = [
    os.fsencode(os.path.abspath(path)).decode(errors='replace')
    for path in paths
  ]
  root = os.path.commonpath([os.path.dirname(path) for path in paths])
  inner = [os.path.relpath(path, root).replace(os.sep, '_') for path in paths]
  kinds = [
    [os.path.splitext(os.path.basename(path))[0] for path in paths],
    [os.path.splitext(name)[0] for name in inner],
    [name.replace('.', '_') for name in inner],
  ]
  kinds = [[_cut(name) for name in kind] for kind in kinds]
  names, taken = [None] * len(paths), set()

  def take(index, name):
    names[index] = name
    taken.add(name.lower())

  for kind in kinds:
    nameless = [index for index, name in enumerate(names) if name is None]
    counts = collections.Counter(kind[index].lower() for index in nameless)
    for index in nameless:
      name = kind[index]
      if counts[name.lower()] == 1 and name.lower() not in taken:
        take(index, name)
  for index, name in enumerate(names):
    if name is None:
      numbered = (f'{kinds[-1][index]}_{n}' for n in itertools.count(2))
      take(index, next(n for n in numbered if n.lower() not in taken))
  return names


def _cut(name):
  """A name, shortened to what leaves room for the endings of files."""
  return name.encode()[:_NAME_BYTES].decode(errors='ignore')


class Photos:
  """Image files, with what is asked of a data_generator.Dataset.

  Attributes:
    info: the `dataset_info.DatasetInfo` of the network's classes.
    num_of_classes: number of classes.
    ignore_label: as of the data set the network was trained on.
    num_examples: number of files.
    has_labels: False.
    names_results: True, as the results are called like the images.
    dataset_dir: None, as there is no folder of records.
    split_name: the patterns, for titles.
    faults: an error text for each file that the last `iterate` left out.
  """

  has_labels = False
  names_results = True
  dataset_dir = None

  def __init__(
    self,
    patterns,
    info,
    batch_size=1,
    min_resize_value=None,
    max_resize_value=None,
    resize_factor=None,
    keep_aspect_ratio=True,
    check=None,
    without=(),
  ):
    """Finds the files.

    Args:
      patterns: see `find`.
      info: the DatasetInfo of the network's classes.
      batch_size: images of the same size in a batch, at most.
      min_resize_value: wanted size of the smaller side, None for no resizing;
        see `preprocess_utils.resize_to_range`.
      max_resize_value: bound of the larger side or None.
      resize_factor: resized sides are a multiple of it plus one, or None.
      keep_aspect_ratio: False resizes to squares.
      check: check(image, path) raises an InputError for an image [height,
        width, 3] to be left out; None for none.
      without: see `find`.

    Raises:
      InputError: there are no files, or an argument is out of range.
    """
    common.check_ranges(
      {'batch_size': batch_size}, {'batch_size': common.COUNT}
    )
    input_preprocess.check_options(
      {
        'min_resize_value': min_resize_value,
        'max_resize_value': max_resize_value,
        'resize_factor': resize_factor,
      }
    )
    self._paths = find(patterns, without)
    self._names = output_names(self._paths)
    self._batch_size = batch_size
    self._check = check
    self._resizes = bool(min_resize_value or max_resize_value)
    self._resizing = {
      'min_size': min_resize_value or None,
      'max_size': max_resize_value or None,
      'factor': resize_factor,
      'keep_aspect_ratio': keep_aspect_ratio,
    }
    self.info = info
    self.num_of_classes = info.num_classes
    self.ignore_label = info.ignore_label
    self.num_examples = len(self._paths)
    self.split_name = ', '.join(patterns)
    self.faults = []

  def iterate(self):
    """Reads the files; those that cannot be read are noted and left out.

    Yields:
      Batches as a data_generator.Dataset gives them, of images of one size and
      without padding: uint8 as in the file, float32 where resized. The name of
      an image is that of its results, see `output_names`.
    """
    self.faults = []
    batch = []
    for sample in self._samples():
      image = sample[common.IMAGE]
      if batch and (
        len(batch) == self._batch_size
        or image.shape != batch[0][common.IMAGE].shape
      ):
        yield _stacked(batch)
        batch = []
      batch.append(sample)
    if batch:
      yield _stacked(batch)

  def check(self):
    """Raises an InputError if files were left out."""
    if self.faults:
      shown = ' '.join(self.faults[:_SHOWN_FAULTS])
      more = ' ...' if len(self.faults) > _SHOWN_FAULTS else ''
      raise InputError(
        f'{len(self.faults)} of {self.num_examples} images were left out: '
        f'{shown}{more}'
      )

  def _samples(self):
    """Yields the items of one image after the other."""
    for path, name in zip(self._paths, self._names, strict=True):
      try:
        image, size = self._read(path)
      except InputError as error:
        logging.warning('Left out: %s', error)
        self.faults.append(str(error))
        continue
      yield {
        common.IMAGE: image,
        common.IMAGE_NAME: name.encode(),
        common.HEIGHT: size[0],
        common.WIDTH: size[1],
        data_generator.RESIZED_HEIGHT: image.shape[0],
        data_generator.RESIZED_WIDTH: image.shape[1],
      }

  def _read(self, path):
    """(image, [height, width] in the file) of a file."""
    image = read_rgb(path)
    size = image.shape[:2]
    if self._resizes:
      image, _ = preprocess_utils.resize_to_range(
        tf.cast(image, tf.float32), None, **self._resizing
      )
    if self._check is not None:
      self._check(image, path)
    return image, size


def _stacked(samples):
  """One batch of several samples."""
  return {
    name: tf.constant(np.stack([sample[name] for sample in samples]))
    for name in samples[0]
  }

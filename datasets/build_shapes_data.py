"""Generates a data set of shapes in PASCAL VOC's layout, and converts it.

  python datasets/build_shapes_data.py --output_dir=shapes

leaves in shapes/:
  JPEGImages/*.jpg, SegmentationClass/*.png     images and palette masks
  ImageSets/Segmentation/{train,val}.txt        the splits
  dataset_info.json                             classes and colours
  tfrecord/                                     what --dataset_dir takes

It takes seconds, needs no download, and the same --seed gives the same images.
`shapes_images.Options` says how hard they are.
"""

import contextlib
import io
import os
import shutil
import tempfile

import numpy as np
import tqdm
from absl import flags
from PIL import Image

from deeplab import flags as deeplab_flags
from deeplab.common import InputError
from deeplab.datasets import (
  build_voc2012_data,
  class_tables,
  dataset_info,
  shapes_images,
)
from deeplab.datasets.dataset_info import DatasetInfo

_IMAGES = 'JPEGImages'
_LABELS = 'SegmentationClass'
_LISTS = os.path.join('ImageSets', 'Segmentation')

# Folder of the TFRecord files within the data set.
RECORDS = 'tfrecord'

_JPEG_QUALITY = 92

# Smaller images have no room for shapes.
_MIN_SIDE = 32

INFO = DatasetInfo(
  name='shapes',
  num_classes=len(shapes_images.CLASS_NAMES),
  ignore_label=shapes_images.IGNORE_LABEL,
  class_names=shapes_images.CLASS_NAMES,
)


def _save(image, path, **options):
  """Writes an image; Pillow alone does not notice that a disk is full."""
  encoded = io.BytesIO()
  extension = os.path.splitext(path)[1]
  image.save(encoded, Image.registered_extensions()[extension], **options)
  with open(path, 'wb') as file:
    file.write(encoded.getbuffer())


def _write_images(folder, split, split_index, count, seed, options):
  """Draws the images of a split and writes files and list."""
  palette = [v for color in class_tables.pascal_colormap() for v in color]
  names = [f'shapes_{split}_{index:05d}' for index in range(count)]
  for index, name in enumerate(tqdm.tqdm(names, f'draw {split}', unit='image')):
    # Each image has its own seed: those of val do not depend on num_train.
    rng = np.random.default_rng([seed, split_index, index])
    image, label = shapes_images.draw(rng, options)
    path = os.path.join(folder, _IMAGES, f'{name}.jpg')
    _save(Image.fromarray(image), path, quality=_JPEG_QUALITY)
    mask = Image.fromarray(label)
    mask.putpalette(palette)
    _save(mask, os.path.join(folder, _LABELS, f'{name}.png'))
  path = os.path.join(folder, _LISTS, f'{split}.txt')
  with open(path, 'w', encoding='utf-8') as output:
    output.writelines(f'{name}\n' for name in names)


def _check_output(output_dir):
  """Refuses a folder that holds anything but an earlier shapes data set."""
  if not os.path.isdir(output_dir) or not os.listdir(output_dir):
    return
  path = os.path.join(output_dir, dataset_info.FILE_NAME)
  # A training run on shapes has the description too, but no images.
  if (
    not os.path.isdir(os.path.join(output_dir, _IMAGES))
    or not os.path.exists(path)
    or dataset_info.load(path).name != INFO.name
  ):
    raise InputError(
      f'--output_dir={output_dir} is not empty and holds no shapes data set. '
      'Give another folder.'
    )


@contextlib.contextmanager
def _replacing(output_dir):
  """A folder beside `output_dir` whose entries go there at the end."""
  parent = os.path.dirname(os.path.abspath(output_dir))
  os.makedirs(parent, exist_ok=True)
  folder = tempfile.mkdtemp(prefix='.shapes-', dir=parent)
  try:
    yield folder
    os.makedirs(output_dir, exist_ok=True)
    for name in os.listdir(folder):
      target = os.path.join(output_dir, name)
      if os.path.isdir(target):
        shutil.rmtree(target)
      os.replace(os.path.join(folder, name), target)
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def convert(
  output_dir: str,
  num_train: int = 600,
  num_val: int = 100,
  seed: int = 0,
  options: shapes_images.Options | None = None,
) -> DatasetInfo:
  """Generates the data set and converts it.

  Args:
    output_dir: folder of the data set; an earlier shapes data set in it is
      replaced.
    num_train: number of images of the split 'train'.
    num_val: number of images of the split 'val'.
    seed: the same seed gives the same images.
    options: size and difficulty, None for the defaults.

  Returns:
    The data set with the number of examples of each split.

  Raises:
    InputError: a number is not positive, or `output_dir` holds anything else
      or cannot be written.
  """
  counts = {'train': num_train, 'val': num_val}
  for split, count in counts.items():
    if count < 1:
      raise InputError(f'--num_{split} must be positive. Received: {count}.')
  if seed < 0:
    raise InputError(f'--seed must not be negative. Received: {seed}.')
  options = options or shapes_images.Options()
  if min(options.height, options.width) < _MIN_SIDE:
    raise InputError(
      f'--image_size must be at least {_MIN_SIDE},{_MIN_SIDE}. Received: '
      f'{options.height},{options.width}.'
    )
  _check_output(output_dir)
  try:
    with _replacing(output_dir) as folder:
      for name in (_IMAGES, _LABELS, _LISTS):
        os.makedirs(os.path.join(folder, name))
      for index, (split, count) in enumerate(counts.items()):
        _write_images(folder, split, index, count, seed, options)
      info = build_voc2012_data.convert(
        os.path.join(folder, _IMAGES),
        os.path.join(folder, _LABELS),
        os.path.join(folder, _LISTS),
        os.path.join(folder, RECORDS),
        info=INFO,
      )
      info.save(folder)
  except OSError as error:
    raise InputError(
      f'cannot write into --output_dir={output_dir}: {error}'
    ) from error
  return info


def _define_flags():
  flags.DEFINE_string('output_dir', './shapes', 'Folder of the data set.')
  flags.DEFINE_integer('num_train', 600, 'Images to train on.')
  flags.DEFINE_integer('num_val', 100, 'Images to evaluate on.')
  flags.DEFINE_integer('seed', 0, 'The same seed gives the same images.')
  flags.DEFINE_list(
    'image_size',
    ['128', '160'],
    'Height and width of the images, each at least 32.',
  )


def _options(image_size):
  """Options of a size that was given as texts."""
  try:
    height, width = (int(side) for side in image_size)
  except ValueError as error:
    raise InputError(
      '--image_size must be two integers, height and width, as in 128,160. '
      f'Received: {",".join(image_size)}.'
    ) from error
  return shapes_images.Options(height=height, width=width)


def main():
  """Generates what the flags ask for."""
  values = flags.FLAGS
  info = convert(
    values.output_dir,
    values.num_train,
    values.num_val,
    values.seed,
    _options(values.image_size),
  )
  folder = os.path.join(values.output_dir, RECORDS)
  print(f'{info.name}: {info.splits}; --dataset_dir={folder}')


if __name__ == '__main__':
  _define_flags()
  deeplab_flags.run(main)

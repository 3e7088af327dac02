"""Finds images and labels of one's own in folders, and the splits of them.

What a conversion writes and what a check of the same folders looks at:
found = folder_examples.find('photos', 'masks', 'mydata', options)
"""

import dataclasses
import functools
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence

from deeplab import common
from deeplab.common import InputError
from deeplab.datasets import build_data, image_files, image_folders
from deeplab.datasets.build_data import Example
from deeplab.datasets.dataset_info import DatasetInfo
from deeplab.datasets.labels import (
  class_table_files,
  label_formats,
  mask_labels,
)
from deeplab.datasets.labels.label_source import Classes

# --unknown.
ERROR, IGNORE = UNKNOWN = ('error', 'ignore')

# The random split, where nothing is said about it.
VAL_FRACTION = 0.2
SEED = 1

_RANGES = {
  'val_fraction': common.SHARE,
  'test_fraction': common.SHARE,
  'line_width': common.POSITIVE,
}


@dataclasses.dataclass(frozen=True)
class Options:
  """How images and labels are found, read and split; one flag each.

  Attributes:
    label_format: one of label_formats.LABEL_FORMATS.
    class_table: file of the classes, None for those that the labels show.
    ignore_classes: names of classes whose pixels are ignored.
    unknown: whether what is not among the classes is an ERROR, or IGNORE.
    mask_values: one of mask_labels.VALUES.
    line_width: of lines in LabelMe's files, in pixels; None to refuse them.
    image_suffix: what follows the names of images.
    label_suffix: what follows the names of labels.
    skip_unlabelled: whether images without a label are left out.
    apply_exif_rotation: whether images are rotated as viewers show them.
    list_folder: folder of <split>.txt.
    split: the one split of all images.
    val_fraction: share of images in 'val', if neither of these two is given.
    test_fraction: share of images in 'test', likewise.
    seed: of the random split.
  """

  label_format: str = label_formats.AUTO
  class_table: str | None = None
  ignore_classes: Sequence[str] = ()
  unknown: str = ERROR
  mask_values: str = mask_labels.AUTO
  line_width: float | None = None
  image_suffix: str = ''
  label_suffix: str = ''
  skip_unlabelled: bool = False
  apply_exif_rotation: bool = False
  list_folder: str | None = None
  split: str | None = None
  val_fraction: float | None = None
  test_fraction: float | None = None
  seed: int | None = None

  def __post_init__(self):
    common.check_ranges(dataclasses.asdict(self), _RANGES)
    random = ('val_fraction', 'test_fraction', 'seed')
    is_random = any(getattr(self, name) is not None for name in random)
    ways = {
      '--list_folder': self.list_folder,
      '--split': self.split,
      '--val_fraction, --test_fraction and --seed': is_random,
    }
    given = [way for way, value in ways.items() if value]
    if len(given) > 1:
      raise InputError(
        f'images are split in one way. Received: {" as well as ".join(given)}.'
      )
    if self.split and not re.fullmatch(r'\w+', self.split):
      raise InputError(
        '--split must be a name of letters, digits and underscores. Received: '
        f'--split={self.split}.'
      )
    if self.list_folder and self.skip_unlabelled:
      raise InputError(
        '--skip_unlabelled does not go with --list_folder: lists say which '
        'images count.'
      )
    if self.unknown == IGNORE and not self.class_table:
      raise InputError(
        f'--unknown={IGNORE} is about what --class_table does not name. Give '
        'the table too.'
      )


# Names and splits.


def _find_images(image_folder, label_folder, labels, options):
  """The images of a folder, without masks that lie there too."""
  is_below = image_folders.is_inside(label_folder, image_folder) and (
    not image_folders.is_inside(image_folder, label_folder)
  )
  images = image_folders.find_files(
    image_folder,
    build_data.IMAGE_EXTENSIONS,
    options.image_suffix,
    leave_out=label_folder if is_below else None,
  )
  masks = {os.path.realpath(path) for path in labels.paths.values()}
  images = {
    name: path
    for name, path in images.items()
    if os.path.realpath(path) not in masks
  }
  for what, folder, found in (
    ('images', image_folder, images),
    ('labels', label_folder, labels.paths),
  ):
    if not found:
      raise InputError(
        f'there are no {what} in {folder}, or none whose names end as '
        f'--{what[:-1]}_suffix says.'
      )
  return images


def _split(images, labels, options, refuse):
  """{split: names}."""
  if options.list_folder:
    return image_folders.split_by_lists(
      options.list_folder, images, labels.paths, refuse
    )
  names = image_folders.pair(
    images,
    labels.paths,
    options.skip_unlabelled,
    refuse,
    labels.is_indexed,
  )
  if not names:
    raise InputError('no image has a label.')
  if options.split:
    return {options.split: names}
  fractions = {'val': options.val_fraction, 'test': options.test_fraction or 0}
  if options.val_fraction is None:
    fractions['val'] = VAL_FRACTION
  seed = SEED if options.seed is None else options.seed
  return image_folders.split_by_fraction(names, fractions, seed)


# Examples.


@dataclasses.dataclass(frozen=True)
class Found:
  """What lies in the folders.

  Attributes:
    splits: the examples of each split.
    info: the classes; its `splits` are empty.
    left_out: names of images that are in no split.
  """

  splits: Mapping[str, Sequence[Example]]
  info: DatasetInfo
  left_out: Sequence[str]


def _classes(labels, splits, name, options):
  """The Classes of the labels that are converted."""
  if options.class_table:
    table = class_table_files.read(options.class_table)
  else:
    # Lists may name an image several times, or images without a label.
    names = dict.fromkeys(itertools.chain(*splits.values()))
    table = labels.find_classes([n for n in names if n in labels.paths])
  if labels.has_background:
    # The rows of a table are in the order that the user wants.
    table = table.with_background(to_front=not options.class_table)
  table = table.without(options.ignore_classes)
  return Classes(table, table.info(name), options.unknown == IGNORE)


def _decode(path, name, image, labels, classes, rotates):
  """The labels of an image; `path` is that of their file."""
  del path
  size = image_files.image_size(image, rotates)
  return labels.decode(name, size, classes)


def _example(name, image, labels, classes, rotates):
  """The Example of an image."""
  if name not in labels.paths:
    return Example(name, image, apply_exif_rotation=rotates)
  decode = functools.partial(
    _decode,
    name=name,
    image=image,
    labels=labels,
    classes=classes,
    rotates=rotates,
  )
  return Example(name, image, labels.paths[name], decode, rotates)


def find(
  image_folder: str,
  label_folder: str,
  name: str,
  options: Options | None = None,
  refuse: Callable[[str], None] = image_folders.raise_error,
) -> Found:
  """Finds the images and labels of two folders.

  Args:
    image_folder: folder of the images; subfolders count.
    label_folder: folder of the labels, or COCO's JSON file.
    name: of the data set.
    options: how to find, read and split them.
    refuse: called with what is wrong with images or labels that are not
      paired. If it returns, these are left out.

  Returns:
    The examples and their classes. Labels are not read yet, unless they are
    what tells the classes; `decode_label` of an example reads them.

  Raises:
    InputError: a folder, a list or the table is missing or not acceptable.
  """
  options = options or Options()
  build_data.check_folder(image_folder, 'images')
  labels = label_formats.open_labels(
    label_folder,
    image_folder,
    options.label_format,
    options.label_suffix,
    options.mask_values,
    options.line_width,
  )
  images = _find_images(image_folder, label_folder, labels, options)
  splits = _split(images, labels, options, refuse)
  classes = _classes(labels, splits, name, options)
  examples = {
    split: [
      _example(n, images[n], labels, classes, options.apply_exif_rotation)
      for n in names
    ]
    for split, names in splits.items()
  }
  left_out = sorted(set(images).difference(*splits.values()))
  return Found(examples, classes.info, left_out)

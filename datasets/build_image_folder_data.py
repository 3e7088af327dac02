r"""Converts photographs and labels of one's own to TFRecord files.

  python datasets/build_image_folder_data.py --image_folder=photos \
    --label_folder=masks --class_table=classes.csv --output_dir=mydata

Labels are masks (indices, palettes, or colours that --class_table explains),
LabelMe's JSON files, or JSON files in the formats of COCO. The images are
split at random (--val_fraction, --test_fraction), by lists (--list_folder), or
not at all (--split). Everything is checked before anything is written; what
`--dataset=mydata` needs afterwards is in the folder.
"""

import dataclasses
import itertools
import os
import re
import shlex
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags

from deeplab import common
from deeplab import flags as deeplab_flags
from deeplab.common import InputError
from deeplab.datasets import (
  build_data,
  dataset_info,
  image_files,
  image_folders,
)
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

# Images in a shard, above the smallest number of shards.
_PER_SHARD = 500

_RANGES = {
  'val_fraction': common.SHARE,
  'test_fraction': common.SHARE,
  'num_shards': common.Range(1, 99999, whole=True),
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
    num_shards: files of each split; None for a number that fits.
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
  num_shards: int | None = None

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


def _split(images, labels, options):
  """{split: names}."""
  if options.list_folder:
    return image_folders.split_by_lists(
      options.list_folder, images, labels.paths
    )
  names = image_folders.pair(images, labels.paths, options.skip_unlabelled)
  if not names:
    raise InputError('no image has a label.')
  if options.split:
    return {options.split: names}
  fractions = {'val': options.val_fraction, 'test': options.test_fraction or 0}
  if options.val_fraction is None:
    fractions['val'] = VAL_FRACTION
  seed = SEED if options.seed is None else options.seed
  return image_folders.split_by_fraction(names, fractions, seed)


# Conversion.


def _classes(labels, splits, name, options):
  """The Classes of the labels that are converted."""
  if options.class_table:
    table = class_table_files.read(options.class_table)
  else:
    # Lists may name an image several times, or images without a label.
    names = dict.fromkeys(itertools.chain(*splits.values()))
    table = labels.find_classes([n for n in names if n in labels.paths])
  if labels.has_background:
    table = table.with_background()
  table = table.without(options.ignore_classes)
  return Classes(table, table.info(name), options.unknown == IGNORE)


def _example(name, image, labels, classes, pixels, options):
  """The Example of an image; its labels are counted in `pixels`."""
  rotates = options.apply_exif_rotation
  if name not in labels.paths:
    return Example(name, image, apply_exif_rotation=rotates)

  def decode(path):
    del path
    size = image_files.image_size(image, rotates)
    found = labels.decode(name, size, classes)
    pixels[:] += np.bincount(found.ravel(), minlength=len(pixels))
    return found

  return Example(name, image, labels.paths[name], decode, rotates)


def _check_old_splits(output_dir, splits):
  """Refuses a random split beside other splits, which may have its images."""
  path = os.path.join(output_dir, dataset_info.FILE_NAME)
  if not os.path.exists(path):
    return
  old = set(dataset_info.load(path).splits) - set(splits)
  old = [split for split in old if build_data.find_shards(output_dir, split)]
  if old:
    raise InputError(
      f'--output_dir={output_dir} holds the splits {sorted(old)} of an earlier '
      f'conversion, whose images may now be in {list(splits)}. Give another '
      'folder, or empty this one.'
    )


def convert(
  image_folder: str,
  label_folder: str,
  output_dir: str,
  name: str | None = None,
  options: Options | None = None,
) -> tuple[DatasetInfo, dict[str, np.ndarray]]:
  """Converts the images and labels of two folders.

  Args:
    image_folder: folder of the images; subfolders count.
    label_folder: folder of the labels, or COCO's JSON file.
    output_dir: folder that the TFRecord files go into.
    name: of the data set; that of `output_dir` if None.
    options: how to find, read and split them.

  Returns:
    The data set with the number of examples of each split, and
    {split: number of pixels of each label, int64 [256]} of the splits of this
    conversion.

  Raises:
    InputError: a file is missing or not acceptable; nothing is written then.
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
  splits = _split(images, labels, options)
  if not (options.list_folder or options.split):
    _check_old_splits(output_dir, splits)
  name = name or os.path.basename(os.path.abspath(output_dir))
  classes = _classes(labels, splits, name, options)
  pixels = {split: np.zeros(256, np.int64) for split in splits}
  examples = {
    split: [
      _example(image, images[image], labels, classes, pixels[split], options)
      for image in names
    ]
    for split, names in splits.items()
  }
  most = max(map(len, examples.values()))
  shards = options.num_shards or max(
    build_data.NUM_SHARDS, -(-most // _PER_SHARD)
  )
  info = build_data.convert(
    examples, output_dir, classes.info, num_shards=shards
  )
  return info, pixels


def summary(info: DatasetInfo, pixels: Mapping[str, np.ndarray]) -> str:
  """What was converted, as a table.

  Args:
    info: the data set.
    pixels: see `convert`.

  Returns:
    Lines: the splits, and the share of each class in the pixels.
  """
  names = {label: name for label, name in enumerate(info.class_names)}
  if any(counts[info.ignore_label] for counts in pixels.values()):
    names.setdefault(info.ignore_label, '(ignored)')
  width = max(map(len, names.values()))
  lines = [
    f'{info.name}: {info.num_classes} classes',
    *(f'{split:>12} {count} images' for split, count in info.splits.items()),
    f'label {"class":<{width}} {"colour":<11}'
    + ''.join(f' {split:>9}' for split in pixels),
  ]
  for label, name in names.items():
    color = info.colors[label] if label < info.num_classes else ()
    line = f'{label:5} {name:<{width}} {" ".join(map(str, color)):<11}'
    for counts in pixels.values():
      share = counts[label] / max(counts.sum(), 1)
      line += f' {share:>9.2%}' if counts[label] else f' {"-":>9}'
    lines.append(line)
  return '\n'.join(lines)


# The script.


def _define_flags():
  string, enum = flags.DEFINE_string, flags.DEFINE_enum
  string('image_folder', None, 'Folder of the images, subfolders included.')
  string(
    'label_folder',
    None,
    'Folder of the masks or of LabelMe files, or a JSON file of COCO.',
  )
  string('output_dir', None, 'Folder that the TFRecord files go into.')
  string(
    'dataset_name',
    None,
    'Name of the data set; that of --output_dir if not given.',
  )
  enum(
    'label_format',
    label_formats.AUTO,
    label_formats.LABEL_FORMATS,
    'Format of the labels.',
  )
  string(
    'class_table',
    None,
    'File of the classes in their order: lines name,red,green,blue or names, '
    'or JSON. Without it, what the labels show.',
  )
  deeplab_flags.define_list(
    'ignore_classes',
    [],
    'Names of classes that are none: their pixels get the ignore label.',
    convert=str,
  )
  enum(
    'unknown',
    ERROR,
    UNKNOWN,
    'What to do with colours, values and names that are not in --class_table.',
  )
  enum(
    'mask_values',
    mask_labels.AUTO,
    mask_labels.VALUES,
    'What pixels of masks are: indices, colours of --class_table, or '
    'whichever fits.',
  )
  flags.DEFINE_float(
    'line_width',
    None,
    "Width in pixels of lines and points in LabelMe's files; refused without.",
  )
  string('image_suffix', '', 'What follows the names of images: _leftImg8bit.')
  string('label_suffix', '', 'What follows the names of labels: _L, _mask.')
  flags.DEFINE_boolean(
    'skip_unlabelled', False, 'Leaves images without a label out.'
  )
  flags.DEFINE_boolean(
    'apply_exif_rotation',
    False,
    'Rotates images as viewers show them; labels must fit that.',
  )
  _define_split_flags()


def _define_split_flags():
  flags.DEFINE_string(
    'list_folder', None, 'Folder of <split>.txt, one name a line.'
  )
  flags.DEFINE_string('split', None, 'The one split that all images go into.')
  flags.DEFINE_float(
    'val_fraction',
    None,
    f'Share of the images in the split val; {VAL_FRACTION} if not given.',
  )
  flags.DEFINE_float(
    'test_fraction',
    None,
    'Share of the images in the split test; 0 if not given.',
  )
  flags.DEFINE_integer(
    'seed', None, f'Of the random split; {SEED} if not given.'
  )
  flags.DEFINE_integer(
    'num_shards', None, 'Files of each split; a fitting number if not given.'
  )


def _training_command(info, output_dir):
  """The command that comes next."""
  # A folder that is called like a published data set is meant as a folder.
  folder = output_dir
  if folder in dataset_info.BUILTIN:
    folder = os.path.join(os.curdir, folder)
  words = ['python', 'train.py', f'--dataset={folder}']
  if 'train' not in info.splits:
    words.append(f'--train_split={next(iter(info.splits))}')
  return shlex.join([*words, '--train_logdir=train'])


def main():
  """Converts what the flags name."""
  values = flags.FLAGS
  names = [field.name for field in dataclasses.fields(Options)]
  options = Options(**{name: getattr(values, name) for name in names})
  info, pixels = convert(
    values.image_folder,
    values.label_folder,
    values.output_dir,
    values.dataset_name,
    options,
  )
  print(summary(info, pixels))
  print(f'Next:\n  {_training_command(info, values.output_dir)}')


if __name__ == '__main__':
  _define_flags()
  deeplab_flags.require('image_folder', 'label_folder', 'output_dir')
  deeplab_flags.run(main)

r"""Converts COCO to TFRecord files, with the labels of one of two data sets.

  python datasets/build_coco_data.py --coco_root=coco --labels=stuff \
    --output_dir=tfrecord
  python datasets/build_coco_data.py --coco_root=coco --labels=panoptic \
    --output_dir=tfrecord

The root holds train2017/ and val2017/, and

  stuff: stuffthingmaps/{train2017,val2017}/*.png of COCO-Stuff 164k, with
    values 0..181 (category ids less one). Eleven of these do not occur; the
    other 171 become the classes 0..170 of `coco_stuff`, things before stuff.
  panoptic: annotations/panoptic_{train2017,val2017}.json and the folders of
    PNG files of the same names. The categories of the JSON file, 133 as
    published, become the classes of `coco_panoptic` in the order of their
    ids, with its names and colours. Instances are not told apart; crowds have
    the class of what they are crowds of.

Unlabelled pixels are 255. A split without labels is left out.
"""

import functools
import os

from absl import flags

from deeplab import flags as deeplab_flags
from deeplab.common import InputError
from deeplab.datasets import (
  build_data,
  dataset_info,
  image_files,
  paired_folders,
)
from deeplab.datasets.build_data import Example
from deeplab.datasets.dataset_info import DatasetInfo
from deeplab.datasets.labels.coco_labels import CocoPanoptic
from deeplab.datasets.labels.label_source import Classes

STUFF_INFO = dataset_info.BUILTIN['coco_stuff']
_PANOPTIC_NAME = 'coco_panoptic'

# {split: its folder of images}.
_FOLDERS = {'train': 'train2017', 'val': 'val2017'}

# COCO is large: 18 GB of training images.
_NUM_SHARDS = 32

_IGNORED = STUFF_INFO.ignore_label

# Values 0..181 of the masks of COCO-Stuff that no category has.
_UNUSED_VALUES = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
_STUFF_VALUES = [v for v in range(182) if v not in _UNUSED_VALUES]
CLASS_OF_STUFF_VALUE = {
  **{value: index for index, value in enumerate(_STUFF_VALUES)},
  _IGNORED: _IGNORED,
}


def _stuff_folder(root, folder):
  return os.path.join(root, 'stuffthingmaps', folder)


def _find_stuff(root, folder):
  """The examples of a folder with the masks of COCO-Stuff, and the classes."""
  examples = paired_folders.find_examples(
    os.path.join(root, folder),
    _stuff_folder(root, folder),
    functools.partial(image_files.decode_ids, label_of_id=CLASS_OF_STUFF_VALUE),
  )
  return examples, STUFF_INFO


def _panoptic_json(root, folder):
  return os.path.join(root, 'annotations', f'panoptic_{folder}.json')


def _decode_panoptic(path, name, image, labels, classes):
  """The labels of an image; `path` is that of their PNG file."""
  del path
  return labels.decode(name, image_files.image_size(image), classes)


def _find_panoptic(root, folder):
  """The examples of a folder with panoptic annotations, and the classes."""
  path = _panoptic_json(root, folder)
  labels = CocoPanoptic(path)
  table = labels.find_classes(())
  classes = Classes(table, table.info(_PANOPTIC_NAME))
  examples = []
  for name, label in labels.paths.items():
    image = os.path.join(root, folder, f'{name}.jpg')
    for needed in (image, label):
      if not os.path.isfile(needed):
        raise InputError(
          f'{path} has an annotation of the image {name!r}, but there is no '
          f'{needed}. Unpack the data set again.'
        )
    decode = functools.partial(
      _decode_panoptic,
      name=name,
      image=image,
      labels=labels,
      classes=classes,
    )
    examples.append(Example(name, image, label, decode))
  if not examples:
    raise InputError(f"{path}: 'annotations' is empty.")
  return examples, classes.info


# {--labels: (where the labels of a folder of images are, how to find them)}.
_KINDS = {
  'stuff': (_stuff_folder, _find_stuff),
  'panoptic': (_panoptic_json, _find_panoptic),
}


def convert(coco_root: str, labels: str, output_dir: str) -> DatasetInfo:
  """Converts the splits that are there.

  Args:
    coco_root: folder of train2017/, val2017/ and the annotations.
    labels: 'stuff' or 'panoptic'.
    output_dir: folder that the TFRecord files go into.

  Returns:
    The data set with the number of examples of each split.

  Raises:
    InputError: a file is missing or not acceptable, or the categories of the
      two JSON files differ.
  """
  locate, find = _KINDS[labels]
  splits, infos = {}, {}
  for split, folder in _FOLDERS.items():
    if os.path.exists(locate(coco_root, folder)):
      splits[split], infos[split] = find(coco_root, folder)
  if not splits:
    wanted = ' or '.join(locate(coco_root, f) for f in _FOLDERS.values())
    raise InputError(
      f'--coco_root={coco_root} has no annotations for --labels={labels}: '
      f'there is no {wanted}.'
    )
  info = next(iter(infos.values()))
  if any(other != info for other in infos.values()):
    raise InputError(
      f'the JSON files of {" and ".join(infos)} in --coco_root={coco_root} '
      "have different 'categories'. They must be those of one data set."
    )
  return build_data.convert(splits, output_dir, info, num_shards=_NUM_SHARDS)


def _define_flags():
  flags.DEFINE_string(
    'coco_root',
    './coco',
    'Folder of train2017/, val2017/, and of stuffthingmaps/ or annotations/.',
  )
  flags.DEFINE_enum(
    'labels',
    'stuff',
    list(_KINDS),
    'COCO-Stuff, 171 classes, or COCO panoptic, 133 classes.',
  )
  flags.DEFINE_string(
    'output_dir', './tfrecord', 'Folder that the TFRecord files go into.'
  )


def main():
  """Converts what the flags name."""
  values = flags.FLAGS
  info = convert(values.coco_root, values.labels, values.output_dir)
  print(f'{info.name}: {info.splits} in {values.output_dir}')


if __name__ == '__main__':
  _define_flags()
  deeplab_flags.run(main)

r"""Converts PASCAL VOC 2012, or data in its layout, to TFRecord files.

  python datasets/build_voc2012_data.py \
    --image_folder=VOCdevkit/VOC2012/JPEGImages \
    --semantic_segmentation_folder=VOCdevkit/VOC2012/SegmentationClass \
    --list_folder=VOCdevkit/VOC2012/ImageSets/Segmentation \
    --output_dir=tfrecord

Every <split>.txt of the list folder becomes a split. Masks may be the palette
images of PASCAL VOC, RGB images in its colours, or grey images of indices; no
separate step removes the colour map. For a data set of one's own,
--dataset_info names a JSON file with its name, num_classes, class_names and so
on.

--sbd_root=benchmark_RELEASE/dataset adds the split train_aug: the training
images of PASCAL VOC and those of the Semantic Boundaries Dataset. Where that
augmentation is at hand as masks, SegmentationClassAug, and a list,
train_aug.txt, neither needs a flag of its own:
--semantic_segmentation_folder=VOCdevkit/VOC2012/SegmentationClassAug
"""

import dataclasses

from absl import flags

from deeplab import flags as deeplab_flags
from deeplab.common import InputError
from deeplab.datasets import build_data, dataset_info, sbd
from deeplab.datasets.dataset_info import DatasetInfo


def convert(
  image_folder: str,
  semantic_segmentation_folder: str,
  list_folder: str,
  output_dir: str,
  image_format: str | None = None,
  info: DatasetInfo | None = None,
  sbd_root: str | None = None,
) -> DatasetInfo:
  """Converts every list of a folder, and the augmentation.

  Args:
    image_folder: folder of the images.
    semantic_segmentation_folder: folder of the masks.
    list_folder: folder of the lists, <split>.txt.
    output_dir: folder that the TFRecord files go into.
    image_format: extension of the images, None for whichever exists.
    info: the classes, None for those of PASCAL VOC.
    sbd_root: see `sbd.find_train_aug`; None for no augmentation.

  Returns:
    The data set with the number of examples of each split.

  Raises:
    InputError: a file is missing or not acceptable, or the augmentation is
      asked for and in the lists too.
  """
  splits = {
    split: build_data.find_examples(
      path, image_folder, semantic_segmentation_folder, image_format
    )
    for split, path in build_data.find_lists(list_folder).items()
  }
  if sbd_root is not None:
    if sbd.SPLIT in splits:
      raise InputError(
        f'--list_folder={list_folder} has {sbd.SPLIT}.txt, and '
        f'--sbd_root={sbd_root} would make the same split. Leave --sbd_root '
        'out, or move the list away.'
      )
    splits[sbd.SPLIT] = sbd.find_train_aug(
      sbd_root,
      list_folder,
      image_folder,
      semantic_segmentation_folder,
      image_format,
    )
  if info is None:
    info = dataset_info.BUILTIN['pascal_voc_seg']
  else:
    # Nobody knows on what the masks of one's own photographs were drawn.
    splits = {
      split: [dataclasses.replace(e, apply_exif_rotation=False) for e in found]
      for split, found in splits.items()
    }
  return build_data.convert(splits, output_dir, info)


def _define_flags():
  flags.DEFINE_string(
    'image_folder', './VOCdevkit/VOC2012/JPEGImages', 'Folder of the images.'
  )
  flags.DEFINE_string(
    'semantic_segmentation_folder',
    './VOCdevkit/VOC2012/SegmentationClass',
    'Folder of the masks: palette, RGB or grey PNG files.',
  )
  flags.DEFINE_string(
    'list_folder',
    './VOCdevkit/VOC2012/ImageSets/Segmentation',
    'Folder of the lists, <split>.txt.',
  )
  flags.DEFINE_string(
    'output_dir', './tfrecord', 'Folder that the TFRecord files go into.'
  )
  flags.DEFINE_enum(
    'image_format',
    None,
    build_data.IMAGE_EXTENSIONS,
    'Extension of the images; whichever exists if not given.',
  )
  flags.DEFINE_string(
    'dataset_info',
    None,
    'JSON file that describes the classes of other data in this layout; the 21 '
    'classes of PASCAL VOC if not given.',
  )
  flags.DEFINE_string(
    'sbd_root',
    None,
    'Folder dataset/ of the Semantic Boundaries Dataset (cls/*.mat, img/, '
    'train.txt, val.txt): also makes the split train_aug.',
  )


def main():
  """Converts what the flags name."""
  values = flags.FLAGS
  info = None
  if values.dataset_info:
    info = dataset_info.load(values.dataset_info)
  info = convert(
    values.image_folder,
    values.semantic_segmentation_folder,
    values.list_folder,
    values.output_dir,
    values.image_format,
    info,
    values.sbd_root,
  )
  print(f'{info.name}: {info.splits} in {values.output_dir}')


if __name__ == '__main__':
  _define_flags()
  deeplab_flags.run(main)

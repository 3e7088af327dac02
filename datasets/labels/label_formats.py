"""Finds out what kind of labels a folder holds, and opens them."""

import os

from deeplab import input_files
from deeplab.common import InputError
from deeplab.datasets import image_folders
from deeplab.datasets.labels import coco_labels, labelme_labels, mask_labels
from deeplab.datasets.labels.label_source import LabelSource

AUTO, MASK, LABELME, INSTANCES, PANOPTIC = LABEL_FORMATS = (
  'auto',
  'mask',
  'labelme',
  'coco_instances',
  'coco_panoptic',
)


def _kind_of_json(path):
  """The format of a JSON file, None for any other."""
  content = input_files.read_json(path)
  if not isinstance(content, dict):
    return None
  if labelme_labels.SHAPES in content:
    return LABELME
  items = content.get(coco_labels.ANNOTATIONS)
  if not isinstance(items, list):
    return None
  is_panoptic = any(
    isinstance(item, dict) and coco_labels.SEGMENTS in item for item in items
  )
  return PANOPTIC if is_panoptic else INSTANCES


def _find_format(label_folder, image_folder, suffix):
  """The format of the labels in a folder, or of a JSON file."""
  if os.path.isfile(label_folder):
    kind = _kind_of_json(label_folder)
    if kind not in (INSTANCES, PANOPTIC):
      raise InputError(
        f'--label_folder={label_folder} is a file, but not in a format of '
        'COCO. Give the folder of the labels.'
      )
    return kind
  files = image_folders.find_files(label_folder, ['json'])
  kinds = {_kind_of_json(path) for path in list(files.values())[:1]} - {None}
  masks = image_folders.find_files(label_folder, mask_labels.EXTENSIONS, suffix)
  # Next to LabelMe's files lie the images.
  may_be_images = not suffix and image_folders.is_inside(
    image_folder, label_folder
  )
  if masks and kinds != {PANOPTIC} and not (kinds and may_be_images):
    kinds.add(MASK)
  if len(kinds) != 1:
    ending = f' whose names end in --label_suffix={suffix}' if suffix else ''
    found = ' and '.join(sorted(kinds)) or (
      f'neither masks{ending} nor JSON files of a known format'
    )
    raise InputError(
      f'--label_folder={label_folder} holds {found}. Give --label_format, one '
      f'of {list(LABEL_FORMATS[1:])}, or a folder of labels alone.'
    )
  return kinds.pop()


def _coco_file(path):
  """The JSON file, given itself or its folder."""
  if os.path.isfile(path):
    return path
  files = list(image_folders.find_files(path, ['json']).values())
  if len(files) != 1:
    raise InputError(
      f'--label_folder={path} holds {len(files)} JSON files. Give the one of '
      'the annotations: --label_folder=FILE.json.'
    )
  return files[0]


def open_labels(
  label_folder: str,
  image_folder: str,
  label_format: str = AUTO,
  suffix: str = '',
  mask_values: str = mask_labels.AUTO,
  line_width: float | None = None,
) -> LabelSource:
  """Opens the labels of a folder.

  Args:
    label_folder: the folder, or COCO's JSON file.
    image_folder: folder of the images, which may be the same.
    label_format: one of LABEL_FORMATS; AUTO for what is there.
    suffix: what follows the names of masks and LabelMe files.
    mask_values: of masks, see `mask_labels`.
    line_width: of LabelMe files, see `labelme_labels`.

  Returns:
    The labels.

  Raises:
    InputError: there are none, several kinds, or an argument is for labels of
      another kind.
  """
  if not os.path.exists(label_folder):
    raise InputError(f'there is no --label_folder={label_folder}.')
  kind = label_format
  if kind == AUTO:
    kind = _find_format(label_folder, image_folder, suffix)
  _check_applies(kind, '--label_suffix', suffix, '', (MASK, LABELME))
  _check_applies(kind, '--mask_values', mask_values, mask_labels.AUTO, (MASK,))
  _check_applies(kind, '--line_width', line_width, None, (LABELME,))
  if kind == INSTANCES:
    return coco_labels.CocoInstances(_coco_file(label_folder))
  if kind == PANOPTIC:
    return coco_labels.CocoPanoptic(_coco_file(label_folder))
  if kind == LABELME:
    return labelme_labels.LabelMeLabels(label_folder, suffix, line_width)
  is_same = os.path.realpath(label_folder) == os.path.realpath(image_folder)
  if is_same and not suffix:
    raise InputError(
      f'images and masks are in one folder, {label_folder}. Say what follows '
      'the names of masks: --label_suffix=_mask, for example.'
    )
  return mask_labels.MaskLabels(label_folder, suffix, mask_values)


def _check_applies(kind, flag, value, unset, kinds):
  """Refuses an option that does not apply to a format of labels."""
  if value != unset and kind not in kinds:
    raise InputError(
      f'{flag} is for labels of the format {" or ".join(kinds)}, but these '
      f'are {kind}. Leave it out. Received: {flag}={value}.'
    )

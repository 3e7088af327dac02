"""Flags that say how images and labels lie in folders of one's own."""

import dataclasses

from absl import flags

from deeplab import flags as deeplab_flags
from deeplab.datasets import folder_examples
from deeplab.datasets.labels import label_formats, mask_labels


def define():
  """Defines --image_folder, --label_folder, and a flag for each option."""
  string, enum = flags.DEFINE_string, flags.DEFINE_enum
  string('image_folder', None, 'Folder of the images, subfolders included.')
  string(
    'label_folder',
    None,
    'Folder of the masks or of LabelMe files, or a JSON file of COCO.',
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
    folder_examples.ERROR,
    folder_examples.UNKNOWN,
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
    'Share of the images in the split val; '
    f'{folder_examples.VAL_FRACTION} if not given.',
  )
  flags.DEFINE_float(
    'test_fraction',
    None,
    'Share of the images in the split test; 0 if not given.',
  )
  flags.DEFINE_integer(
    'seed', None, f'Of the random split; {folder_examples.SEED} if not given.'
  )


def options() -> folder_examples.Options:
  """What the flags say.

  Raises:
    InputError: a value is out of range, or two flags contradict each other.
  """
  values = flags.FLAGS
  names = [field.name for field in dataclasses.fields(folder_examples.Options)]
  return folder_examples.Options(**{n: getattr(values, n) for n in names})

"""A folder of images and a folder of masks of the same names."""

import os
from collections.abc import Callable

import numpy as np

from deeplab import input_files
from deeplab.common import InputError
from deeplab.datasets import build_data
from deeplab.datasets.build_data import Example


def find_examples(
  image_folder: str,
  label_folder: str,
  decode_label: Callable[[str], np.ndarray] | None = None,
) -> list[Example]:
  """Finds the images of a folder and their masks.

  Args:
    image_folder: folder of <name>.jpg, .png and so on.
    label_folder: folder of <name>.png.
    decode_label: see `build_data.Example`.

  Returns:
    The examples, sorted by name.

  Raises:
    InputError: a folder or a mask is missing, or there are no images.
  """
  build_data.check_folder(image_folder, 'images')
  build_data.check_folder(label_folder, 'label masks')
  examples = []
  for file_name in input_files.list_names(image_folder):
    name, extension = os.path.splitext(file_name)
    if extension[1:].lower() not in build_data.IMAGE_EXTENSIONS:
      continue
    image = os.path.join(image_folder, file_name)
    label = os.path.join(label_folder, f'{name}.png')
    if not os.path.isfile(label):
      raise InputError(
        f'there is no {label}, the label of {image}. Unpack the data set '
        'again, or remove the image.'
      )
    examples.append(Example(name, image, label, decode_label))
  if not examples:
    raise InputError(
      f'{image_folder} has no images (files that end in '
      f'{", ".join(build_data.IMAGE_EXTENSIONS)}).'
    )
  return examples

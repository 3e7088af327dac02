"""The Semantic Boundaries Dataset, which augments PASCAL VOC: `train_aug`.

It annotates 11355 images of PASCAL VOC. With VOC's own training images, and
without VOC's validation images, that makes 10582.
"""

import io
import os
import struct
import zlib

import numpy as np
import scipy.io

from deeplab import input_files
from deeplab.common import InputError
from deeplab.datasets import build_data
from deeplab.datasets.build_data import Example

# The split that the augmentation makes.
SPLIT = 'train_aug'

# A MATLAB file is a header, and parts that begin with kind and size. The kind
# of those that hold a zlib stream, with its checksum, around another part.
_HEADER_BYTES = 128
_TAG = struct.Struct('<II')
_COMPRESSED = 15


def _check_compressed(data):
  """Raises zlib.error if compressed parts of a MATLAB file are damaged.

  scipy reads them as they come, and can crash on what it reads.
  """
  place = _HEADER_BYTES
  while place < len(data):
    kind, size = _TAG.unpack_from(data, place)
    place += _TAG.size
    if kind == _COMPRESSED:
      zlib.decompress(data[place : place + size])
    place += size


def decode_label(path: str) -> np.ndarray:
  """Reads the classes of a file of the data set.

  Args:
    path: a .mat file, with GTcls.Segmentation.

  Returns:
    The labels, uint8 [height, width].

  Raises:
    InputError: it is no such file.
  """
  data = input_files.read_bytes(path)
  try:
    _check_compressed(data)
    content = scipy.io.loadmat(
      io.BytesIO(data),
      squeeze_me=True,
      struct_as_record=False,
      variable_names=['GTcls'],
    )
    labels = content['GTcls'].Segmentation
  # A damaged file makes scipy raise nearly anything.
  except Exception as error:
    raise InputError(
      f'{path} is damaged, or no MATLAB file with GTcls.Segmentation: '
      f'{type(error).__name__}: {error}. Replace the file.'
    ) from error
  if getattr(labels, 'dtype', None) != np.uint8 or labels.ndim != 2:
    raise InputError(
      f'{path}: GTcls.Segmentation must be uint8 of two dimensions. Received: '
      f'{getattr(labels, "dtype", type(labels).__name__)}, '
      f'{list(np.shape(labels))}.'
    )
  return np.ascontiguousarray(labels)


def _first_file(paths, name):
  """The first of several files that exists."""
  for path in paths:
    if os.path.isfile(path):
      return path
  raise InputError(
    f'image {name!r} of the split {SPLIT!r}: there is no {" or ".join(paths)}.'
  )


def find_train_aug(
  sbd_root: str,
  list_folder: str,
  image_folder: str,
  label_folder: str,
  image_format: str | None = None,
) -> list[Example]:
  """Finds the files of the split `train_aug`.

  Args:
    sbd_root: folder `dataset` of SBD: cls/, img/, train.txt, val.txt.
    list_folder: folder of VOC's train.txt and val.txt.
    image_folder: folder of VOC's images, which come first where SBD has the
      same.
    label_folder: folder of VOC's masks, likewise.
    image_format: extension of the images, None for whichever exists.

  Returns:
    The examples, sorted by name.

  Raises:
    InputError: a list or a file is missing.
  """
  build_data.check_folder(
    os.path.join(sbd_root, 'cls'), 'the .mat files of benchmark_RELEASE/dataset'
  )
  names = lambda folder, split: set(
    build_data.read_list(os.path.join(folder, f'{split}.txt'))
  )
  wanted = names(sbd_root, 'train') | names(sbd_root, 'val')
  wanted |= names(list_folder, 'train')
  wanted -= names(list_folder, 'val')
  extensions = [image_format] if image_format else build_data.IMAGE_EXTENSIONS
  examples = []
  for name in sorted(wanted):
    images = [
      *(os.path.join(image_folder, f'{name}.{end}') for end in extensions),
      os.path.join(sbd_root, 'img', f'{name}.jpg'),
    ]
    labels = [
      os.path.join(label_folder, f'{name}.png'),
      os.path.join(sbd_root, 'cls', f'{name}.mat'),
    ]
    image, label = _first_file(images, name), _first_file(labels, name)
    decode = decode_label if label.endswith('.mat') else None
    examples.append(Example(name, image, label, decode))
  return examples

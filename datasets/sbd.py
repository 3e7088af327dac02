"""The Semantic Boundaries Dataset, which augments PASCAL VOC: `train_aug`.

It annotates 11355 images of PASCAL VOC. With VOC's own training images, and
without VOC's validation images, that makes 10582.
"""

import os
import struct
import zlib

import numpy as np

from deeplab import input_files
from deeplab.common import InputError
from deeplab.datasets import build_data
from deeplab.datasets.build_data import Example

# The split that the augmentation makes.
SPLIT = 'train_aug'

# A MATLAB file is a header, which ends in the version and the order of bytes,
# and parts, which begin with their kind and size. The kinds of a zlib stream
# around another part, and of an array.
_HEADER_BYTES = 128
_VERSION = b'\0\1IM'
_TAG = struct.Struct('<II')
_COMPRESSED, _ARRAY = 15, 14

# Numbers of the types of arrays.
_STRUCT = 2
_TYPES = {_STRUCT: 'struct', 6: 'double', 7: 'single', 8: 'int8', 9: 'uint8'}


def _parts(data):
  """Yields (kind, content) of the parts of a file's body, or of an array's.

  There are libraries for that; but they crash on damaged files.
  """
  place = 0
  while place < len(data):
    kind, size = _TAG.unpack_from(data, place)
    begin = place + _TAG.size
    if kind >> 16:  # A short one, of eight bytes with its tag.
      kind, size, begin = kind & 0xFFFF, kind >> 16, place + _TAG.size // 2
    content = data[begin : begin + size]
    if len(content) < size:
      raise ValueError('a part is cut off')
    place = begin + size
    if kind == _COMPRESSED:
      yield from _parts(zlib.decompress(content))
      continue
    yield kind, content
    place += -place % _TAG.size


def _array(content):
  """Type, shape, name and further parts of an array."""
  (_, flags), (_, shape), (_, name), *rest = _parts(content)
  shape = np.frombuffer(shape, '<i4').tolist()
  return _TYPES.get(flags[0], flags[0]), shape, name, [part for _, part in rest]


def _segmentation(data):
  """The array GTcls.Segmentation of a file."""
  if data[_HEADER_BYTES - len(_VERSION) : _HEADER_BYTES] != _VERSION:
    raise ValueError('it does not begin as a file of MATLAB 5')
  arrays = [
    _array(content)
    for kind, content in _parts(data[_HEADER_BYTES:])
    if kind == _ARRAY
  ]
  for kind, _, name, parts in arrays:
    if (kind, name) == ('struct', b'GTcls'):
      length, names, *fields = parts
      length = int.from_bytes(length, 'little')
      starts = range(0, len(names), length)
      names = [names[i : i + length].rstrip(b'\0') for i in starts]
      return _array(fields[names.index(b'Segmentation')])
  raise ValueError(f'it holds {[name.decode() for _, _, name, _ in arrays]}')


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
    kind, shape, _, parts = _segmentation(data)
    if kind == 'uint8' and len(shape) == 2:
      labels = np.frombuffer(parts[0], np.uint8).reshape(shape, order='F')
      return np.ascontiguousarray(labels)
  except (ValueError, IndexError, struct.error, zlib.error) as error:
    raise InputError(
      f'{path} is damaged, or no MATLAB file with GTcls.Segmentation: '
      f'{error}. Replace the file.'
    ) from error
  raise InputError(
    f'{path}: GTcls.Segmentation must be uint8 of two dimensions. Received: '
    f'{kind}, {shape}.'
  )


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

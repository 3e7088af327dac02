"""Image and label files, checked and brought to the form records hold.

A record holds an image that decodes to three 8-bit channels and a label that
decodes to one grey level a pixel, the class. Files that already are so keep
their bytes. Others are changed where no information is lost, and refused with
the reason where it would be.
"""

import dataclasses
import io
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps, UnidentifiedImageError

from deeplab import input_files
from deeplab.common import InputError
from deeplab.datasets import class_tables
from deeplab.datasets.dataset_info import DatasetInfo
from deeplab.datasets.labels import mask_values

# Names of Pillow's formats in records. MPO is a JPEG file of a camera, with
# further pictures behind the first.
_FORMATS = {'JPEG': 'jpeg', 'MPO': 'jpeg', 'PNG': 'png'}

# Formats that records do not know; such images become PNG files.
_OTHER_FORMATS = ('BMP', 'TIFF', 'WEBP')

# Formats of masks, and the compressions of TIFF that change pixels.
_MASK_FORMATS = ('PNG', 'BMP', 'TIFF')
_LOSSY = ('jpeg', 'tiff_jpeg', 'webp')

# Where the number of bits of a channel stands in PNG and TIFF files.
_PNG_DEPTH = 24
_TIFF_DEPTH = 258

# EXIF tag of the rotation, and those of its values that mean one.
_EXIF_ORIENTATION = 0x0112
_ROTATIONS = range(2, 9)
_QUARTER_TURNS = range(5, 9)

# Modes in which a pixel is red, green and blue, or becomes so without loss.
_IMAGE_MODES = ('RGB', 'L', '1', 'P', 'RGBA', 'LA')


@dataclasses.dataclass(frozen=True)
class EncodedImage:
  """A file as it goes into a record.

  Attributes:
    data: the encoded bytes.
    format: 'jpeg' or 'png'.
    height: in pixels.
    width: in pixels.
  """

  data: bytes
  format: str
  height: int
  width: int


def _damaged(path, error):
  return InputError(
    f'{path} is damaged or truncated and cannot be decoded: {error}. '
    'Replace the file.'
  )


def _open(path):
  """Reads and decodes a file entirely.

  Returns:
    The bytes and the decoded Pillow image.
  """
  data = input_files.read_bytes(path)
  try:
    # Decoding does not look at the checksums of a PNG file, `verify` does.
    Image.open(io.BytesIO(data)).verify()
    image = Image.open(io.BytesIO(data))
    # Not loaded before: of PostScript, say, by a program beside Pillow.
    _check_format(image, path)
    image.load()
    _check_kind(data, image, path)
  except UnidentifiedImageError as error:
    raise InputError(
      f'{path} is not an image, or is damaged at its beginning '
      f'({len(data)} bytes). Replace it by a JPEG or PNG file.'
    ) from error
  except (InputError, MemoryError):
    raise
  # Decoders stumble over broken files in every possible way.
  except Exception as error:
    raise _damaged(path, error) from error
  return data, image


def _depth(data, image):
  """Bits of a channel, as the file stores it."""
  if image.format == 'PNG':
    return data[_PNG_DEPTH]
  if image.format == 'TIFF':
    return max(image.tag_v2.get(_TIFF_DEPTH, (1,)))
  return 1 if image.mode == '1' else 8


def _check_format(image, path):
  """Refuses formats that are not known."""
  if image.format not in _FORMATS and image.format not in _OTHER_FORMATS:
    raise InputError(
      f'{path} is a {image.format} file. Expected JPEG, PNG, BMP, TIFF or '
      'WebP; convert it.'
    )


def _check_kind(data, image, path):
  """Refuses several pictures in a file, and 16 bits."""
  count = getattr(image, 'n_frames', 1)
  if count > 1 and image.format != 'MPO':
    raise InputError(
      f'{path} holds {count} pictures. Save each of them as a file.'
    )
  # Pillow drops the low bits of some files without saying so.
  if _depth(data, image) > 8:
    raise InputError(
      f'{path} has {_depth(data, image)} bits a channel, of which records '
      'keep 8. Convert it to 8 bits.'
    )


def _to_png(image):
  with io.BytesIO() as output:
    image.save(output, 'PNG')
    return output.getvalue()


def _encoded(data, kind, image, path):
  """The EncodedImage, if the readers of records can decode it too.

  They are stricter than Pillow, which overlooks a missing end of a JPEG file.
  """
  try:
    tf.io.decode_image(data, expand_animations=False)
  except tf.errors.InvalidArgumentError as error:
    raise _damaged(path, error.message.splitlines()[0]) from error
  return EncodedImage(data, kind, image.height, image.width)


def _without_alpha(image, path):
  """Drops an alpha channel that makes nothing transparent."""
  if image.mode not in ('RGBA', 'LA') and 'transparency' not in image.info:
    return image
  is_grey = image.mode == 'LA'
  image = image.convert('RGBA')
  lowest = image.getchannel('A').getextrema()[0]
  if lowest != 255:
    raise InputError(
      f'{path} is transparent in places (lowest alpha {lowest}), and records '
      'have no alpha channel. Put it on a background first.'
    )
  return image.convert('L' if is_grey else 'RGB')


def _orientation(image):
  """The EXIF orientation, None if viewers show the pixels as they are."""
  try:
    orientation = image.getexif().get(_EXIF_ORIENTATION)
  except Exception:  # Decoders do not look at it, nor need it be right.
    return None
  return orientation if orientation in _ROTATIONS else None


def _upright(image, path, apply_exif_rotation):
  """Rotates, or refuses, images that viewers rotate and decoders do not."""
  orientation = _orientation(image)
  if orientation is None or apply_exif_rotation is None:
    return image
  if apply_exif_rotation:
    return ImageOps.exif_transpose(image)
  raise InputError(
    f'{path} has the EXIF orientation {orientation}: viewers rotate or '
    'mirror it, the records would not, and image and label might not fit. '
    'If the label was drawn on the image as viewers show it, rotate the '
    'pixels themselves (build_image_folder_data.py does with '
    '--apply_exif_rotation); if it was drawn on the pixels as they are '
    'stored, remove the tag.'
  )


def image_size(
  path: str, apply_exif_rotation: bool | None = None
) -> tuple[int, int]:
  """Reads (height, width) of an image from the beginning of its file.

  Args:
    path: the file.
    apply_exif_rotation: see `read_image`.

  Raises:
    InputError: it is not an image.
  """
  try:
    with Image.open(path) as image:
      width, height = image.size
      orientation = _orientation(image) if apply_exif_rotation else None
  except MemoryError:
    raise
  except Exception as error:
    raise InputError(f'{path} is not an image: {error}.') from error
  is_turned = orientation in _QUARTER_TURNS
  return (width, height) if is_turned else (height, width)


def read_image(
  path: str, apply_exif_rotation: bool | None = False
) -> EncodedImage:
  """Reads an image and makes sure that it decodes to 8-bit RGB.

  JPEG files (grey ones too: decoders repeat the channel) and RGB PNG files
  keep their bytes. Grey and palette PNG files, those whose alpha is 255
  everywhere, and BMP, TIFF and WebP files become RGB PNG files of the same
  pixels.

  Args:
    path: the file.
    apply_exif_rotation: whether an image with an EXIF orientation is rotated
      to what viewers show, and becomes a PNG file; else it is refused. None
      to take the pixels as they are stored.

  Returns:
    The encoded image.

  Raises:
    InputError: the file cannot be decoded, or not without loss (16 bits,
      transparency, CMYK), or would have to be rotated.
  """
  data, image = _open(path)
  if image.mode not in _IMAGE_MODES:
    raise InputError(
      f'{path} has pixels of the kind {image.mode}, which do not become 8-bit '
      'RGB without loss. Convert it to RGB.'
    )
  upright = _upright(image, path, apply_exif_rotation)
  kind = _FORMATS.get(image.format, 'png')
  final = upright if kind == 'jpeg' else _without_alpha(upright, path)
  keeps_bytes = image.format in _FORMATS and final is image
  if not keeps_bytes or (kind == 'png' and image.mode != 'RGB'):
    final = final.convert('RGB')
    data, kind = _to_png(final), 'png'
  return _encoded(data, kind, final, path)


def _label_of_color(info):
  """The labels that the colours of a coloured mask stand for.

  Returns:
    {(red, green, blue): label}; empty if two classes share a colour.
  """
  table = {tuple(color): label for label, color in enumerate(info.colors)}
  if len(table) < info.num_classes:
    return {}
  # The colour of label 255 in the files of PASCAL VOC.
  table.setdefault(
    tuple(class_tables.pascal_colormap()[255]), info.ignore_label
  )
  return table


def _check_mask_format(image, path):
  compression = image.info.get('compression')
  if image.format not in _MASK_FORMATS or compression in _LOSSY:
    raise InputError(
      f'{path} is a {image.format} file. Labels must be PNG files (or BMP, or '
      'TIFF without loss): anything else changes values at the borders.'
    )


@dataclasses.dataclass(frozen=True)
class Mask:
  """A mask file, before its pixels have a meaning.

  Attributes:
    path: the file.
    image: a Pillow image of the mode 'P', 'L', '1' or 'RGB'.
    depth: bits of a channel in the file.
  """

  path: str
  image: Image.Image
  depth: int

  @property
  def has_indices(self) -> bool:
    """Whether pixels are values rather than colours."""
    return self.image.mode != 'RGB'

  @property
  def indices(self) -> np.ndarray:
    """The values as they are stored, uint8 [height, width].

    Raises:
      InputError: a grey file has too few bits a pixel.
    """
    # Indices of a palette are labels, whatever the palette makes of them.
    if self.image.mode != 'P' and self.depth < 8:
      raise InputError(
        f'{self.path} is a grey {self.image.format} of {self.depth} bits, '
        'whose values decoders spread over 0..255. Save it with 8 bits.'
      )
    return np.asarray(self.image)

  @property
  def colors(self) -> np.ndarray:
    """The colours that viewers show, uint8 [height, width, 3]."""
    return np.asarray(self.image.convert('RGB'))

  @property
  def palette(self) -> list[list[int]] | None:
    """The colours of the indices, None where there is no palette."""
    if self.image.mode != 'P':
      return None
    values = self.image.getpalette() or []
    return [values[i : i + 3] for i in range(0, len(values), 3)]


def _as_mask(data, image, path):
  _check_mask_format(image, path)
  depth, flat = _depth(data, image), image
  if image.mode not in ('P', '1', 'L'):
    flat = _without_alpha(image, path)
  if flat.mode not in ('P', '1', 'L', 'RGB'):
    raise InputError(
      f'{path} has pixels of the kind {image.mode}. Labels must be palette, '
      'grey or RGB images of 8 bits.'
    )
  return Mask(path, flat, depth)


def read_mask(path: str) -> Mask:
  """Reads a mask whose pixels the caller gives a meaning.

  Args:
    path: a PNG, BMP or lossless TIFF file.

  Returns:
    The mask.

  Raises:
    InputError: it cannot be decoded, or is of another kind.
  """
  return _as_mask(*_open(path), path)


def _labels_of(mask, info):
  """Labels of a mask, uint8 [height, width]."""
  if mask.has_indices:
    return mask.indices
  label_of_color = _label_of_color(info)
  if not label_of_color:
    raise InputError(
      f'{mask.path} is a coloured mask, but several classes of the data set '
      f'{info.name!r} share a colour. Give masks of indices instead.'
    )
  return mask_values.labels_from_colors(
    mask.colors, label_of_color, info, mask.path
  )


def decode_label(path: str, info: DatasetInfo) -> np.ndarray:
  """Reads the labels of a mask file, whatever their values.

  Args:
    path: a file as `read_label` takes it.
    info: the data set, for the colours of a coloured mask.

  Returns:
    The labels, uint8 [height, width].

  Raises:
    InputError: the file cannot be decoded, or holds other colours.
  """
  return _labels_of(read_mask(path), info)


def decode_ids(path: str, label_of_id: Mapping[int, int]) -> np.ndarray:
  """Reads a mask whose values are ids of a list that is longer than needed.

  Args:
    path: a grey or palette PNG file.
    label_of_id: {id: label}, of all ids 0..255 that may occur.

  Returns:
    The labels, uint8 [height, width].

  Raises:
    InputError: the file cannot be decoded, or holds other ids.
  """
  mask = read_mask(path)
  if not mask.has_indices:
    raise InputError(
      f'{path} has pixels of the kind {mask.image.mode}. Ids must be palette '
      'or grey images of 8 bits.'
    )
  expected = f'some of {sorted(label_of_id)}'
  return mask_values.look_up(mask.indices, label_of_id, path, expected)


def _mapped(labels, info, label_map, path):
  """The labels of the record, from those of the file."""
  valid = [*range(info.num_classes), info.ignore_label]
  label_of_value = {value: value for value in valid} | dict(label_map or {})
  expected = (
    f'the classes 0..{info.num_classes - 1} of the data set {info.name!r}, '
    f'and the ignore label {info.ignore_label}'
  )
  return mask_values.look_up(labels, label_of_value, path, expected)


def encode_label(
  labels: np.ndarray,
  info: DatasetInfo,
  label_map: Mapping[int, int] | None,
  path: str,
) -> EncodedImage:
  """Encodes labels that come from anything but a mask.

  Args:
    labels: uint8 [height, width].
    info: the data set, for the values that may occur.
    label_map: {label of the file: label of the record}, None for no change.
    path: where they come from, for messages.

  Returns:
    A grey PNG.

  Raises:
    InputError: the labels hold other values.
  """
  labels = _mapped(labels, info, label_map, path)
  image = Image.fromarray(labels)
  return _encoded(_to_png(image), 'png', image, path)


def read_label(
  path: str, info: DatasetInfo, label_map: Mapping[int, int] | None = None
) -> EncodedImage:
  """Reads a mask and makes sure that it decodes to labels.

  Args:
    path: a PNG, BMP or lossless TIFF file: 8-bit grey (the values are the
      labels), palette (the indices are), or RGB in the colours of the data
      set.
    info: the data set, for the values and colours that may occur.
    label_map: {label of the file: label of the record}, None for no change.

  Returns:
    A grey PNG; the file's own bytes where they already are that.

  Raises:
    InputError: the file cannot be decoded, or holds other values or colours.
  """
  data, image = _open(path)
  labels = _labels_of(_as_mask(data, image, path), info)
  labels = _mapped(labels, info, label_map, path)
  is_png = image.format == 'PNG' and 'transparency' not in image.info
  if not (is_png and image.mode == 'L') or not np.array_equal(
    labels, np.asarray(image)
  ):
    data = _to_png(Image.fromarray(labels))
  return _encoded(data, 'png', image, path)

"""Image and mask files of further formats, and images that are rotated."""

import io

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps

from deeplab.common import InputError
from deeplab.datasets import dataset_info, image_files

_PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
_LABEL = np.repeat(np.array([[0, 1, 20, 255]], np.uint8), 3, axis=0)


def _decoded(encoded):
  return np.asarray(Image.open(io.BytesIO(encoded.data)))


@pytest.mark.parametrize('extension', ['bmp', 'tif', 'webp'])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_other_formats_become_png(tmp_path, extension, mode):
  path = tmp_path / f'a.{extension}'
  options = {'lossless': True} if extension == 'webp' else {}
  image = Image.fromarray(_PIXELS).convert(mode)
  image.save(path, **options)
  encoded = image_files.read_image(str(path))
  assert encoded.format == 'png'
  np.testing.assert_array_equal(_decoded(encoded), image.convert('RGB'))


@pytest.mark.parametrize('kind', ['BMP', 'TIFF'])
@pytest.mark.parametrize('mode', ['L', 'P'])
def test_masks_of_other_formats_become_png(tmp_path, kind, mode):
  path = tmp_path / 'a'
  image = Image.fromarray(_LABEL)
  if mode == 'P':
    image.putpalette(_PIXELS.ravel().tolist() * 20)
  image.save(path, kind)
  info = dataset_info.BUILTIN['pascal_voc_seg']
  encoded = image_files.read_label(str(path), info)
  assert Image.open(io.BytesIO(encoded.data)).format == 'PNG'
  np.testing.assert_array_equal(_decoded(encoded), _LABEL)


@pytest.mark.parametrize('orientation', [1, *range(2, 9), 99])
def test_exif_rotation_is_applied_on_demand(tmp_path, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  path = tmp_path / 'a.jpg'
  Image.fromarray(_PIXELS).save(path, exif=exif)
  image = image_files.read_image(str(path), apply_exif_rotation=True)
  shown = np.asarray(ImageOps.exif_transpose(Image.open(path)))
  assert (image.height, image.width) == shown.shape[:2]
  assert image_files.image_size(str(path), True) == shown.shape[:2]
  assert image_files.image_size(str(path)) == _PIXELS.shape[:2]
  np.testing.assert_array_equal(_decoded(image), shown)
  keeps_bytes = orientation not in range(2, 9)
  assert (image.data == path.read_bytes()) == keeps_bytes
  stored = image_files.read_image(str(path), apply_exif_rotation=None)
  assert stored.data == path.read_bytes()


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP'])
def test_damaged_files_are_input_errors(tmp_path, kind):
  """Whatever a decoder stumbles over, no other error comes out."""
  good = tmp_path / 'good'
  noise = np.random.default_rng(1)
  Image.fromarray(_PIXELS.repeat(8, 0)).save(good, kind)
  data = np.frombuffer(good.read_bytes(), np.uint8)
  bad = tmp_path / 'bad'
  for _ in range(60):
    changed = data.copy()
    places = noise.integers(0, len(data), 3)
    changed[places] = noise.integers(0, 256, 3)
    bad.write_bytes(changed.tobytes()[: noise.integers(1, 2 * len(data))])
    for read in (image_files.read_image, image_files.read_mask):
      try:
        read(str(bad))
      except InputError as error:
        assert str(bad) in str(error)


def test_mask_has_indices_colours_and_palette(tmp_path):
  path = tmp_path / 'a.png'
  image = Image.fromarray(_LABEL % 3)
  image.putpalette([0, 0, 0, 9, 8, 7, 1, 2, 3])
  image.save(path)
  mask = image_files.read_mask(str(path))
  np.testing.assert_array_equal(mask.indices, _LABEL % 3)
  np.testing.assert_array_equal(mask.colors, image.convert('RGB'))
  assert mask.palette[:3] == [[0, 0, 0], [9, 8, 7], [1, 2, 3]]
  Image.fromarray(_LABEL > 1).save(path)
  mask = image_files.read_mask(str(path))
  np.testing.assert_array_equal(mask.colors[..., 0], 255 * (_LABEL > 1))
  with pytest.raises(InputError, match=r'a\.png is a grey PNG of 1 bits'):
    mask.indices  # noqa: B018


def test_postscript_is_not_run(tmp_path, monkeypatch):
  def run(*unused):
    raise AssertionError('Ghostscript was started')

  monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', run)
  path = tmp_path / 'a.jpg'
  path.write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n')
  with pytest.raises(InputError, match=r'a\.jpg is a EPS file'):
    image_files.read_image(str(path))

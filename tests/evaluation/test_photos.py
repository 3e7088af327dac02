"""Image files of all kinds as a data set."""

import itertools
import os
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from deeplab import common
from deeplab.common import InputError
from deeplab.datasets import data_generator, dataset_info
from deeplab.evaluation import photos

_INFO = dataset_info.DatasetInfo('mine', 3, ignore_label=9)


def _image(height=20, width=30, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), 'u1')


def _save(path, array=None, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  array = _image() if array is None else array
  Image.fromarray(array).save(path, **options)
  return str(path)


# Reading.


@pytest.mark.parametrize(
  ('name', 'options'),
  [
    ('a.png', {}),
    ('a.bmp', {}),
    ('a.tif', {}),
    ('a.tif', {'compression': 'tiff_lzw'}),
    ('a.webp', {'lossless': True}),
    ('a.jpg', {'format': 'PNG'}),  # The content counts, not the name.
  ],
)
def test_lossless_files(tmp_path, name, options):
  path = _save(tmp_path / name, **options)
  found = photos.read_rgb(path)
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, _image())


@pytest.mark.parametrize('orientation', range(1, 9))
def test_rotations_of_cameras_are_carried_out(tmp_path, orientation):
  quadrants = np.kron([[0, 80], [160, 240]], np.ones((16, 24))).astype('u1')
  exif = Image.Exif()
  exif[0x0112] = orientation
  path = _save(tmp_path / 'a.jpg', np.stack([quadrants] * 3, -1), exif=exif)
  upright = {
    1: quadrants,
    2: quadrants[:, ::-1],
    3: quadrants[::-1, ::-1],
    4: quadrants[::-1],
    5: quadrants.T,
    6: np.rot90(quadrants, -1),
    7: quadrants[::-1, ::-1].T,
    8: np.rot90(quadrants),
  }[orientation]
  found = photos.read_rgb(path)[..., 0].astype(int)
  assert found.shape == upright.shape
  assert np.abs(found - upright).max() < 8


def test_grey_levels(tmp_path):
  grey = _image()[..., 0]
  np.testing.assert_array_equal(
    photos.read_rgb(_save(tmp_path / 'a.png', grey)),
    np.stack([grey] * 3, -1),
  )


@pytest.mark.parametrize('name', ['a.png', 'a.tif'])
def test_sixteen_bits_become_eight(tmp_path, name):
  grey = _image()[..., 0]
  path = _save(tmp_path / name, grey.astype(np.uint16) * 257)
  np.testing.assert_array_equal(photos.read_rgb(path)[..., 1], grey)


def test_palettes_and_single_bits(tmp_path):
  colors = Image.fromarray(_image()).quantize(16)
  colors.save(tmp_path / 'p.png')
  np.testing.assert_array_equal(
    photos.read_rgb(str(tmp_path / 'p.png')), np.asarray(colors.convert('RGB'))
  )
  bits = _image()[..., 0] > 127
  found = photos.read_rgb(_save(tmp_path / 'b.png', bits))
  np.testing.assert_array_equal(found[..., 2], bits * 255)


def test_what_is_transparent_is_white(tmp_path):
  array = np.dstack([_image(), np.full((20, 30), 255, 'u1')])
  array[:5, :, 3] = 0
  found = photos.read_rgb(_save(tmp_path / 'a.png', array))
  assert (found[:5] == 255).all()
  np.testing.assert_array_equal(found[5:], array[5:, :, :3])
  # The same of one colour of a palette.
  palette = Image.fromarray(_image()[..., 0]).quantize(4)
  palette.save(tmp_path / 'p.png', transparency=2)
  found = photos.read_rgb(str(tmp_path / 'p.png'))
  assert (found[np.asarray(palette) == 2] == 255).all()


def test_cmyk(tmp_path):
  Image.new('CMYK', (8, 8), (255, 0, 0, 0)).save(tmp_path / 'a.jpg')
  assert (photos.read_rgb(str(tmp_path / 'a.jpg'))[..., 0] < 10).all()


def _broken(path, kind):
  """Makes a file that cannot be read, one way or another."""
  if kind == 'empty':
    path.write_bytes(b'')
  elif kind == 'text':
    path.write_text('not an image')
  elif kind == 'float':
    Image.fromarray(np.zeros((4, 4), np.float32)).save(path, format='TIFF')
  elif kind != 'missing':
    _save(path, _image(200, 200), format=kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  return str(path)


@pytest.mark.parametrize(
  ('kind', 'message'),
  [
    ('empty', r'not an image.*0 bytes'),
    ('text', 'not an image'),
    ('float', 'no levels of 8 or 16 bits'),
    ('missing', 'cannot be read: No such'),
    ('JPEG', 'damaged or truncated'),
    ('PNG', 'damaged or truncated'),
    ('WEBP', 'damaged'),
    ('TIFF', 'damaged or truncated'),
  ],
)
def test_files_that_cannot_be_read(tmp_path, kind, message):
  with pytest.raises(InputError, match=message) as caught:
    photos.read_rgb(_broken(tmp_path / 'bad.img', kind))
  assert 'bad.img' in str(caught.value)


def test_other_formats_are_not_even_tried(tmp_path, monkeypatch):
  """PostScript is a program, whatever its file is called."""
  text = '%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n'
  path = tmp_path / 'a.jpg'
  path.write_text(text + 'showpage\n%%EOF\n')
  with Image.open(path) as image:
    assert image.format == 'EPS'
  monkeypatch.setattr(
    EpsImagePlugin, 'Ghostscript', lambda *unused: pytest.fail('It was run.')
  )
  with pytest.raises(InputError, match=r'a\.jpg is not an image that can be'):
    photos.read_rgb(str(path))


@pytest.mark.parametrize(
  'error', [RuntimeError, KeyError, AttributeError, struct.error, zlib.error]
)
def test_errors_of_all_decoders(tmp_path, monkeypatch, error):
  """AVIF, EXIF of MPO and others have errors of their own."""

  def fail(*unused):
    raise error('no such thing')

  path = _save(tmp_path / 'a.png')
  monkeypatch.setattr(photos.ImageOps, 'exif_transpose', fail)
  with pytest.raises(InputError, match=r'a\.png is damaged or truncated'):
    photos.read_rgb(path)


def test_sizes_of_images(tmp_path, monkeypatch):
  """The limit is our own, and not called damage; Pillow's is as it was."""
  path = _save(tmp_path / 'a.png', _image(20, 30))
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
  assert photos.read_rgb(path).shape == (20, 30, 3)
  monkeypatch.setattr(photos, 'MAX_PIXELS', 599)
  with pytest.raises(
    InputError, match=r'a\.png has 20x30 pixels .*, more than 599\. Shrink it'
  ):
    photos.read_rgb(path)
  assert Image.MAX_IMAGE_PIXELS == 100


def test_bits_flipped_at_random_are_no_tracebacks(tmp_path):
  generator = np.random.default_rng(1)
  path = tmp_path / 'a.img'
  for kind, seed in itertools.product(
    ['JPEG', 'PNG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'PPM'], range(15)
  ):
    _save(path, _image(12, 12, seed), format=kind)
    data = bytearray(path.read_bytes())
    for place in generator.integers(0, len(data), 1 + seed):
      data[place] ^= 1 << generator.integers(8)
    path.write_bytes(data)
    try:
      found = photos.read_rgb(str(path))
      assert found.dtype == np.uint8 and found.shape[2] == 3
    except InputError as error:
      assert str(path) in str(error)


# Finding.


def test_patterns_folders_and_files(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ('a/2.jpg', 'a/10.JPG', 'a/b/1.png', 'c [1]/x.bmp', 'odd.name'):
    _save(tmp_path / name, format='PNG')
  (tmp_path / 'a' / 'notes.txt').touch()
  assert photos.find(['a']) == ['a/2.jpg', 'a/10.JPG']
  assert photos.find(['a/*.jpg', 'a']) == ['a/2.jpg', 'a/10.JPG']
  assert photos.find(['**']) == [
    *('a/2.jpg', 'a/10.JPG', 'a/b/1.png', 'c [1]/x.bmp'),
  ]
  assert photos.find(['a/**/*.png', 'c [1]']) == ['a/b/1.png', 'c [1]/x.bmp']
  assert photos.find(['odd.name']) == ['odd.name']


def test_results_are_not_taken_for_photographs(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ('p/1.png', 'p/vis/pictures/1_image.png', 'p/vis/other.png'):
    _save(tmp_path / name)
  folders = ['p/vis/pictures', 'p/vis/raw']
  assert photos.find(['p/**'], folders) == ['p/1.png', 'p/vis/other.png']
  with pytest.raises(InputError, match=r'all 1 images.*where the results go'):
    photos.find(['p/vis/pictures'], folders)
  # What is named is wanted.
  named = 'p/vis/pictures/1_image.png'
  assert photos.find([named], folders) == [named]


@pytest.mark.parametrize(
  ('pattern', 'message'),
  [
    ('none/*.jpg', r'--image_glob=none/\*\.jpg: no such file'),
    ('missing.png', 'missing.png: no such file'),
    ('gs://bucket/*.jpg', 'remote files are not read. Copy them here first'),
    ('empty', 'a folder without images'),
    ('texts', r'none of the 1 files, such as texts/a\.txt'),
    ('texts', r'Convert others, such as HEIC, to JPEG\.'),
  ],
)
def test_patterns_without_images(tmp_path, monkeypatch, pattern, message):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'texts').mkdir()
  (tmp_path / 'texts' / 'a.txt').touch()
  with pytest.raises(InputError, match=message):
    photos.find([pattern])


@pytest.mark.parametrize(
  ('paths', 'names'),
  [
    (['x/a.jpg', 'x/b.c.png'], ['a', 'b.c']),
    (['x/a.jpg', 'x/y/a.jpg', 'x/b.jpg'], ['a', 'y_a', 'b']),
    (['p/x/a.jpg', 'p/y/a.jpg'], ['x_a', 'y_a']),
    (['a.jpg', 'a.png', 'A.bmp'], ['a_jpg', 'a_png', 'A_bmp']),
    # Whatever is made of a name may be another one's.
    (['a_b.jpg', 'a/b.jpg', 'c/b.jpg'], ['a_b', 'a_b_jpg', 'c_b']),
    (['x.jpg', 'x_jpg.png', 'x.png'], ['x_jpg_2', 'x_jpg', 'x_png']),
  ],
)
def test_names_of_results(paths, names):
  found = photos.output_names(paths)
  assert found == names
  assert len({name.lower() for name in found}) == len(paths)


@pytest.mark.parametrize('letter', ['x', 'ü', '\U0001f600'])
def test_long_names_are_cut_off(tmp_path, letter):
  """The longest that a file system takes still leaves room for endings."""
  size = len(letter.encode())
  long = letter * (240 // size)
  paths = [f'{long}{number}.png' for number in (1, 2, 3)]
  names = photos.output_names(paths)
  assert len(set(names)) == 3
  assert all(name.startswith(letter * (170 // size)) for name in names)
  for name in names:
    (tmp_path / f'{name}_prediction.png.tmp').touch()


# The data set.


def _batches(folder, **options):
  dataset = photos.Photos([str(folder)], _INFO, **options)
  return dataset, list(dataset.iterate())


def test_it_is_a_data_set(tmp_path):
  for name, size in (('f2', (9, 7)), ('f10', (9, 7)), ('f1', (5, 6))):
    _save(tmp_path / f'{name}.png', _image(*size))
  dataset, batches = _batches(tmp_path)
  assert (dataset.num_of_classes, dataset.ignore_label) == (3, 9)
  assert (dataset.num_examples, dataset.has_labels) == (3, False)
  names = [batch[common.IMAGE_NAME].numpy().tolist() for batch in batches]
  assert names == [[b'f1'], [b'f2'], [b'f10']]
  image = batches[1][common.IMAGE]
  assert image.dtype == np.uint8
  np.testing.assert_array_equal(image[0], _image(9, 7))
  sizes = [
    int(batches[0][key][0])
    for key in (
      *(common.HEIGHT, common.WIDTH),
      *(data_generator.RESIZED_HEIGHT, data_generator.RESIZED_WIDTH),
    )
  ]
  assert sizes == [5, 6, 5, 6]
  dataset.check()


def test_only_images_of_one_size_share_a_batch(tmp_path):
  """Frames of a video all do."""
  for number, width in enumerate([7, 7, 7, 8, 8, 7]):
    _save(tmp_path / f'{number}.png', _image(9, width))
  _, batches = _batches(tmp_path, batch_size=2)
  assert [batch[common.IMAGE].shape[:3] for batch in batches] == [
    *((2, 9, 7), (1, 9, 7), (2, 9, 8), (1, 9, 7)),
  ]


def test_resizing(tmp_path):
  _save(tmp_path / 'a.png', _image(40, 60))
  _, (batch,) = _batches(tmp_path, max_resize_value=33)
  assert batch[common.IMAGE].shape == (1, 22, 33, 3)
  assert batch[common.IMAGE].dtype == np.float32
  assert (int(batch[common.HEIGHT][0]), int(batch[common.WIDTH][0])) == (40, 60)


def test_broken_files_are_left_out_and_named_at_the_end(tmp_path):
  _save(tmp_path / '1.png')
  _broken(tmp_path / '2.png', 'PNG')
  _broken(tmp_path / '3.png', 'text')
  _save(tmp_path / '4.png')
  dataset, batches = _batches(tmp_path)
  assert len(batches) == 2
  with pytest.raises(InputError, match=r'2 of 4 images.*2\.png.*3\.png'):
    dataset.check()
  shutil.copy(tmp_path / '1.png', tmp_path / '2.png')
  shutil.copy(tmp_path / '1.png', tmp_path / '3.png')
  assert len(list(dataset.iterate())) == 4
  dataset.check()


def test_images_that_a_check_refuses(tmp_path):
  _save(tmp_path / 'a.png')
  _save(tmp_path / 'b.png', _image(10, 10))

  def check(image, path):
    if image.shape[0] > 15:
      raise InputError(f'{os.path.basename(path)} is too large.')

  dataset, batches = _batches(tmp_path, check=check)
  assert len(batches) == 1
  with pytest.raises(InputError, match=r'1 of 2 .*: a\.png is too large'):
    dataset.check()


def test_arguments_out_of_range(tmp_path):
  _save(tmp_path / 'a.png')
  with pytest.raises(InputError, match='batch_size'):
    _batches(tmp_path, batch_size=0)
  with pytest.raises(InputError, match='resize_factor=16 without'):
    _batches(tmp_path, resize_factor=16)

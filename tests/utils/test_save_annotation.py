"""Files that save_annotation writes."""

import os

import numpy as np
import pytest
from PIL import Image

from deeplab.common import InputError
from deeplab.utils import save_annotation

_LABEL = np.array([[0, 1, 2], [2, 2, 0]], np.int32)


def _read(folder, name):
  with Image.open(os.path.join(folder, name)) as image:
    return image.mode, np.asarray(image)


def test_colours(tmp_path):
  save_annotation.save_annotation(_LABEL, tmp_path, '000001_prediction')
  assert os.listdir(tmp_path) == ['000001_prediction.png']
  mode, pixels = _read(tmp_path, '000001_prediction.png')
  assert mode == 'RGB'
  np.testing.assert_array_equal(
    pixels[0], [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
  )


def test_colours_of_another_map(tmp_path):
  save_annotation.save_annotation(
    _LABEL, tmp_path, 'a', colormap_type='cityscapes'
  )
  np.testing.assert_array_equal(
    _read(tmp_path, 'a.png')[1][0],
    [[128, 64, 128], [244, 35, 232], [70, 70, 70]],
  )


@pytest.mark.parametrize(
  ('options', 'expected'),
  [
    ({}, _LABEL),
    ({'scale_values': True, 'normalize_to_unit_values': True}, _LABEL * 127.5),
    ({'normalize_to_unit_values': True}, _LABEL // 2),
  ],
)
def test_raw_values(tmp_path, options, expected):
  save_annotation.save_annotation(
    _LABEL, tmp_path, 'raw', add_colormap=False, **options
  )
  mode, pixels = _read(tmp_path, 'raw.png')
  assert mode == 'L'
  np.testing.assert_array_equal(pixels, np.asarray(expected, np.uint8))


def test_constant_image_is_not_divided_by_zero(tmp_path):
  save_annotation.save_annotation(
    np.full((2, 2), 7),
    tmp_path,
    'flat',
    add_colormap=False,
    normalize_to_unit_values=True,
  )
  assert (_read(tmp_path, 'flat.png')[1] == 7).all()


def test_values_that_do_not_fit_are_refused(tmp_path):
  with pytest.raises(ValueError, match=r'0\.\.300'):
    save_annotation.save_annotation(
      np.array([[0, 300]]), tmp_path, 'big', add_colormap=False
    )
  assert not os.listdir(tmp_path)


def test_overlay():
  image = np.full((2, 3, 3), 100, np.uint8)
  pixels = save_annotation.overlay(image, _LABEL, 'pascal', opacity=0.25)
  np.testing.assert_array_equal(pixels[0, 0], [75, 75, 75])
  np.testing.assert_array_equal(pixels[0, 1], [107, 75, 75])


def test_overlay_needs_equal_sizes():
  with pytest.raises(ValueError, match='shape'):
    save_annotation.overlay(np.zeros((3, 3, 3)), _LABEL, 'pascal')


def test_ground_truth_shows_what_is_ignored():
  label = np.tile(_LABEL, (1, 4))
  label[0] = 255
  colors = save_annotation.ground_truth(label, 255, 'cityscapes')
  # Stripes of two greys.
  assert (colors[0] == colors[0, :, :1]).all()
  assert len(np.unique(colors[0])) == 2
  np.testing.assert_array_equal(colors[1, 2], [128, 64, 128])


def test_photographs_are_packed_less(tmp_path):
  """The pixels are the same."""
  image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
  image[:20] = 7
  for is_photo in (False, True):
    path = str(tmp_path / f'{is_photo}.png')
    save_annotation.save_picture(image, path, is_photo)
    np.testing.assert_array_equal(_read(tmp_path, f'{is_photo}.png')[1], image)
  sizes = [os.path.getsize(tmp_path / f'{b}.png') for b in (False, True)]
  assert sizes[0] < sizes[1]


def test_colours_of_the_error_map():
  """Red or white mixed with the mean of the levels."""
  image = np.random.default_rng(0).integers(0, 256, (9, 8, 3), np.uint8)
  label = np.arange(72).reshape(9, 8) % 2
  grey = image.mean(axis=2, keepdims=True)
  expected = np.where(
    label[..., None],
    0.25 * grey + 0.75 * np.array([225, 29, 46]),
    0.3 * grey + 0.7 * 250,
  )
  found = save_annotation.error_map(image, np.zeros_like(label), label, 255)
  assert np.abs(found - expected).max() <= 0.5 + 1e-3


def test_error_map():
  image = np.full((2, 3, 3), 100, np.uint8)
  label = np.array([[0, 1, 255], [0, 1, 255]])
  errors = save_annotation.error_map(image, _LABEL, label, 255).astype(int)
  is_red = errors[..., 0] - errors[..., 1] > 100
  np.testing.assert_array_equal(is_red, [[False] * 3, [True, True, False]])
  assert errors[0, :2].min() > 190 and errors[:, 2].max() < 130


def test_error_map_needs_equal_sizes():
  with pytest.raises(ValueError, match='same size'):
    save_annotation.error_map(np.zeros((3, 3, 3)), _LABEL, _LABEL, 255)


def test_nothing_is_left_where_writing_fails(tmp_path):
  (tmp_path / 'taken.png' / 'in the way').mkdir(parents=True)
  with pytest.raises(InputError, match=r'taken.png cannot be written'):
    save_annotation.save_annotation(_LABEL, tmp_path, 'taken')
  assert os.listdir(tmp_path) == ['taken.png']

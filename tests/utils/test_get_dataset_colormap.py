"""Colour maps against the original's."""

import pathlib

import numpy as np
import pytest

from deeplab.datasets.dataset_info import DatasetInfo
from deeplab.utils import get_dataset_colormap

_TESTDATA = pathlib.Path(__file__).parents[1] / 'testdata'
_NAMES = ('ade20k', 'cityscapes', 'mapillary_vistas', 'pascal')


@pytest.mark.parametrize('name', _NAMES)
def test_colormaps_equal_the_original(name):
  expected = np.load(_TESTDATA / 'colormaps.npz')[name]
  colormap = get_dataset_colormap.create_label_colormap(name)
  assert colormap.dtype == np.uint8
  np.testing.assert_array_equal(colormap, expected)
  entries = get_dataset_colormap.DATASET_MAX_ENTRIES[name]
  assert len(colormap) == entries


def test_names_are_the_official_ones():
  names = (
    get_dataset_colormap.get_ade20k_name(),
    get_dataset_colormap.get_cityscapes_name(),
    get_dataset_colormap.get_mapillary_vistas_name(),
    get_dataset_colormap.get_pascal_name(),
  )
  assert names == _NAMES


def test_bit_get():
  assert [get_dataset_colormap.bit_get(9, i) for i in range(5)] == [
    1,
    0,
    0,
    1,
    0,
  ]


def test_unknown_colormap():
  with pytest.raises(ValueError, match='camvid'):
    get_dataset_colormap.create_label_colormap('camvid')


def test_label_to_color_image():
  label = np.array([[0, 1], [15, 255]], np.uint8)
  colors = get_dataset_colormap.label_to_color_image(label, 'pascal')
  np.testing.assert_array_equal(
    colors,
    [[[0, 0, 0], [128, 0, 0]], [[192, 128, 128], [224, 224, 192]]],
  )


def test_label_to_color_image_takes_colours():
  label = np.array([[1, 0]])
  colors = get_dataset_colormap.label_to_color_image(
    label, [[1, 2, 3], [4, 5, 6]]
  )
  np.testing.assert_array_equal(colors, [[[4, 5, 6], [1, 2, 3]]])


@pytest.mark.parametrize(
  ('label', 'message'),
  [
    (np.array([1, 2]), r'\[2\]'),
    (np.array([[0.5]]), 'float64'),
    (np.array([[151, 3]]), r'3\.\.151'),
    (np.array([[-1, 3]]), r'-1\.\.3'),
  ],
)
def test_labels_without_colour(label, message):
  with pytest.raises(ValueError, match=message):
    get_dataset_colormap.label_to_color_image(label, 'ade20k')


def test_colormap_from_info():
  info = DatasetInfo(name='two', num_classes=2, colors=[[9, 8, 7], [1, 2, 3]])
  colormap = get_dataset_colormap.colormap_from_info(info)
  assert colormap.shape == (256, 3)
  np.testing.assert_array_equal(colormap[:2], [[9, 8, 7], [1, 2, 3]])
  assert not colormap[2:].any()

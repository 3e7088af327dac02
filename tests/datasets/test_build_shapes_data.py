"""The generated data set: layout, determinism, masks that fit the images."""

import dataclasses
import os
import resource

import numpy as np
import pytest
from PIL import Image

from deeplab.common import InputError
from deeplab.datasets import (
  build_shapes_data,
  class_tables,
  dataset_info,
  shapes_images,
)

_NUM_CLASSES = len(shapes_images.CLASS_NAMES)
_PLAIN = shapes_images.Options(
  texture=(0.0, 0.0), num_lines=(0, 0), num_specks=(0, 0), light=0.0
)


def _draw(seed=0, **changes):
  options = dataclasses.replace(_PLAIN, **changes)
  return shapes_images.draw(np.random.default_rng(seed), options)


def _files(folder):
  return {
    os.path.relpath(os.path.join(root, name), folder): open(
      os.path.join(root, name), 'rb'
    ).read()
    for root, _, names in os.walk(folder)
    for name in names
  }


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data') / 'shapes'
  build_shapes_data.convert(str(folder), num_train=6, num_val=3, seed=5)
  return folder


def test_layout(shapes):
  assert sorted(os.listdir(shapes)) == [
    'ImageSets',
    'JPEGImages',
    'SegmentationClass',
    'dataset_info.json',
    'tfrecord',
  ]
  names = (shapes / 'ImageSets/Segmentation/val.txt').read_text().split()
  assert len(names) == 3
  for name in names:
    image = Image.open(shapes / 'JPEGImages' / f'{name}.jpg')
    mask = Image.open(shapes / 'SegmentationClass' / f'{name}.png')
    assert image.mode == 'RGB' and mask.mode == 'P'
    assert image.size == mask.size == (160, 128)
    palette = np.reshape(mask.getpalette(), [-1, 3])
    np.testing.assert_array_equal(palette, class_tables.pascal_colormap())
  assert len(os.listdir(shapes / 'JPEGImages')) == 9
  shards = os.listdir(shapes / 'tfrecord')
  assert len([name for name in shards if name.startswith('train-')]) == 4
  assert len([name for name in shards if name.startswith('val-')]) == 4


def test_description(shapes):
  info = dataset_info.resolve(None, str(shapes / 'tfrecord'))
  assert info.name == 'shapes'
  assert info.num_classes == 7 and info.ignore_label == 255
  assert info.class_names[0] == 'background' and 'star' in info.class_names
  assert info.splits == {'train': 6, 'val': 3}
  assert dataset_info.load(str(shapes)) == info


def test_same_seed_same_files(shapes, tmp_path):
  again = tmp_path / 'again'
  build_shapes_data.convert(str(again), num_train=6, num_val=3, seed=5)
  assert _files(again) == _files(shapes)


def test_val_does_not_depend_on_train_but_on_the_seed(shapes, tmp_path):
  path = 'JPEGImages/shapes_val_00002.jpg'
  folder = tmp_path / 'other'
  build_shapes_data.convert(str(folder), num_train=1, num_val=3, seed=5)
  assert (folder / path).read_bytes() == (shapes / path).read_bytes()
  # The second run replaces the first, which had other files.
  build_shapes_data.convert(str(folder), num_train=1, num_val=2, seed=6)
  assert len(os.listdir(folder / 'JPEGImages')) == 3
  path = 'JPEGImages/shapes_val_00001.jpg'
  assert (folder / path).read_bytes() != (shapes / path).read_bytes()
  assert os.listdir(tmp_path) == ['other']


def test_every_class_occurs_and_nothing_else():
  counts = np.zeros(256, np.int64)
  for seed in range(40):
    _, label = shapes_images.draw(
      np.random.default_rng(seed), shapes_images.Options()
    )
    counts += np.bincount(label.ravel(), minlength=256)
  share = counts / counts.sum()
  assert share[0] > 0.5
  assert (share[1:_NUM_CLASSES] > 0.01).all()
  assert 0.03 < share[255] < 0.15
  assert counts[_NUM_CLASSES:255].sum() == 0


def test_masks_fit_the_images():
  """Without textures a labelled pixel has its object's colour exactly."""
  for seed in range(20):
    image, label = _draw(seed, num_objects=(1, 1), noise=(0.0, 0.0))
    colors = [
      np.unique(image[label == value], axis=0)
      for value in np.unique(label)
      if value != 255
    ]
    assert [len(color) for color in colors] == [1] * len(colors)
    if len(colors) == 2:
      gap = np.linalg.norm(colors[0].astype(float) - colors[1])
      assert gap >= _PLAIN.min_contrast - 2


def test_outlines_are_ignored():
  """Two classes never touch: the band of at least two pixels is between."""
  for seed in range(20):
    _, label = _draw(seed)
    for first, second in (
      (label[1:], label[:-1]),
      (label[:, 1:], label[:, :-1]),
      (label[2:], label[:-2]),
      (label[:, 2:], label[:, :-2]),
    ):
      valid = (first != 255) & (second != 255)
      # An outline that runs through a corner may leave a pixel beyond it.
      assert (first[valid] == second[valid]).mean() > 0.999
    valid = (label[1:] != 255) & (label[:-1] != 255)
    assert (label[1:][valid] == label[:-1][valid]).all()


@pytest.mark.parametrize('size', [(32, 32), (97, 65)])
def test_other_sizes(size):
  image, label = _draw(3, height=size[0], width=size[1])
  assert image.shape == size + (3,) and image.dtype == np.uint8
  assert label.shape == size and label.dtype == np.uint8


def test_bad_arguments(tmp_path):
  folder = str(tmp_path / 'new')
  with pytest.raises(InputError, match='num_train'):
    build_shapes_data.convert(folder, num_train=0)
  with pytest.raises(InputError, match='seed'):
    build_shapes_data.convert(folder, seed=-1)
  with pytest.raises(InputError, match='image_size'):
    build_shapes_data.convert(folder, options=shapes_images.Options(height=8))
  assert os.listdir(tmp_path) == []


def test_full_disk(tmp_path):
  """Files may not grow beyond 1000 bytes: the images have more."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
  try:
    with pytest.raises(InputError, match=r'cannot write .* too large'):
      build_shapes_data.convert(str(tmp_path / 'new'), num_train=2, num_val=1)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert os.listdir(tmp_path) == []


def test_does_not_overwrite_other_files(tmp_path):
  (tmp_path / 'thesis.txt').write_text('mine')
  with pytest.raises(InputError, match='not empty'):
    build_shapes_data.convert(str(tmp_path), num_train=1, num_val=1)
  assert os.listdir(tmp_path) == ['thesis.txt']


def test_the_folder_of_a_training_run_is_refused(tmp_path):
  build_shapes_data.INFO.save(str(tmp_path))
  (tmp_path / 'model.ckpt-1.index').touch()
  with pytest.raises(InputError, match='not empty'):
    build_shapes_data.convert(str(tmp_path), num_train=1, num_val=1)
  assert len(list(tmp_path.iterdir())) == 2

"""Images of any size through networks: padded, whole, or in tiles."""

import gc
import weakref

import numpy as np
import pytest
import small_checkpoint

from deeplab import checkpoints, common, model
from deeplab.common import InputError
from deeplab.core import dense_crf
from deeplab.evaluation import any_size, prediction

_FILL = 127.5


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """(folder, options) of a checkpoint."""
  folder = tmp_path_factory.mktemp('train')
  return str(folder), small_checkpoint.write(folder)


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
  """The same without the image-level feature, which is that of a tile."""
  folder = tmp_path_factory.mktemp('train')
  return str(folder), small_checkpoint.write(
    folder, add_image_level_feature=False
  )


def _image(height, width, seed=0):
  """Blobs of colour, which the network sees as several classes."""
  noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
  rows = np.arange(height) * 9 // height
  return noise[rows][:, np.arange(width) * 9 // width]


def _predictor(trained, **arguments):
  folder, options = trained
  predictor = any_size.AnySizePredictor(options, **arguments)
  predictor.restore(folder)
  return predictor


def _whole(trained, image, size, **arguments):
  """(labels, probabilities) of a network built for this very size."""
  folder, options = trained
  network = prediction.Predictor(
    options.replace(crop_size=size), size, **arguments
  )
  network.restore(folder)
  padded = np.full((1, *size, 3), _FILL, np.float32)
  height, width = image.shape[:2]
  padded[0, :height, :width] = image
  ((_, probabilities),) = network.probabilities(padded, [(height, width)])
  return network(padded)[0, :height, :width], probabilities


# One scale is padded alike in test_networks_of_a_size_share_their_weights.
@pytest.mark.parametrize(
  'arguments',
  [
    pytest.param({}, marks=pytest.mark.slow),
    {'eval_scales': [0.5, 1.0], 'add_flipped_images': True},
  ],
)
def test_an_image_that_fits_is_padded_and_goes_through_at_once(
  trained, arguments
):
  image = _image(50, 70)
  predictor = _predictor(trained, **arguments)
  labels, probabilities = _whole(trained, image, (65, 81), **arguments)
  assert len(np.unique(labels)) > 1
  np.testing.assert_array_equal(predictor(image[None])[0], labels)
  np.testing.assert_allclose(
    predictor.probabilities(image), probabilities, atol=1e-5
  )


def test_a_given_crop_pads_as_records_are_padded(trained):
  image = _image(50, 40)
  labels, _ = _whole(trained, image, (97, 65))
  predictor = _predictor(trained, crop_size=[97, 65])
  np.testing.assert_array_equal(predictor(image[None])[0], labels)


def test_images_of_a_batch_do_not_depend_on_each_other(trained):
  images = np.stack([_image(50, 40, seed) for seed in range(3)])
  predictor = _predictor(trained, max_tile_size=65)
  together = predictor(images)
  for image, labels in zip(images, together, strict=True):
    np.testing.assert_array_equal(predictor(image[None])[0], labels)


@pytest.mark.parametrize(
  'arguments', [{'max_tile_size': 97}, {'crop_size': [97, 97], 'batch_size': 2}]
)
def test_a_large_image_in_tiles(plain, arguments):
  image = _image(70, 250)
  predictor = _predictor(plain, **arguments)
  labels = predictor(image[None])[0]
  probabilities = predictor.probabilities(image)
  assert labels.shape == (70, 250) and len(np.unique(labels)) > 1
  np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
  np.testing.assert_array_equal(labels, probabilities.argmax(-1))
  expected, _ = _whole(plain, image, (81, 257))
  assert (labels == expected).mean() > 0.8


def test_far_from_their_borders_tiles_are_the_image(plain):
  """Beyond the reach of the network."""
  image = _image(33, 1200)
  tiled = _predictor(plain, crop_size=[33, 897]).probabilities(image)
  _, whole = _whole(plain, image, (33, 1201))
  np.testing.assert_allclose(tiled[:, :100], whole[:, :100], atol=1e-4)
  np.testing.assert_allclose(tiled[:, -100:], whole[:, -100:], atol=1e-4)


def test_the_crf_works_on_the_merged_probabilities(trained):
  image = _image(70, 250)
  crf = dense_crf.Parameters(iterations=2)
  plain = _predictor(trained, max_tile_size=97)
  refined = plain.with_crf(crf)
  expected = dense_crf.dense_crf(image, plain.probabilities(image), crf)
  np.testing.assert_allclose(refined.probabilities(image), expected, atol=1e-5)
  np.testing.assert_array_equal(
    refined(image[None])[0], expected.argmax(axis=-1)
  )
  assert plain.crf is None


def test_an_image_too_large_for_a_crf(trained, monkeypatch):
  monkeypatch.setattr(any_size, 'MAX_CRF_PIXELS', 1000)
  predictor = _predictor(trained, crf=dense_crf.Parameters())
  with pytest.raises(InputError, match=r'50x40 pixels .* CRF.*Shrink it, or'):
    predictor(_image(50, 40)[None])


def test_the_largest_image_of_the_demo_is_not_too_large_for_a_crf():
  image = np.broadcast_to(np.uint8(0), (2049, 2049, 3))
  any_size.check_crf_size(image)
  with pytest.raises(InputError, match=r"a\.jpg .*Use '--shrink', or leave"):
    any_size.check_crf_size(
      np.broadcast_to(np.uint8(0), (2050, 2049, 3)), 'a.jpg', "Use '--shrink'"
    )


def test_networks_of_many_sizes_do_not_fill_the_memory(tmp_path, monkeypatch):
  monkeypatch.setattr(any_size, '_MAX_NETWORKS', 2)
  options = small_checkpoint.write(tmp_path, image_pooling_crop_size=[33, 33])
  predictor = _predictor((str(tmp_path), options), max_tile_size=65)
  labels = predictor(_image(33, 33)[None])
  first = weakref.ref(predictor._network((33, 33)))
  for width in (49, 65):
    predictor(_image(33, width)[None])
  gc.collect()
  assert list(predictor._networks) == [(33, 49), (33, 65)] and first() is None
  np.testing.assert_array_equal(predictor(_image(33, 33)[None]), labels)


def test_networks_of_a_size_share_their_weights(tmp_path):
  """A window of pooling makes each size another network."""
  options = small_checkpoint.write(tmp_path, image_pooling_crop_size=[65, 65])
  predictor = _predictor((str(tmp_path), options), max_tile_size=97)
  for size, padded in (((50, 40), (65, 65)), ((90, 40), (97, 65))):
    image = _image(*size)
    expected, _ = _whole((str(tmp_path), options), image, padded)
    np.testing.assert_array_equal(predictor(image[None])[0], expected)


@pytest.mark.parametrize(
  ('options', 'grid', 'depends'),
  [
    ({'output_stride': 8}, 8, False),
    ({'output_stride': 16, 'image_pooling_crop_size': [65, 65]}, 16, True),
    ({'model_variant': 'nas_hnasnet', 'output_stride': 8}, 32, False),
    (
      {
        'output_stride': 16,
        'dense_prediction_cell_config': [
          {
            'op': 'pyramid_pooling',
            'grid_size': [2, 2],
            'input': -1,
          }
        ],
      },
      16,
      True,
    ),
  ],
)
def test_what_sizes_depend_on(options, grid, depends):
  options = common.ModelOptions({'semantic': 3}, **options)
  assert any_size.grid_of(options) == grid
  assert model.depends_on_size(options) == depends


@pytest.mark.parametrize('depends', [True, False])
def test_a_second_checkpoint_reaches_networks_of_all_sizes(tmp_path, depends):
  window = {'image_pooling_crop_size': [65, 65]} if depends else {}
  options = small_checkpoint.write(tmp_path / 'first', **window)
  first = str(tmp_path / 'first' / 'model.ckpt-7')
  values = {name: get() for name, (_, get) in checkpoints.read(first).items()}
  values.pop('global_step', None)
  values['logits/semantic/biases'] += np.float32([0, 0, 1e3])
  checkpoints.save(str(tmp_path / 'second'), 8, values)

  # One of them not square.
  images = [_image(65, 65), _image(97, 65)]
  predictor = _predictor((str(tmp_path / 'first'), options), max_tile_size=97)
  crf = predictor.with_crf(dense_crf.Parameters(iterations=1))
  first = [predictor(image[None]) for image in images]
  assert all((labels != 2).any() for labels in first)
  assert predictor.restore(str(tmp_path / 'second')) == 8
  for image in images:
    assert (predictor(image[None]) == 2).all()
    assert (crf(image[None]) == 2).all()
  predictor.restore(str(tmp_path / 'first'))
  for image, expected in zip(images, first, strict=True):
    np.testing.assert_array_equal(predictor(image[None]), expected)

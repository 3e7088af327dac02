"""Training and evaluation preprocessing, against the original's outputs."""

import hashlib
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from deeplab import common, input_preprocess
from deeplab.core import feature_extractor, preprocess_utils, random_numbers

TESTDATA = pathlib.Path(__file__).parent / 'testdata'
CASES = json.loads((TESTDATA / 'preprocess.json').read_text())
ARRAYS = dict(np.load(TESTDATA / 'preprocess.npz'))
IMAGE = ARRAYS['input__image']
LABEL = ARRAYS['input__label']


def sample(array):
  """The 33 rows and columns that are stored of large arrays."""
  rows, columns = (
    np.linspace(0, n - 1, 33).astype(int) for n in array.shape[:2]
  )
  return array[np.ix_(rows, columns)]


def difference(key, got):
  """Largest difference from a stored image; labels must be equal."""
  got = np.asarray(got)
  assert list(got.shape) == CASES[key]['shape']
  assert got.dtype == CASES[key]['dtype']
  if got.dtype.kind in 'iu':
    digest = hashlib.sha256(np.ascontiguousarray(got).tobytes()).hexdigest()
    return 0 if digest == CASES[key]['sha256'] else np.inf
  want = ARRAYS[key.replace('/', '__')]
  got = got if got.shape == want.shape else sample(got)
  return np.abs(got - want).max()


@pytest.mark.parametrize('index', range(len(CASES['eval_cases'])))
@pytest.mark.parametrize('with_label', [True, False])
def test_evaluation_equals_the_original(index, with_label):
  arguments = CASES['eval_cases'][index]
  original, image, label = input_preprocess.preprocess_image_and_label(
    IMAGE, LABEL if with_label else None, is_training=False, **arguments
  )
  assert difference(f'eval/{index}/original_image', original) < 1e-4
  if with_label:
    assert difference(f'eval/{index}/label', label) == 0
  else:
    assert label is None
  image = np.array(image)
  if arguments['model_variant'] == 'resnet_v1_18':
    # The original pads with 127.5 here, although this network subtracts the
    # mean colour; what is padded is all that differs.
    mean = feature_extractor.mean_pixel('resnet_v1_18')
    padding = np.ones(image.shape[:2], bool)
    padding[: IMAGE.shape[0], : IMAGE.shape[1]] = False
    np.testing.assert_allclose(image[padding] - mean, 0, atol=1e-4)
    image[padding] = 127.5
  assert difference(f'eval/{index}/image', image) < 1e-4


@pytest.mark.parametrize('scale', ['0.5', '1', '1.5'])
def test_training_equals_the_original(scale):
  """The original's two outcomes, mirrored and not, and nothing else."""
  height, width, _ = CASES[f'train/scale{scale}_flip0/image']['shape']
  flips = []
  for seed in range(8):
    original, image, label = input_preprocess.preprocess_image_and_label(
      IMAGE,
      LABEL,
      height,
      width,
      min_scale_factor=float(scale),
      max_scale_factor=float(scale),
      model_variant='mobilenet_v2',
      seed=[seed, 0],
    )
    np.testing.assert_array_equal(original, IMAGE)
    fits = [
      difference(f'train/scale{scale}_flip{flip}/image', image) < 1e-4
      and difference(f'train/scale{scale}_flip{flip}/label', label) == 0
      for flip in (0, 1)
    ]
    assert sum(fits) == 1
    flips.append(fits[1])
  assert set(flips) == {True, False}


def augment(seed):
  _, image, label = input_preprocess.preprocess_image_and_label(
    IMAGE,
    LABEL,
    65,
    65,
    min_scale_factor=0.5,
    max_scale_factor=2.0,
    model_variant='mobilenet_v2',
    seed=seed,
  )
  return image.numpy(), label.numpy()


def test_augmentation_depends_on_the_seed_alone():
  first = augment([1, 2])
  tf.random.set_seed(99)
  augment(None)
  for one, two in zip(first, augment([1, 2]), strict=True):
    np.testing.assert_array_equal(one, two)
  for other in ([1, 3], [2, 2]):
    assert (augment(other)[0] != first[0]).any()


@pytest.mark.parametrize('model_variant', ['mobilenet_v2', 'resnet_v1_50'])
@pytest.mark.parametrize('crop', [(65, 65), (150, 90), (90, 250), (250, 330)])
def test_augmentation_is_that_of_one_step_after_the_other(crop, model_variant):
  """Scaling all of the image, padding, cropping, flipping: as the original."""
  mean = feature_extractor.mean_pixel(model_variant)
  flips = set()
  for number in range(8):
    scale_seed, *seeds = random_numbers.split_seed([3, number], 3)
    scale = preprocess_utils.get_random_scale(0.5, 2.0, 0.0, scale_seed)
    want = preprocess_utils.randomly_scale_image_and_label(
      tf.cast(IMAGE, tf.float32), tf.cast(LABEL, tf.int32), scale
    )
    size = np.maximum(want[0].shape[:2], crop)
    want = [
      preprocess_utils.pad_to_bounding_box(part, 0, 0, *size, value)
      for part, value in zip(want, ([[mean]], 255), strict=True)
    ]
    want = preprocess_utils.random_crop(want, *crop, seeds[0])
    *want, is_flipped = preprocess_utils.flip_dim(want, 0.5, 1, seeds[1])
    _, *got = input_preprocess.preprocess_image_and_label(
      IMAGE,
      LABEL,
      *crop,
      min_scale_factor=0.5,
      max_scale_factor=2.0,
      model_variant=model_variant,
      seed=[3, number],
    )
    for part, whole in zip(got, want, strict=True):
      assert part.dtype == whole.dtype
      np.testing.assert_array_equal(part, whole)
    flips.add(bool(is_flipped))
  assert flips == {True, False}


def test_training_refuses_a_label_of_another_size():
  with pytest.raises(tf.errors.InvalidArgumentError) as caught:
    input_preprocess.preprocess_image_and_label(
      IMAGE, LABEL[:-1], 65, 65, model_variant='mobilenet_v2'
    )
  text = preprocess_utils.input_error_text(caught.value)
  assert 'one size. Received: 120x160 and 119x160' in text


def test_image_larger_than_the_crop_is_refused_at_evaluation():
  def preprocess(image):
    return input_preprocess.preprocess_image_and_label(
      image,
      None,
      100,
      200,
      is_training=False,
      model_variant='mobilenet_v2',
      image_name='2007_000032',
    )[1]

  # In a pipeline, where the size of the image is not known beforehand.
  dataset = tf.data.Dataset.from_generator(
    lambda: [IMAGE],
    output_signature=tf.TensorSpec([None, None, 3], tf.uint8),
  ).map(preprocess)
  with pytest.raises(tf.errors.InvalidArgumentError) as caught:
    next(iter(dataset))
  text = preprocess_utils.input_error_text(caught.value)
  assert '"2007_000032" of 120x160' in text
  assert 'crop of 100x200' in text
  assert '--eval_crop_size=120,200 or larger' in text


def test_training_needs_a_label():
  with pytest.raises(common.InputError, match='labels'):
    input_preprocess.preprocess_image_and_label(IMAGE, None, 65, 65)

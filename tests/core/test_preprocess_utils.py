"""The operations of the input pipeline, against the original's outputs."""

import fractions
import hashlib
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from deeplab import common
from deeplab.core import preprocess_utils

TESTDATA = pathlib.Path(__file__).parents[1] / 'testdata'
CASES = json.loads((TESTDATA / 'preprocess.json').read_text())
ARRAYS = dict(np.load(TESTDATA / 'preprocess.npz'))

# TensorFlow 1's names of the resize methods.
METHODS = {
  'BILINEAR': 'bilinear',
  'NEAREST_NEIGHBOR': 'nearest',
  'BICUBIC': 'bicubic',
}


def input_image():
  return tf.constant(ARRAYS['input__image'], tf.float32)


def input_label(dtype=tf.int32):
  return tf.constant(ARRAYS['input__label'], dtype)


def assert_golden(key, got):
  """Shape, type and values; large float arrays are stored as 33x33 samples."""
  got = np.asarray(got)
  case = CASES[key]
  assert list(got.shape) == case['shape']
  assert got.dtype == case['dtype']
  if got.dtype.kind in 'iu':
    got = np.ascontiguousarray(got)
    assert hashlib.sha256(got.tobytes()).hexdigest() == case['sha256']
    return
  want = ARRAYS[key.replace('/', '__')]
  if got.shape != want.shape:
    rows, columns = (
      np.linspace(0, n - 1, 33).astype(int) for n in got.shape[:2]
    )
    got = got[np.ix_(rows, columns)]
  np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)


def keys(prefix):
  return [key for key in CASES if key.startswith(prefix)]


@pytest.mark.parametrize(
  'case', CASES['resize_to_range_cases'], ids=lambda case: case['key']
)
def test_resize_to_range_equals_the_original(case):
  arguments = dict(case['arguments'])
  arguments['method'] = METHODS[arguments.get('method', 'BILINEAR')]
  image, label = preprocess_utils.resize_to_range(
    input_image(), input_label(), **arguments
  )
  assert_golden(case['key'] + '/image', image)
  assert_golden(case['key'] + '/label', label)


@pytest.mark.parametrize('static', [True, False])
def test_resize_to_range_gives_the_sizes_of_the_original(static):
  for size, arguments, want in CASES['resize_to_range_shapes']:
    shape = size if static else [None, None]

    @tf.function(input_signature=[tf.TensorSpec([*shape, 1])])
    def resize(image, arguments=arguments):
      image, label = preprocess_utils.resize_to_range(image, **arguments)
      assert label is None
      return tf.shape(image)[:2]

    got = resize(tf.zeros([*size, 1]))
    assert got.numpy().tolist() == want, (size, arguments)


# The original multiplies in float32 by a quotient rounded to float32, and the
# product may come out just below the integer that it is. None of its stored
# sizes shows that; these do.
@pytest.mark.parametrize(
  ('size', 'min_size', 'exact', 'original'),
  [
    ([160, 480], 321, [321, 963], [321, 962]),
    ([277, 277], 321, [321, 321], [320, 320]),
    ([277, 375], 321, [321, 434], [320, 434]),
    ([375, 500], 513, [513, 684], [513, 684]),
  ],
)
def test_resize_to_range_computes_with_integers(
  size, min_size, exact, original
):
  assert original_size(size, min_size) == original
  image, _ = preprocess_utils.resize_to_range(
    tf.zeros([*size, 3]), min_size=min_size
  )
  assert image.shape[:2] == exact


def original_size(size, min_size):
  """The original's float32 arithmetic."""
  size = np.float32(size)
  return (
    np.floor(size * (np.float32(min_size) / size.min())).astype(int).tolist()
  )


def test_resize_to_range_is_exact_for_many_sizes():
  lost = 0
  for height in [*range(30, 700, 67), 277]:
    for width in range(31, 700, 41):
      scale = fractions.Fraction(321, min(height, width))
      exact = [height * scale // 1, width * scale // 1]
      got = preprocess_utils._new_size(
        [height, width, 3], 321, None, None, True
      )
      assert got.numpy().tolist() == exact
      original = original_size([height, width], 321)
      # The original never gains a pixel, and loses one at most.
      assert all(0 <= a - b <= 1 for a, b in zip(exact, original, strict=True))
      lost += original != exact
  assert lost > 0


def test_resize_to_range_with_only_the_larger_side_or_a_chw_label():
  label = tf.transpose(input_label(), [2, 0, 1])
  image, resized = preprocess_utils.resize_to_range(
    input_image(), label, max_size=80, label_layout_is_chw=True
  )
  assert image.shape == [60, 80, 3]
  assert_golden('resize_to_range/1/label', tf.transpose(resized, [1, 2, 0]))


@pytest.mark.parametrize('arguments', [{}, {'min_size': 0}, {'max_size': -3}])
def test_resize_to_range_refuses(arguments):
  with pytest.raises(common.InputError, match='Received'):
    preprocess_utils.resize_to_range(input_image(), **arguments)


@pytest.mark.parametrize('key', keys('resize/'))
def test_resize_image_equals_the_original(key):
  _, method, size, alignment = key.split('/')
  image = tf.reshape(tf.range(35, dtype=tf.float32), [7, 5, 1])
  size = [int(side) for side in size.split('x')]
  resized = preprocess_utils.resize_image(
    image, size, method, alignment == 'align'
  )
  assert_golden(key, resized[tf.newaxis])


@pytest.mark.parametrize('key', keys('resize_index/'))
def test_nearest_picks_the_pixels_of_the_original(key):
  old, new = (int(n) for n in key.rsplit('/', 1)[1].split('_to_'))
  column = tf.reshape(tf.range(old), [old, 1, 1])
  resized = preprocess_utils.resize_image(column, [new, 1], 'nearest')
  assert_golden(key, resized[:, 0, 0])


@pytest.mark.parametrize('key', keys('scale/'))
def test_scale_equals_the_original(key):
  _, scale, which = key.split('/')
  image, label = preprocess_utils.randomly_scale_image_and_label(
    input_image(), input_label(), tf.constant(float(scale))
  )
  assert_golden(key, {'image': image, 'label': label}[which])


def test_scale_of_one_changes_nothing():
  image, label = preprocess_utils.randomly_scale_image_and_label(
    tf.constant(ARRAYS['input__image']), None, 1.0
  )
  assert label is None
  np.testing.assert_array_equal(image, ARRAYS['input__image'])


def test_label_resize_method():
  for dtype, number in (('uint8', 1), ('int32', 1), ('float32', 0)):
    assert CASES['label_resize_method/' + dtype] == number
    method = preprocess_utils.get_label_resize_method(tf.zeros([], dtype))
    assert method == ['bilinear', 'nearest'][number]


@pytest.mark.parametrize('key', keys('get_random_scale'))
def test_random_scales_are_those_of_the_original(key):
  for arguments, values in CASES[key].items():
    low, high, step = (float(v) for v in arguments.split(','))
    got = {
      float(preprocess_utils.get_random_scale(low, high, step, [seed, 7]))
      for seed in range(60)
    }
    if '...' in values:
      assert len(got) == 60
      assert low <= min(got) < low + 0.05
      assert high - 0.05 < max(got) < high
    else:
      np.testing.assert_allclose(sorted(got), values, rtol=1e-6)


@pytest.mark.parametrize('scales', [(-0.5, 1, 0), (2, 1, 0), (1, 2, -0.25)])
def test_random_scale_refuses(scales):
  with pytest.raises(common.InputError, match='min_scale_factor='):
    preprocess_utils.get_random_scale(*scales)


@pytest.mark.parametrize(
  ('key', 'image', 'offsets', 'value'),
  [
    ('pad/image', input_image(), (3, 5), [[[123.15, 115.90, 103.06]]]),
    ('pad/label', input_label(), (0, 0), 255),
    ('pad/label_uint8', input_label(tf.uint8), (0, 0), 255),
  ],
)
def test_pad_equals_the_original(key, image, offsets, value):
  padded = preprocess_utils.pad_to_bounding_box(
    image, *offsets, 140, 180, value
  )
  assert_golden(key, padded)
  batch = preprocess_utils.pad_to_bounding_box(
    image[tf.newaxis], *offsets, 140, 180, value
  )
  np.testing.assert_array_equal(batch[0], padded)


def test_pad_with_offset_and_unknown_size():
  @tf.function(input_signature=[tf.TensorSpec([None, None, 2])])
  def pad(image):
    padded = preprocess_utils.pad_to_bounding_box(image, 1, 2, 4, 6, 9.0)
    assert padded.shape == [4, 6, 2]
    return padded

  padded = pad(tf.ones([2, 3, 2])).numpy()
  assert (padded[1:3, 2:5] == 1).all()
  assert padded.sum() == 2 * (6 + 9 * (24 - 6))


def test_pad_refuses_a_smaller_target_and_wrong_ranks():
  with pytest.raises(ValueError, match='3 or 4 dimensions'):
    preprocess_utils.pad_to_bounding_box(tf.zeros([3, 3]), 0, 0, 4, 4, 0)
  with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
    preprocess_utils.pad_to_bounding_box(tf.zeros([5, 3, 1]), 0, 0, 4, 4, 0)


@pytest.mark.parametrize('prob', [0, 1])
def test_flip_equals_the_original(prob):
  image = tf.constant(ARRAYS['input__image'])
  for seed in (None, [3, 4]):
    flipped, label, is_flipped = preprocess_utils.flip_dim(
      [image, input_label()], float(prob), dim=1, seed=seed
    )
    assert bool(is_flipped) == bool(prob)
    assert_golden(f'flip/prob{prob}_dim1', flipped)
    want = ARRAYS['input__label'][:, :: -1 if prob else 1]
    np.testing.assert_array_equal(label, want)


def test_flip_refuses_a_dimension_that_is_not_there():
  with pytest.raises(ValueError, match='dim=3'):
    preprocess_utils.flip_dim([input_image()], dim=3)


def test_flip_happens_as_often_as_asked():
  @tf.function
  def flips(index):
    return preprocess_utils.flip_dim([tf.zeros([1, 2])], 0.3, 1, [5, index])[1]

  share = np.mean([flips(tf.constant(i)) for i in range(400)])
  assert abs(share - 0.3) < 0.07


def test_random_crop_takes_one_window_of_all_images():
  rows, columns = tf.meshgrid(tf.range(9), tf.range(7), indexing='ij')
  place = (rows * 100 + columns)[..., tf.newaxis]
  corners = set()
  for seed in range(80):
    a, b = preprocess_utils.random_crop(
      [place, tf.cast(tf.repeat(place, 3, axis=2), tf.float32)], 7, 5, [seed, 0]
    )
    assert b.shape == [7, 5, 3]
    np.testing.assert_array_equal(tf.repeat(a, 3, axis=2), b)
    np.testing.assert_array_equal(a - a[0, 0], place[:7, :5])
    corners.add(int(a[0, 0, 0]))
  assert corners == {r * 100 + c for r in range(3) for c in range(3)}


def test_random_crop_refuses():
  crop = preprocess_utils.random_crop
  with pytest.raises(ValueError, match='image_list'):
    crop([], 2, 2)
  with pytest.raises(ValueError, match='3 dimensions'):
    crop([tf.zeros([4, 4])], 2, 2)
  with pytest.raises(tf.errors.InvalidArgumentError) as caught:
    crop([tf.zeros([4, 3, 1])], 4, 4)
  text = preprocess_utils.input_error_text(caught.value)
  assert text == 'the crop of 4x4 is larger than the image of 4x3.'
  with pytest.raises(tf.errors.InvalidArgumentError) as caught:
    crop([tf.zeros([4, 4, 3]), tf.zeros([4, 5, 1])], 2, 2)
  assert '4x4 and 4x5' in preprocess_utils.input_error_text(caught.value)


def test_resolve_shape():
  @tf.function(input_signature=[tf.TensorSpec([None, 4, None])])
  def shape(tensor):
    resolved = preprocess_utils.resolve_shape(tensor, rank=3)
    assert resolved[1] == 4
    return tf.stack(resolved)

  assert shape(tf.zeros([2, 4, 6])).numpy().tolist() == [2, 4, 6]
  assert preprocess_utils.resolve_shape(tf.zeros([5, 6])) == [5, 6]


def test_check_input_reaches_the_user_with_its_text():
  def check(value):
    return preprocess_utils.check_input(
      value, value < 2, lambda: ['"é\\x" is ', value, ' > 1']
    )

  dataset = tf.data.Dataset.range(5).map(check, num_parallel_calls=2)
  seen = []
  with pytest.raises(tf.errors.InvalidArgumentError) as caught:
    for value in dataset:
      seen.append(int(value))
  assert seen == [0, 1]
  text = preprocess_utils.input_error_text(caught.value)
  assert text == '"é\\x" is 2 > 1'
  other = tf.errors.InvalidArgumentError(None, None, 'something else')
  assert preprocess_utils.input_error_text(other) is None

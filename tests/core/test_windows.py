"""Windows of resized images, against resizing the whole."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab.core import preprocess_utils, windows

# Sides before and after resizing: scaled down and up, kept, of one pixel.
SIDES = [(1, 1), (1, 7), (9, 1), (2, 5), (41, 41), (41, 20), (50, 25),
         (500, 375), (61, 122), (33, 57), (375, 656), (90, 270)]  # fmt: skip


def cases():
  """Some (old size, new size, offset, window), from the same numbers."""
  rng = np.random.default_rng(0)
  for height in SIDES:
    width = SIDES[rng.integers(len(SIDES))]
    old, new = np.stack([height, width], 1)
    window = rng.integers(1, new + 1)
    yield old, new, rng.integers(0, new - window + 1), window
    yield old, new, np.zeros(2, int), new


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, np.float32])
@pytest.mark.parametrize('method', ['bilinear', 'nearest'])
def test_windows_are_parts_of_the_resized_image(method, dtype):
  for old, new, offset, window in cases():
    image = np.random.default_rng(1).integers(0, 256, [*old, 3])
    image = tf.constant(image, dtype)
    whole = preprocess_utils.resize_image(image, new, method).numpy()
    (row, column), (height, width) = offset, window
    want = whole[row : row + height, column : column + width]
    got = getattr(windows, method)(image, new, offset, window)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


def test_windows_in_a_graph_of_unknown_sizes():
  size = tf.TensorSpec([2], tf.int32)

  @tf.function(
    input_signature=[tf.TensorSpec([None, None, 1], tf.uint8), size, size, size]
  )
  def both(image, *arguments):
    return (
      windows.bilinear(image, *arguments),
      windows.nearest(image, *arguments),
    )

  image = np.arange(30, dtype=np.uint8).reshape(5, 6, 1)
  smooth, nearest = both(image, [9, 11], [2, 4], [3, 5])
  # Every other pixel is one of the original.
  np.testing.assert_array_equal(smooth[::2, ::2], image[1:3, 2:5])
  np.testing.assert_array_equal(smooth[1, 0], (image[1, 2] + image[2, 2]) / 2)
  # Halves go to the next pixel.
  np.testing.assert_array_equal(nearest[1, 1], image[2, 3])

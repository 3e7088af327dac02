"""Keras metrics against the NumPy ones they wrap."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab.common import InputError
from deeplab.evaluation import (
  panoptic_quality,
  parsing_covering,
  streaming_metrics,
)

_SETTINGS = {
  'max_instances_per_category': 4,
  'ignored_label': 0,
  'offset': 20,
}


def _batches():
  """Three batches of [2, 8, 9]: categories 0..3, instances 0..2."""
  rng = np.random.default_rng(0)
  for _ in range(3):
    gt = rng.integers(0, 4, (2, 8, 9)), rng.integers(0, 2, (2, 8, 9))
    spots = rng.random((2, 8, 9)) < 0.15
    yield *gt, *(np.where(spots, 1, part) for part in gt)


@pytest.mark.parametrize('in_function', [False, True])
def test_panoptic_quality(in_function):
  streaming = streaming_metrics.StreamingPanopticQuality(4, **_SETTINGS)
  plain = panoptic_quality.PanopticQuality(4, 0, 4, 20)
  update = streaming.update_state
  update = tf.function(update) if in_function else update
  for batch in _batches():
    update(*(tf.constant(part, tf.uint16) for part in batch))
    for image in zip(*batch, strict=True):
      plain.compare_and_accumulate(*image)
  rows = [
    *plain.values_per_category().values(),
    plain.tp_per_class,
    plain.fn_per_class,
    plain.fp_per_class,
  ]
  result = streaming.result()
  assert result.dtype == tf.float64
  np.testing.assert_allclose(result, rows, rtol=1e-14)
  assert plain.tp_per_class.sum() > 20 and plain.fn_per_class.sum() > 2
  streaming.reset_state()
  assert not np.any(streaming.result())


@pytest.mark.parametrize('normalize', [False, True])
def test_parsing_covering(normalize):
  streaming = streaming_metrics.StreamingParsingCovering(
    4, **_SETTINGS, normalize_by_image_size=normalize
  )
  plain = parsing_covering.ParsingCovering(4, 0, 4, 20, normalize)
  for batch in _batches():
    for image in zip(*batch, strict=True):
      plain.compare_and_accumulate(*image)
      streaming.update_state(*image)
  rows = [
    plain.result_per_category(),
    plain.weighted_iou_per_class,
    plain.gt_area_per_class,
  ]
  np.testing.assert_allclose(streaming.result(), rows, rtol=1e-14)
  assert plain.result() > 0.3


def test_wrong_labels_are_named():
  streaming = streaming_metrics.StreamingPanopticQuality(4, **_SETTINGS)
  zeros = np.zeros([2, 2], int)
  with pytest.raises(InputError, match=r'categories outside 0\.\.3: \[4\]'):
    streaming.update_state(zeros + 4, zeros, zeros, zeros)

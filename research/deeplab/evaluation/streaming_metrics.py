"""Panoptic quality and parsing covering of tensors, as Keras metrics.

  metric = streaming_metrics.StreamingPanopticQuality(
    num_classes=201, max_instances_per_category=256, ignored_label=0,
    offset=256 * 256)
  for ... in batches:
    metric.update_state(gt_categories, gt_instances, categories, instances)
  pq, sq, rq, tp, fn, fp = tf.unstack(metric.result())

They compare on NumPy and sum in variables, so that they work in eager code, in
a tf.function and in a distribution strategy (not under XLA).
"""

import keras
import tensorflow as tf

from deeplab.evaluation import panoptic_quality, parsing_covering


class _StreamingMetric(keras.metrics.Metric):
  """Sums the totals of a SegmentationMetric over batches of tensors."""

  def __init__(self, metric, name):
    super().__init__(name=name, dtype='float64')
    self._metric = metric
    self._sums = [
      self.add_weight(
        shape=(metric.num_categories,),
        initializer='zeros',
        dtype='float64',
        name=total,
      )
      for total in metric.TOTALS
    ]

  def update_state(
    self,
    groundtruth_categories,
    groundtruth_instances,
    predicted_categories,
    predicted_instances,
  ):
    """Adds an image, or a batch of them.

    Args:
      groundtruth_categories: integers [height, width] or [batch, height,
        width].
      groundtruth_instances: the same.
      predicted_categories: the same.
      predicted_instances: the same.
    """
    labels = (
      groundtruth_categories,
      groundtruth_instances,
      predicted_categories,
      predicted_instances,
    )
    labels = [tf.cast(tensor, tf.int64) for tensor in labels]
    totals = tf.numpy_function(
      self._compare, labels, [tf.float64] * len(self._sums), stateful=False
    )
    for variable, value in zip(self._sums, totals, strict=True):
      value = tf.ensure_shape(value, variable.shape)
      variable.assign_add(value)

  def _compare(self, *labels):
    """The totals of an image or a batch, float64 [num_classes] each."""
    batch = self._metric.empty_copy()
    images = [labels] if labels[0].ndim == 2 else zip(*labels, strict=True)
    for image in images:
      batch.compare_and_accumulate(*image)
    return [getattr(batch, total).astype('float64') for total in batch.TOTALS]


class StreamingPanopticQuality(_StreamingMetric):
  """Panoptic quality; see PanopticQuality."""

  def __init__(
    self,
    num_classes,
    max_instances_per_category,
    ignored_label,
    offset,
    name='streaming_panoptic_quality',
  ):
    """As PanopticQuality, with the original's order of arguments.

    Args:
      num_classes: categories are 0..num_classes-1.
      max_instances_per_category: instances are 0..max-1.
      ignored_label: the category that does not count.
      offset: above every panoptic label.
      name: name of the metric.
    """
    super().__init__(
      panoptic_quality.PanopticQuality(
        num_classes, ignored_label, max_instances_per_category, offset
      ),
      name,
    )

  def result(self):
    """float64 [6, num_classes]: PQ, SQ, RQ, TP, FN and FP of each class."""
    iou, tp, fn, fp = (tf.convert_to_tensor(total) for total in self._sums)
    sq = tf.math.divide_no_nan(iou, tp)
    rq = tf.math.divide_no_nan(tp, tp + 0.5 * fn + 0.5 * fp)
    return tf.stack([sq * rq, sq, rq, tp, fn, fp])


class StreamingParsingCovering(_StreamingMetric):
  """Parsing covering; see ParsingCovering."""

  def __init__(
    self,
    num_classes,
    max_instances_per_category,
    ignored_label,
    offset,
    normalize_by_image_size=True,
    name='streaming_parsing_covering',
  ):
    """As ParsingCovering, with the original's order of arguments.

    Args:
      num_classes: categories are 0..num_classes-1.
      max_instances_per_category: instances are 0..max-1.
      ignored_label: the category that does not count.
      offset: above every panoptic label.
      normalize_by_image_size: whether areas are shares of their image.
      name: name of the metric.
    """
    super().__init__(
      parsing_covering.ParsingCovering(
        num_classes,
        ignored_label,
        max_instances_per_category,
        offset,
        normalize_by_image_size,
      ),
      name,
    )

  def result(self):
    """float64 [3, num_classes]: covering, weighted IoU and area of a class."""
    weighted_iou, area = (tf.convert_to_tensor(total) for total in self._sums)
    covering = tf.math.divide_no_nan(weighted_iou, area)
    return tf.stack([covering, weighted_iou, area])

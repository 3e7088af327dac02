"""Panoptic quality.

Kirillov et al., "Panoptic Segmentation", arXiv:1801.00868. A predicted segment
and a ground-truth segment of its category match if their intersection over
union is above 0.5, which a segment can reach with one other at most. For every
category, with TP matches, FP predictions and FN ground-truth segments left
over:

  PQ = SQ * RQ,  SQ = sum of the IoU of matches / TP,
  RQ = TP / (TP + FP / 2 + FN / 2)
"""

from typing import ClassVar

import numpy as np

from deeplab.evaluation import base_metric


class PanopticQuality(base_metric.SegmentationMetric):
  """Panoptic quality over any number of images.

  Void pixels of the ground truth do not belong to a prediction when its union
  with a segment is taken; those of crowds do. A prediction without a match is
  no false positive if more than half of it lies on void and crowds of any
  category.

  The entries of the ignored label mean nothing and are in no mean.

  Attributes:
    iou_per_class: float64 [num_categories], sum of the IoU of matches.
    tp_per_class: int64 [num_categories], matches.
    fn_per_class: int64 [num_categories], ground-truth segments left over.
    fp_per_class: int64 [num_categories], predicted segments left over.
  """

  TOTALS: ClassVar[dict[str, type]] = {
    'iou_per_class': np.float64,
    'tp_per_class': np.int64,
    'fn_per_class': np.int64,
    'fp_per_class': np.int64,
  }

  def _accumulate(self, overlaps):
    gt, pred = overlaps.gt_index, overlaps.pred_index
    is_ignored = overlaps.gt_categories == self.ignored_label
    is_void = is_ignored & (overlaps.gt_instances == 0)
    void_areas = _area_on(is_void, overlaps)
    union = overlaps.gt_areas[gt] + overlaps.pred_areas[pred]
    union -= overlaps.areas + void_areas[pred]
    # Nothing is left of the union of void with itself.
    iou = base_metric.realdiv_maybe_zero(overlaps.areas, union)
    is_match = overlaps.is_same_category & (iou > 0.5)

    # Who must match, and has not.
    gt_left = ~is_ignored
    gt_left[gt[is_match]] = False
    pred_left = _area_on(is_ignored, overlaps) / overlaps.pred_areas <= 0.5
    pred_left[pred[is_match]] = False

    matched = overlaps.gt_categories[gt[is_match]]
    self.iou_per_class += self._sum_by_category(matched, iou[is_match])
    self.tp_per_class += self._count(matched)
    self.fn_per_class += self._count(overlaps.gt_categories[gt_left])
    self.fp_per_class += self._count(overlaps.pred_categories[pred_left])

  def _count(self, categories):
    return self._sum_by_category(categories).astype(np.int64)

  def _occurs(self):
    return (self.tp_per_class + self.fn_per_class + self.fp_per_class) > 0

  def values_per_category(self):
    """{'pq', 'sq', 'rq'}: each float64 [num_categories]."""
    sq = base_metric.realdiv_maybe_zero(self.iou_per_class, self.tp_per_class)
    rq = base_metric.realdiv_maybe_zero(
      self.tp_per_class,
      self.tp_per_class + 0.5 * self.fn_per_class + 0.5 * self.fp_per_class,
    )
    return {'pq': sq * rq, 'sq': sq, 'rq': rq}


def _area_on(gt_segments, overlaps):
  """int64 [p]: pixels of each prediction on chosen ground-truth segments.

  Args:
    gt_segments: bool [g].
    overlaps: an Overlaps.
  """
  chosen = gt_segments[overlaps.gt_index]
  return base_metric.total(
    overlaps.areas[chosen],
    overlaps.pred_index[chosen],
    len(overlaps.pred_areas),
  )

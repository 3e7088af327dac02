"""Parsing covering.

Yang et al., "DeeperLab: Single-Shot Image Parser", arXiv:1902.05093. Every
ground-truth segment counts by its area, with the intersection over union of
the best prediction of its category:

  covering(category) = sum of area * best IoU / sum of area

and parsing covering is the mean over the categories. There is no threshold,
and large segments count more than small ones.
"""

from typing import ClassVar

import numpy as np

from deeplab.evaluation import base_metric


class ParsingCovering(base_metric.SegmentationMetric):
  """Parsing covering over any number of images.

  Pixels that the ground truth ignores belong to no segment, be it void or
  crowd.

  Attributes:
    weighted_iou_per_class: float64 [num_categories], sum of area * best IoU.
    gt_area_per_class: float64 [num_categories], sum of areas, in pixels or in
      images.
  """

  TOTALS: ClassVar[dict[str, type]] = {
    'weighted_iou_per_class': np.float64,
    'gt_area_per_class': np.float64,
  }

  def __init__(
    self,
    num_categories,
    ignored_label,
    max_instances_per_category,
    offset,
    normalize_by_image_size=True,
  ):
    """As in the base class.

    Args:
      num_categories: see SegmentationMetric.
      ignored_label: see SegmentationMetric.
      max_instances_per_category: see SegmentationMetric.
      offset: see SegmentationMetric.
      normalize_by_image_size: whether areas are shares of their image, so that
        images of every size count alike; otherwise they are pixels.
    """
    super().__init__(
      num_categories, ignored_label, max_instances_per_category, offset
    )
    self.normalize_by_image_size = normalize_by_image_size

  def _accumulate(self, overlaps):
    counts = overlaps.gt_categories != self.ignored_label
    gt, pred, areas = (
      values[counts[overlaps.gt_index]]
      for values in (overlaps.gt_index, overlaps.pred_index, overlaps.areas)
    )
    pred_areas = base_metric.total(areas, pred, len(overlaps.pred_areas))
    iou = areas / (overlaps.gt_areas[gt] + pred_areas[pred] - areas)
    iou *= overlaps.is_same_category[counts[overlaps.gt_index]]
    best = np.zeros(len(counts))
    np.maximum.at(best, gt, iou)

    categories = overlaps.gt_categories[counts]
    weights = overlaps.gt_areas[counts].astype(np.float64)
    if self.normalize_by_image_size:
      weights /= max(overlaps.num_pixels, 1)
    self.weighted_iou_per_class += self._sum_by_category(
      categories, best[counts] * weights
    )
    self.gt_area_per_class += self._sum_by_category(categories, weights)

  def _occurs(self):
    return self.gt_area_per_class > 0

  def values_per_category(self):
    """{'pc': float64 [num_categories]}."""
    return {
      'pc': base_metric.realdiv_maybe_zero(
        self.weighted_iou_per_class, self.gt_area_per_class
      )
    }

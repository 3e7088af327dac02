"""What panoptic quality and parsing covering share.

Both compare two segmentations of an image into segments, and both need
nothing of the pixels but how many every pair of segments has in common. That
is counted here; so are the means over things and stuff, the table, and the
merging of what several processes have counted.
"""

import abc
import copy
import dataclasses
import numbers
from typing import ClassVar

import numpy as np

from deeplab import common
from deeplab.common import InputError

# Names of the sets of categories in detailed results.
ALL = 'All'
THINGS = 'Things'
STUFF = 'Stuff'


def realdiv_maybe_zero(numerator, denominator):
  """Element by element in float64; 0 where the denominator is 0."""
  result = np.zeros(np.shape(denominator))
  return np.divide(numerator, denominator, out=result, where=denominator != 0)


def label_runs(labels):
  """The runs of equal labels of an array, read in C order.

  Segmentations are made of long runs, so that sorting runs in place of
  pixels is several times faster.

  Args:
    labels: array of any shape.

  Returns:
    The label [runs] and the int64 length [runs] of every run.
  """
  flat = np.ravel(labels)
  if not flat.size:
    return flat, np.zeros(0, np.int64)
  starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
  starts = np.concatenate([[0], starts])
  return flat[starts], np.diff(starts, append=flat.size)


def total(values, groups, num_groups):
  """Sums integers by group, as int64 [num_groups].

  Args:
    values: integers [n]; the sums must stay below 2**53.
    groups: the group 0..num_groups-1 of each value [n].
    num_groups: how many groups there are.
  """
  return np.bincount(groups, values, num_groups).astype(np.int64)


def _label_counts(labels):
  """The distinct labels in ascending order, and the number of pixels each."""
  values, lengths = label_runs(labels)
  values, inverse = np.unique(values, return_inverse=True)
  return values, total(lengths, inverse, len(values))


@dataclasses.dataclass(frozen=True)
class Overlaps:
  """The segments of two segmentations of an image and where they meet.

  Attributes:
    gt_categories: int64 [g], category of every ground-truth segment.
    gt_instances: int64 [g], its instance.
    gt_areas: int64 [g], its pixels.
    pred_categories: int64 [p], category of every predicted segment.
    pred_areas: int64 [p], its pixels.
    gt_index: [k], the ground-truth segment of every pair that meets.
    pred_index: [k], its predicted segment.
    areas: int64 [k], the pixels that the pair has in common.
    num_pixels: pixels of the image.
  """

  gt_categories: np.ndarray
  gt_instances: np.ndarray
  gt_areas: np.ndarray
  pred_categories: np.ndarray
  pred_areas: np.ndarray
  gt_index: np.ndarray
  pred_index: np.ndarray
  areas: np.ndarray
  num_pixels: int

  @property
  def is_same_category(self):
    """bool [k]: whether the two of a pair are of one category."""
    return (
      self.gt_categories[self.gt_index] == self.pred_categories[self.pred_index]
    )


def _as_integers(name, labels):
  labels = np.asarray(labels)
  if labels.dtype.kind not in 'iu' or (labels.size and labels.min() < 0):
    found = labels.dtype if labels.dtype.kind not in 'iu' else labels.min()
    raise InputError(
      f'{name} must hold integers of 0 and more. Received: {found}.'
    )
  return labels.astype(np.int64)


class SegmentationMetric(abc.ABC):
  """A metric that accumulates over images.

  A segment is a category and an instance, and is known by its panoptic label
  `category * max_instances_per_category + instance`. Segments of the ignored
  label do not count: instance 0 of it is void, the other ones are crowds.

  A subclass names its totals, which `reset` sets to 0 and `merge` adds up, and
  defines `_accumulate`, `valid_categories` and `values_per_category`.
  """

  # {name of an attribute: dtype}, each an array [num_categories].
  TOTALS: ClassVar[dict[str, type]] = {}

  def __init__(
    self, num_categories, ignored_label, max_instances_per_category, offset
  ):
    """Starts with no image.

    Args:
      num_categories: categories are 0..num_categories-1.
      ignored_label: the category that does not count; it may lie outside of
        0..num_categories-1, and there is none if it is negative.
      max_instances_per_category: instances are 0..max-1. (A larger instance
        is taken for one of the categories above it, so that panoptic labels
        may be given as instances of category 0.)
      offset: panoptic labels of predictions are below it.

    Raises:
      InputError: a number is out of range.
    """
    counts = {
      'num_categories': num_categories,
      'max_instances_per_category': max_instances_per_category,
      'offset': offset,
    }
    common.check_ranges(counts, dict.fromkeys(counts, common.COUNT))
    if not isinstance(ignored_label, numbers.Integral):
      raise InputError(
        f'ignored_label must be an integer. Received: {ignored_label!r}.'
      )
    self.num_categories = num_categories
    self.ignored_label = ignored_label
    self.max_instances_per_category = max_instances_per_category
    self.offset = offset
    self.reset()

  def reset(self):
    """Forgets every image."""
    for name, dtype in self.TOTALS.items():
      setattr(self, name, np.zeros(self.num_categories, dtype))

  def empty_copy(self):
    """Another one of the same settings that has seen no image."""
    other = copy.copy(self)
    other.reset()
    return other

  def merge(self, other_instance):
    """Adds what another one has accumulated, as if this one had seen it.

    Raises:
      InputError: the other one is of another kind or has other settings.
    """
    if self._settings() != other_instance._settings():
      raise InputError(
        'metrics of different settings cannot be merged: '
        f'{self._settings()} and {other_instance._settings()}.'
      )
    for name in self.TOTALS:
      setattr(self, name, getattr(self, name) + getattr(other_instance, name))

  def _settings(self):
    values = {k: v for k, v in vars(self).items() if k not in self.TOTALS}
    return type(self).__name__, values

  def compare_and_accumulate(
    self,
    groundtruth_category_array,
    groundtruth_instance_array,
    predicted_category_array,
    predicted_instance_array,
  ):
    """Adds an image.

    Args:
      groundtruth_category_array: integers [height, width].
      groundtruth_instance_array: integers [height, width].
      predicted_category_array: integers [height, width].
      predicted_instance_array: integers [height, width].

    Returns:
      The metric over all images so far.

    Raises:
      InputError: sizes differ, or labels are out of range.
    """
    self._accumulate(
      self._overlaps(
        self._panoptic(
          'groundtruth', groundtruth_category_array, groundtruth_instance_array
        ),
        self._panoptic(
          'predicted', predicted_category_array, predicted_instance_array
        ),
      )
    )
    return self.result()

  def _panoptic(self, what, categories, instances):
    """The panoptic labels, int64 of the shape of both."""
    categories = _as_integers(f'{what}_category_array', categories)
    instances = _as_integers(f'{what}_instance_array', instances)
    if categories.shape != instances.shape:
      raise InputError(
        f'{what}_category_array and {what}_instance_array must have the same '
        f'shape. Received: {categories.shape} and {instances.shape}.'
      )
    categories *= self.max_instances_per_category
    categories += instances
    return categories

  def _overlaps(self, gt, pred):
    """Overlaps of two arrays of panoptic labels."""
    if gt.shape != pred.shape:
      raise InputError(
        'ground truth and prediction must have the same shape. '
        f'Received: {gt.shape} and {pred.shape}.'
      )
    highest_gt, highest = (int(np.max(x, initial=0)) for x in (gt, pred))
    if highest >= self.offset or (highest_gt + 1) * self.offset > 2**63:
      raise InputError(
        f'the offset must be above every predicted panoptic label (here '
        f'{highest}), and (panoptic labels + 1) * offset below 2**63. '
        f'Received: offset={self.offset}.'
      )
    gt *= self.offset
    gt += pred
    pairs, areas = _label_counts(gt)
    gt_labels, gt_index = np.unique(pairs // self.offset, return_inverse=True)
    pred_labels, pred_index = np.unique(
      pairs % self.offset, return_inverse=True
    )
    return Overlaps(
      gt_categories=self._categories('ground truth', gt_labels),
      gt_instances=gt_labels % self.max_instances_per_category,
      gt_areas=total(areas, gt_index, len(gt_labels)),
      pred_categories=self._categories('prediction', pred_labels),
      pred_areas=total(areas, pred_index, len(pred_labels)),
      gt_index=gt_index,
      pred_index=pred_index,
      areas=areas,
      num_pixels=gt.size,
    )

  def _categories(self, what, labels):
    """The categories of panoptic labels, which must be known ones."""
    categories = labels // self.max_instances_per_category
    unknown = (categories >= self.num_categories) & (
      categories != self.ignored_label
    )
    if unknown.any():
      raise InputError(
        f'the {what} has categories outside 0..{self.num_categories - 1}: '
        f'{np.unique(categories[unknown]).tolist()}. Correct it, or '
        'num_categories and ignored_label.'
      )
    return categories

  def _sum_by_category(self, categories, values=None):
    """float64 [num_categories]: sums of values, or counts without values.

    An ignored label that is not among 0..num_categories-1 has no sum.
    """
    among = categories < self.num_categories
    values = np.ones(len(categories)) if values is None else values
    return np.bincount(categories[among], values[among], self.num_categories)

  @abc.abstractmethod
  def _accumulate(self, overlaps):
    """Adds an image to the totals."""

  @abc.abstractmethod
  def values_per_category(self):
    """{'pq': float64 [num_categories], ...}, the metric itself first."""

  @abc.abstractmethod
  def _occurs(self):
    """bool [num_categories]: whether a category has a value."""

  def valid_categories(self):
    """bool [num_categories]: those that the means are over."""
    valid = self._occurs()
    if 0 <= self.ignored_label < self.num_categories:
      valid[self.ignored_label] = False
    return valid

  def result_per_category(self):
    """float64 [num_categories]: the metric of every category.

    Means nothing where `valid_categories` is false.
    """
    return next(iter(self.values_per_category().values()))

  def result(self):
    """The mean over the valid categories; 0 if there is none."""
    valid = self.valid_categories()
    return (
      float(self.result_per_category()[valid].mean()) if any(valid) else 0.0
    )

  def detailed_results(self, is_thing=None):
    """Means over all categories, over things and over stuff.

    Args:
      is_thing: bool [num_categories], or None if that is not known.

    Returns:
      {'All': {'pq': 0.4, ..., 'n': number of valid categories}}, and the same
      for 'Things' and 'Stuff' if is_thing is given. Values are 0 where n is.

    Raises:
      InputError: is_thing is of another length.
    """
    valid = self.valid_categories()
    sets = {ALL: valid}
    if is_thing is not None:
      is_thing = np.asarray(is_thing, bool)
      if is_thing.shape != valid.shape:
        raise InputError(
          f'is_thing must have {self.num_categories} entries, one a category. '
          f'Received: shape {is_thing.shape}.'
        )
      sets |= {THINGS: valid & is_thing, STUFF: valid & ~is_thing}
    values = self.values_per_category()
    return {
      name: {
        **{
          key: float(value[members].mean()) if any(members) else 0.0
          for key, value in values.items()
        },
        'n': int(members.sum()),
      }
      for name, members in sets.items()
    }

  def print_detailed_results(self, is_thing=None, print_digits=3):
    """Prints `detailed_results` as a table, in percent.

    Args:
      is_thing: as in `detailed_results`.
      print_digits: decimals that values between 0 and 1 are rounded to.
    """
    print(_to_table(self.detailed_results(is_thing), print_digits))


def _to_table(results, print_digits):
  """Text of the original's layout."""
  rows = [['', *(key.upper() for key in next(iter(results.values())))]]
  decimals = max(print_digits - 2, 0)
  for name, values in results.items():
    shown = [
      f'{100 * round(value, print_digits):.{decimals}f}'
      for key, value in values.items()
      if key != 'n'
    ]
    rows.append([name, *shown, str(values['n'])])
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  rule = '+'.join(['', *('-' * (width + 2) for width in widths), ''])
  lines = []
  for first, *rest in rows:
    cells = [first.ljust(widths[0])]
    cells += [
      cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)
    ]
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join([rule, lines[0], rule, *lines[1:], rule])

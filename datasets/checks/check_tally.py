"""What is counted while the images of a split go by.

It grows with the number of images only by their names and digests.
"""

import collections
import dataclasses
import hashlib
import heapq

import numpy as np
from PIL import Image

from deeplab.datasets.checks.check_reading import Picture, Sample
from deeplab.datasets.dataset_info import DatasetInfo

# The larger side of a sample in pixels.
_SAMPLE_SIDE = 360

NUM_VALUES = 256


def illegal_values(counts: np.ndarray, info: DatasetInfo) -> np.ndarray:
  """Label values that occur and are neither a class nor the ignore label.

  Args:
    counts: integers [256], how often each value occurs.
    info: the data set.

  Returns:
    The values in ascending order.
  """
  values = np.flatnonzero(counts)
  return values[(values >= info.num_classes) & (values != info.ignore_label)]


class SplitTally:
  """The figures of a split. Places are texts that say where an image is.

  Attributes:
    name: of the split.
    info: the data set.
    num_samples: number of samples that are wanted.
    num_examples: number of records or files, readable or not.
    num_images: number of images that could be read.
    num_labels: number of those with a label.
    sizes: {(height, width): number of images}.
    kinds: {format and pixels of the image's file: number of images}.
    pixels: int64 [256], pixels of each label value.
    occurrences: int64 [256], images in which each label value occurs.
    surroundings: int64 [256], pixels that are not ignored in the images in
      which each label value occurs.
    num_few_bits: labels whose files have grey pixels of less than 8 bits.
    num_one_class: images whose pixels, but for ignored ones, are of one class.
    ignored: places of images of which every pixel is ignored.
    illegal: places of images with illegal labels, and these.
    faults: {kind of `check_reading`: places and what is wrong there}.
    names: {name: place}.
    digests: {digest of the pixels: place}.
    repeated_names: pairs of places of images that have one name.
    repeated_images: pairs of places of images that have the same pixels.
  """

  def __init__(self, name: str, info: DatasetInfo, num_samples: int = 0):
    """Makes one of no images; see the attributes."""
    self.name = name
    self.info = info
    self.num_samples = num_samples
    self.num_examples = self.num_images = self.num_labels = 0
    self.num_few_bits = self.num_one_class = 0
    self.sizes = collections.Counter()
    self.kinds = collections.Counter()
    self.pixels, self.occurrences, self.surroundings = (
      np.zeros(NUM_VALUES, np.int64) for _ in range(3)
    )
    self.ignored = []
    self.illegal = []
    self.faults = collections.defaultdict(list)
    self.names = {}
    self.digests = {}
    self.repeated_names = []
    self.repeated_images = []
    self._chosen = []

  def without_pixels(self, picture: Picture) -> Picture:
    """What `add` needs of a picture, which is little; any thread may call it.

    Args:
      picture: an image and its label.

    Returns:
      The picture with its `sample`, if it may become one of ours, but without
      image and label.
    """
    sample = None
    if picture.image is not None and self._may_choose(picture):
      sample = _small_copy(picture, self._illegal(picture), self.info)
    return dataclasses.replace(picture, image=None, label=None, sample=sample)

  def add(self, picture: Picture):
    """Counts an image and its label.

    Args:
      picture: them, or what is wrong with them; see `without_pixels`.
    """
    self.num_examples += 1
    for kind, text in picture.faults:
      self.faults[kind].append(f'{picture.place}: {text}')
    if picture.name:
      first = self.names.setdefault(picture.name, picture.place)
      if first != picture.place:
        self.repeated_names.append((first, picture.place))
    if picture.size is None:
      return
    self.num_images += 1
    self.sizes[picture.size] += 1
    self.kinds[picture.kind] += 1
    first = self.digests.setdefault(picture.digest, picture.place)
    if first != picture.place:
      self.repeated_images.append((first, picture.place))
    if picture.counts is not None:
      self.num_labels += 1
      self._add_label(picture)
    if picture.sample is not None and self._may_choose(picture):
      entry = (*self._rank(picture), self.num_examples), picture.sample
      is_full = len(self._chosen) >= self.num_samples
      add = heapq.heapreplace if is_full else heapq.heappush
      add(self._chosen, entry)

  def _add_label(self, picture):
    """Counts a label."""
    counts = picture.counts
    occurs = counts > 0
    ignore = self.info.ignore_label
    num_counted = counts.sum() - counts[ignore]
    self.pixels += counts
    self.occurrences += occurs
    self.surroundings += occurs * num_counted
    self.num_few_bits += picture.has_few_bits
    if not num_counted:
      self.ignored.append(picture.place)
    elif occurs.sum() - occurs[ignore] == 1:
      self.num_one_class += 1
    illegal = self._illegal(picture)
    if illegal:
      values = ', '.join(map(str, illegal))
      self.illegal.append(f'{picture.place}: {values}')

  def _illegal(self, picture):
    """The values of its label that are none."""
    if picture.counts is None:
      return []
    return illegal_values(picture.counts, self.info).tolist()

  def _rank(self, picture):
    """What decides about the samples: those of the highest ranks are kept.

    It is chance, by the digest of the place, so that the same images are
    chosen each time; those with illegal labels come before all others.
    """
    digest = hashlib.blake2b(picture.place.encode(), digest_size=8).hexdigest()
    return bool(self._illegal(picture)), digest

  def _may_choose(self, picture):
    """Whether it belongs to the samples so far; these only get higher ranks."""
    if len(self._chosen) < self.num_samples:
      return True
    return (
      bool(self.num_samples) and self._rank(picture) >= self._chosen[0][0][:2]
    )

  @property
  def samples(self) -> list[Sample]:
    """The samples; those with illegal labels first."""
    ranked = sorted(self._chosen, key=lambda entry: entry[0][0], reverse=True)
    return [sample for _, sample in ranked]

  @property
  def class_pixels(self) -> np.ndarray:
    """Pixels of each class, int64 [num_classes]; ignored ones are of none."""
    counts = self.pixels[: self.info.num_classes].copy()
    if self.info.ignore_label < self.info.num_classes:
      counts[self.info.ignore_label] = 0
    return counts

  @property
  def ignored_share(self) -> float:
    """Share of the pixels that are ignored, 0..1."""
    return self.pixels[self.info.ignore_label] / max(self.pixels.sum(), 1)


def _small_copy(picture, illegal, info):
  """The Sample of a picture."""
  height, width = picture.image.shape[:2]
  scale = min(1, _SAMPLE_SIDE / max(height, width))
  size = (max(1, round(width * scale)), max(1, round(height * scale)))
  label = picture.label
  if label is None:
    label = np.full((height, width), info.ignore_label, np.uint8)
  return Sample(
    picture.name or picture.place,
    picture.place,
    np.asarray(Image.fromarray(picture.image).resize(size)),
    np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST)),
    illegal,
  )

"""What is counted while the images of a split go by.

It grows with the number of images only by their names and digests.
"""

import collections
import dataclasses
import hashlib
import heapq
from collections.abc import Sequence

import numpy as np
from PIL import Image

from deeplab.datasets.checks.check_reading import Picture
from deeplab.datasets.dataset_info import DatasetInfo

# The larger side of a sample in pixels.
_SAMPLE_SIDE = 360

NUM_VALUES = 256


@dataclasses.dataclass(frozen=True)
class Sample:
  """A small copy of an image and its label, to be looked at.

  Attributes:
    name: of the image, or its place if it has none.
    place: where the image is.
    image: uint8 [height, width, 3].
    label: uint8 [height, width].
    illegal: label values of the whole image that are neither a class nor
      ignored.
  """

  name: str
  place: str
  image: np.ndarray
  label: np.ndarray
  illegal: Sequence[int]


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

  def add(self, picture: Picture):
    """Counts an image and its label.

    Args:
      picture: them, or what is wrong with them.
    """
    self.num_examples += 1
    for kind, text in picture.faults:
      self.faults[kind].append(f'{picture.place}: {text}')
    if picture.name:
      first = self.names.setdefault(picture.name, picture.place)
      if first != picture.place:
        self.repeated_names.append((first, picture.place))
    if picture.image is None:
      return
    self.num_images += 1
    self.sizes[picture.image.shape[:2]] += 1
    self.kinds[picture.kind] += 1
    first = self.digests.setdefault(picture.digest, picture.place)
    if first != picture.place:
      self.repeated_images.append((first, picture.place))
    illegal = ()
    if picture.label is not None:
      self.num_labels += 1
      illegal = self._add_label(picture)
    self._choose(picture, illegal)

  def _add_label(self, picture):
    """Counts a label; returns its illegal values."""
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
    illegal = illegal_values(counts, self.info).tolist()
    if illegal:
      values = ', '.join(map(str, illegal))
      self.illegal.append(f'{picture.place}: {values}')
    return illegal

  def _choose(self, picture, illegal):
    """Keeps a small copy if it belongs to the samples so far.

    Chance decides by the digest of the place, so that the same images are
    chosen each time; those with illegal labels come before all others.
    """
    digest = hashlib.blake2b(picture.place.encode(), digest_size=8).hexdigest()
    rank = (bool(illegal), digest, self.num_examples)
    is_full = len(self._chosen) >= self.num_samples
    if not self.num_samples or (is_full and rank < self._chosen[0][0]):
      return
    entry = (rank, _small_copy(picture, illegal, self.info))
    if is_full:
      heapq.heapreplace(self._chosen, entry)
    else:
      heapq.heappush(self._chosen, entry)

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

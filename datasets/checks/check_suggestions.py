"""Flags that suit a data set: sizes of crops, weights of classes."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from deeplab.datasets.checks.check_tally import SplitTally

# The official sides of training crops: of PASCAL VOC and ADE20K; of
# Cityscapes, whose images have sides beyond _LARGE.
_USUAL_SIDE = 513
_LARGE_SIDE = 769
_LARGE = 1000

# Weights beyond this make the training restless.
_MOST_WEIGHT = 10.0

MEDIAN_FREQUENCY = (
  'median frequency balancing: the weight of a class is m / f, where f is its '
  'share of the pixels in the images that it occurs in, and m the median of f '
  f'over the classes; clipped to {1 / _MOST_WEIGHT:g}..{_MOST_WEIGHT:g}; 1 '
  'for classes that never occur'
)


@dataclasses.dataclass(frozen=True)
class Suggestion:
  """A flag that suits the data.

  Attributes:
    name: of the flag.
    value: its value, as it is written on the command line.
    reason: why it suits.
  """

  name: str
  value: str
  reason: str

  @property
  def flag(self) -> str:
    """The flag to paste."""
    return f'--{self.name}={self.value}'


def suggest(
  tallies: Sequence[SplitTally], output_stride: int
) -> list[Suggestion]:
  """Flags that suit the data.

  Args:
    tallies: the figures of the splits.
    output_stride: of the network; sides of crops are a multiple of it plus
      one, at which features and image align exactly.

  Returns:
    The suggestions; none where no image could be read.
  """
  tallies = [tally for tally in tallies if tally.num_images]
  if not tallies:
    return []
  training = _training_split(tallies)
  rest = [tally for tally in tallies if not tally.name.startswith('train')]
  found = [
    _train_crop(training, output_stride),
    _eval_crop(rest or tallies, output_stride),
  ]
  weights = label_weights(training)
  if weights is not None:
    value = ','.join(f'{weight:.3g}' for weight in weights)
    reason = f'from the split {training.name}; {MEDIAN_FREQUENCY}'
    found.append(Suggestion('label_weights', value, reason))
  return found


def _training_split(tallies):
  """The split that is most likely to be trained on."""
  order = lambda tally: (tally.name != 'train', not tally.name.startswith('tr'))
  return min(tallies, key=order)


def covering(side: int, output_stride: int) -> int:
  """The smallest multiple of the output stride, plus one, from `side` on."""
  return -(-(side - 1) // output_stride) * output_stride + 1


def _quantile(sizes: Mapping[tuple[int, int], int], axis: int, share: float):
  """The side that this share of the images does not exceed."""
  sides = np.array([size[axis] for size in sizes])
  counts = np.array(list(sizes.values()))
  order = np.argsort(sides)
  reached = np.cumsum(counts[order]) >= share * counts.sum()
  return int(sides[order][np.argmax(reached)])


def _train_crop(tally, output_stride):
  """Crops that hold most images, but no larger than the official ones."""
  larger = {(max(size), 0): n for size, n in tally.sizes.items()}
  is_large = _quantile(larger, 0, 0.5) > _LARGE
  most = _LARGE_SIDE if is_large else _USUAL_SIDE
  usual = [
    covering(_quantile(tally.sizes, i, 0.95), output_stride) for i in (0, 1)
  ]
  # The official sides are 16 k + 1; other strides want one a little larger.
  sides = [min(side, covering(most, output_stride)) for side in usual]
  if sides == usual:
    reason = 'holds 95 % of the images whole'
  elif is_large:
    reason = 'the official size for images as large as those of Cityscapes'
  else:
    reason = (
      'the official size for photographs; larger images are seen in parts'
    )
  memory = sides[0] * sides[1] / _USUAL_SIDE**2
  if sides != [_USUAL_SIDE] * 2:
    reason += f'; takes {memory:.2g} times the memory of 513,513'
  if memory > 1.5:
    reason += ', with which smaller devices should begin'
  return Suggestion('train_crop_size', f'{sides[0]},{sides[1]}', reason)


def _eval_crop(tallies, output_stride):
  """What holds the largest image: evaluation takes images whole."""
  sides = [
    max(size[axis] for tally in tallies for size in tally.sizes)
    for axis in (0, 1)
  ]
  value = ','.join(str(covering(side, output_stride)) for side in sides)
  names = ', '.join(tally.name for tally in tallies)
  reason = f'the smallest that holds every image of {names}'
  return Suggestion('eval_crop_size', value, reason)


def label_weights(tally: SplitTally) -> np.ndarray | None:
  """Weights that make up for rare classes, see MEDIAN_FREQUENCY.

  Args:
    tally: the figures of the split that is trained on.

  Returns:
    float64 [num_classes], None where no class occurs.
  """
  pixels = tally.class_pixels
  occurs = pixels > 0
  if not occurs.any():
    return None
  frequency = pixels[occurs] / tally.surroundings[: len(pixels)][occurs]
  weights = np.ones(len(pixels))
  weights[occurs] = np.median(frequency) / frequency
  return weights.clip(1 / _MOST_WEIGHT, _MOST_WEIGHT)

"""What is wrong with a data set, and what is strange about it."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from deeplab import common
from deeplab.datasets import class_tables
from deeplab.datasets.checks import check_reading
from deeplab.datasets.checks.check_tally import SplitTally, illegal_values
from deeplab.datasets.dataset_info import DatasetInfo

# An error is in the way of training or evaluation; a hint need not be.
ERROR = 'error'
HINT = 'hint'

# A class with a larger share leaves little to learn from.
_MOST_SHARE = 0.99

# More illegal values than this are not single slips.
_MANY_VALUES = 10

_FAULTS = {
  check_reading.UNREADABLE: 'Images that cannot be read',
  check_reading.SIZES: 'Images whose label has another size',
  check_reading.BAD_LABEL: 'Labels that cannot be used',
  check_reading.NO_LABEL: 'Images without label',
}


@dataclasses.dataclass(frozen=True)
class Finding:
  """Something that is wrong or strange.

  Attributes:
    level: ERROR or HINT.
    splits: names of the splits that it is about.
    text: what it is, and the cure.
    places: the images that it is about, with details.
  """

  level: str
  splits: Sequence[str]
  text: str
  places: Sequence[str] = ()


def find(tallies: Sequence[SplitTally]) -> list[Finding]:
  """Everything that is wrong or strange, errors first.

  Args:
    tallies: the figures of the splits of one data set.

  Returns:
    The findings.
  """
  found = []
  for tally in tallies:
    found += _split_errors(tally)
    found += _split_hints(tally)
  found += _missing_classes(tallies)
  found += _common_images(tallies)
  if tallies and tallies[0].info.ignore_label < tallies[0].info.num_classes:
    info = tallies[0].info
    text = (
      f'The ignore label {info.ignore_label} is also the class '
      f'{info.class_names[info.ignore_label]!r}, which therefore counts '
      'neither in the loss nor in the evaluation.'
    )
    found.append(Finding(HINT, [tally.name for tally in tallies], text))
  return sorted(found, key=lambda finding: finding.level != ERROR)


def _split_errors(tally):
  """What is in the way of using a split."""
  splits = [tally.name]
  for kind, text in _FAULTS.items():
    places = tally.faults.get(kind, ())
    # A split without any labels can still be predicted.
    has_none = kind == check_reading.NO_LABEL and not tally.num_labels
    if places and not (has_none and tally.name == common.TEST_SET):
      text = f'{text}: {len(places)} of {tally.num_examples}.'
      yield Finding(HINT if has_none else ERROR, splits, text, places)
  if tally.illegal:
    values = illegal_values(tally.pixels, tally.info).tolist()
    text = (
      f'Labels with values that are no class: {len(tally.illegal)} of '
      f'{tally.num_labels}. {len(values)} values: {_listed(values)}. Legal are '
      f'0..{tally.info.num_classes - 1} and the ignore label '
      f'{tally.info.ignore_label}.'
    )
    yield Finding(ERROR, splits, text, tally.illegal)
  if tally.repeated_names:
    text = (
      f'Images with the name of another one: {len(tally.repeated_names)}. '
      'Pictures and predictions would overwrite each other.'
    )
    yield Finding(ERROR, splits, text, _pairs(tally.repeated_names))
  if tally.num_labels and len(tally.ignored) == tally.num_labels:
    text = 'Every pixel of every label is ignored: there is nothing to learn.'
    yield Finding(ERROR, splits, text)


def _pairs(pairs):
  return [f'{first}; {second}' for first, second in pairs]


def _listed(values, most=20):
  """The first values of a list as a text."""
  text = ', '.join(map(str, values[:most]))
  return f'{text}, ...' if len(values) > most else text


def _split_hints(tally):
  """What is strange about a split, though it can be used."""
  splits = [tally.name]
  for text in suspicions(tally.pixels, tally.occurrences, tally.info):
    yield Finding(HINT, splits, text)
  if tally.num_few_bits:
    text = (
      'Labels that are grey PNG files of less than 8 bits: '
      f'{tally.num_few_bits}. Decoders spread their values over 0..255: class '
      '1 of a black-and-white mask becomes 255. Save masks with 8 bits.'
    )
    yield Finding(HINT, splits, text)
  some_ignored = 0 < len(tally.ignored) < tally.num_labels
  if some_ignored:
    text = (
      f'Images that are wholly ignored: {len(tally.ignored)} of '
      f'{tally.num_labels}.'
    )
    yield Finding(HINT, splits, text, tally.ignored)
  if 1 < tally.num_labels == tally.num_one_class:
    text = 'Every label is of one class only, as if images had been classified.'
    yield Finding(HINT, splits, text)
  strange = {k: n for k, n in tally.kinds.items() if not k.endswith(', RGB')}
  if strange:
    kinds = ', '.join(f'{n} of {kind}' for kind, n in sorted(strange.items()))
    text = (
      f'Images that are not RGB: {sum(strange.values())} of '
      f'{tally.num_images} ({kinds}). They are turned into RGB.'
    )
    yield Finding(HINT, splits, text)
  if tally.repeated_images:
    text = (
      'Images with the very pixels of another one: '
      f'{len(tally.repeated_images)}.'
    )
    yield Finding(HINT, splits, text, _pairs(tally.repeated_images))
  said = tally.info.splits.get(tally.name)
  if said is not None and said != tally.num_examples:
    text = (
      f'dataset_info.json says {said} images, but there are '
      f'{tally.num_examples}.'
    )
    yield Finding(HINT, splits, text)


def suspicions(
  pixels: np.ndarray, occurrences: np.ndarray, info: DatasetInfo
) -> list[str]:
  """What the label values of many images tell of common mistakes.

  Args:
    pixels: int64 [256], pixels of each label value.
    occurrences: int64 [256], images in which each value occurs.
    info: the data set.

  Returns:
    Texts, each with the likely cause.
  """
  if not pixels.any():
    return []
  return [
    *_strange_values(pixels, occurrences, info),
    *_strange_shares(pixels, info),
  ]


def _strange_values(pixels, occurrences, info):
  values = np.flatnonzero(pixels)
  illegal = illegal_values(pixels, info).tolist()
  if set(values) <= {0, 255} and 255 in values:
    lost = ', which is ignored' if info.ignore_label == 255 else ''
    yield (
      'The only label values are 0 and 255, as in black-and-white masks. The '
      f'class that was drawn white is the label 255{lost}; write it as 1.'
    )
  elif _are_grey_levels(values, illegal, info):
    yield (
      f'The values {_listed(illegal)} are grey levels of the colours of '
      'classes: coloured or palette masks were turned into grey images. '
      'Convert the masks as they were before.'
    )
  elif len(illegal) > _MANY_VALUES:
    yield (
      f'{len(illegal)} different values are no class. Masks that were resized '
      'with interpolation, smoothed or saved as JPEG have values between '
      'those of classes; so have coloured masks that were turned grey.'
    )
  elif illegal == [info.num_classes] and not pixels[0]:
    yield (
      f'Labels go from 1 to {info.num_classes} and 0 never occurs. Classes '
      'are counted from 0: subtract 1, or add a class for 0.'
    )
  elif len(illegal) == 1:
    yield (
      f'{illegal[0]} is the only value that is no class; images with it: '
      f'{occurrences[illegal[0]]}. If it means void, convert it to the ignore '
      f'label {info.ignore_label}; if it is a class, raise num_classes.'
    )


def _are_grey_levels(values, illegal, info):
  """Whether values look like a palette that was turned to grey."""
  colors = np.array([*info.colors, *class_tables.pascal_colormap(21)])
  levels = colors @ [0.299, 0.587, 0.114]
  grey = {*np.floor(levels).astype(int), *np.rint(levels).astype(int)}
  # Where nearly every value is the grey of some class this says nothing.
  return bool(
    len(illegal) >= min(2, info.num_classes - 1)
    and illegal
    and len(grey) < 128
    and {*values.tolist()} <= {*grey, 0, 255, info.ignore_label}
  )


def _strange_shares(pixels, info):
  counted = pixels[: info.num_classes].copy()
  if info.ignore_label < info.num_classes:
    counted[info.ignore_label] = 0
  total = counted.sum()
  if not total:
    return
  largest = int(counted.argmax())
  share = counted[largest] / total
  if share > _MOST_SHARE and info.num_classes > 1:
    yield (
      f'{share:.2%} of the pixels that count are of class {largest} '
      f'({info.class_names[largest]}). Consider --label_weights, '
      '--top_k_percent_pixels, or crops around the other classes.'
    )


# Between splits.


def _is_for_training(name):
  return name.startswith('train')


def _missing_classes(tallies):
  """Classes that never occur, or not where they are learnt."""
  tallies = [tally for tally in tallies if tally.class_pixels.any()]
  if not tallies:
    return
  info = tallies[0].info
  present = {tally.name: tally.class_pixels > 0 for tally in tallies}
  anywhere = np.any(list(present.values()), axis=0)
  missing = np.flatnonzero(~anywhere).tolist()
  missing = [label for label in missing if label != info.ignore_label]
  if missing:
    text = f'Classes that never occur: {_classes(missing, info)}.'
    yield Finding(HINT, list(present), text)
  for name in present:
    absent = np.flatnonzero(anywhere & ~present[name]).tolist()
    if absent and not _is_for_training(name):
      text = (
        f'Classes that do not occur in {name}, which says nothing of them: '
        f'{_classes(absent, info)}.'
      )
      yield Finding(HINT, [name], text)
  training = [name for name in present if _is_for_training(name)]
  if not training or len(training) == len(present):
    return
  learnt = np.any([present[name] for name in training], axis=0)
  for name in (name for name in present if name not in training):
    unknown = np.flatnonzero(present[name] & ~learnt).tolist()
    if unknown:
      text = (
        f'Classes that occur in {name}, but not in {" or ".join(training)}, '
        f'where they could be learnt: {_classes(unknown, info)}.'
      )
      yield Finding(HINT, [name], text)


def _classes(labels, info):
  """'2 (3 pole, 5 tree)'."""
  names = _listed([f'{label} {info.class_names[label]}' for label in labels])
  return f'{len(labels)} ({names})'


def overlaps(tallies: Sequence[SplitTally]) -> dict[tuple[str, str], dict]:
  """Images that two splits have in common.

  Args:
    tallies: the figures of the splits.

  Returns:
    {(split, other split): {'names': ..., 'images': ...}} with the places, in
    both splits, of the images of the same name and of the same pixels; pairs
    that have none are left out.
  """
  found = {}
  for one, two in itertools.combinations(tallies, 2):
    pairs = {
      'names': _common(one.names, two.names),
      'images': _common(one.digests, two.digests),
    }
    if any(pairs.values()):
      found[one.name, two.name] = pairs
  return found


def _common(one: Mapping, two: Mapping):
  return [(one[key], two[key]) for key in one if key in two]


def _common_images(tallies):
  """Images that are learnt and then evaluated on, or evaluated on twice."""
  for (one, two), pairs in overlaps(tallies).items():
    # trainval holds val, and train_aug holds train.
    if one in two or two in one:
      continue
    learnt = [name for name in (one, two) if _is_for_training(name)]
    if len(learnt) == 2:
      continue
    for places, what in (
      (pairs['names'], 'names'),
      (pairs['images'], 'pixels'),
    ):
      if places:
        text = f'Images of {one} and {two} with the same {what}: {len(places)}.'
        if learnt:
          text += ' An evaluation on what was learnt says nothing.'
        level = ERROR if learnt else HINT
        yield Finding(level, [one, two], text, _pairs(places))

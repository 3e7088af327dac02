"""Folders of images and labels: what belongs together, and splits of it.

The name of a file is its path within the folder without the extension, so
photos/street/1.JPG is called street/1, and so is masks/street/1.png.
"""

import hashlib
import os
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence

from deeplab import common
from deeplab.common import InputError
from deeplab.datasets import build_data

# A split, and beginnings of the names of others that may not share images with
# it; trainval may.
_TRAIN = 'train'
_EVALUATED = ('val', 'test')

# How many names a message lists.
_LISTED = 5


def raise_error(text: str):
  """Raises InputError: what is done about a fault unless it is collected."""
  raise InputError(text)


def listing(names: Collection[str]) -> str:
  """'3: a, b, c', or the first few and '...'."""
  first = ', '.join(sorted(names)[:_LISTED])
  return f'{len(names)}: {first}{", ..." if len(names) > _LISTED else ""}'


def is_inside(path: str, folder: str) -> bool:
  """Whether a path is a folder or lies in it."""
  path, folder = os.path.realpath(path), os.path.realpath(folder)
  return pathlib.PurePath(path).is_relative_to(folder)


def find_files(
  folder: str,
  extensions: Sequence[str],
  suffix: str = '',
  leave_out: str | None = None,
) -> dict[str, str]:
  """Finds the files of a folder and its subfolders.

  Args:
    folder: the folder. Hidden files and folders do not count; links to
      folders do.
    extensions: without the dot, in lower case; files may have either case.
    suffix: what follows the names, before the extension; other files do not
      count.
    leave_out: a folder within that does not count.

  Returns:
    {name: path}, sorted by name.

  Raises:
    InputError: there is no such folder, or one cannot be listed, or two files
      have one name, or a name is no Unicode text.
  """
  build_data.check_folder(folder, 'files')
  found = {}
  for root, files in _walk(folder, leave_out):
    for file in files:
      stem, extension = os.path.splitext(file)
      is_one = extension[1:].lower() in extensions and stem.endswith(suffix)
      if file.startswith('.') or not is_one:
        continue
      path = os.path.join(root, file)
      stem = stem[: len(stem) - len(suffix)]
      name = pathlib.Path(root, stem).relative_to(folder).as_posix()
      _check_name(name, path, found)
      found[name] = path
  return dict(sorted(found.items()))


def _walk(folder, leave_out, above=()):
  """Yields (folder, names of its files), of subfolders too."""
  place = os.path.realpath(folder)
  if place in above:
    raise InputError(
      f'{folder} is a link to a folder around it, {place}. Remove the link.'
    )
  try:
    names = sorted(os.listdir(folder))
  except OSError as error:
    raise InputError(f'{folder} cannot be listed: {error.strerror}.') from error
  is_folder = {n: os.path.isdir(os.path.join(folder, n)) for n in names}
  yield folder, [name for name in names if not is_folder[name]]
  for name in names:
    path = os.path.join(folder, name)
    is_wanted = is_folder[name] and not name.startswith('.')
    if is_wanted and not (leave_out and is_inside(path, leave_out)):
      yield from _walk(path, leave_out, (*above, place))


def _check_name(name, path, found):
  if name in found:
    raise InputError(
      f'{found[name]} and {path} have the same name {name!r}. Rename or remove '
      'one of the two; masks may have a folder of their own.'
    )
  try:
    name.encode()
  except UnicodeEncodeError as error:
    raise InputError(
      f'the name of {path!r} is not Unicode text. Rename it.'
    ) from error


def _label_suffix(images, labels):
  """What follows the names of images in all names of labels; '' for nothing."""
  first = min(labels)
  prefixes = [first[:end] for end in range(len(first)) if first[:end] in images]
  suffix = first[len(prefixes[-1]) :] if prefixes else ''
  fits = (name.removesuffix(suffix) in images for name in labels)
  return suffix if suffix and all(fits) else ''


def pair(
  images: Mapping[str, str],
  labels: Mapping[str, str],
  skip_unlabelled: bool,
  refuse: Callable[[str], None] = raise_error,
  is_indexed: bool = False,
) -> list[str]:
  """The names that have an image and a label.

  Args:
    images: {name: image}.
    labels: {name: label}.
    skip_unlabelled: whether images without a label are left out; else they
      are refused. Labels without an image always are.
    refuse: called with what is wrong if the other half of some is missing.
    is_indexed: see `LabelSource`.

  Returns:
    The names, sorted.
  """
  orphans = set(labels) - set(images)
  bare = set(images) - set(labels)
  suffix = _label_suffix(images, orphans) if orphans else ''
  if is_indexed:
    rules = (
      'The names of images stand in the JSON file of the labels, subfolders of '
      '--image_folder included'
    )
  elif suffix:
    rules = f'Give --label_suffix={suffix}'
  else:
    rules = (
      'A label has the name of its image, subfolders included; --image_suffix '
      'and --label_suffix say what else follows the names'
    )
  if orphans:
    refuse(
      f'labels without an image are {listing(orphans)}. '
      f'Images: {listing(images)}. {rules}.'
    )
  if bare and not skip_unlabelled:
    refuse(
      f'images without a label are {listing(bare)}. Labels: '
      f'{listing(labels)}. {rules}; --skip_unlabelled leaves such images out.'
    )
  return sorted(set(images) & set(labels))


def split_by_lists(
  list_folder: str,
  images: Mapping[str, str],
  labels: Mapping[str, str],
  refuse: Callable[[str], None] = raise_error,
) -> dict[str, list[str]]:
  """The splits that list files name.

  Args:
    list_folder: folder of <split>.txt, one name a line.
    images: {name: image}; those that no list names are left out.
    labels: {name: label}; the split 'test' needs none.
    refuse: called with what is wrong if some have no image or no label; if it
      returns, these are left out.

  Returns:
    {split: names in the order of the list}.

  Raises:
    InputError: a list cannot be read.
  """
  splits = {}
  lists = build_data.find_lists(list_folder)
  for split, path in lists.items():
    lines = build_data.read_list(path)
    for what, known in (('image', images), ('label', labels)):
      missing = [name for name in lines if name not in known]
      if not missing or (what == 'label' and split == common.TEST_SET):
        continue
      refuse(
        f'{path}, line {lines[missing[0]]}: there is no {what} '
        f'{missing[0]!r}. Names without {what} are {listing(missing)}. '
        'Expected names without extension, with their subfolders. Those of '
        f'{what}s are {listing(known)}.'
      )
      lines = {name: lines[name] for name in lines if name in known}
    splits[split] = list(lines)
  _check_apart(splits, lists, refuse)
  return splits


def _check_apart(splits, lists, refuse):
  """Refuses images that are both trained on and evaluated."""
  for split, names in splits.items():
    shared = set(names) & set(splits.get(_TRAIN, ()))
    if shared and split.startswith(_EVALUATED):
      refuse(
        f'{lists[_TRAIN]} and {lists[split]} both name {listing(shared)}. A '
        'network would be evaluated on what it was trained on: take them out '
        'of one of the two.'
      )


def split_by_fraction(
  names: Sequence[str], fractions: Mapping[str, float], seed: int
) -> dict[str, list[str]]:
  """Splits at random, each name for itself.

  Where a name goes depends on it and the seed alone: files that are added
  later do not move others. The sizes of splits are therefore not exact. Only
  a split that would stay empty takes a name from the largest one.

  Args:
    names: the names.
    fractions: {split: its share, 0..1}, of the splits besides 'train', whose
      share is the rest.
    seed: any integer.

  Returns:
    {split: names in their order}, without the splits whose share is 0.

  Raises:
    InputError: the shares leave nothing to 'train', or there are fewer names
      than splits.
  """
  shares = {split: share for split, share in fractions.items() if share}
  if sum(shares.values()) >= 1:
    raise InputError(
      'the fractions of splits must leave something for train. Received: '
      f'{shares}.'
    )
  splits = {split: [] for split in ('train', *shares)}
  if len(names) < len(splits):
    raise InputError(
      f'{len(names)} images are too few for the splits {list(splits)}. Add '
      'images, or make the fractions of splits 0.'
    )
  places = {name: _place(name, seed) for name in names}
  for name in names:
    place, target = places[name], 'train'
    for split, share in shares.items():
      if 0 <= place < share:
        target = split
      place -= share
    splits[target].append(name)
  for members in splits.values():
    if not members:
      donor = max(splits.values(), key=len)
      members.append(min(donor, key=places.get))
      donor.remove(members[0])
  return splits


def _place(name, seed):
  """A number in 0..1, of a name and a seed."""
  digest = hashlib.sha256(f'{seed}/{name}'.encode()).digest()
  return int.from_bytes(digest[:7], 'big') / 2**56

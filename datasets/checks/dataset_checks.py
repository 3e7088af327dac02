"""Checks a whole data set: reads everything, counts, and says what is wrong.

report = dataset_checks.check_shards(None, 'tfrecord')
report = dataset_checks.check_files({'train': examples}, info)
"""

import collections
import concurrent.futures
import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
import tqdm

from deeplab import input_files
from deeplab.common import InputError
from deeplab.datasets import (
  build_data,
  dataset_info,
  image_files,
  records,
  tfds_data,
)
from deeplab.datasets.checks import (
  check_findings,
  check_reading,
  check_suggestions,
)
from deeplab.datasets.checks.check_findings import Finding
from deeplab.datasets.checks.check_suggestions import Suggestion
from deeplab.datasets.checks.check_tally import SplitTally
from deeplab.datasets.dataset_info import DatasetInfo
from deeplab.datasets.labels import mask_values
from deeplab.datasets.labels.class_table_files import ClassTable

# Images that wait for a thread, or for being counted, for each thread.
_WAITING = 2

_SHARD_NAME = re.compile(r'(.+)-\d{5}-of-\d{5}(\.\w+)?')

DEFAULT_SAMPLES = 12


@dataclasses.dataclass(frozen=True)
class Report:
  """What a check found.

  Attributes:
    info: the data set.
    source: where it was read from.
    splits: the figures of each split.
    findings: what is wrong or strange, errors first.
    overlaps: see `check_findings.overlaps`.
    suggestions: flags that suit the data.
  """

  info: DatasetInfo
  source: str
  splits: Sequence[SplitTally]
  findings: Sequence[Finding]
  overlaps: Mapping[tuple[str, str], dict]
  suggestions: Sequence[Suggestion]

  @property
  def num_errors(self) -> int:
    """Number of findings that are errors."""
    return sum(f.level == check_findings.ERROR for f in self.findings)


def find_splits(dataset_dir: str) -> list[str]:
  """Names of the splits that a folder has shards of.

  Args:
    dataset_dir: the folder.

  Returns:
    The names, sorted.

  Raises:
    InputError: there is no such folder, or it has none.
  """
  if not tf.io.gfile.isdir(dataset_dir):
    raise InputError(
      f'--dataset_dir={dataset_dir}: there is no such folder. Give the folder '
      'of the TFRecord files; the scripts of datasets/ write them.'
    )
  matches = map(_SHARD_NAME.fullmatch, input_files.list_folder(dataset_dir))
  splits = sorted({match[1] for match in matches if match})
  if not splits:
    raise InputError(
      f'--dataset_dir={dataset_dir} holds no shards (<split>-00000-of-00004'
      '.tfrecord and so on). Give the folder of the TFRecord files.'
    )
  return splits


def check_shards(
  dataset_name: str | None,
  dataset_dir: str | None,
  splits: Sequence[str] = (),
  output_stride: int = 16,
  num_samples: int = DEFAULT_SAMPLES,
  num_threads: int | None = None,
) -> Report:
  """Checks TFRecord files.

  Args:
    dataset_name: name of the data set as data_generator.Dataset takes it.
    dataset_dir: folder of the files.
    splits: names of the splits, all that are there if empty.
    output_stride: of the network, for the suggestions.
    num_samples: images of each split to keep small copies of.
    num_threads: threads that decode, as many as processors if None.

  Returns:
    The report.

  Raises:
    InputError: there is no such data set, folder or split.
  """
  info = dataset_info.resolve(dataset_name, dataset_dir)
  if tfds_data.is_name(dataset_name):
    data = tfds_data.open_data(dataset_name, dataset_dir)
    there, find = list(info.splits), functools.partial(_tfds_parts, data)
    record_format, source = data.record_format, dataset_name
  else:
    there, find = (
      find_splits(dataset_dir),
      functools.partial(_own_parts, dataset_dir),
    )
    record_format, source = records.OFFICIAL, dataset_dir
  tallies, findings = [], []
  for split in splits or there:
    try:
      parts = find(split)
    except InputError as error:
      # Some shards of it are missing; the other splits are looked at.
      findings.append(Finding(check_findings.ERROR, [split], str(error)))
      continue
    tally = SplitTally(split, info, num_samples)
    jobs = check_reading.shard_jobs(parts, record_format)
    _run(jobs, tally, info.splits.get(split), num_threads)
    if not tally.num_examples:
      text = f'The {len(parts)} shards of the split hold no records.'
      findings.append(Finding(check_findings.ERROR, [split], text))
    tallies.append(tally)
  return _report(info, source, tallies, findings, output_stride)


def _own_parts(dataset_dir, split):
  """The files of a split that a converter has written."""
  return [
    check_reading.Part(path) for path in records.find_shards(dataset_dir, split)
  ]


def _tfds_parts(data, split):
  """The files of a split of TFDS, or of a part of one."""
  return [
    check_reading.Part(shard.path, shard.first, shard.num_records)
    for shard in data.split(split).shards
  ]


def check_files(
  splits: Mapping[str, Sequence[build_data.Example]],
  info: DatasetInfo,
  findings: Sequence[Finding] = (),
  output_stride: int = 16,
  num_samples: int = DEFAULT_SAMPLES,
  num_threads: int | None = None,
) -> Report:
  """Checks images and masks before their conversion.

  Args:
    splits: the files of each split.
    info: the data set; its `splits` do not matter.
    findings: what was found when the files were looked for.
    output_stride: see `check_shards`, as for the rest.
    num_samples: images of each split to keep small copies of.
    num_threads: threads that decode, as many as processors if None.

  Returns:
    The report.
  """
  info = info.replace(splits={})
  tallies = []
  for split, examples in splits.items():
    tally = SplitTally(split, info, num_samples)
    jobs = check_reading.file_jobs(examples, info)
    _run(jobs, tally, len(examples), num_threads)
    tallies.append(tally)
  return _report(info, 'files', tallies, findings, output_stride)


def find_files(
  image_folder: str,
  label_folder: str,
  lists: Mapping[str, str] | None = None,
  decode_label: Callable[[str], np.ndarray] | None = None,
) -> tuple[dict[str, list[build_data.Example]], list[Finding]]:
  """Pairs images with masks of the same name, but for the extension.

  Args:
    image_folder: folder of the images.
    label_folder: folder of the masks.
    lists: {split: path of the list of its images}, as
      `build_data.find_lists` finds them; None for one split of all images.
    decode_label: see `build_data.Example`.

  Returns:
    The examples of each split, and errors about files without a partner.

  Raises:
    InputError: a folder or a list is missing, or the folder has no images.
  """
  build_data.check_folder(image_folder, 'images')
  build_data.check_folder(label_folder, 'label masks')
  images, findings = _by_stem(image_folder)
  labels, doubled = _by_stem(label_folder)
  findings += doubled
  if not images:
    raise InputError(
      f'--image_folder={image_folder} holds no images. Expected files with '
      f'the extensions {", ".join(build_data.IMAGE_EXTENSIONS)}.'
    )
  names = {'all': list(images)}
  if lists is not None:
    names = {
      split: list(build_data.read_list(path)) for split, path in lists.items()
    }
  splits = {}
  for split, listed in names.items():
    splits[split] = [
      build_data.Example(name, images[name], labels.get(name), decode_label)
      for name in listed
      if name in images
    ]
    findings += _unpaired(split, listed, images, 'image', image_folder)
  if lists is None:
    findings += _unpaired('all', labels, images, 'image', image_folder)
  return splits, findings


def decode_by_table(
  path: str, table: ClassTable, info: DatasetInfo
) -> np.ndarray:
  """Reads a mask whose classes are the rows of a table.

  Args:
    path: the file.
    table: the classes; indices count its rows.
    info: the same, for messages.

  Returns:
    The labels, uint8 [height, width]; indices beyond the table are kept.

  Raises:
    InputError: the file cannot be decoded, or holds other colours.
  """
  mask = image_files.read_mask(path)
  if mask.has_indices:
    labels = np.arange(256, dtype=np.uint8)
    labels[: len(table.rows)] = table.label_of_row
    return labels[mask.indices]
  return mask_values.labels_from_colors(
    mask.colors, table.label_of_color, info, path
  )


def _by_stem(folder):
  """{name without extension: path}, and a finding where that is not unique."""
  paths = collections.defaultdict(list)
  for name in sorted(os.listdir(folder)):
    stem, extension = os.path.splitext(name)
    if extension[1:].lower() in build_data.IMAGE_EXTENSIONS:
      paths[stem].append(os.path.join(folder, name))
  doubled = [', '.join(several) for several in paths.values() if several[1:]]
  findings = []
  if doubled:
    text = f'{len(doubled)} names belong to several files; remove all but one.'
    findings.append(Finding(check_findings.ERROR, [], text, doubled))
  return {stem: several[0] for stem, several in paths.items()}, findings


def _unpaired(split, names, there, noun, folder):
  """A finding about the names that there is no file of."""
  missing = [name for name in names if name not in there]
  if not missing:
    return []
  text = f'{len(missing)} names have no {noun} in {folder}.'
  return [Finding(check_findings.ERROR, [split], text, missing)]


def _run(jobs, tally, total, num_threads):
  """Counts what the jobs give."""
  progress = tqdm.tqdm(total=total, desc=tally.name, unit='image')
  with progress:
    for picture in _in_threads(jobs, num_threads or os.cpu_count() or 1):
      tally.add(picture)
      progress.update()


def _in_threads(
  jobs: Iterable[check_reading.Job], num_threads: int
) -> Iterator[check_reading.Picture]:
  """What the jobs return, in their order; few of them are under way."""
  waiting = collections.deque()
  with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
    for job in jobs:
      waiting.append(pool.submit(job))
      if len(waiting) > _WAITING * num_threads:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()


def _report(info, source, tallies, findings, output_stride):
  found = [*findings, *check_findings.find(tallies)]
  return Report(
    info,
    source,
    tallies,
    sorted(found, key=lambda finding: finding.level != check_findings.ERROR),
    check_findings.overlaps(tallies),
    check_suggestions.suggest(tallies, output_stride),
  )

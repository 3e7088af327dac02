"""Checks a whole data set: reads everything, counts, and says what is wrong.

report = dataset_checks.check_shards(None, 'tfrecord')
report = dataset_checks.check_folders('photos', 'masks', options)
report = dataset_checks.check_files({'train': examples}, info)
"""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence

import tqdm

from deeplab.common import InputError
from deeplab.datasets import (
  build_data,
  dataset_info,
  folder_examples,
  in_threads,
  records,
  shard_files,
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
  if tfds_data.is_name(dataset_name):
    data = tfds_data.open_data(dataset_name, dataset_dir)
    info = data.info
    there, find = list(info.splits), functools.partial(_tfds_parts, data)
    record_format, source = data.record_format, dataset_name
  else:
    info = dataset_info.resolve(dataset_name, dataset_dir)
    there, find = (
      shard_files.find_splits(dataset_dir),
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
  paths = shard_files.find_shards(dataset_dir, split)
  return [check_reading.Part(path) for path in paths]


def _tfds_parts(data, split):
  """The files of a split of TFDS, or of a part of one."""
  return [
    check_reading.Part(shard.path, shard.first, shard.num_records)
    for shard in data.split(split).shards
  ]


def check_folders(
  image_folder: str,
  label_folder: str,
  options: folder_examples.Options | None = None,
  **settings,
) -> Report:
  """Checks what build_image_folder_data.py would convert.

  Args:
    image_folder: see `folder_examples.find`, as for the next two.
    label_folder: folder of the labels, or COCO's JSON file.
    options: how to find, read and split them.
    **settings: see `check_files`.

  Returns:
    The report. Images and labels that are not paired are errors in it.

  Raises:
    InputError: a folder, a list or the table is missing or not acceptable, or
      the classes cannot be told.
  """
  refused = []
  name = os.path.basename(os.path.abspath(image_folder))
  found = folder_examples.find(
    image_folder, label_folder, name, options, refused.append
  )
  findings = [Finding(check_findings.ERROR, [], text) for text in refused]
  # Those that were refused have been named.
  if found.left_out and not refused:
    text = f'Images that are in no split: {len(found.left_out)}.'
    findings.append(Finding(check_findings.HINT, [], text, found.left_out))
  return check_files(found.splits, found.info, findings, **settings)


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


def _run(jobs, tally, total, num_threads):
  """Counts what the jobs give."""

  def look(job):
    return tally.without_pixels(job())

  progress = tqdm.tqdm(total=total, desc=tally.name, unit='image')
  with progress:
    for picture in in_threads.in_threads(look, jobs, num_threads):
      tally.add(picture)
      progress.update()


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

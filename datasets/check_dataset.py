r"""Checks a data set before it is trained on, or before it is converted.

  python datasets/check_dataset.py --dataset=tfrecord --output=check.html

  python datasets/check_dataset.py --image_folder=photos --label_folder=masks \
    --class_table=classes.csv

The first form reads TFRecord files (or tfds:NAME), the second folders of images
and labels, with the flags of build_image_folder_data.py and in the same way.
Everything is read; what is wrong is listed with the names of files, the classes
are counted, and flags are suggested. The exit status is 1 if there are errors;
hints do not count.
"""

import dataclasses
import sys

from absl import flags

from deeplab import atomic_files, common, dataset_flags
from deeplab import flags as deeplab_flags
from deeplab.common import InputError
from deeplab.datasets import folder_examples, folder_flags
from deeplab.datasets.checks import check_page, check_report, dataset_checks

FLAGS = flags.FLAGS

_FOLDERS = ('image_folder', 'label_folder')

# Flags about shards, and those about folders.
_OF_SHARDS = ('dataset', 'dataset_dir', 'splits')
_OF_FOLDERS = [
  field.name for field in dataclasses.fields(folder_examples.Options)
]


def _define_flags():
  dataset_flags.define_dataset_flags()
  folder_flags.define()
  deeplab_flags.define_list(
    'splits', [], 'Splits to check; all that are there if not given.', str
  )
  flags.DEFINE_string(
    'output', 'check.html', 'HTML page to write; empty: none.'
  )
  flags.DEFINE_string('json', None, 'JSON file of all figures to write.')
  flags.DEFINE_integer(
    'num_samples',
    dataset_checks.DEFAULT_SAMPLES,
    'Images of each split that the page shows.',
  )
  flags.DEFINE_integer(
    'output_stride', 16, 'Of the network, for the sizes of crops.'
  )


def _check_flags():
  """Refuses flags that would be ignored; returns whether folders are read."""
  common.check_ranges(
    {name: FLAGS[name].value for name in ('num_samples', 'output_stride')},
    {'num_samples': common.Range(0, whole=True), 'output_stride': common.COUNT},
  )
  if deeplab_flags.is_given('num_samples') and not FLAGS.output:
    raise InputError(
      f'--num_samples={FLAGS.num_samples} has no effect without a page; give '
      '--output, or leave it out.'
    )
  reads_files = any(FLAGS[name].value for name in _FOLDERS)
  for name in _OF_SHARDS if reads_files else _OF_FOLDERS:
    if deeplab_flags.is_given(name):
      raise InputError(
        f'--{name}={FLAGS[name].value} has no effect '
        f'{"with" if reads_files else "without"} --image_folder; leave it out.'
      )
  for name in _FOLDERS:
    if reads_files and not FLAGS[name].value:
      raise InputError(
        'images and labels are checked together: give both --image_folder and '
        f'--label_folder. Received: no --{name}.'
      )
  return reads_files


def _check():
  """The report on what the flags name."""
  reads_files = _check_flags()
  settings = {
    'output_stride': FLAGS.output_stride,
    'num_samples': FLAGS.num_samples if FLAGS.output else 0,
  }
  if reads_files:
    return dataset_checks.check_folders(
      FLAGS.image_folder, FLAGS.label_folder, folder_flags.options(), **settings
    )
  return dataset_checks.check_shards(
    *dataset_flags.find(), FLAGS.splits, **settings
  )


def main():
  """Checks what the flags name; exits with 1 if there are errors."""
  report = _check()
  print(check_report.to_text(report), end='')
  for path, content in (
    (FLAGS.output, check_page.make),
    (FLAGS.json, check_report.to_json),
  ):
    if path:
      atomic_files.write(path, content(report))
      print(f'Written: {path}')
  if report.num_errors:
    sys.exit(1)


if __name__ == '__main__':
  _define_flags()
  deeplab_flags.run(main)

r"""Checks a data set before it is trained on, or before it is converted.

  python datasets/check_dataset.py --dataset=tfrecord --output=check.html

  python datasets/check_dataset.py --image_folder=photos --label_folder=masks \
    --class_table=classes.csv

The first form reads TFRecord files (or tfds:NAME), the second folders of images
and masks of the same names. Everything is read; what is wrong is listed with
the names of files, the classes are counted, and flags are suggested. The exit
status is 1 if there are errors; hints do not count.
"""

import functools
import os
import sys

from absl import flags

from deeplab import atomic_files, common, dataset_flags
from deeplab import flags as deeplab_flags
from deeplab.common import InputError
from deeplab.datasets import build_data, dataset_info
from deeplab.datasets.checks import check_page, check_report, dataset_checks
from deeplab.datasets.labels import class_table_files

FLAGS = flags.FLAGS

_FOLDERS = ('image_folder', 'label_folder')

# Flags, one of which says what the masks of a folder mean.
_CLASSES = ('dataset_info', 'class_table', 'dataset')


def _define_flags():
  dataset_flags.define_dataset_flags()
  deeplab_flags.define_list(
    'splits', [], 'Splits to check; all that are there if not given.', str
  )
  flags.DEFINE_string(
    'image_folder', None, 'Folder of images that are not converted yet.'
  )
  flags.DEFINE_string(
    'label_folder', None, 'Folder of their masks, of the same names.'
  )
  flags.DEFINE_string(
    'list_folder',
    None,
    'Folder of lists of their names, <split>.txt; one split if not given.',
  )
  flags.DEFINE_string(
    'dataset_info',
    None,
    'JSON file that describes the classes of --label_folder; or give the '
    'name of a known data set as --dataset.',
  )
  flags.DEFINE_string(
    'class_table',
    None,
    'Or a file of the classes in their order: lines name,red,green,blue or '
    'names.',
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
  """Refuses flags that would be ignored."""
  common.check_ranges(
    {name: FLAGS[name].value for name in ('num_samples', 'output_stride')},
    {'num_samples': common.Range(0, whole=True), 'output_stride': common.COUNT},
  )
  reads_files = any(FLAGS[name].value for name in _FOLDERS)
  idle = ('splits', 'dataset_dir') if reads_files else ()
  if not reads_files:
    idle = ('list_folder', 'dataset_info', 'class_table')
  for name in idle:
    if deeplab_flags.is_given(name):
      raise InputError(
        f'--{name}={FLAGS[name].value} has no effect '
        f'{"with" if reads_files else "without"} --image_folder; leave it out.'
      )
  for name in _FOLDERS:
    if reads_files and not FLAGS[name].value:
      raise InputError(
        'images and masks are checked together: give both --image_folder and '
        f'--label_folder. Received: no --{name}.'
      )
  return reads_files


def _classes_of_files():
  """The data set that masks belong to, and what decodes them if not itself."""
  given = [name for name in _CLASSES if deeplab_flags.is_given(name)]
  if len(given) != 1:
    raise InputError(
      'what do the values of the masks mean? Give one of --dataset_info, a '
      'JSON file with name, num_classes and so on, --class_table, a file of '
      'the classes, and --dataset, one of '
      f'{sorted(dataset_info.BUILTIN)}. Received: {given or "none of them"}.'
    )
  if FLAGS.class_table:
    table = class_table_files.read(FLAGS.class_table)
    info = table.info(os.path.basename(FLAGS.class_table))
    decode = functools.partial(
      dataset_checks.decode_by_table, table=table, info=info
    )
    return info, decode
  if FLAGS.dataset_info:
    return dataset_info.load(FLAGS.dataset_info), None
  return dataset_info.resolve(FLAGS.dataset), None


def _check():
  """The report on what the flags name."""
  settings = {
    'output_stride': FLAGS.output_stride,
    'num_samples': FLAGS.num_samples if FLAGS.output else 0,
  }
  if _check_flags():
    info, decode = _classes_of_files()
    lists = FLAGS.list_folder and build_data.find_lists(FLAGS.list_folder)
    splits, findings = dataset_checks.find_files(
      FLAGS.image_folder, FLAGS.label_folder, lists or None, decode
    )
    return dataset_checks.check_files(splits, info, findings, **settings)
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

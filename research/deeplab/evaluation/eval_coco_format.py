"""Panoptic quality or parsing covering of predictions in COCO's format.

  python -m deeplab.evaluation.eval_coco_format \
    --gt_json_file=panoptic_val2017.json --pred_json_file=predictions.json

The PNG files are in the folder of the JSON file's name unless --gt_folder and
--pred_folder say otherwise. Prints means over all categories, over things and
over stuff; --output_json writes them with the values of every category.
--metric=pc: parsing covering. --num_workers=8: in eight processes, with the
same result to the last bit.
"""

import concurrent.futures
import functools
import itertools
import json
import multiprocessing
import os

import numpy as np
from absl import flags, logging

from deeplab import common, input_files
from deeplab.common import InputError
from deeplab.evaluation import coco_format, panoptic_quality, parsing_covering
from deeplab.evaluation.coco_format import default_folder

_PQ = 'pq'
_PC = 'pc'

# Images between two lines of the log.
_LOG_EVERY = 500


def _build_metric(
  metric,
  num_categories,
  ignored_label,
  max_instances_per_category,
  intersection_offset,
  normalize_by_image_size,
):
  """A metric of this name that has seen no image."""
  common.check_ranges(
    {'ignored_label': ignored_label, 'num_categories': num_categories},
    {
      'ignored_label': common.Range(0, 2**16 - 1, whole=True),
      'num_categories': common.Range(1, 2**16, whole=True),
    },
  )
  if intersection_offset is None:
    highest = max(num_categories, ignored_label)
    intersection_offset = (highest + 1) * max_instances_per_category
  settings = (
    num_categories,
    ignored_label,
    max_instances_per_category,
    intersection_offset,
  )
  if metric == _PQ:
    return panoptic_quality.PanopticQuality(*settings)
  if metric == _PC:
    return parsing_covering.ParsingCovering(*settings, normalize_by_image_size)
  raise InputError(f"metric must be 'pq' or 'pc'. Received: {metric!r}.")


def _check_categories(categories, path, num_categories, ignored_label):
  """Raises about ids out of range, and warns about gaps."""
  beyond = [i for i in categories if i >= num_categories and i != ignored_label]
  if beyond:
    raise InputError(
      f'{path} has category ids of num_categories={num_categories} and more: '
      f'{coco_format.listing(beyond)}. Give --num_categories={max(beyond) + 1}.'
    )
  listed = {ignored_label, *categories}
  gaps = set(range(min(max(listed), num_categories))) - listed
  if gaps:
    logging.warning(
      '%s: category ids are not consecutive; there is no %s.',
      path,
      coco_format.listing(sorted(gaps)),
    )
  if ignored_label in categories:
    logging.warning(
      '%s: category %d (%s) is the ignored label and does not count.',
      path,
      ignored_label,
      categories[ignored_label].name,
    )


def _load(gt_files, pred_files, num_categories, ignored_label):
  """Reads the JSON files.

  Args:
    gt_files: JSON file and folder of the ground truth.
    pred_files: JSON file and folder of the predictions.
    num_categories: category ids are below it.
    ignored_label: category id that does not count.

  Returns:
    {id: Category} and the pairs of Annotations.
  """
  content = input_files.read_json(gt_files[0])
  categories = coco_format.parse_categories(content, gt_files[0])
  _check_categories(categories, gt_files[0], num_categories, ignored_label)
  known = {*categories, ignored_label}
  gt = coco_format.parse_annotations(content, *gt_files, known, has_crowds=True)
  pred = coco_format.parse_annotations(
    input_files.read_json(pred_files[0]), *pred_files, known, has_crowds=False
  )
  if not gt:
    raise InputError(f"{gt_files[0]}: 'annotations' is empty.")
  return categories, _match(gt, pred, gt_files[0], pred_files[0])


def _match(gt, pred, gt_path, pred_path):
  """Pairs of Annotations of the same image, in the ground truth's order."""
  for these, others, path, other_path in (
    (gt, pred, gt_path, pred_path),
    (pred, gt, pred_path, gt_path),
  ):
    lacking = [image_id for image_id in these if image_id not in others]
    if lacking:
      raise InputError(
        f'{len(lacking)} of the {len(these)} images of {path} are not in '
        f'{other_path}: {coco_format.listing(lacking)}.'
      )
  return [(annotation, pred[image_id]) for image_id, annotation in gt.items()]


def _compare(metric, pair):
  """The metric over one pair of Annotations."""
  part = metric.empty_copy()
  gt, pred = (
    coco_format.read_category_and_instance(
      annotation, part.ignored_label, part.max_instances_per_category
    )
    for annotation in pair
  )
  if gt[0].shape != pred[0].shape:
    sizes = [f'{item[0].shape[1]}x{item[0].shape[0]}' for item in (gt, pred)]
    raise InputError(
      f'image {pair[0].image_id!r}: {pair[0].path} and {pair[1].path} must be '
      f'of one size. Received: {sizes[0]} and {sizes[1]}.'
    )
  part.compare_and_accumulate(*gt, *pred)
  return part


def _compare_in_processes(metric, pairs, num_workers):
  """Yields the metric over each pair, in order."""
  executor = concurrent.futures.ProcessPoolExecutor(
    min(num_workers, max(len(pairs), 1)),
    # Forking is not safe beside the threads that a caller may have.
    mp_context=multiprocessing.get_context('spawn'),
  )
  chunk = max(1, min(32, len(pairs) // (4 * num_workers)))
  try:
    yield from executor.map(
      functools.partial(_compare, metric), pairs, chunksize=chunk
    )
  except concurrent.futures.process.BrokenProcessPool as error:
    raise InputError(
      f'one of {num_workers} worker processes ended abruptly. It may have run '
      'out of memory (fewer --num_workers need less), or the calling script '
      "lacks `if __name__ == '__main__':`."
    ) from error
  finally:
    executor.shutdown(cancel_futures=True)


def _accumulate(metric, pairs, num_workers):
  """Adds all pairs to a metric."""
  common.check_ranges(
    {'num_workers': num_workers},
    {'num_workers': common.Range(-1, whole=True)},
  )
  if num_workers == -1:
    num_workers = multiprocessing.cpu_count()
  if num_workers:
    logging.info('Comparing in %d processes.', num_workers)
    parts = _compare_in_processes(metric, pairs, num_workers)
  else:
    parts = map(functools.partial(_compare, metric), pairs)
  # Image by image whatever the number of workers, so that the sums agree.
  for number, part in zip(itertools.count(1), parts):
    metric.merge(part)
    if number % _LOG_EVERY == 0:
      logging.info('%d of %d images.', number, len(pairs))


def eval_coco_format(
  gt_json_file,
  pred_json_file,
  gt_folder=None,
  pred_folder=None,
  metric='pq',
  num_categories=201,
  ignored_label=0,
  max_instances_per_category=256,
  intersection_offset=None,
  normalize_by_image_size=True,
  num_workers=0,
  print_digits=3,
  output_json=None,
):
  """Compares predictions with the ground truth and prints the result.

  The numbers' defaults are those of COCO's panoptic segmentation.

  Args:
    gt_json_file: path of the ground truth's JSON file.
    pred_json_file: path of the predictions' JSON file.
    gt_folder: folder of the ground truth's PNG files; None: the JSON file's
      path without '.json'.
    pred_folder: the same for the predictions.
    metric: 'pq' (panoptic quality) or 'pc' (parsing covering).
    num_categories: category ids are below it.
    ignored_label: category id that does not count, 0 or more; void has it.
    max_instances_per_category: what an image may have.
    intersection_offset: above every panoptic label, `category id *
      max_instances_per_category + instance`; None: as large as need be.
    normalize_by_image_size: see ParsingCovering.
    num_workers: processes to share the work; 0: none, -1: one a core.
    print_digits: decimals that values between 0 and 1 are rounded to.
    output_json: path to write `to_dict` to, or None.

  Returns:
    {'All': ..., 'Things': ..., 'Stuff': ...}; see
    SegmentationMetric.detailed_results.

  Raises:
    InputError: the files are at fault, or do not fit each other or the
      numbers; the message names file and image.
  """
  aggregator = _build_metric(
    metric,
    num_categories,
    ignored_label,
    max_instances_per_category,
    intersection_offset,
    normalize_by_image_size,
  )
  common.check_ranges(
    {'print_digits': print_digits},
    {'print_digits': common.Range(0, whole=True)},
  )
  _check_output(output_json)
  gt_folder = gt_folder or default_folder(gt_json_file, 'gt_folder')
  pred_folder = pred_folder or default_folder(pred_json_file, 'pred_folder')
  categories, pairs = _load(
    (gt_json_file, gt_folder),
    (pred_json_file, pred_folder),
    num_categories,
    ignored_label,
  )
  _accumulate(aggregator, pairs, num_workers)

  is_thing = np.zeros(num_categories, bool)
  for category in categories.values():
    if category.id < num_categories:
      is_thing[category.id] = category.is_thing
  aggregator.print_detailed_results(is_thing, print_digits)
  results = aggregator.detailed_results(is_thing)
  if output_json:
    content = to_dict(aggregator, categories, results, len(pairs))
    _write_json(output_json, {'metric': metric, **content})
  return results


def to_dict(metric, categories, results, num_images):
  """The results as plain JSON values.

  Args:
    metric: a SegmentationMetric.
    categories: {id: coco_format.Category}.
    results: what its `detailed_results` returned.
    num_images: how many it has seen.

  Returns:
    A dictionary: 'num_images', 'All', 'Things', 'Stuff' and 'categories' (one
    dictionary a category: 'id', 'name', 'isthing', 'valid', the metric's
    values and its totals).
  """
  columns = {
    'valid': metric.valid_categories(),
    **metric.values_per_category(),
    **{name: getattr(metric, name) for name in metric.TOTALS},
  }
  rows = [
    {
      'id': category.id,
      'name': category.name,
      'isthing': int(category.is_thing),
      **{key: column[category.id].item() for key, column in columns.items()},
    }
    for category in categories.values()
    if category.id != metric.ignored_label
  ]
  return {'num_images': num_images, **results, 'categories': rows}


def _check_output(path):
  """Before the work, not after it."""
  path = path or ''
  folder = os.path.dirname(path) or '.'
  # A device would be replaced by the file.
  is_other = os.path.exists(path) and not os.path.isfile(path)
  if not os.path.isdir(folder) or is_other:
    raise InputError(
      f'--output_json={path} must be a file in a folder that exists.'
    )


def _write_json(path, content):
  """Writes under a temporary name, then renames."""
  partial = f'{path}.tmp'
  try:
    with open(partial, 'w', encoding='utf-8') as file:
      json.dump(content, file, indent=2, allow_nan=False)
      file.write('\n')
    os.replace(partial, path)
  except OSError as error:
    raise InputError(
      f'--output_json={path} cannot be written: {error.strerror}.'
    ) from error
  finally:
    if os.path.exists(partial):
      os.remove(partial)


# The command.


def _define_flags():
  flags.DEFINE_string('gt_json_file', None, "The ground truth's JSON file.")
  flags.DEFINE_string('pred_json_file', None, "The predictions' JSON file.")
  flags.DEFINE_string(
    'gt_folder',
    None,
    "Folder of the ground truth's PNG files; unset: --gt_json_file without "
    '.json.',
  )
  flags.DEFINE_string(
    'pred_folder',
    None,
    "Folder of the predictions' PNG files; unset: --pred_json_file without "
    '.json.',
  )
  flags.DEFINE_enum(
    'metric', _PQ, [_PQ, _PC], 'Panoptic quality or parsing covering.'
  )
  flags.DEFINE_integer('num_categories', 201, 'Category ids are below it.')
  flags.DEFINE_integer(
    'ignored_label', 0, 'Category id that does not count; void has it.'
  )
  flags.DEFINE_integer(
    'max_instances_per_category', 256, 'What an image may have.'
  )
  flags.DEFINE_integer(
    'intersection_offset',
    None,
    'Above every category id * max_instances_per_category + instance; unset: '
    'as large as need be.',
  )
  flags.DEFINE_bool(
    'normalize_by_image_size',
    True,
    'Whether parsing covering takes areas as shares of their image, not as '
    'pixels.',
  )
  flags.DEFINE_integer(
    'num_workers',
    0,
    'Processes to share the work; 0: none, -1: one for each core.',
  )
  flags.DEFINE_integer(
    'print_digits', 3, 'Decimals that values between 0 and 1 are rounded to.'
  )
  flags.DEFINE_string(
    'output_json', None, 'Where to write the results of every category.'
  )


def _main():
  names = (
    'gt_folder',
    'pred_folder',
    'metric',
    'num_categories',
    'ignored_label',
    'max_instances_per_category',
    'intersection_offset',
    'normalize_by_image_size',
    'num_workers',
    'print_digits',
    'output_json',
  )
  if flags.FLAGS['normalize_by_image_size'].present and (
    flags.FLAGS.metric == _PQ
  ):
    raise InputError(
      '--normalize_by_image_size has no effect on --metric=pq; leave it out.'
    )
  eval_coco_format(
    flags.FLAGS.gt_json_file,
    flags.FLAGS.pred_json_file,
    **{name: flags.FLAGS[name].value for name in names},
  )


def _run():
  # Imported here because worker processes read this file again, and have no
  # use for TensorFlow.
  from deeplab import flags as deeplab_flags

  _define_flags()
  deeplab_flags.require('gt_json_file', 'pred_json_file')
  deeplab_flags.run(_main)


if __name__ == '__main__':
  _run()

"""Evaluates a DeepLab network: once, or following a training run.

  python eval.py --checkpoint_dir=logs/train --eval_logdir=logs/eval \
    --dataset_dir=data/tfrecord --max_number_of_evaluations=1

Prints IoU of each class, mIoU, pixel accuracy and mean accuracy, and writes
them as JSON and for TensorBoard under --eval_logdir. --checkpoint_dir may be
the directory of a training run, which is followed (without end unless
--max_number_of_evaluations or --timeout_secs say otherwise), or one
checkpoint. Multi-scale test: --eval_scales=0.5,...,1.75 --add_flipped_images.
Boundary quality: --trimap_widths=1,2,...,40.
"""

from absl import flags as absl_flags

from deeplab import flags, model_flags
from deeplab.common import InputError
from deeplab.datasets import data_generator
from deeplab.evaluation import evaluator, prediction, trimap

FLAGS = flags.FLAGS


def _define_flags():
  model_flags.define_model_flags()
  model_flags.define_scale_flags()
  absl_flags.DEFINE_string(
    'checkpoint_dir',
    None,
    'Directory of a training run, prefix of a checkpoint, or one of its files.',
  )
  absl_flags.DEFINE_string('eval_logdir', None, 'Where to write the results.')
  absl_flags.DEFINE_integer('eval_batch_size', 1, 'Images a batch.')
  flags.define_list(
    'eval_crop_size',
    [513, 513],
    'Size [height, width] that images are padded to; none may be larger.',
  )
  absl_flags.DEFINE_integer(
    'eval_interval_secs', 300, 'Least seconds between two evaluations.'
  )
  absl_flags.DEFINE_integer(
    'max_number_of_evaluations', 0, 'Stop after so many; 0: never.'
  )
  absl_flags.DEFINE_float(
    'timeout_secs', None, 'Stop when no checkpoint appears for so long.'
  )
  absl_flags.DEFINE_string('dataset', 'pascal_voc_seg', 'Name of the data set.')
  absl_flags.DEFINE_string('eval_split', 'val', 'Split to evaluate on.')
  absl_flags.DEFINE_string('dataset_dir', None, 'Folder of the TFRecord files.')
  flags.define_list(
    'trimap_widths',
    None,
    'Evaluate bands of so many pixels around object boundaries as well, for '
    'example 1,2,...,40.',
  )
  absl_flags.DEFINE_enum(
    'trimap_boundary',
    trimap.ANY,
    trimap.BOUNDARIES,
    "What a boundary is: pixels with the ignore label (void, the papers' "
    'measure), of another class (classes), or any of the two.',
  )
  flags.require('checkpoint_dir', 'eval_logdir', 'dataset_dir')


def _make_dataset(model_variant):
  return data_generator.Dataset(
    dataset_name=FLAGS.dataset if flags.is_given('dataset') else None,
    split_name=FLAGS.eval_split,
    dataset_dir=FLAGS.dataset_dir,
    batch_size=FLAGS.eval_batch_size,
    crop_size=FLAGS.eval_crop_size,
    min_resize_value=FLAGS.min_resize_value,
    max_resize_value=FLAGS.max_resize_value,
    resize_factor=FLAGS.resize_factor,
    keep_aspect_ratio=FLAGS.keep_aspect_ratio,
    model_variant=model_variant,
  )


def _make_options(num_classes, checkpoint):
  return model_flags.model_options(
    num_classes, FLAGS.eval_crop_size, checkpoint
  )


def main():
  if flags.is_given('trimap_boundary') and FLAGS.trimap_widths is None:
    raise InputError(
      f'--trimap_boundary={FLAGS.trimap_boundary} has no effect without '
      '--trimap_widths.'
    )
  job = prediction.Job(
    checkpoint_dir=FLAGS.checkpoint_dir,
    make_dataset=_make_dataset,
    make_options=_make_options,
    crop_size=FLAGS.eval_crop_size,
    eval_scales=FLAGS.eval_scales,
    add_flipped_images=FLAGS.add_flipped_images,
    image_pyramid=FLAGS.image_pyramid,
    limit=FLAGS.max_number_of_evaluations,
    interval_secs=FLAGS.eval_interval_secs,
    timeout_secs=FLAGS.timeout_secs,
  )
  evaluator.run(
    job,
    FLAGS.eval_logdir,
    trimap_widths=FLAGS.trimap_widths,
    trimap_boundary=FLAGS.trimap_boundary,
  )


if __name__ == '__main__':
  _define_flags()
  flags.run(main)

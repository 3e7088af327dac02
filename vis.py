"""Writes a DeepLab network's predictions as pictures.

  python vis.py --checkpoint_dir=logs/train --vis_logdir=logs/vis \
    --dataset_dir=data/tfrecord --max_number_of_iterations=1

Writes images, coloured predictions and overlays to
--vis_logdir/segmentation_results and, with --also_save_raw_predictions, the
labels themselves to --vis_logdir/raw_segmentation_results. --checkpoint_dir
may be the directory of a training run, which is followed (without end unless
--max_number_of_iterations or --timeout_secs say otherwise), or one checkpoint.
"""

from absl import flags as absl_flags

from deeplab import flags, model_flags
from deeplab.datasets import data_generator
from deeplab.evaluation import prediction, visualizer

FLAGS = flags.FLAGS


def _define_flags():
  model_flags.define_model_flags()
  model_flags.define_scale_flags()
  absl_flags.DEFINE_string(
    'checkpoint_dir',
    None,
    'Directory of a training run, prefix of a checkpoint, or one of its files.',
  )
  absl_flags.DEFINE_string('vis_logdir', None, 'Where to write the pictures.')
  absl_flags.DEFINE_integer('vis_batch_size', 1, 'Images a batch.')
  flags.define_list(
    'vis_crop_size',
    [513, 513],
    'Size [height, width] that images are padded to; none may be larger.',
  )
  absl_flags.DEFINE_integer(
    'eval_interval_secs', 300, 'Least seconds between two checkpoints.'
  )
  absl_flags.DEFINE_integer(
    'max_number_of_iterations', 0, 'Stop after so many checkpoints; 0: never.'
  )
  absl_flags.DEFINE_float(
    'timeout_secs', None, 'Stop when no checkpoint appears for so long.'
  )
  absl_flags.DEFINE_string('dataset', 'pascal_voc_seg', 'Name of the data set.')
  absl_flags.DEFINE_string('vis_split', 'val', 'Split to label.')
  absl_flags.DEFINE_string('dataset_dir', None, 'Folder of the TFRecord files.')
  absl_flags.DEFINE_enum(
    'colormap_type',
    'pascal',
    ['pascal', 'cityscapes', 'ade20k', 'mapillary_vistas'],
    'Colours. Unless given, those of dataset_info.json where there is one.',
  )
  absl_flags.DEFINE_boolean(
    'also_save_raw_predictions', False, 'Save the labels themselves too.'
  )
  flags.require('checkpoint_dir', 'vis_logdir', 'dataset_dir')


def _make_dataset(model_variant):
  return data_generator.Dataset(
    dataset_name=FLAGS.dataset if flags.is_given('dataset') else None,
    split_name=FLAGS.vis_split,
    dataset_dir=FLAGS.dataset_dir,
    batch_size=FLAGS.vis_batch_size,
    crop_size=FLAGS.vis_crop_size,
    min_resize_value=FLAGS.min_resize_value,
    max_resize_value=FLAGS.max_resize_value,
    resize_factor=FLAGS.resize_factor,
    keep_aspect_ratio=FLAGS.keep_aspect_ratio,
    model_variant=model_variant,
  )


def _make_options(num_classes, checkpoint):
  return model_flags.model_options(num_classes, FLAGS.vis_crop_size, checkpoint)


def main():
  job = prediction.Job(
    checkpoint_dir=FLAGS.checkpoint_dir,
    make_dataset=_make_dataset,
    make_options=_make_options,
    crop_size=FLAGS.vis_crop_size,
    eval_scales=FLAGS.eval_scales,
    add_flipped_images=FLAGS.add_flipped_images,
    image_pyramid=FLAGS.image_pyramid,
    limit=FLAGS.max_number_of_iterations,
    interval_secs=FLAGS.eval_interval_secs,
    timeout_secs=FLAGS.timeout_secs,
  )
  visualizer.run(
    job,
    FLAGS.vis_logdir,
    FLAGS.colormap_type if flags.is_given('colormap_type') else None,
    FLAGS.also_save_raw_predictions,
  )


if __name__ == '__main__':
  _define_flags()
  flags.run(main)

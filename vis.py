"""Writes a DeepLab network's predictions as pictures.

  python vis.py --checkpoint_dir=logs/train --vis_logdir=logs/vis \
    --dataset_dir=data/tfrecord --max_number_of_iterations=1

Writes images, coloured predictions and overlays to
--vis_logdir/segmentation_results and, with --also_save_raw_predictions, the
labels themselves to --vis_logdir/raw_segmentation_results. --checkpoint_dir
may be the directory of a training run, which is followed (without end unless
--max_number_of_iterations or --timeout_secs say otherwise), or one checkpoint.
Dense CRF behind the network: --crf. Several GPUs: --num_clones=4
--vis_batch_size=8.

Images of one's own, of any kind and size, or the frames of a video:

  python vis.py --checkpoint_dir=logs/train --vis_logdir=logs/vis \
    --image_glob='photos/*.jpg'
"""

from absl import flags as absl_flags

from deeplab import evaluation_flags, flags
from deeplab.evaluation import visualizer

FLAGS = flags.FLAGS

_LIMIT = 'max_number_of_iterations'


def _define_flags():
  evaluation_flags.define_data_flags('vis')
  evaluation_flags.define_following_flags(_LIMIT)
  evaluation_flags.define_crf_flags()
  evaluation_flags.define_device_flags()
  evaluation_flags.define_photo_flags()
  absl_flags.DEFINE_string('vis_logdir', None, 'Where to write the pictures.')
  absl_flags.DEFINE_enum(
    'colormap_type',
    'pascal',
    ['pascal', 'cityscapes', 'ade20k', 'mapillary_vistas'],
    'Colours. Unless given, those of dataset_info.json where there is one.',
  )
  absl_flags.DEFINE_boolean(
    'also_save_raw_predictions', False, 'Save the labels themselves too.'
  )
  flags.require('vis_logdir')


def main():
  images = None
  if FLAGS.image_glob is None:
    evaluation_flags.check_photo_flags('vis')
    job = evaluation_flags.make_following_job('vis', _LIMIT)
  else:
    job, images = evaluation_flags.make_photo_job(
      'vis', _LIMIT, visualizer.output_folders(FLAGS.vis_logdir)
    )
  visualizer.run(
    job,
    FLAGS.vis_logdir,
    FLAGS.colormap_type if flags.is_given('colormap_type') else None,
    FLAGS.also_save_raw_predictions,
  )
  if images is not None:
    images.check()


if __name__ == '__main__':
  _define_flags()
  flags.run(main)

"""Evaluates a DeepLab network: once, or following a training run.

  python eval.py --checkpoint_dir=logs/train --eval_logdir=logs/eval \
    --dataset_dir=data/tfrecord --max_number_of_evaluations=1

Prints IoU of each class, mIoU, pixel accuracy, mean accuracy and the largest
confusions, and writes under --eval_logdir for each checkpoint: the metrics as
miou_<step>.json and for TensorBoard, the confusion matrix as
confusion_<step>.png, and the scores of every image, the worst first, as
images_<step>.csv (and .npz, for `python -m deeplab.evaluation.compare_evals`).

--checkpoint_dir may be the directory of a training run, which is followed
(without end unless --max_number_of_evaluations or --timeout_secs say
otherwise), or one checkpoint. Multi-scale test: --eval_scales=0.5,...,1.75
--add_flipped_images. Dense CRF behind the network: --crf. Boundary quality:
--trimap_widths=1,2,...,40. Several GPUs: --num_clones=4 --eval_batch_size=8.
"""

from absl import flags as absl_flags

from deeplab import evaluation_flags, flags
from deeplab.common import InputError
from deeplab.evaluation import evaluator, trimap

FLAGS = flags.FLAGS

_LIMIT = 'max_number_of_evaluations'


def _define_flags():
  evaluation_flags.define_data_flags('eval')
  evaluation_flags.define_following_flags(_LIMIT)
  evaluation_flags.define_crf_flags()
  evaluation_flags.define_device_flags()
  absl_flags.DEFINE_string('eval_logdir', None, 'Where to write the results.')
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
    'measure), of another class (classes), or either (any).',
  )
  flags.require('eval_logdir')


def main():
  if flags.is_given('trimap_boundary') and FLAGS.trimap_widths is None:
    raise InputError(
      f'--trimap_boundary={FLAGS.trimap_boundary} has no effect without '
      '--trimap_widths.'
    )
  evaluator.run(
    evaluation_flags.make_following_job('eval', _LIMIT),
    FLAGS.eval_logdir,
    trimap_widths=FLAGS.trimap_widths,
    trimap_boundary=FLAGS.trimap_boundary,
  )


if __name__ == '__main__':
  _define_flags()
  flags.run(main)

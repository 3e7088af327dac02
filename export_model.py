"""Exports a trained DeepLab network.

  python export_model.py --checkpoint_path=logs/train --export_path=exported

--export_path is a directory for the SavedModel (with the frozen graph inside),
or a file that ends in .pb for the frozen graph alone. Both take `ImageTensor`,
uint8 [1, height, width, 3], and give `SemanticPredictions` and
`SemanticProbabilities` at the size of the image. Images, after resizing if
any, must not be larger than --crop_size.
"""

from absl import flags as absl_flags
from absl import logging

from deeplab import checkpoints, export, flags, model_flags

FLAGS = flags.FLAGS


def _define_flags():
  model_flags.define_model_flags(output_stride=8)
  model_flags.define_scale_flags('inference_scales')
  absl_flags.DEFINE_string(
    'checkpoint_path', None, 'Directory, prefix or file of a checkpoint.'
  )
  absl_flags.DEFINE_string(
    'export_path', None, 'Directory, or file of a frozen graph (.pb).'
  )
  absl_flags.DEFINE_integer(
    'num_classes',
    21,
    'Number of classes; unless given, that of model_options.json if any.',
  )
  flags.define_list(
    'crop_size', [513, 513], 'Size [height, width] of the network.'
  )
  absl_flags.DEFINE_boolean(
    'save_inference_graph', False, 'Also write inference_graph.pbtxt.'
  )
  flags.require('checkpoint_path', 'export_path')


def main():
  checkpoint = checkpoints.find(FLAGS.checkpoint_path)
  stored = checkpoints.load_options(checkpoint) is not None
  num_classes = FLAGS.num_classes
  if stored and not flags.is_given('num_classes'):
    num_classes = None
  written = export.export(
    checkpoint,
    FLAGS.export_path,
    model_flags.model_options(num_classes, FLAGS.crop_size, checkpoint),
    inference_scales=FLAGS.inference_scales,
    add_flipped_images=FLAGS.add_flipped_images,
    image_pyramid=FLAGS.image_pyramid,
    save_inference_graph=FLAGS.save_inference_graph,
    min_resize_value=FLAGS.min_resize_value,
    max_resize_value=FLAGS.max_resize_value,
    resize_factor=FLAGS.resize_factor,
    keep_aspect_ratio=FLAGS.keep_aspect_ratio,
  )
  for path in written:
    logging.info('Wrote %s', path)


if __name__ == '__main__':
  _define_flags()
  flags.run(main)

"""Exports a trained DeepLab network.

  python export_model.py --checkpoint_path=logs/train --export_path=exported

--export_path is a directory for the formats of --export_format, by default the
SavedModel with the frozen graph inside; or a file for one of them: .pb for the
frozen graph, .onnx for ONNX, .tflite for eight-bit TFLite, unless
--export_format names another TFLite model.

SavedModel, frozen graph and ONNX take `ImageTensor`, uint8 [batch, height,
width, 3] (the frozen graph: batch 1), and give `SemanticPredictions` and
`SemanticProbabilities` at the size of the images. Images, after resizing if
any, must not be larger than --crop_size. TFLite models take images of the size
of the crop and give `SemanticPredictions`; for eight bits --calibration_images
are needed, unless the checkpoint comes from quantisation-aware training.

What is written is compared with the network on images, and not kept if it
differs; see docs/export.md.
"""

from absl import flags as absl_flags
from absl import logging

from deeplab import checkpoints, export, flags, model_flags, stored_options
from deeplab.common import InputError

FLAGS = flags.FLAGS


def _define_flags():
  model_flags.define_model_flags(output_stride=8)
  model_flags.define_scale_flags('inference_scales')
  model_flags.define_moving_average_flag()
  model_flags.define_inference_dtype_flag()
  absl_flags.DEFINE_string(
    'checkpoint_path', None, 'Directory, prefix or file of a checkpoint.'
  )
  absl_flags.DEFINE_string(
    'export_path',
    None,
    'Directory, or file of a frozen graph (.pb), TFLite model (.tflite) or '
    'ONNX model (.onnx).',
  )
  flags.define_list(
    'export_format',
    None,
    f'Any of {", ".join(export.FORMATS)}; unless given, the first two in a '
    'directory, or what the suffix of --export_path says (.tflite: '
    'tflite_int8).',
    str,
  )
  flags.define_list(
    'calibration_images',
    None,
    'Images on which the ranges of an eight-bit model are measured: a pattern '
    "such as 'photos/*.jpg' (** for any folders), a folder, a file, official "
    "records ('tfrecord/train-*.tfrecord'), or several of these.",
    str,
  )
  absl_flags.DEFINE_integer(
    'calibration_limit', 100, 'Use at most so many of these images.'
  )
  absl_flags.DEFINE_boolean(
    'verify',
    True,
    'Compare what was written with the network, and write export_report.json.',
  )
  flags.define_list(
    'verify_images',
    None,
    'Images to compare on, named likewise; unless given, those of the '
    'calibration if any, else generated ones.',
    str,
  )
  absl_flags.DEFINE_integer(
    'verify_limit', 10, 'Use at most so many of these images.'
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


def _check_flags():
  """Refuses flags that would be ignored."""
  images = ('verify_images', 'calibration_images')
  for name, *needed in (
    ('calibration_limit', 'calibration_images'),
    ('verify_limit', *images),
    ('verify_limit', 'verify'),
    ('verify_images', 'verify'),
  ):
    if flags.is_given(name) and not any(FLAGS[n].value for n in needed):
      raise InputError(
        f'{FLAGS[name].serialize()} has no effect without --'
        f'{" or --".join(needed)}; leave it out.'
      )


def main():
  checkpoint = checkpoints.find(FLAGS.checkpoint_path)
  stored = stored_options.load(checkpoint) is not None
  num_classes = FLAGS.num_classes
  if stored and not flags.is_given('num_classes'):
    num_classes = None
  _check_flags()
  written = export.export(
    checkpoint,
    FLAGS.export_path,
    model_flags.model_options(num_classes, FLAGS.crop_size, checkpoint),
    inference_scales=FLAGS.inference_scales,
    add_flipped_images=FLAGS.add_flipped_images,
    image_pyramid=FLAGS.image_pyramid,
    save_inference_graph=FLAGS.save_inference_graph,
    formats=FLAGS.export_format,
    calibration_images=FLAGS.calibration_images,
    calibration_limit=FLAGS.calibration_limit,
    use_moving_averages=FLAGS.use_moving_averages,
    inference_dtype=FLAGS.inference_dtype,
    verify=FLAGS.verify,
    verify_images=FLAGS.verify_images,
    verify_limit=FLAGS.verify_limit,
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

"""Writes a trained network as a SavedModel, a frozen graph, a TFLite model.

The first two take one image of any size and do what evaluation does: the
resizing and padding of the input pipeline, the shared inference function,
cropping and resizing back. For the third see `export_tflite`.
"""

import contextlib
import os
import shutil

import tensorflow as tf
from absl import logging
from tensorflow.python.framework import convert_to_constants

from deeplab import (
  atomic_files,
  checkpoints,
  common,
  export_tflite,
  inference,
  input_preprocess,
  model,
)
from deeplab.common import InputError

INPUT_NAME = 'ImageTensor'
OUTPUT_NAME = 'SemanticPredictions'
OUTPUT_PROB_NAME = 'SemanticProbabilities'
RAW_OUTPUT_NAME = 'RawSemanticPredictions'
RAW_OUTPUT_PROB_NAME = 'RawSemanticProbabilities'

_OUTPUT_NAMES = (
  OUTPUT_NAME,
  OUTPUT_PROB_NAME,
  RAW_OUTPUT_NAME,
  RAW_OUTPUT_PROB_NAME,
)

FROZEN_GRAPH_FILE = 'frozen_inference_graph.pb'
TFLITE_INT8_FILE = 'model_int8.tflite'
TEXT_GRAPH_FILE = 'inference_graph.pbtxt'

# Values of --export_format.
SAVED_MODEL = 'saved_model'
FROZEN_GRAPH = 'frozen_graph'
TFLITE_INT8 = 'tflite_int8'
FORMATS = (SAVED_MODEL, FROZEN_GRAPH, TFLITE_INT8)

# A file of such a name, in place of a directory, is that format alone.
_FORMAT_OF_SUFFIX = {'.pb': FROZEN_GRAPH, '.tflite': TFLITE_INT8}
_FILE_OF_FORMAT = {
  FROZEN_GRAPH: FROZEN_GRAPH_FILE,
  TFLITE_INT8: TFLITE_INT8_FILE,
}

# What an export may hold.
_EXPORTED = {
  'saved_model.pb',
  'fingerprint.pb',
  'variables',
  'assets',
  TEXT_GRAPH_FILE,
  *_FILE_OF_FORMAT.values(),
}


def build_serving_function(predictor, options, **resizing):
  """The function that is exported.

  Args:
    predictor: what inference.build_predictor returned.
    options: ModelOptions with a crop_size.
    **resizing: min_resize_value, max_resize_value, resize_factor and
      keep_aspect_ratio of input_preprocess.preprocess_image_and_label.

  Returns:
    A tf.function from 'ImageTensor', uint8 [1, height, width, 3], to
    {'SemanticPredictions': int32 [1, height, width],
     'SemanticProbabilities': float32 [1, height, width, classes]}.
  """
  crop_height, crop_width = options.crop_size

  def serve(images):
    size = tf.shape(images)[1:3]
    resized, image, _ = input_preprocess.preprocess_image_and_label(
      images[0],
      label=None,
      crop_height=crop_height,
      crop_width=crop_width,
      is_training=False,
      model_variant=options.model_variant,
      image_name=INPUT_NAME,
      **resizing,
    )
    height, width = tf.unstack(tf.shape(resized)[:2])
    predictions = predictor(image[tf.newaxis])
    # Official graphs have float32 labels under this name.
    labels = tf.identity(
      tf.cast(predictions[common.OUTPUT_TYPE], tf.float32), RAW_OUTPUT_NAME
    )
    probabilities = tf.identity(
      predictions[common.OUTPUT_TYPE + model.PROB_SUFFIX], RAW_OUTPUT_PROB_NAME
    )
    labels = tf.raw_ops.ResizeNearestNeighbor(
      images=labels[:, :height, :width, tf.newaxis],
      size=size,
      align_corners=True,
    )
    probabilities = tf.raw_ops.ResizeBilinear(
      images=probabilities[:, :height, :width], size=size, align_corners=True
    )
    return {
      OUTPUT_NAME: tf.cast(labels[..., 0], tf.int32, OUTPUT_NAME),
      OUTPUT_PROB_NAME: tf.identity(probabilities, OUTPUT_PROB_NAME),
    }

  return tf.function(
    serve,
    input_signature=[
      tf.TensorSpec([1, None, None, 3], tf.uint8, name=INPUT_NAME)
    ],
  )


def export(
  checkpoint_path,
  export_path,
  options,
  inference_scales=(1.0,),
  add_flipped_images=False,
  image_pyramid=None,
  save_inference_graph=False,
  formats=None,
  calibration_images=None,
  calibration_limit=100,
  use_moving_averages=None,
  **resizing,
):
  """Exports a checkpoint.

  Args:
    checkpoint_path: directory, prefix or file of a checkpoint.
    export_path: a directory; or a file that ends in .pb for the frozen graph
      alone, or in .tflite for the TFLite model alone.
    options: ModelOptions with a crop_size.
    inference_scales: scales whose probabilities are averaged.
    add_flipped_images: also use the mirror image at each scale.
    image_pyramid: scales merged inside the network.
    save_inference_graph: also write the graph as text, inference_graph.pbtxt.
    formats: which of FORMATS to write; None for what the name of the file
      says, or SavedModel and frozen graph in a directory.
    calibration_images: pattern of image files; see `export_tflite`.
    calibration_limit: number of these images to use at most.
    use_moving_averages: see `checkpoints.restore`.
    **resizing: see `build_serving_function`.

  Returns:
    The paths written.

  Raises:
    InputError: the checkpoint does not fit, or the path cannot be written.
  """
  input_preprocess.check_options(resizing)
  formats = _formats(export_path, formats)
  several = tuple(inference_scales) != (1.0,) or add_flipped_images
  _check_formats(formats, several, save_inference_graph, calibration_images)
  files = {}
  if set(formats) != {TFLITE_INT8}:
    predictor = inference.build_predictor(
      options, inference_scales, add_flipped_images, image_pyramid
    )
    report = checkpoints.restore(
      predictor, checkpoint_path, use_moving_averages=use_moving_averages
    )
    logging.info('%s', report)
    serve = build_serving_function(predictor, options, **resizing)
  if FROZEN_GRAPH in formats:
    files[FROZEN_GRAPH_FILE] = freeze(serve, predictor).SerializeToString()
  if save_inference_graph:
    graph = serve.get_concrete_function().graph.as_graph_def()
    files[TEXT_GRAPH_FILE] = str(graph)
  if TFLITE_INT8 in formats:
    files[TFLITE_INT8_FILE] = export_tflite.convert_int8(
      checkpoint_path,
      options,
      calibration_images,
      calibration_limit,
      image_pyramid,
      use_moving_averages,
      **resizing,
    )
  try:
    if not _is_file(export_path):
      with _replacing(export_path, checkpoint_path) as folder:
        tf.io.gfile.makedirs(folder)
        if SAVED_MODEL in formats:
          _write_saved_model(folder, predictor, serve)
        _write(folder, files)
      return [export_path, *(os.path.join(export_path, name) for name in files)]
    directory, name = os.path.split(export_path)
    files[name] = files.pop(_FILE_OF_FORMAT[formats[0]])
    tf.io.gfile.makedirs(directory or '.')
    return _write(directory, files)
  except (OSError, tf.errors.OpError) as error:
    raise InputError(
      f'--export_path={export_path} cannot be written: {error}'
    ) from error


def _is_file(export_path):
  return os.path.splitext(export_path)[1] in _FORMAT_OF_SUFFIX


def _formats(export_path, formats):
  """The formats to write."""
  unknown = sorted(set(formats or ()) - set(FORMATS))
  if unknown:
    raise InputError(
      f'--export_format must be of {", ".join(FORMATS)}. Received: '
      f'{", ".join(unknown)}.'
    )
  if not _is_file(export_path):
    return tuple(formats or (SAVED_MODEL, FROZEN_GRAPH))
  alone = _FORMAT_OF_SUFFIX[os.path.splitext(export_path)[1]]
  if formats and set(formats) != {alone}:
    raise InputError(
      f'--export_path={export_path} is a file, for {alone} alone; give a '
      f'directory for --export_format={",".join(formats)}.'
    )
  return (alone,)


def _check_formats(formats, several, save_inference_graph, calibration_images):
  """Refuses what the formats cannot do, or would ignore."""
  if TFLITE_INT8 in formats:
    if several:
      raise InputError(
        '--export_format=tflite_int8 has a single scale and no mirror images: '
        'averaged probabilities do not fit into eight bits.'
      )
  elif calibration_images:
    raise InputError(
      f'--calibration_images={calibration_images} has no effect without '
      '--export_format=tflite_int8.'
    )
  if save_inference_graph and set(formats) == {TFLITE_INT8}:
    raise InputError(
      '--save_inference_graph has no effect on a TFLite model alone.'
    )


def _check_replaceable(directory, checkpoint):
  """Only an earlier export may be replaced, nothing else of the user's."""
  names = tf.io.gfile.listdir(directory) if tf.io.gfile.isdir(directory) else []
  foreign = sorted({name.rstrip('/') for name in names} - _EXPORTED)
  if foreign:
    raise InputError(
      f'--export_path={directory} holds more than an earlier export, for '
      f'example {foreign[0]}. Give another folder.'
    )
  source = os.path.dirname(checkpoints.find(checkpoint))
  if names and os.path.realpath(source) == os.path.realpath(directory):
    raise InputError(
      f'--export_path={directory} is the folder of --checkpoint_path, which '
      'would be replaced. Give another folder.'
    )


@contextlib.contextmanager
def _replacing(directory, checkpoint):
  """A folder that becomes `directory` at the end, and is gone if that fails."""
  _check_replaceable(directory, checkpoint)
  directory = directory.rstrip('/')
  temporary, old = f'{directory}.tmp', f'{directory}.old'
  try:
    yield temporary
    if os.path.exists(directory):
      os.rename(directory, old)
    os.rename(temporary, directory)
    shutil.rmtree(old, ignore_errors=True)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _write_saved_model(directory, predictor, serve):
  module = tf.Module()
  module.variables_of_the_network = [
    variable.value for variable in predictor.variables
  ]
  module.serve = serve
  tf.saved_model.save(
    module, directory, signatures=serve.get_concrete_function()
  )


def _write(directory, texts):
  """Writes {name: content}; returns the paths. A failure leaves no half."""
  paths = []
  for name, content in texts.items():
    path = os.path.join(directory, name)
    atomic_files.write(path, content)
    paths.append(path)
  return paths


def freeze(serve, predictor):
  """The graph of a serving function with its variables as constants.

  Args:
    serve: what `build_serving_function` returned.
    predictor: the keras.Model that it runs.

  Returns:
    A GraphDef whose nodes ImageTensor, SemanticPredictions,
    SemanticProbabilities and the two Raw ones are those of the official
    frozen graph, and whose weights have the official names, so that
    `frozen_graph` reads them back.
  """
  function = serve.get_concrete_function()
  frozen = convert_to_constants.convert_variables_to_constants_v2(
    function, lower_control_flow=False
  )
  graph = frozen.graph.as_graph_def()
  _keep_ancestors(graph, list(_OUTPUT_NAMES))
  _name_weights(graph, function.graph, predictor)
  return graph


def _name_weights(graph, function_graph, predictor):
  """Calls the constants that were variables by the official names."""
  official = {
    id(variable.value.handle): name
    for name, variable in checkpoints.named_variables(predictor).items()
  }
  # A frozen constant is called like the placeholder of the variable.
  names = {
    inner.op.name: official[id(outer)]
    for outer, inner in function_graph.captures
    if id(outer) in official
  }
  for node in graph.node:
    node.name = names.get(node.name, node.name)
    for i, source in enumerate(node.input):
      name, colon, port = source.partition(':')
      node.input[i] = names.get(name, name) + colon + port


def _keep_ancestors(graph, names):
  """Removes the nodes that the named ones do not depend on."""
  nodes = {node.name: node for node in graph.node}
  kept = set()
  while names:
    name = names.pop()
    if name not in kept:
      kept.add(name)
      names += [i.lstrip('^').split(':')[0] for i in nodes[name].input]
  del graph.node[:]
  graph.node.extend(node for name, node in nodes.items() if name in kept)

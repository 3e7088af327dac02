"""Writes a trained network as a SavedModel and as a frozen graph.

Both take one image of any size and do what evaluation does: the resizing and
padding of the input pipeline, the shared inference function, cropping and
resizing back.
"""

import contextlib
import os
import shutil

import tensorflow as tf
from absl import logging
from tensorflow.python.framework import convert_to_constants

from deeplab import (
  checkpoints,
  common,
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
  **resizing,
):
  """Exports a checkpoint.

  Args:
    checkpoint_path: directory, prefix or file of a checkpoint.
    export_path: a directory for the SavedModel, which then holds the frozen
      graph as well; or a file that ends in .pb for the frozen graph alone.
    options: ModelOptions with a crop_size.
    inference_scales: scales whose probabilities are averaged.
    add_flipped_images: also use the mirror image at each scale.
    image_pyramid: scales merged inside the network.
    save_inference_graph: also write the graph as text, inference_graph.pbtxt.
    **resizing: see `build_serving_function`.

  Returns:
    The paths written.

  Raises:
    InputError: the checkpoint does not fit, or the path cannot be written.
  """
  input_preprocess.check_options(resizing)
  predictor = inference.build_predictor(
    options, inference_scales, add_flipped_images, image_pyramid
  )
  logging.info('%s', checkpoints.restore(predictor, checkpoint_path))
  serve = build_serving_function(predictor, options, **resizing)
  try:
    graph = freeze(serve)
    texts = {FROZEN_GRAPH_FILE: graph.SerializeToString()}
    if save_inference_graph:
      texts['inference_graph.pbtxt'] = str(
        serve.get_concrete_function().graph.as_graph_def()
      )
    if not export_path.endswith('.pb'):
      with _replacing(export_path) as folder:
        _write_saved_model(folder, predictor, serve)
        _write(folder, texts)
      return [export_path, *(os.path.join(export_path, name) for name in texts)]
    directory, name = os.path.split(export_path)
    texts[name] = texts.pop(FROZEN_GRAPH_FILE)
    tf.io.gfile.makedirs(directory or '.')
    return _write(directory, texts)
  except (OSError, tf.errors.OpError) as error:
    raise InputError(
      f'--export_path={export_path} cannot be written: {error}'
    ) from error


def _check_replaceable(directory):
  """Only an earlier export may be replaced, nothing else of the user's."""
  if (
    tf.io.gfile.isdir(directory)
    and tf.io.gfile.listdir(directory)
    and not tf.io.gfile.exists(os.path.join(directory, 'saved_model.pb'))
  ):
    raise InputError(
      f'--export_path={directory} is not empty and holds no SavedModel that '
      'could be replaced. Give another folder.'
    )


@contextlib.contextmanager
def _replacing(directory):
  """A folder that becomes `directory` at the end, and is gone if that fails."""
  _check_replaceable(directory)
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
    try:
      with tf.io.gfile.GFile(f'{path}.tmp', 'wb') as file:
        file.write(content)
      tf.io.gfile.rename(f'{path}.tmp', path, overwrite=True)
    finally:
      if tf.io.gfile.exists(f'{path}.tmp'):
        tf.io.gfile.remove(f'{path}.tmp')
    paths.append(path)
  return paths


def freeze(serve):
  """The graph of a serving function with its variables as constants.

  Returns:
    A GraphDef whose nodes ImageTensor, SemanticPredictions,
    SemanticProbabilities and the two Raw ones are those of the official
    frozen graph.
  """
  frozen = convert_to_constants.convert_variables_to_constants_v2(
    serve.get_concrete_function(), lower_control_flow=False
  )
  graph = frozen.graph.as_graph_def()
  _keep_ancestors(graph, list(_OUTPUT_NAMES))
  return graph


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

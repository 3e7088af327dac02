"""Reads weights out of frozen inference graphs.

Freezing turns each variable of a TensorFlow 1 graph into a Const node of the
variable's name, read through an Identity called <name>/read. `deeplab.export`
gives the constants the same names, so that both kinds can be read back.
"""

import re

import tensorflow as tf
from google.protobuf import message
from tensorflow.core.protobuf import saved_model_pb2

from deeplab.common import InputError

# The name of the file in published archives and in exports.
FILE_NAME = 'frozen_inference_graph.pb'

# Last parts of variables' names in slim networks.
_VARIABLE = re.compile(
  r'(^|/)(weights|depthwise_weights|biases|gamma|beta|moving_mean'
  r'|moving_variance|global_step|(weights|act)_quant/(min|max))$'
)
_BATCH_NORM = ('/gamma', '/beta', '/moving_mean', '/moving_variance')


def is_frozen_graph(path):
  """Whether a path is that of a frozen graph, by its ending."""
  return path.endswith('.pb')


def read(path):
  """{name: (shape, function that reads the value)} of a frozen graph.

  Args:
    path: a serialised GraphDef.

  Raises:
    InputError: it is not one, or there are no weights in it.
  """
  graph = _parse(path)
  read_names = {
    node.name.removesuffix('/read')
    for node in graph.node
    if node.op == 'Identity' and node.name.endswith('/read')
  }
  variables = {}
  for node in graph.node:
    if node.op == 'Const' and (
      node.name in read_names or _VARIABLE.search(node.name)
    ):
      shape = [side.size for side in node.attr['value'].tensor.tensor_shape.dim]
      variables[node.name] = (tuple(shape), _getter(path, node))
  if not variables:
    raise InputError(
      f'{path}: the graph holds no weights under the names of variables, as a '
      f'{FILE_NAME} does. It has {len(graph.node)} nodes'
      + (f', such as {graph.node[0].name}.' if graph.node else '.')
    )
  return variables


def _parse(path):
  try:
    with tf.io.gfile.GFile(path, 'rb') as file:
      content = file.read()
  except tf.errors.OpError as error:
    raise InputError(
      f'{path}: the graph cannot be read: {error.message}'
    ) from error
  _refuse_saved_model(path, content)
  graph = tf.compat.v1.GraphDef()
  try:
    graph.ParseFromString(content)
  except message.DecodeError as error:
    raise InputError(
      f'{path}: not a frozen graph (a serialised GraphDef), or a damaged one: '
      f'{error}. Received {len(content)} bytes; fetch or export it again.'
    ) from error
  return graph


def _refuse_saved_model(path, content):
  """A saved_model.pb would parse as a GraphDef without nodes, or fail oddly."""
  saved_model = saved_model_pb2.SavedModel()
  try:
    saved_model.ParseFromString(content)
  except message.DecodeError:
    return
  if any(meta.HasField('graph_def') for meta in saved_model.meta_graphs):
    raise InputError(
      f'{path} is a SavedModel, whose weights lie in other files. Give the '
      f'{FILE_NAME} that export_model.py writes beside it, or the checkpoint '
      'it was exported from.'
    )


def _getter(path, node):
  def get():
    try:
      return tf.make_ndarray(node.attr['value'].tensor)
    except (ValueError, TypeError) as error:
      raise InputError(
        f'{path}: constant {node.name} cannot be read, the file is damaged: '
        f'{error}'
      ) from error

  return get


def is_folded(path, missing):
  """Whether batch norm, and nothing else, is missing from a frozen graph.

  Args:
    path: the checkpoint.
    missing: names of the absent variables.
  """
  return (
    is_frozen_graph(path)
    and bool(missing)
    and all(name.endswith(_BATCH_NORM) for name in missing)
  )


def explain_missing(path, missing):
  """What may have happened to variables that a frozen graph lacks.

  Args:
    path: the checkpoint; anything but a frozen graph needs no explanation.
    missing: names of the absent variables.

  Returns:
    A sentence that begins with a space, or ''.
  """
  if not is_frozen_graph(path):
    return ''
  if is_folded(path, missing):
    return (
      ' Its batch norm has been folded into the weights, which cannot be '
      'undone: use the graph before that, or the checkpoint.'
    )
  return (
    ' A graph that was rewritten after freezing (batch norm folded, constants '
    'merged) does not have the weights any more.'
  )

"""The official frozen graph: weights as constants, official node names."""

import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

from deeplab import atomic_files, checkpoints
from deeplab.exporting import network as network_lib
from deeplab.exporting.loaded import Loaded, describe

_OUTPUTS = (network_lib.LABELS, network_lib.PROBABILITIES)
_RAW_OUTPUTS = tuple(network_lib.RAW + name for name in _OUTPUTS)


def serving_function(network):
  """The function that is frozen: official graphs take one image at a time."""
  return network_lib.serving_function(network, _OUTPUTS, batch=1)


def write(network, path):
  """Writes a frozen graph.

  Args:
    network: Network.
    path: of the file.
  """
  graph = freeze(serving_function(network), network.predictor)
  atomic_files.write(path, graph.SerializeToString())


def freeze(serve, predictor):
  """The graph of a serving function with its variables as constants.

  Args:
    serve: what `serving_function` returned.
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
  _keep_ancestors(graph, [*_OUTPUTS, *_RAW_OUTPUTS])
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


def load(path):
  """Loads a frozen graph that `write` wrote; returns a Loaded."""
  with tf.io.gfile.GFile(path, 'rb') as file:
    graph = tf.compat.v1.GraphDef.FromString(file.read())
  wrapped = tf.compat.v1.wrap_function(
    lambda: tf.import_graph_def(graph, name=''), []
  )
  function = wrapped.prune(
    f'{network_lib.INPUT_NAME}:0', {name: f'{name}:0' for name in _OUTPUTS}
  )
  return Loaded(
    lambda image: function(tf.constant(image)),
    {network_lib.INPUT_NAME: describe('uint8', function.inputs[0].shape)},
    {
      name: describe(tensor.dtype.name, tensor.shape)
      for name, tensor in function.structured_outputs.items()
    },
  )

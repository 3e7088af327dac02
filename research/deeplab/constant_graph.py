"""Functions without variables, in the form that TensorFlow runs fastest."""

import gc

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import convert_to_constants

from deeplab import graph_def, linear_projections

_SUMS = ('Add', 'AddV2')


def compile_function(function, *specs, is_shared=False):
  """Traces a function once, with the values of its variables as constants.

  TensorFlow's kernels keep constant weights in the order that they compute in;
  those of variables they reorder at every call.

  Args:
    function: of tensors, that returns nested tensors, without loops.
    *specs: tf.TensorSpec of each argument, with a name.
    is_shared: several calls of it in a graph share its kernels, and what these
      hold. Else a copy takes the place of each call.

  Returns:
    A function of the same arguments, by position, and results: a
    ConcreteFunction. It can be called inside other functions, and saved with
    them.
  """
  graph, inputs, outputs, structure = _trace(function, specs)
  # The trace holds all weights, and references in circles.
  gc.collect()
  _part_activations(graph)

  def run(*arguments):
    tensors = tf.import_graph_def(
      graph,
      dict(zip(inputs, arguments, strict=True)),
      outputs,
      name='',
    )
    return tf.nest.pack_sequence_as(structure, tensors)

  compiled = tf.function(
    run,
    input_signature=specs,
    autograph=False,
    experimental_attributes={'_noinline': True} if is_shared else None,
  )
  return compiled.get_concrete_function()


def _trace(function, specs):
  """See `compile_function`.

  Returns:
    GraphDef; the names of the tensors that are its arguments, and of those that
    are its results; the structure of these.
  """

  def copied(*arguments):
    return tf.nest.map_structure(tf.identity, function(*arguments))

  traced = tf.function(copied, input_signature=specs).get_concrete_function()
  # Of names: tensors would keep the trace.
  structure = tf.nest.map_structure(
    lambda value: value.name, traced.structured_outputs
  )
  if traced.captured_inputs:
    traced = convert_to_constants.convert_variables_to_constants_v2(traced)
  graph = traced.graph.as_graph_def()
  _drop_paddings(graph, traced.graph)
  linear_projections.fold(graph, traced.graph)
  inputs = [tensor.name for tensor in traced.inputs]
  outputs = [tensor.name for tensor in traced.outputs]
  return graph, inputs, outputs, structure


def _drop_paddings(graph, traced):
  """Leaves the zeros before a depthwise convolution to its own padding.

  TensorFlow does so for other convolutions. Where sides are odd, as they should
  be, the padding of a strided convolution is that of the mode SAME.

  Args:
    graph: GraphDef, which is changed.
    traced: the tf.Graph that it describes.
  """
  for node in graph.node:
    if node.op != 'DepthwiseConv2dNative' or node.attr['padding'].s != b'VALID':
      continue
    inputs, kernel = traced.get_operation_by_name(node.name).inputs
    if inputs.op.type != 'Pad' or set(node.attr['dilations'].list.i) > {1}:
      continue
    paddings = tf.get_static_value(inputs.op.inputs[1])
    source = inputs.op.inputs[0]
    if paddings is None or None in source.shape[1:3]:
      continue
    same = [
      _same_padding(*sides)
      for sides in zip(
        source.shape[1:3],
        kernel.shape[:2],
        node.attr['strides'].list.i[1:3],
        strict=True,
      )
    ]
    if paddings.tolist() == [[0, 0], *same, [0, 0]]:
      node.input[0] = source.name.removesuffix(':0')
      node.attr['padding'].s = b'SAME'


def _same_padding(side, kernel_size, stride):
  """[before, after] of the padding SAME."""
  outputs = -(-side // stride)
  total = max((outputs - 1) * stride + kernel_size - side, 0)
  return [total // 2, total - total // 2]


def _part_activations(graph):
  """Keeps TensorFlow from joining a ReLU with a sum that others use too.

  Its remapper joins a convolution, its bias, a sum and a ReLU. It fails, and
  leaves the whole graph as it was, where the ReLU is not alone behind the sum,
  as in Xception. What looks like another operation is left alone.

  Args:
    graph: GraphDef, which is changed.
  """
  users = {node.name: [] for node in graph.node}
  for node in graph.node:
    for source in graph_def.sources(node):
      users[source].append(node)
  for node in list(graph.node):
    if node.op in _SUMS and len(users[node.name]) > 1:
      for user in users[node.name]:
        if user.op == 'Relu':
          _to_maximum(graph, user)


def _to_maximum(graph, node):
  """Makes the same of a ReLU by another operation."""
  zero = np.zeros([], tf.as_dtype(node.attr['T'].type).as_numpy_dtype)
  node.op = 'Maximum'
  # Before inputs that are only waited for.
  node.input.insert(1, graph_def.add_constant(graph, f'{node.name}/zero', zero))

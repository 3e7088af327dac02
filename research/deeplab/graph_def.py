"""Small changes of a tf.compat.v1.GraphDef."""

import tensorflow as tf


def sources(node):
  """Names of the nodes that a NodeDef takes something of, or waits for."""
  return [source.lstrip('^').partition(':')[0] for source in node.input]


def add_constant(graph, name, values):
  """Adds a node with a constant.

  Args:
    graph: GraphDef, which is changed.
    name: of the node, that no other one has.
    values: NumPy array.

  Returns:
    Its name.
  """
  dtype = tf.as_dtype(values.dtype).as_datatype_enum
  node = graph.node.add(name=name, op='Const')
  node.attr['dtype'].type = dtype
  # tf.make_tensor_proto writes bfloat16 one number at a time.
  tensor = node.attr['value'].tensor
  tensor.dtype = dtype
  tensor.tensor_shape.CopyFrom(tf.TensorShape(values.shape).as_proto())
  tensor.tensor_content = values.tobytes()
  return name

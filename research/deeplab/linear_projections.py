"""Linear 1x1 convolutions, multiplied into those that follow.

The last unit of MobileNetV2 ends without an activation (Sandler et al.,
arXiv:1801.04381, section 3.2: linear bottlenecks), and ASPP, or the logits of a
network without it, begins with 1x1 convolutions. The product of two such
matrices can take their place, which has fewer numbers than both together. It
also goes past an average over the image, which is linear, too.
"""

import collections
import typing

import numpy as np
import tensorflow as tf


class _Convolution(typing.NamedTuple):
  """A 1x1 convolution with constants.

  Attributes:
    convolve: tf.Operation, Conv2D.
    add: tf.Operation, BiasAdd.
    kernel: array [inputs, outputs].
    bias: array [outputs].
  """

  convolve: tf.Operation
  add: tf.Operation
  kernel: np.ndarray
  bias: np.ndarray


def multiply_out(graph, traced):
  """Does so wherever it saves multiplications.

  Args:
    graph: GraphDef, which is changed.
    traced: the tf.Graph that it describes.
  """
  nodes = {node.name: node for node in graph.node}
  changed, unused = set(), set()
  for operation in traced.get_operations():
    # The values of one that has changed are not those of `traced`.
    projection = None if operation in changed else _pointwise(operation)
    if projection is None or set(operation.get_attr('strides')) != {1}:
      continue
    followers = _followers(projection.add.outputs[0])
    if not _is_worth_it(projection, followers):
      continue
    for user in projection.add.outputs[0].consumers():
      nodes[user.name].input[0] = nodes[operation.name].input[0]
    for follower, _ in followers:
      _replace_constants(graph, nodes, projection, follower)
      changed.add(follower.convolve)
      unused.update(_constants(follower))
    unused.update([projection.add.name, operation.name])
    unused.update(_constants(projection))
  _remove(graph, unused)


def _pointwise(operation):
  """The _Convolution that an operation begins, or None."""
  if (
    operation.type != 'Conv2D'
    or operation.get_attr('data_format') != b'NHWC'
    or operation.get_attr('padding') == b'EXPLICIT'
  ):
    return None
  users = operation.outputs[0].consumers()
  if [user.type for user in users] != ['BiasAdd']:
    return None
  inputs, kernel = operation.inputs
  kernel, bias = _values(kernel), _values(users[0].inputs[1])
  if (
    kernel is None
    or bias is None
    # Not one of groups, either.
    or kernel.shape[:3] != (1, 1, inputs.shape[-1])
  ):
    return None
  return _Convolution(operation, users[0], kernel[0, 0], bias)


def _values(tensor):
  """Those of a constant, also of one by slim.folding; None of others."""
  if tensor.op.type != 'Bitcast':
    return tf.get_static_value(tensor)
  stored = tf.get_static_value(tensor.op.inputs[0])
  return None if stored is None else stored.view(tensor.dtype.as_numpy_dtype)


def _followers(features, is_averaged=False):
  """What uses features, if nothing but 1x1 convolutions does.

  Args:
    features: tensor [batch, height, width, channels].
    is_averaged: whether they are averages of the projection.

  Returns:
    List of (_Convolution, whether it is one of averages), or None if anything
    else uses them.
  """
  found = []
  for user in features.consumers():
    if _is_average(user) or user.type == 'Cast':
      more = _followers(user.outputs[0], is_averaged or user.type != 'Cast')
    else:
      follower = _pointwise(user)
      more = None if follower is None else [(follower, is_averaged)]
    if more is None:
      return None
    found += more
  return found


def _is_average(operation):
  """Whether it is one over places, of each channel by itself."""
  if operation.type == 'AvgPool':
    return operation.get_attr('data_format') == b'NHWC'
  if operation.type != 'Mean' or not operation.get_attr('keep_dims'):
    return False
  axes = _values(operation.inputs[1])
  return axes is not None and {*np.ravel(axes) % 4} <= {1, 2}


def _is_worth_it(projection, followers):
  """Whether products are cheaper than the projection and all that follow."""
  if not followers:
    return False
  # Those of averages cost nothing.
  outputs = sum(
    follower.kernel.shape[1]
    for follower, is_averaged in followers
    if not is_averaged
  )
  inputs, middle = projection.kernel.shape
  return inputs * outputs < inputs * middle + middle * outputs


def _replace_constants(graph, nodes, first, second):
  """Gives the second of two convolutions the constants of both.

  The product is made in float64, so that it alone is rounded.
  """
  matrix = second.kernel.astype(np.float64)
  kernel = first.kernel.astype(np.float64) @ matrix
  bias = first.bias.astype(np.float64) @ matrix + second.bias
  for operation, values in (
    (second.convolve, kernel[np.newaxis, np.newaxis]),
    (second.add, bias),
  ):
    dtype = operation.inputs[1].dtype
    values = values.astype(dtype.as_numpy_dtype)
    node = graph.node.add(name=f'{operation.name}/product', op='Const')
    node.attr['dtype'].type = dtype.as_datatype_enum
    # tf.make_tensor_proto writes bfloat16 one number at a time.
    tensor = node.attr['value'].tensor
    tensor.dtype = dtype.as_datatype_enum
    tensor.tensor_shape.CopyFrom(tf.TensorShape(values.shape).as_proto())
    tensor.tensor_content = values.tobytes()
    nodes[operation.name].input[1] = node.name


def _constants(convolution):
  """Names of the operations that make its kernel and bias."""
  for operation in convolution.convolve, convolution.add:
    constant = operation.inputs[1].op
    yield constant.name
    yield from (source.op.name for source in constant.inputs)


def _remove(graph, names):
  """Removes those of some nodes that no others use."""
  uses = collections.Counter(
    source for node in graph.node for source in _sources(node)
  )
  # Users come after what they use.
  for place in reversed(range(len(graph.node))):
    node = graph.node[place]
    if node.name in names and not uses[node.name]:
      uses.subtract(_sources(node))
      del graph.node[place]


def _sources(node):
  """Names of the nodes that it uses."""
  return [source.lstrip('^').partition(':')[0] for source in node.input]

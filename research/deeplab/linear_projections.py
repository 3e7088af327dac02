"""Linear 1x1 convolutions, folded into the 1x1 convolutions that follow.

The last unit of MobileNetV2 ends without an activation (Sandler et al.,
arXiv:1801.04381, section 3.2: linear bottlenecks), and ASPP, or the logits of a
network without it, begins with 1x1 convolutions. In place of the two matrices
their product is enough, for fewer multiplications. An average over places, as
of image pooling, may lie between: it is linear, too.
"""

import collections
import typing

import numpy as np
import tensorflow as tf

from deeplab import graph_def
from deeplab.slim import folding


class _Convolution(typing.NamedTuple):
  """A 1x1 convolution with constant kernel and bias, in two tf.Operations."""

  conv: tf.Operation
  bias_add: tf.Operation

  @property
  def inputs(self):
    """[batch, height, width, channels]."""
    return self.conv.inputs[0]

  @property
  def outputs(self):
    """[batch, height', width', channels']."""
    return self.bias_add.outputs[0]

  @property
  def kernel(self):
    """[1, 1, channels, channels']."""
    return self.conv.inputs[1]

  @property
  def bias(self):
    """[channels']."""
    return self.bias_add.inputs[1]


def fold(graph, traced):
  """Replaces projections and what follows by products, where these cost less.

  Of three in a row the first two are folded.

  Args:
    graph: GraphDef, which is changed.
    traced: the tf.Graph that it describes.
  """
  nodes = {node.name: node for node in graph.node}
  changed, unused = set(), set()
  for operation in traced.get_operations():
    # `traced` does not have the constants of what has changed.
    projection = None if operation in changed else _projection(operation)
    followers = _followers(projection.outputs) if projection else None
    if not followers or not _saves_work(projection, followers):
      continue
    for user in projection.outputs.consumers():
      nodes[user.name].input[0] = nodes[operation.name].input[0]
    unused.add(projection.bias_add.name)
    for follower in followers:
      changed.add(follower.conv)
      unused |= {follower.kernel.op.name, follower.bias.op.name}
      kernel, bias = _product(projection, follower)
      for op, values in (follower.conv, kernel), (follower.bias_add, bias):
        name = graph_def.add_constant(graph, f'{op.name}/product', values)
        nodes[op.name].input[1] = name
  _remove(graph, unused)


def _projection(operation):
  """The _Convolution of stride 1 that begins here, or None."""
  projection = _pointwise(operation)
  if projection is None or set(operation.get_attr('strides')) != {1}:
    return None
  # What takes its place would not wait.
  parts = *projection, projection.kernel.op, projection.bias.op
  return None if any(op.control_inputs for op in parts) else projection


def _pointwise(operation):
  """The _Convolution that begins here, or None."""
  if operation.type != 'Conv2D' or operation.get_attr('padding') == b'EXPLICIT':
    return None
  users = operation.outputs[0].consumers()
  if [user.type for user in users] != ['BiasAdd']:
    return None
  found = _Convolution(operation, users[0])
  fits = (
    # With fewer channels it would be one of groups.
    found.kernel.shape[:3] == (1, 1, found.inputs.shape[-1])
    and all(map(folding.is_constant, (found.kernel, found.bias)))
    and all(op.get_attr('data_format') == b'NHWC' for op in found)
  )
  return found if fits else None


def _followers(features, dtype=None):
  """The 1x1 convolutions of features, or of averages of them.

  Args:
    features: floating point [batch, height, width, channels].
    dtype: of the convolutions; None for that of the features.

  Returns:
    List of _Convolution, or None if anything else uses the features.
  """
  dtype = dtype or features.dtype
  found = []
  for user in features.consumers():
    if _passes_on(user):
      more = _followers(user.outputs[0], dtype)
    else:
      follower = _pointwise(user)
      more = [follower] if follower and features.dtype == dtype else None
    if more is None:
      return None
    found += more
  return found


def _passes_on(operation):
  """Whether it may as well come before a 1x1 convolution as after it."""
  if operation.type == 'Cast':
    return operation.outputs[0].dtype.is_floating
  if operation.type == 'AvgPool':
    return operation.get_attr('data_format') == b'NHWC'
  if operation.type != 'Mean' or not operation.get_attr('keep_dims'):
    return False
  axes = tf.get_static_value(operation.inputs[1])
  return axes is not None and {*np.ravel(axes) % 4} <= {1, 2}


def _saves_work(projection, followers):
  """Whether products need fewer multiplications for each place."""
  inputs, middle = projection.kernel.shape[2:]
  outputs = sum(
    follower.kernel.shape[3]
    for follower in followers
    # One place, of image pooling, costs nothing.
    if follower.inputs.shape[1:3] != (1, 1)
  )
  return inputs * outputs < inputs * middle + middle * outputs


def _product(projection, follower):
  """Kernel [1, 1, channels, channels'] and bias [channels'] of both as one.

  They are made in float64, so that they alone are rounded.
  """
  first, first_bias, second, second_bias = (
    folding.constant_values(tensor).astype(np.float64)
    for convolution in (projection, follower)
    for tensor in (convolution.kernel, convolution.bias)
  )
  products = first @ second[0, 0], first_bias @ second[0, 0] + second_bias
  dtype = follower.kernel.dtype.as_numpy_dtype
  return [values.astype(dtype) for values in products]


def _remove(graph, names):
  """Removes those of some nodes that no others use, and what they used."""
  uses = collections.Counter(
    source for node in graph.node for source in graph_def.sources(node)
  )
  # Users come after what they use.
  for place in reversed(range(len(graph.node))):
    node = graph.node[place]
    if node.name in names and not uses[node.name]:
      uses.subtract(graph_def.sources(node))
      names = names.union(graph_def.sources(node))
      del graph.node[place]

"""Training with less memory: parts of the network are computed twice.

For gradients a step keeps what every layer computes. Here it keeps only what
goes from one part of the network to the next, and computes the inside of a
part again when its gradients are due. Two ways to divide it:

* `activations`: a convolution with what is cheap before it, batch norm and
  ReLU for example. The outputs of convolutions are kept, their inputs are not.
* `blocks`: a unit of the network. All of it but the last unit runs twice.

Sources: Chen et al., Training Deep Nets with Sublinear Memory Cost,
arXiv:1604.06174 (blocks, section 3; cheap operations, section 4.1).
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

from deeplab import graph
from deeplab.slim import devices, keras_layers, quantization, scopes

# What the names of the layers of a unit begin with: a residual unit of ResNet
# or Xception, one of a MobileNet, a cell of a searched network, the
# convolutions between two poolings of VGG, a branch of its head.
_UNITS = (
  r'.*?\.unit_\d+',
  r'.*?\.expanded_conv(_\d+)?',
  r'.*?\.cell_\d+',
  r'vgg_16\.conv\d',
)
_UNIT = re.compile(f'({"|".join(_UNITS)})(?=\\.)')
_VGG_BRANCH = re.compile(r'vgg_16\.(?:fc|dropout)[67](_\d+)?(?=\.|$)')
_ASPP = re.compile(r'(image_pooling|aspp\d|concat_projection)')

_CONVOLUTIONS = (
  keras_layers.Conv2D,
  keras_layers.SeparableConv2D,
  quantization.QuantizedConvolution,
)
# Of pooling, the gradient of this one needs its input.
_MAX_POOL = 'MaxPool'
# What these read is larger than what they make.
_POOLING = (_MAX_POOL, 'AveragePool', 'Mean')


class _Segment(NamedTuple):
  """Nodes that run together.

  Attributes:
    nodes: Keras nodes in order.
    inputs: Keras tensors of other segments, or of the model, that they take.
    outputs: Keras tensors that other segments take, or that the model returns.
    is_run_twice: whether its inside is computed again for the gradients.
  """

  nodes: Sequence[Any]
  inputs: Sequence[Any]
  outputs: Sequence[Any]
  is_run_twice: bool


def call(model, images, split, is_xla=False):
  """What `model(images)` returns, by segments that are computed again.

  Moving statistics are gathered once, and what is dropped is dropped again.
  Losses for weight decay are in `model.losses`, as ever.

  Args:
    model: a keras.Model of `deeplab.model.build_model`.
    images: float32 [batch, height, width, 3].
    split: `activations` or `blocks`.
    is_xla: whether XLA compiles the step. It would find that parts are the same
      and compute them once, were that not hidden from it.

  Returns:
    The nested outputs of the model.

  Raises:
    ValueError: no `slim.train_step_context` is open, without which the second
      computation would drop other values than the first.
  """
  if scopes.current_train_step() is None:
    raise ValueError(
      'rematerialization.call draws what is dropped twice, and needs a seed: '
      'call it inside slim.train_step_context(step, seed).'
    )
  tensors = {id(model.inputs[0]): tf.convert_to_tensor(images)}
  for segment in split(model):
    if segment.is_run_twice:
      _run_twice(segment, tensors, is_xla)
    else:
      _run(segment.nodes, tensors)
  return keras.tree.map_structure(
    lambda tensor: tensors[id(tensor)], model.output
  )


# Running.


def _run(nodes, tensors):
  """Runs nodes; {id of a Keras tensor: value} takes in what they return."""
  for node in nodes:
    args, kwargs = node.arguments.fill_in(tensors)
    values = keras.tree.flatten(node.operation(*args, **kwargs))
    for output, value in zip(node.outputs, values, strict=True):
      tensors[id(output)] = value


def _run_twice(segment, tensors, is_xla):
  """Runs a segment now, and again for its gradients.

  TensorFlow sees a function of tensors alone: variables are read before it,
  and the values that layers assign to them are taken out of it.
  """
  variables = _variables(segment.nodes)
  weights = [v for v in variables if v.trainable]
  # The second run must see what the first one saw, not what it made of it.
  state = [
    (v, tf.convert_to_tensor(v.value)) for v in variables if not v.trainable
  ]
  inputs = {id(x): tensors[id(x)] for x in segment.inputs}
  smooth = [key for key, x in inputs.items() if x.dtype.is_floating]
  train_step = scopes.current_train_step()
  before = dict(train_step.draws)
  first = {}

  def run(*values):
    inner = {**inputs, **dict(zip(smooth, values, strict=False))}
    mapping = list(zip(weights, values[len(smooth) :], strict=True))
    resumed = dataclasses.replace(train_step, draws=dict(before))
    with (
      keras.StatelessScope(state_mapping=[*mapping, *state]) as scope,
      scopes.resumed_train_step(resumed),
    ):
      _run(segment.nodes, inner)
      assigned = [(v, scope.get_current_value(v)) for v, _ in state]
    outputs = {id(x): inner[id(x)] for x in segment.outputs}
    if not first:
      first.update(outputs=outputs, assigned=assigned, draws=resumed.draws)
    return [x for x in outputs.values() if x.dtype.is_floating]

  # tf.recompute_grad adds a zero to all that comes in. What is more, it returns
  # gradients by one operation of several results, and oneDNN takes two results
  # of one operation for the same: it joins the gradient of a bias with that of
  # the kernel of another convolution.
  @tf.custom_gradient
  def run_twice(*values):
    def gradient(*gradients):
      late = _late(values, gradients, is_xla)
      with tf.GradientTape() as tape:
        tape.watch(late)
        outputs = run(*late)
      return tape.gradient(outputs, late, gradients)

    return run(*values), gradient

  values = run_twice(
    *(inputs[key] for key in smooth),
    *(tf.convert_to_tensor(v.value) for v in weights),
  )
  train_step.draws.update(first['draws'])
  for (variable, old), (_, new) in zip(state, first['assigned'], strict=True):
    if new is not old:
      variable.assign(new)
  # Of those that gradients flow through, what TensorFlow returns.
  returned = iter(values)
  for key, output in first['outputs'].items():
    tensors[key] = next(returned) if output.dtype.is_floating else output


def _late(values, gradients, is_xla):
  """Tensors that are there once the gradients are."""
  if is_xla:
    # Of control dependencies XLA knows nothing.
    late = xla.optimization_barrier(*values, *gradients)
    return late[: len(values)]
  with tf.control_dependencies(gradients):
    return [tf.identity(value) for value in values]


def _variables(nodes):
  """The variables of the layers that nodes call, each once."""
  found = {}
  for node in nodes:
    if isinstance(node.operation, keras.layers.Layer):
      found.update((id(v), v) for v in node.operation.variables)
  return list(found.values())


# Segments.


def activations(model):
  """Segments of a convolution, or a max pooling, and what is cheap before it.

  An operation is in the segment of those that take its output if that is one
  segment. Its output is not kept then.

  Args:
    model: a keras.Model of `deeplab.model.build_model`.

  Returns:
    A list of segments, in an order in which they can run.
  """
  nodes = [x for x in graph.nodes_in_order(model.outputs) if not x.is_input]
  takers = {id(x): {None} for x in model.outputs}
  for node in nodes:
    for x in node.input_tensors:
      takers.setdefault(id(x), set()).add(id(node))
  # Of each node the last one of its segment.
  ends = {}
  for node in reversed(nodes):
    following = {
      ends.get(taker) for x in node.outputs for taker in takers[id(x)]
    }
    joins = len(following) == 1 and None not in following
    if joins and not _is_costly(node):
      (ends[id(node)],) = following
    else:
      ends[id(node)] = id(node)
  groups = {end: [] for node in nodes if (end := id(node)) == ends[end]}
  for node in nodes:
    groups[ends[id(node)]].append(node)
  return _segments(
    [*groups.values()],
    model.outputs,
    # Of a single operation the input would be kept in place of the output.
    lambda group: len(group) > 2 and _needs_inputs(group[-1]),
  )


def blocks(model):
  """Segments with the layers of one unit each, told by their names.

  An operation between two units belongs to that which leaves the fewer bytes to
  keep. The gradients of the last segment are due at once: it runs once.

  Args:
    model: a keras.Model of `deeplab.model.build_model`.

  Returns:
    A list of segments, in the order in which they run.
  """
  nodes = graph.nodes_in_order(model.outputs)
  groups = _Splitter(nodes, model.outputs).groups()
  return _segments(groups, model.outputs, lambda group: group is not groups[-1])


# How `call` may divide a model, by name; None: not at all.
SPLITS = {'nothing': None, 'activations': activations, 'blocks': blocks}


def default_split():
  """The name of what is best on these devices.

  On processors convolutions take nearly all of the time, and activations cost
  none. On accelerators batch norm has a share of the step that is to be felt.
  """
  return 'activations' if devices.are_processors() else 'nothing'


def _segments(groups, results, is_run_twice):
  """Segments of groups of nodes.

  Args:
    groups: lists of nodes, in the order in which they run.
    results: Keras tensors that are wanted in the end.
    is_run_twice: function of a group.

  Returns:
    A list of segments.
  """
  segments = []
  for i, group in enumerate(groups):
    made = {id(x) for node in group for x in node.outputs}
    taken = itertools.chain(*(node.input_tensors for node in group))
    inputs = {id(x): x for x in taken if id(x) not in made}
    later = itertools.chain(*groups[i + 1 :])
    taken = itertools.chain(results, *(node.input_tensors for node in later))
    outputs = {id(x): x for x in taken if id(x) in made}
    segments.append(
      _Segment(
        group, [*inputs.values()], [*outputs.values()], is_run_twice(group)
      )
    )
  return segments


def _is_costly(node):
  return isinstance(node.operation, _CONVOLUTIONS) or _kind(node) in _POOLING


def _needs_inputs(node):
  """Whether gradients need what a costly operation took."""
  return isinstance(node.operation, _CONVOLUTIONS) or _kind(node) == _MAX_POOL


def _kind(node):
  # Those of keras.ops have no public classes.
  return type(node.operation).__name__


class _Splitter:
  """Divides the nodes of a graph into groups that run one after the other."""

  def __init__(self, nodes, results):
    """Looks at the graph.

    Args:
      nodes: Keras nodes, each after those it depends on.
      results: Keras tensors that are wanted in the end.
    """
    self._place = {id(node): i for i, node in enumerate(nodes)}
    self._nodes = [node for node in nodes if not node.is_input]
    self._done = {id(node) for node in nodes if node.is_input}
    self._wanted = {id(x) for x in results}
    self._takers = {}
    for node in self._nodes:
      for x in node.input_tensors:
        self._takers.setdefault(id(x), []).append(id(node))

  def groups(self):
    """Lists of nodes, one for each unit, and for operations around it."""
    groups, last_unit = [[]], None
    for node in self._layers():
      unit = _unit(node)
      if last_unit not in (None, unit):
        groups[-1] += self._finish()
        groups.append([])
      groups[-1] += self._take(self._missing(node))
      last_unit = unit
    rest = [node for node in self._nodes if id(node) not in self._done]
    groups[-1] += self._take(rest)
    return groups

  def _layers(self):
    """Layers in the order in which they were made, wherever possible.

    Depth first, a cell of a searched network would begin before the one whose
    output is its second input.
    """
    layers = [node for node in self._nodes if _is_named(node)]
    before = {id(node): set() for node in self._nodes}
    for node in self._nodes:
      for source in map(graph.node_of, node.input_tensors):
        if _is_named(source):
          before[id(node)].add(id(source))
        else:
          before[id(node)] |= before.get(id(source), set())
    order, done = [], set()
    layers.sort(key=lambda x: (_call_number(x), x.operation.creation_index))
    while layers:
      node = next(x for x in layers if before[id(x)] <= done)
      layers.remove(node)
      order.append(node)
      done.add(id(node))
    return order

  def _missing(self, node, with_layers=True):
    """What a node waits for, and the node; None if it waits for layers."""
    found, stack = {}, [node]
    while stack:
      node = stack.pop()
      if id(node) in self._done or id(node) in found:
        continue
      if _is_named(node) and not with_layers:
        return None
      found[id(node)] = node
      stack += map(graph.node_of, node.input_tensors)
    return sorted(found.values(), key=lambda x: self._place[id(x)])

  def _take(self, nodes):
    self._done.update(map(id, nodes))
    return nodes

  def _finish(self):
    """Operations that had better run before the next unit than in it."""
    taken = []
    while True:
      best, kept = [], self._kept_bytes([])
      for node in self._nodes:
        if id(node) in self._done:
          continue
        nodes = self._missing(node, with_layers=False)
        # Of equals the most.
        if nodes and (self._kept_bytes(nodes), -len(nodes)) < (
          kept,
          -len(best),
        ):
          best, kept = nodes, self._kept_bytes(nodes)
      if not best:
        return taken
      taken += self._take(best)

  def _kept_bytes(self, more):
    """Of what is done, and more, and is needed by what is not."""
    done = self._done.union(map(id, more))
    total = 0
    for node in self._nodes:
      if id(node) in done:
        total += sum(
          _bytes(x)
          for x in node.outputs
          if id(x) in self._wanted
          or any(taker not in done for taker in self._takers[id(x)])
        )
    return total


def _bytes(tensor):
  """Of one image; sides that are not known count as one."""
  sides = [side or 1 for side in tensor.shape[1:]]
  return math.prod(sides) * tf.as_dtype(tensor.dtype).size


def _call_number(node):
  """Which call of its operation a node is: scales share their layers."""
  calls = node.operation._inbound_nodes
  return next(i for i, other in enumerate(calls) if other is node)


def _is_named(node):
  """Whether a node calls a layer that has the name of a scope."""
  return hasattr(node.operation, 'creation_index')


def _unit(node):
  """The unit of a named node, told apart by scales."""
  name = node.operation.name
  if match := _UNIT.match(name):
    unit = match.group()
  elif match := _VGG_BRANCH.match(name):
    unit = f'vgg_16.fc{match.group(1) or ""}'
  elif _ASPP.match(name):
    unit = 'aspp'
  else:
    unit = name.partition('.')[0]
  return unit, _call_number(node)

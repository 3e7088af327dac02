"""Training with less memory: parts of the network are computed twice.

For gradients a step keeps what every layer computes. Here it keeps only what
goes from one part of the network to the next, and computes the inside of a
part again when its gradients are due. Ways to divide it:

* activations: a convolution with what is cheap before it, batch norm and ReLU
  for example. The outputs of convolutions are kept, their inputs are not.
* free_activations: only where the convolution takes far longer than that.
* blocks: a unit of the network. All units but the last one run twice.

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

from deeplab import graph
from deeplab.slim import devices, keras_layers, order, quantization, scopes

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
# As `graph.kind` calls them. The gradient of the first alone needs its input.
_MAX_POOL = 'MaxPool'
_POOLING = (_MAX_POOL, 'AveragePool', 'Mean')

NOTHING = 'nothing'
FREE_ACTIVATIONS = 'free_activations'
ACTIVATIONS = 'activations'
BLOCKS = 'blocks'
WAYS = (NOTHING, FREE_ACTIVATIONS, ACTIVATIONS, BLOCKS)

# Multiply-adds of a convolution for each value that is computed again. Those of
# ResNet have more, the depthwise ones and most others of a MobileNet fewer.
_FREE_WORK = 64


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


def default_way(is_xla):
  """The one of `WAYS` for those who ask for none.

  On processors FREE_ACTIVATIONS save memory and cost no time, see
  docs/performance.md. On accelerators batch norm has a larger share of it, and
  XLA plans memory itself; neither is measured.
  """
  is_free = devices.are_processors() and not is_xla
  return FREE_ACTIVATIONS if is_free else NOTHING


def call(model, images, way, is_xla=False):
  """What `model(images)` returns, by segments that are computed again.

  Moving statistics are gathered once, and what is dropped is dropped again.
  Losses for weight decay are in `model.losses`, as ever.

  Args:
    model: a keras.Model of `deeplab.model.build_model`.
    images: float32 [batch, height, width, 3].
    way: one of `WAYS`.
    is_xla: whether XLA compiles the step. It would find that parts are the same
      and compute them once, were that not hidden from it.

  Returns:
    The nested outputs of the model.

  Raises:
    ValueError: no `slim.train_step_context` is open, without which the second
      computation would drop other values than the first.
  """
  if way == NOTHING:
    return model(images)
  if scopes.current_train_step() is None:
    raise ValueError(
      'rematerialization.call draws what is dropped twice, and needs a seed: '
      'call it inside slim.train_step_context(step, seed).'
    )
  tensors = {id(model.inputs[0]): tf.convert_to_tensor(images)}
  for segment in split(model, way):
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

  results = _computed_again(
    run,
    is_xla,
    *(inputs[key] for key in smooth),
    *(tf.convert_to_tensor(v.value) for v in weights),
  )
  train_step.draws.update(first['draws'])
  for (variable, old), (_, new) in zip(state, first['assigned'], strict=True):
    if new is not old:
      variable.assign(new)
  # Of those that gradients flow through, what TensorFlow returns.
  returned = iter(results)
  for key, output in first['outputs'].items():
    tensors[key] = next(returned) if output.dtype.is_floating else output


def _computed_again(run, is_xla, *values):
  """What run(*values) returns; it runs again when its gradients are due.

  Each gradient is the result of an operation of its own. Of one operation that
  gives several, as tf.recompute_grad makes it, oneDNN takes them for the same:
  it joins the gradient of a bias with that of another convolution's kernel.

  Args:
    run: function of floating point tensors that returns a list of them.
    is_xla: see `call`.
    *values: its arguments.

  Returns:
    A list of tensors.
  """

  @tf.custom_gradient
  def run_twice(*values):
    def gradient(*gradients):
      if is_xla:
        late = order.after_in_xla(values, *gradients)
      else:
        late = [order.after(value, *gradients) for value in values]
      with tf.GradientTape() as tape:
        tape.watch(late)
        results = run(*late)
      return tape.gradient(results, late, gradients)

    return run(*values), gradient

  return run_twice(*values)


def _variables(nodes):
  """The variables of the layers that nodes call, each once."""
  found = {}
  for node in nodes:
    if isinstance(node.operation, keras.layers.Layer):
      found.update((id(v), v) for v in node.operation.variables)
  return list(found.values())


# Segments.


def split(model, way):
  """The segments of a functional model.

  By activations a segment is a convolution, or a max pooling, with the cheap
  operations that nothing else needs. By blocks it has the layers of one unit,
  told by their names; an operation between two units belongs to that which
  leaves the fewer bytes to keep.

  Args:
    model: a keras.Model of `deeplab.model.build_model`.
    way: one of `WAYS`, not NOTHING.

  Returns:
    A list of segments, in an order in which they can run, with `nodes`,
    `inputs`, `outputs` and `is_run_twice`.
  """
  nodes = graph.nodes_in_order(model.outputs)
  if way == BLOCKS:
    groups = _Splitter(nodes, model.outputs).groups()
    # The gradients of the last one are due at once.
    is_run_twice = [group is not groups[-1] for group in groups]
  else:
    nodes = [node for node in nodes if not node.is_input]
    groups = _cheap_before_costly(nodes, model.outputs)
    is_free = way == FREE_ACTIVATIONS
    is_run_twice = [_saves_memory(group, is_free) for group in groups]
  takers = _takers(itertools.chain(*groups), model.outputs)
  return [
    _segment(group, takers, twice)
    for group, twice in zip(groups, is_run_twice, strict=True)
  ]


def _takers(nodes, results):
  """{id of a Keras tensor: ids of its takers, None for those of results}."""
  takers = {id(x): {None} for x in results}
  for node in nodes:
    for x in node.input_tensors:
      takers.setdefault(id(x), set()).add(id(node))
  return takers


def _segment(nodes, takers, is_run_twice):
  own = {id(node) for node in nodes}
  outputs = [x for node in nodes for x in node.outputs]
  made = {id(x) for x in outputs}
  taken = {id(x): x for node in nodes for x in node.input_tensors}
  return _Segment(
    nodes,
    [x for key, x in taken.items() if key not in made],
    [x for x in outputs if takers.get(id(x), set()) - own],
    is_run_twice,
  )


def _cheap_before_costly(nodes, results):
  """Groups of nodes: one that others need, and what it alone needs.

  Args:
    nodes: Keras nodes, each after those it depends on.
    results: Keras tensors that are wanted in the end.

  Returns:
    Lists of nodes. What is costly is the last of its list.
  """
  takers = _takers(nodes, results)
  # Of each node the last one of its group.
  ends = {}
  for node in reversed(nodes):
    following = {
      ends.get(taker)
      for x in node.outputs
      for taker in takers.get(id(x), [None])
    }
    joins = len(following) == 1 and None not in following
    if joins and not _is_costly(node):
      (ends[id(node)],) = following
    else:
      ends[id(node)] = id(node)
  groups = {end: [] for node in nodes if (end := id(node)) == ends[end]}
  for node in nodes:
    groups[ends[id(node)]].append(node)
  return list(groups.values())


def _is_costly(node):
  is_convolution = isinstance(node.operation, _CONVOLUTIONS)
  return is_convolution or graph.kind(node) in _POOLING


def _saves_memory(group, is_free):
  """Whether to compute a group of nodes again, but for the last one.

  Args:
    group: one of `_cheap_before_costly`.
    is_free: only if that takes no time to speak of.

  Returns:
    A bool.
  """
  *cheap, last = group
  # A rule of thumb: of a single operation the input is kept, not the output.
  if len(cheap) < 2 or not _needs_inputs(last):
    return False
  if not is_free or graph.kind(last) == _MAX_POOL:
    return True
  return _work(last) >= _FREE_WORK


def _work(node):
  """Multiply-adds of a convolution for each value that it takes."""
  operation = node.operation
  is_depthwise = isinstance(operation, keras_layers.SeparableConv2D)
  kernel = operation.depthwise_kernel if is_depthwise else operation.kernel
  channels = node.input_tensors[0].shape[-1]
  return math.prod(kernel.shape) / (channels * operation.stride**2)


def _needs_inputs(node):
  """Whether gradients need what a costly operation took, and no more of it."""
  operation = node.operation
  if isinstance(operation, quantization.QuantizedConvolution):
    return False  # What it has convolved, to fold batch norm.
  if isinstance(operation, keras_layers.SeparableConv2D):
    return operation.filters is None  # Else what comes between its two steps.
  return (
    isinstance(operation, keras_layers.Conv2D) or graph.kind(node) == _MAX_POOL
  )


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
    self._takers = _takers(self._nodes, results)

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
          if self._takers.get(id(x), set()) - done
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

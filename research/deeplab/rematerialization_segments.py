"""The parts of a network that rematerialization computes again.

See `rematerialization`, which runs them.
"""

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from deeplab import graph
from deeplab.slim import keras_layers, quantization

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
_SUM = 'Add'

# Multiply-adds of a convolution for each value that is computed again. Those of
# ResNet have more, the depthwise ones and most others of a MobileNet fewer.
_FREE_WORK = 64


class Segment(NamedTuple):
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


def by_activations(model, is_free):
  """A convolution, or a max pooling, with the cheap operations before it.

  These are what nothing else needs, and of every other residual unit the sum.

  Args:
    model: a functional keras.Model.
    is_free: compute again only what takes no time to speak of.

  Returns:
    A list of Segment, in an order in which they can run.
  """
  nodes = [x for x in graph.nodes_in_order(model.outputs) if not x.is_input]
  takers = _takers(nodes, model.outputs)
  groups = _with_sums(_cheap_before_costly(nodes, takers), takers, is_free)
  return [
    _segment(group, takers, _saves_memory(group, is_free)) for group in groups
  ]


def by_blocks(model):
  """The layers of one unit, told by their names.

  An operation between two units belongs to that which leaves the fewer bytes to
  keep.

  Args:
    model: a functional keras.Model.

  Returns:
    A list of Segment, in an order in which they can run.
  """
  nodes = graph.nodes_in_order(model.outputs)
  groups = _Splitter(nodes, model.outputs).groups()
  takers = _takers(nodes, model.outputs)
  # The gradients of the last one are due at once.
  return [_segment(group, takers, group is not groups[-1]) for group in groups]


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
  return Segment(
    nodes,
    [x for key, x in taken.items() if key not in made],
    [x for x in outputs if takers.get(id(x), set()) - own],
    is_run_twice,
  )


def _cheap_before_costly(nodes, takers):
  """Groups of nodes: one that others need, and what it alone needs.

  Args:
    nodes: Keras nodes, each after those it depends on.
    takers: of `_takers`.

  Returns:
    Lists of nodes. What is costly is the last of its list.
  """
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


def _with_sums(groups, takers, is_free):
  """Joins every other sum of residual units with the convolutions of it.

  Apart from them the next sum takes it, whose gradient does not need it. Of two
  sums in a row one has to be kept, for the other to be computed again.

  Args:
    groups: of `_cheap_before_costly`.
    takers: of `_takers`.
    is_free: see `_saves_memory`.

  Returns:
    Lists of nodes, in an order in which they can run.
  """
  group_of = {id(node): group for group in groups for node in group}
  nodes = {id(node): node for group in groups for node in group}
  place = {key: i for i, key in enumerate(nodes)}
  found, joined, kept = [], set(), set()
  for group in groups:
    if id(group) in joined:
      continue
    found.append(group)
    output = group[-1].outputs[0]
    users = takers.get(id(output), {None})
    is_cheap = not _is_costly(group[-1]) and None not in users
    # A rule of thumb, as in `_saves_memory`.
    if id(group) in kept or not is_cheap or len(group) < 2:
      continue
    convolutions, sums, has_others = {}, set(), False
    for user in sorted(users, key=place.get):
      follower = group_of[user]
      if _takes_alone(follower, output) and _is_worth_it(follower[-1], is_free):
        convolutions[id(follower)] = follower
      elif graph.kind(nodes[user]) == _SUM:
        sums.add(id(follower))
      else:
        has_others = True
    if convolutions and not has_others:
      found[-1] = [*group, *itertools.chain(*convolutions.values())]
      joined |= convolutions.keys()
      kept |= sums
  return found


def _takes_alone(group, tensor):
  """Whether nodes take nothing but a tensor, and what they make of it."""
  made = {id(x) for node in group for x in node.outputs}
  taken = {id(x) for node in group for x in node.input_tensors}
  return taken - made == {id(tensor)}


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
  return len(cheap) >= 2 and _is_worth_it(last, is_free)


def _is_worth_it(costly, is_free):
  """Whether to compute again what an operation takes; see `_saves_memory`."""
  return _needs_inputs(costly) and (
    not is_free
    or graph.kind(costly) == _MAX_POOL
    or _work(costly) >= _FREE_WORK
  )


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

"""The graph of a functional keras.Model."""


def node_of(tensor):
  """The call of an operation that made a Keras tensor."""
  # Keras has no public way from a tensor to what made it.
  history = tensor._keras_history
  return history.operation._inbound_nodes[history.node_index]


def kind(node):
  """Name of the class of a node's operation; those of keras.ops are private."""
  return type(node.operation).__name__


def nodes_in_order(tensors):
  """Every node that tensors depend on, after those it depends on itself.

  Depth first, first input first: the order in which the network functions
  made them. (Keras' own order, by depth, runs all scales at once.)

  Args:
    tensors: a list of Keras tensors.

  Returns:
    A list of Keras nodes.
  """
  order, stack = {}, [node_of(tensor) for tensor in tensors[::-1]]
  while stack:
    node = stack[-1]
    waiting = [
      source
      for source in map(node_of, node.input_tensors)
      if id(source) not in order
    ]
    if waiting:
      stack.append(waiting[0])
    else:
      order[id(stack.pop())] = node
  return list(order.values())

"""Training with less memory: parts of the network are computed twice.

For gradients a step keeps what every layer computes. Here it keeps only what
goes from one part of the network to the next, and computes the inside of a
part again when its gradients are due. Ways to divide it:

* activations: a convolution with what is cheap before it, batch norm and ReLU
  for example. The outputs of convolutions are kept, their inputs are not, but
  for every other sum of residual units.
* free_activations: only where the convolution takes far longer than that.
* blocks: a unit of the network. All units but the last one run twice.

Sources: Chen et al., Training Deep Nets with Sublinear Memory Cost,
arXiv:1604.06174 (blocks, section 3; cheap operations, section 4.1).
"""

import dataclasses

import keras
import tensorflow as tf

from deeplab import rematerialization_segments
from deeplab.slim import devices, order, scopes

NOTHING = 'nothing'
FREE_ACTIVATIONS = 'free_activations'
ACTIVATIONS = 'activations'
BLOCKS = 'blocks'
WAYS = (NOTHING, FREE_ACTIVATIONS, ACTIVATIONS, BLOCKS)


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


def split(model, way):
  """The segments of a functional model.

  Args:
    model: a keras.Model of `deeplab.model.build_model`.
    way: one of `WAYS`, not NOTHING.

  Returns:
    A list of `rematerialization_segments.Segment`, in an order in which they
    can run.
  """
  if way == BLOCKS:
    return rematerialization_segments.by_blocks(model)
  is_free = way == FREE_ACTIVATIONS
  return rematerialization_segments.by_activations(model, is_free)

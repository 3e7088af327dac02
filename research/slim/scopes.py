"""Scopes of the slim vocabulary: names, layer reuse and default arguments.

A network function names its layers by the scopes it opens. A layer is made
once for each full scope name and found again at the next call with that name
(slim's AUTO_REUSE), so image pyramids and multi-scale inference share weights
without special code.
"""

import contextlib
import dataclasses
import functools
import math
import threading
import zlib

import numpy as np
import tensorflow as tf


class _Frame:
  """One open variable scope and the default names handed out in it."""

  def __init__(self, name):
    self.name = name
    self.counts = {}

  def unique(self, default_name):
    count = self.counts.get(default_name, 0)
    self.counts[default_name] = count + 1
    return f'{default_name}_{count}' if count else default_name


class LayerStore:
  """Layers by full scope name.

  Attributes:
    layers: {full scope name: keras.Layer}, in creation order.
    seed: the initial value of every variable is a function of this number
      and of the variable's name.
  """

  def __init__(self, seed=None):
    self.layers = {}
    self.seed = int(np.random.SeedSequence(seed).generate_state(1)[0] >> 1)

  def get(self, name, make):
    """The layer of that name; `make()` is called when there is none yet."""
    if name not in self.layers:
      layer = make()
      layer.creation_index = len(self.layers)
      self.layers[name] = layer
    return self.layers[name]

  def initializer_seed(self, name):
    """Two integers for TensorFlow's stateless random functions."""
    return [self.seed, _name_salt(name)]


def _name_salt(name):
  """A number for random seeds, the same in every process."""
  return zlib.crc32(name.encode()) & 0x7FFFFFFF


@dataclasses.dataclass
class TrainStep:
  """What `train_step_context` was opened with, and the draws made in it.

  Attributes:
    step: int64 scalar tensor.
    seed: integer tensor of shape [2].
    first_image: int64 scalar tensor or integer.
    sync_batch_norm: whether moments are those of all replicas.
    draws: {layer name: number of calls so far}.
  """

  step: object
  seed: object
  first_image: object
  sync_batch_norm: bool
  draws: dict


class _State(threading.local):
  def __init__(self):
    self.reset()

  def reset(self):
    self.store = LayerStore()
    self.frames = [_Frame('')]
    self.defaults = {}
    self.end_points = None
    self.train_step = None
    self.quantization = None
    self.folded_layers = None
    self.compute_dtype = None


_STATE = _State()


@contextlib.contextmanager
def _set(name, value):
  old = getattr(_STATE, name)
  setattr(_STATE, name, value)
  try:
    yield value
  finally:
    setattr(_STATE, name, old)


@contextlib.contextmanager
def layer_store(seed=None, store=None):
  """Opens a store of layers; yields it.

  Args:
    seed: of a new store; see LayerStore.
    store: the LayerStore of a network that shares its layers with the one to
      be built, which has a seed already; None for a new, empty one.

  Raises:
    ValueError: both are given.
  """
  if seed is not None and store is not None:
    raise ValueError(f'A store has its own seed. Received: seed={seed}.')
  store = LayerStore(seed) if store is None else store
  with _set('frames', [_Frame('')]), _set('store', store):
    yield store


@contextlib.contextmanager
def variable_scope(scope, default_name=None):
  """Opens a scope below the current one; yields its full name.

  Args:
    scope: name, possibly with slashes; None for a unique `default_name`; ''
      to open the current scope anew.
    default_name: 'Conv' becomes 'Conv', 'Conv_1', ... within one opening of
      the parent scope, and starts anew when the parent is opened again.
  """
  parent = _STATE.frames[-1]
  local = scope if scope is not None else parent.unique(default_name)
  name = '/'.join(filter(None, (parent.name, local)))
  _STATE.frames.append(_Frame(name))
  try:
    yield name
  finally:
    _STATE.frames.pop()


@contextlib.contextmanager
def outer_scope():
  """Goes back to the scope around the current one for a while."""
  frame = _STATE.frames.pop()
  try:
    yield
  finally:
    _STATE.frames.append(frame)


def get_layer(scope, make):
  """The layer of a full scope name, made by `make(name=..., seed=...)`.

  Keras refuses slashes in names, so the layer is called after the scope with
  dots in their place; `official_name` goes back.
  """
  store = _STATE.store
  return store.get(
    scope,
    lambda: make(
      name=scope.replace('/', '.'), seed=store.initializer_seed(scope)
    ),
  )


def official_name(variable):
  """The TensorFlow 1 name of a variable of a slim layer."""
  return variable.path.replace('.', '/')


# Default arguments.


def add_arg_scope(function):
  """Lets `arg_scope` set default keyword arguments of `function`."""

  @functools.wraps(function)
  def wrapper(*args, **kwargs):
    defaults = _STATE.defaults.get(wrapper, {})
    return function(*args, **{**defaults, **kwargs})

  wrapper.takes_arg_scope = True
  return wrapper


@contextlib.contextmanager
def arg_scope(functions, **kwargs):
  """Sets default keyword arguments of functions; yields all defaults.

  Args:
    functions: functions decorated with `add_arg_scope`, or what an earlier
      `arg_scope` yielded, to open that one again.
    **kwargs: the defaults; inner scopes win.

  Raises:
    ValueError: a function is not decorated.
  """
  if isinstance(functions, dict):
    defaults = functions
  else:
    defaults = dict(_STATE.defaults)
    for function in functions:
      if not getattr(function, 'takes_arg_scope', False):
        raise ValueError(f'{function} is not decorated with add_arg_scope.')
      defaults[function] = {**defaults.get(function, {}), **kwargs}
  with _set('defaults', defaults):
    yield defaults


@contextlib.contextmanager
def nested_arg_scope(*scopes_and_defaults):
  """Opens several `arg_scope`s, each given as (functions, defaults)."""
  with contextlib.ExitStack() as stack:
    for functions, defaults in scopes_and_defaults:
      stack.enter_context(arg_scope(functions, **defaults))
    yield


# End points.


@contextlib.contextmanager
def collect_end_points():
  """Yields a dictionary that `collect_named_output` fills."""
  with _set('end_points', {}) as end_points:
    yield end_points


def collect_named_output(name, tensor):
  """Notes a tensor as the end point `name`; returns the tensor."""
  if _STATE.end_points is not None:
    _STATE.end_points[name] = tensor
  return tensor


# The training step.


@contextlib.contextmanager
def train_step_context(step, seed, first_image=0, sync_batch_norm=False):
  """Tells layers at which training step they are called, and for what images.

  Open it around the call of a model, inside the compiled step. What is
  dropped from an image is then a function of `seed` and of the image's place
  in the global batch: neither a run that resumes nor another division of the
  batch, over replicas or in parts, drops other units.

  Args:
    step: int64 scalar tensor, the number of finished steps.
    seed: int32 or int64 tensor of shape [2], the same in every replica.
    first_image: index of the first image of the inputs in the global batch,
      an integer or an int64 scalar tensor.
    sync_batch_norm: take the moments of batch norm over all replicas, which
      must have batches of one size. Without, each has its own.
  """
  train_step = TrainStep(step, seed, first_image, sync_batch_norm, {})
  with resumed_train_step(train_step):
    yield


def resumed_train_step(train_step):
  """Opens the context of a TrainStep again; a context manager."""
  return _set('train_step', train_step)


def current_train_step():
  """The TrainStep of the open `train_step_context`, or None."""
  return _STATE.train_step


def current_step():
  """The step given to `train_step_context`, or None."""
  return _STATE.train_step and _STATE.train_step.step


def synchronizes_batch_norm():
  """Whether the moments of batch norm are those of several replicas."""
  return bool(
    _STATE.train_step
    and _STATE.train_step.sync_batch_norm
    and tf.distribute.get_strategy().num_replicas_in_sync > 1
  )


# Philox, the generator of TensorFlow's stateless functions: four numbers for
# each value of its counter, the same on every device and with XLA.
_PHILOX = 1
_NUMBERS_PER_COUNT = 4


def draw_uniform(layer_name, shape):
  """Uniform random numbers of a layer, for each image its own.

  Args:
    layer_name: layers of different names draw differently, and so do several
      calls of one layer (the scales of an image pyramid).
    shape: [images, ...], integers or scalar tensors.

  Returns:
    A float32 tensor of that shape, in [0, 1); None outside
    `train_step_context`.
  """
  train_step = _STATE.train_step
  if train_step is None:
    return None
  call = train_step.draws.get(layer_name, 0)
  train_step.draws[layer_name] = call + 1
  text = f'{layer_name}/{call}' if call else layer_name
  seed = tf.random.experimental.stateless_fold_in(
    train_step.seed, _name_salt(text)
  )
  key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(
    # XLA takes negative seeds for others than TensorFlow does.
    seed=tf.bitwise.bitwise_and(seed, tf.constant(2**31 - 1, seed.dtype))
  )
  # The images of the global batch share one stream, of which each has a part
  # that begins at a full count: one operation draws for all of them.
  size = math.prod(shape[1:])
  counts = -(-size // _NUMBERS_PER_COUNT)
  skipped = tf.cast(train_step.first_image, tf.int64) * tf.cast(
    counts, tf.int64
  )
  bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
    shape=[shape[0], counts * _NUMBERS_PER_COUNT],
    key=key,
    counter=counter + tf.cast(tf.stack([skipped, 0]), tf.uint64),
    alg=_PHILOX,
    dtype=tf.uint32,
  )
  # XLA makes floats of other bits than TensorFlow does; 24 fill a float.
  bits = tf.bitcast(tf.bitwise.right_shift(bits[:, :size], 8), tf.int32)
  return tf.reshape(tf.cast(bits, tf.float32) * 2.0**-24, shape)


# Mixed precision.


def compute_dtype(dtype):
  """Layers made inside compute in a type of low precision; a context manager.

  Their variables are float32 all the same. Functions that are no layers, like
  those of `keras.ops`, compute in the type of their inputs.

  Args:
    dtype: 'bfloat16' or 'float16'; None for float32.
  """
  return _set('compute_dtype', dtype)


def current_dtype_policy():
  """What `compute_dtype` was opened with, as a Keras policy for one layer."""
  if _STATE.compute_dtype is None:
    return None
  return f'mixed_{_STATE.compute_dtype}'


# Quantisation.


def quantization_scope(settings):
  """Makes `settings` what `current_quantization` returns; a context manager."""
  return _set('quantization', settings)


def current_quantization():
  """The settings of the open `quantization_scope`, or None."""
  return _STATE.quantization


# Inference.


def folding_scope():
  """Inside, `is_folding` is true; a context manager."""
  return _set('folded_layers', {})


def is_folding():
  """Whether convolutions are built for inference; see `slim.folding`."""
  return _STATE.folded_layers is not None


def folded_layer(key, make):
  """The layer of that key, of the open `folding_scope`; `make()` if new."""
  layers = _STATE.folded_layers
  if key not in layers:
    layers[key] = make()
  return layers[key]

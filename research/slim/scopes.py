"""Scopes of the slim vocabulary: names, layer reuse and default arguments.

A network function names its layers by the scopes it opens. A layer is made
once for each full scope name and found again at the next call with that name
(slim's AUTO_REUSE), so image pyramids and multi-scale inference share weights
without special code.
"""

import contextlib
import functools
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


class _State(threading.local):
  def __init__(self):
    self.reset()

  def reset(self):
    self.store = LayerStore()
    self.frames = [_Frame('')]
    self.defaults = {}
    self.end_points = None
    self.step = None
    self.seed = None
    self.draws = {}
    self.quantization = None


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
def layer_store(seed=None):
  """Opens a new, empty store of layers; yields the LayerStore."""
  with _set('frames', [_Frame('')]), _set('store', LayerStore(seed)) as store:
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
def train_step_context(step, seed):
  """Tells layers at which training step they are called.

  Open it around the call of a model, inside the compiled step. What is
  dropped is then a function of `seed`, made from the step and the replica: a
  run that resumes drops the same units as one that was never stopped.

  Args:
    step: int64 scalar tensor, the number of finished steps.
    seed: int32 or int64 tensor of shape [2].
  """
  with _set('step', step), _set('seed', seed), _set('draws', {}):
    yield


def current_step():
  """The step given to `train_step_context`, or None."""
  return _STATE.step


def draw_seed(layer_name):
  """The seed of one random draw of a layer.

  Args:
    layer_name: layers of different names draw differently, and so do several
      calls of one layer (the scales of an image pyramid).

  Returns:
    An integer tensor of shape [2] for TensorFlow's stateless functions; None
    outside `train_step_context`.
  """
  if _STATE.seed is None:
    return None
  call = _STATE.draws.get(layer_name, 0)
  _STATE.draws[layer_name] = call + 1
  text = f'{layer_name}/{call}' if call else layer_name
  return tf.random.experimental.stateless_fold_in(_STATE.seed, _name_salt(text))


# Quantisation.


def quantization_scope(settings):
  """Makes `settings` what `current_quantization` returns; a context manager."""
  return _set('quantization', settings)


def current_quantization():
  """The settings of the open `quantization_scope`, or None."""
  return _STATE.quantization

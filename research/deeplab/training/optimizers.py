"""TensorFlow 1's optimisers, with their slots under the official names.

Keras' SGD folds the learning rate into the velocity, which differs as soon as
the rate changes and cannot share the `Momentum` slot of a checkpoint.
"""

import numpy as np
import tensorflow as tf

_BIAS_GRADIENT_MULTIPLIER = 2.0


def gradient_multipliers(
  names, last_layers, last_layer_gradient_multiplier=1.0
):
  """Factors of the gradients of biases and of the last layers.

  Args:
    names: official names of the variables.
    last_layers: parts of names; a variable whose name contains one of them
      belongs to the last layers.
    last_layer_gradient_multiplier: factor of the last layers; their biases
      take it twice, other biases count twice.

  Returns:
    {name: factor} of the variables whose factor is set.
  """
  multipliers = {}
  for name in names:
    is_bias = 'biases' in name
    is_last = any(layer in name for layer in last_layers)
    if is_bias or is_last:
      multipliers[name] = (_BIAS_GRADIENT_MULTIPLIER if is_bias else 1.0) * (
        last_layer_gradient_multiplier if is_last else 1.0
      )
  return multipliers


class _Optimizer(tf.Module):
  """Slots for each variable, and the update across replicas.

  Create it, and call it, under the strategy that the variables belong to.

  Attributes:
    variables_by_name: {official name: tf.Variable} that are trained.
    slots: {official name: tf.Variable} of everything that a checkpoint must
      hold for the training to go on.
  """

  # Suffixes of the slots, in the order that `_update` takes them.
  _SLOTS = ()

  def __init__(self, variables_by_name):
    super().__init__()
    self.variables_by_name = dict(variables_by_name)
    self.slots = {
      f'{name}/{slot}': _zeros_like(variable, f'{name}/{slot}')
      for name, variable in self.variables_by_name.items()
      for slot in self._SLOTS
    }

  def apply_gradients(self, gradients, learning_rate):
    """Updates the variables; to be called in a replica.

    Args:
      gradients: {official name: tensor}, the same in every replica.
      learning_rate: float32 scalar tensor.
    """
    tf.distribute.get_replica_context().merge_call(
      self._apply_to_replicas, args=(gradients, learning_rate)
    )

  def _apply_to_replicas(self, strategy, gradients, learning_rate):
    for name, variable in self.variables_by_name.items():
      slots = [self.slots[f'{name}/{slot}'] for slot in self._SLOTS]
      strategy.extended.update(
        variable,
        self._update,
        args=(gradients[name], learning_rate, *self._shared(), *slots),
        group=False,
      )
    self._finish(strategy)

  def _shared(self):
    """Variables that `_update` takes before the slots."""
    return ()

  def _update(self, variable, gradient, learning_rate, *state):
    raise NotImplementedError

  def _finish(self, strategy):
    """Called after all variables are updated."""


def _zeros_like(variable, name):
  return tf.Variable(
    tf.zeros(variable.shape, variable.dtype), trainable=False, name=name
  )


class Momentum(_Optimizer):
  """a = momentum * a + g; w -= learning_rate * a.

  Slots are `<variable>/Momentum`.
  """

  _SLOTS = ('Momentum',)

  def __init__(self, variables_by_name, momentum=0.9):
    super().__init__(variables_by_name)
    self.momentum = momentum

  def _update(self, variable, gradient, learning_rate, accumulator):
    # TensorFlow 1's own kernel, which updates both in their places.
    tf.raw_ops.ResourceApplyMomentum(
      var=variable.handle,
      accum=accumulator.handle,
      lr=tf.cast(learning_rate, variable.dtype),
      grad=gradient,
      momentum=tf.constant(self.momentum, variable.dtype),
    )


class Adam(_Optimizer):
  """TensorFlow 1's Adam, whose epsilon is added to the uncorrected root.

  m = beta1 * m + (1 - beta1) * g; v = beta2 * v + (1 - beta2) * g**2;
  w -= rate * sqrt(1 - beta2**t) / (1 - beta1**t) * m / (sqrt(v) + epsilon).

  Slots are `<variable>/Adam` (m), `<variable>/Adam_1` (v), and the scalars
  `beta1_power` and `beta2_power` (beta**t).
  """

  _SLOTS = ('Adam', 'Adam_1')

  def __init__(self, variables_by_name, beta1=0.9, beta2=0.999, epsilon=1e-8):
    super().__init__(variables_by_name)
    # float32 before it is taken from 1: that is what the original's kernel
    # does, and 1 - 0.999 has five digits in float32.
    self.betas = (np.float32(beta1), np.float32(beta2))
    self.epsilon = epsilon
    self.powers = [
      tf.Variable(beta, trainable=False, name=f'beta{i}_power')
      for i, beta in enumerate(self.betas, 1)
    ]
    powers = {f'beta{i}_power': power for i, power in enumerate(self.powers, 1)}
    self.slots = {**powers, **self.slots}

  def _shared(self):
    return self.powers

  def _update(self, variable, gradient, learning_rate, *state):
    beta1_power, beta2_power, m, v = state
    beta1, beta2 = self.betas
    rate = learning_rate * tf.sqrt(1.0 - beta2_power) / (1.0 - beta1_power)
    rate = tf.cast(rate, variable.dtype)
    m.assign_add((gradient - m) * (1 - beta1))
    v.assign_add((tf.square(gradient) - v) * (1 - beta2))
    variable.assign_sub(rate * m / (tf.sqrt(v) + self.epsilon))

  def _finish(self, strategy):
    for power, beta in zip(self.powers, self.betas, strict=True):
      strategy.extended.update(
        power, lambda p, b: p.assign(p * b), args=(beta,), group=False
      )


class MovingAverages:
  """Averages of variables over the steps, tf.train.ExponentialMovingAverage.

  a = d * a + (1 - d) * w with d = min(decay, (1 + step) / (10 + step)), as
  slim's trainers take them. Create it under the variables' strategy.

  Attributes:
    slots: {'<variable>/ExponentialMovingAverage': tf.Variable}.
  """

  SUFFIX = 'ExponentialMovingAverage'

  def __init__(self, variables, decay):
    """Starts at zero; see `start`.

    Args:
      variables: {official name: variable}; may be empty.
      decay: in 0..1.
    """
    self._decay = decay
    self._variables = variables
    self.slots = {
      f'{name}/{self.SUFFIX}': _zeros_like(variable, f'{name}/{self.SUFFIX}')
      for name, variable in variables.items()
    }

  def start(self):
    """Takes the present values of the variables."""
    for name, variable in self._variables.items():
      self.slots[f'{name}/{self.SUFFIX}'].assign(variable)

  def update(self, step):
    """Takes the variables in; to be called in a replica.

    Args:
      step: int64 scalar tensor, the number of finished steps.
    """
    if not self.slots:
      return
    step = tf.cast(step, tf.float32)
    decay = tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
    tf.distribute.get_replica_context().merge_call(
      self._update_replicas, args=(decay,)
    )

  def _update_replicas(self, strategy, decay):
    for name, variable in self._variables.items():
      strategy.extended.update(
        self.slots[f'{name}/{self.SUFFIX}'],
        lambda average, value, decay: average.assign_sub(
          (1.0 - decay) * (average - value)
        ),
        args=(variable, decay),
        group=False,
      )

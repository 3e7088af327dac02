"""Steps that may be skipped, and the scale of a loss in half precision."""

import tensorflow as tf

# Keys of the metrics of a guarded step: 1.0 where it changed nothing, and the
# scale that its gradients were computed at.
SKIPPED = 'skipped'
LOSS_SCALE = 'loss_scale'

# As in Micikevicius et al., Mixed Precision Training (arXiv:1710.03740), and
# the libraries since: doubled after so many good steps, halved after a bad one.
_FIRST_SCALE = 2.0**15
_GROWTH_STEPS = 2000
_MOST = 2.0**24


class LossScale:
  """What a loss is multiplied by so that small gradients do not vanish.

  Attributes:
    is_variable: whether there is a scale; it is 1 otherwise.
  """

  def __init__(self, is_variable):
    self.is_variable = is_variable
    if is_variable:
      self._scale = tf.Variable(_FIRST_SCALE, trainable=False, name=LOSS_SCALE)
      self._good_steps = tf.Variable(
        0, dtype=tf.int64, trainable=False, name=f'{LOSS_SCALE}/good_steps'
      )

  def state(self):
    """{name: variable} for the checkpoint."""
    if not self.is_variable:
      return {}
    return {
      LOSS_SCALE: self._scale,
      f'{LOSS_SCALE}/good_steps': self._good_steps,
    }

  def multiply(self, loss):
    """The loss to differentiate."""
    return loss * self._scale if self.is_variable else loss

  def divide(self, gradient):
    """The gradient of the loss from that of the scaled one."""
    return gradient / self._scale if self.is_variable else gradient

  def update(self, metrics):
    """Adapts the scale after a step, outside the replicas.

    Args:
      metrics: of the step, with SKIPPED; LOSS_SCALE is added.
    """
    if not self.is_variable:
      return
    scale = tf.identity(self._scale)
    skipped = metrics[SKIPPED] > 0
    good_steps = tf.where(
      skipped, tf.zeros_like(self._good_steps), self._good_steps + 1
    )
    grows = good_steps >= _GROWTH_STEPS
    grown = tf.where(grows, tf.minimum(2.0 * scale, _MOST), scale)
    self._scale.assign(tf.where(skipped, tf.maximum(scale / 2.0, 1.0), grown))
    self._good_steps.assign(
      tf.where(grows, tf.zeros_like(good_steps), good_steps)
    )
    metrics[LOSS_SCALE] = scale


def is_finite(values):
  """Whether all numbers of nested tensors are finite, a scalar bool tensor."""
  flags = [
    tf.reduce_all(tf.math.is_finite(value)) for value in tf.nest.flatten(values)
  ]
  return tf.reduce_all(tf.stack(flags))


def undo_unless(is_good, variables, values):
  """Gives variables their former values back, in a replica.

  Args:
    is_good: scalar bool tensor, the same in all replicas: nothing is done where
      it is true.
    variables: {name: variable}.
    values: {name: tensor}, the former values in this replica.
  """

  def undo(strategy, is_good, values):
    for name, variable in variables.items():
      strategy.extended.update(
        variable, _choose, args=(is_good, values[name]), group=False
      )

  tf.distribute.get_replica_context().merge_call(undo, args=(is_good, values))


def _choose(variable, keeps, value):
  variable.assign(tf.where(keeps, variable, value))

"""Learning rate as a function of the step, in TensorFlow 1's arithmetic."""

import dataclasses
import math
from collections.abc import Sequence

import tensorflow as tf

from deeplab import common
from deeplab.common import InputError

POLICIES = ('poly', 'step', 'cosine', 'multi_steps')
BURNIN_TYPES = ('none', 'linear')

_RANGES = {
  'base_learning_rate': common.NOT_NEGATIVE,
  'learning_rate_decay_step': common.COUNT,
  'learning_rate_decay_factor': common.POSITIVE,
  'learning_power': common.NOT_NEGATIVE,
  'slow_start_step': common.NOT_NEGATIVE,
  'slow_start_learning_rate': common.NOT_NEGATIVE,
  'decay_steps': common.NOT_NEGATIVE,
  'end_learning_rate': common.NOT_NEGATIVE,
  'boundary_learning_rates': common.NOT_NEGATIVE,
}


@dataclasses.dataclass(frozen=True)
class LearningRate:
  """The official schedule; call it with a step.

  Until `slow_start_step` the rate is `slow_start_learning_rate`; from there
  on the policy counts steps from 0:

    poly: (base - end) * (1 - step / decay_steps) ** learning_power + end
    step: base * learning_rate_decay_factor ** floor(step /
      learning_rate_decay_step)
    cosine: base * (1 + cos(pi * step / (total - slow_start_step))) / 2
    multi_steps: boundary_learning_rates[i], where i is the number of
      boundaries below the step

  Attributes:
    learning_policy: one of POLICIES.
    base_learning_rate: the rate to start from.
    learning_rate_decay_step: steps between drops of 'step'.
    learning_rate_decay_factor: factor of each drop.
    training_number_of_steps: number of steps of the whole training.
    learning_power: exponent of 'poly'.
    slow_start_step: number of slow steps.
    slow_start_learning_rate: rate of the slow steps.
    slow_start_burnin_type: 'linear' goes in a line from there to the base
      rate, 'none' stays.
    decay_steps: length of 'poly'; 0 for training_number_of_steps -
      slow_start_step.
    end_learning_rate: rate at the end of 'poly'.
    boundaries: ascending steps of 'multi_steps'.
    boundary_learning_rates: one rate more than there are boundaries.
  """

  learning_policy: str = 'poly'
  base_learning_rate: float = 0.0001
  learning_rate_decay_step: int = 2000
  learning_rate_decay_factor: float = 0.1
  training_number_of_steps: int = 30000
  learning_power: float = 0.9
  slow_start_step: int = 0
  slow_start_learning_rate: float = 0.0001
  slow_start_burnin_type: str = 'none'
  decay_steps: float = 0.0
  end_learning_rate: float = 0.0
  boundaries: Sequence[int] = ()
  boundary_learning_rates: Sequence[float] = ()

  def __post_init__(self):
    if self.learning_policy not in POLICIES:
      raise InputError(
        f'learning_policy must be one of {POLICIES}. '
        f'Received: {self.learning_policy!r}.'
      )
    if self.slow_start_burnin_type not in BURNIN_TYPES:
      raise InputError(
        f'slow_start_burnin_type must be one of {BURNIN_TYPES}. '
        f'Received: {self.slow_start_burnin_type!r}.'
      )
    common.check_ranges(vars(self), _RANGES)
    if self.learning_policy == 'multi_steps' and (
      not self.boundaries
      or len(self.boundary_learning_rates) != len(self.boundaries) + 1
    ):
      raise InputError(
        'learning_policy=multi_steps needs boundaries and one more of '
        f'boundary_learning_rates. Received: {list(self.boundaries)} and '
        f'{list(self.boundary_learning_rates)}.'
      )

  def __call__(self, global_step):
    """The rate of a step.

    Args:
      global_step: integer or integer scalar tensor, finished steps.

    Returns:
      float32 scalar tensor.
    """
    global_step = tf.cast(global_step, tf.int64)
    step = tf.maximum(global_step - self.slow_start_step, 0)
    rate = getattr(self, f'_{self.learning_policy}')(tf.cast(step, tf.float32))
    return tf.where(
      global_step < self.slow_start_step, self._slow_start(global_step), rate
    )

  def _slow_start(self, global_step):
    rate = tf.constant(self.slow_start_learning_rate, tf.float32)
    if self.slow_start_burnin_type == 'linear' and self.slow_start_step:
      rise = self.base_learning_rate - self.slow_start_learning_rate
      rate += rise * tf.cast(global_step, tf.float32) / self.slow_start_step
    return rate

  def _poly(self, step):
    decay_steps = tf.constant(
      self.decay_steps or self.training_number_of_steps - self.slow_start_step,
      tf.float32,
    )
    done = tf.minimum(step, decay_steps) / decay_steps
    rise = self.base_learning_rate - self.end_learning_rate
    return rise * (1.0 - done) ** self.learning_power + self.end_learning_rate

  def _step(self, step):
    drops = tf.floor(step / self.learning_rate_decay_step)
    return self.base_learning_rate * self.learning_rate_decay_factor**drops

  def _cosine(self, step):
    decay_steps = tf.constant(
      self.training_number_of_steps - self.slow_start_step, tf.float32
    )
    done = tf.minimum(step, decay_steps) / decay_steps
    return self.base_learning_rate * 0.5 * (1.0 + tf.cos(math.pi * done))

  def _multi_steps(self, step):
    passed = step > tf.constant(self.boundaries, tf.float32)
    index = tf.reduce_sum(tf.cast(passed, tf.int32))
    return tf.gather(
      tf.constant(self.boundary_learning_rates, tf.float32), index
    )

"""A TensorBoard profile of a few steps."""

import contextlib
import os

import tensorflow as tf
from absl import logging

from deeplab.common import InputError

# Without --profile_steps: steps after the first that it leaves out, and the
# number it holds.
_SKIP = 5
_STEPS = 5


class Profiler:
  """Profiles some steps, or none."""

  def __init__(self, config, start_step):
    """Makes the folder: now rather than when the profile has been taken.

    Args:
      config: TrainConfig.
      start_step: number of finished steps.

    Raises:
      InputError: the folder cannot be written to, or the steps are over.
    """
    total = config.training_number_of_steps
    self._folder = config.profile_logdir
    self._first = min(start_step + 1 + _SKIP, total)
    self._last = self._first + _STEPS - 1
    self._running = False
    if config.profile_steps is not None:
      self._first, self._last = config.profile_steps
      self._folder = self._folder or os.path.join(
        config.train_logdir, 'profile'
      )
      if self._first > total:
        raise InputError(
          f'--profile_steps={self._first},{self._last}: the training ends at '
          f'step {total}.'
        )
      self._first = max(self._first, start_step + 1)
      if self._last <= start_step:
        logging.info('The steps of the profile are over.')
        self._folder = None
    if self._folder:
      with self._clear_errors():
        tf.io.gfile.makedirs(self._folder)

  @contextlib.contextmanager
  def _clear_errors(self):
    try:
      yield
    except (OSError, tf.errors.OpError) as error:
      raise InputError(
        f'--profile_logdir={self._folder}: cannot be written: '
        f'{str(error).splitlines()[0]}. Give another folder.'
      ) from error

  def before(self, number):
    """To be called before step `number`."""
    if self._folder and number == self._first:
      with self._clear_errors():
        tf.profiler.experimental.start(self._folder)
      self._running = True
    elif self._running and number == self._last + 1:
      self.close()

  def close(self):
    """Ends and writes the profile, if one is being taken."""
    if self._running:
      self._running = False
      with self._clear_errors():
        tf.profiler.experimental.stop()
      logging.info('Wrote a profile to %s.', self._folder)

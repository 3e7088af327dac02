"""Kills at a chosen moment, for tests of what must survive them."""

import tensorflow as tf


class Killed(BaseException):
  """In the place of SIGKILL."""


def kill_at(patch, moment):
  """Kills at the n-th change of a folder; nothing is changed from then on.

  Args:
    patch: pytest.MonkeyPatch.
    moment: how many changes still happen.

  Returns:
    An object whose `happened` says whether there were that many.
  """

  class State:
    left = moment
    happened = False

  def wrap(function):
    def call(*arguments, **options):
      if State.left == 0:
        State.happened = True
        raise Killed
      State.left -= 1
      return function(*arguments, **options)

    return call

  for name in ('rename', 'remove', 'copy', 'makedirs'):
    patch.setattr(tf.io.gfile, name, wrap(getattr(tf.io.gfile, name)))
  return State

"""The learning rate against what the original computed."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from deeplab.common import InputError
from deeplab.training import schedules

_DATA = pathlib.Path(__file__).parent.parent / 'testdata' / 'training'
_GOLDEN = json.loads((_DATA / 'learning_rate.json').read_text())


def _setting(case):
  return '-'.join(str(value) for value in case['arguments'].values())


@pytest.mark.parametrize('case', _GOLDEN, ids=_setting)
def test_original(case):
  rate = schedules.LearningRate(**case['arguments'])

  @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])
  def compiled(step):
    return rate(step)

  computed = [compiled(tf.constant(s, tf.int64)) for s in case['steps']]
  assert all(value.dtype == tf.float32 for value in computed)
  # A rate of 7e-23 has lost digits in float32, in the original too.
  np.testing.assert_allclose(
    computed, case['values'], rtol=1e-6, atol=1e-6 * 0.007
  )


def test_integers_are_steps_too():
  rate = schedules.LearningRate(
    base_learning_rate=0.5, training_number_of_steps=10, learning_power=1.0
  )
  np.testing.assert_allclose(rate(5), 0.25, rtol=1e-6)


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'learning_policy': 'exponential'}, 'learning_policy'),
    ({'slow_start_burnin_type': 'cubic'}, 'slow_start_burnin_type'),
    ({'learning_rate_decay_step': 0}, 'learning_rate_decay_step'),
    ({'learning_policy': 'multi_steps', 'boundaries': [1]}, 'boundaries'),
  ],
)
def test_refuses(arguments, message):
  with pytest.raises(InputError, match=message):
    schedules.LearningRate(**arguments)

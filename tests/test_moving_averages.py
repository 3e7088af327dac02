"""Moving averages of the weights in checkpoints."""

import numpy as np
import pytest
import tensorflow as tf

import recipe
from deeplab import checkpoints, common, diagnosis, model
from deeplab.common import InputError

_AVERAGE = '/ExponentialMovingAverage'


def _value(number):
  return np.full([3], number, np.float32)


# As a training writes it: statistics have no average, slots are there as well.
_STORED = {
  'net/weights': _value(1),
  'net/weights/ExponentialMovingAverage': _value(2),
  'net/weights/Momentum': _value(3),
  'net/moving_mean': _value(4),
}


def _network():
  return {
    name: tf.Variable(_value(0)) for name in ('net/weights', 'net/moving_mean')
  }


def _numbers(variables):
  return {name: value.numpy()[0] for name, value in variables.items()}


@pytest.fixture
def prefix(tmp_path):
  """A checkpoint of a training with moving averages."""
  return checkpoints.save(str(tmp_path), 7, _STORED)


@pytest.fixture
def foreign(tmp_path):
  """The same by other code, as TensorFlow 1 writes published classifiers."""
  prefix = str(tmp_path / 'model.ckpt')
  tf.raw_ops.SaveV2(
    prefix=prefix,
    tensor_names=list(_STORED),
    shape_and_slices=[''] * len(_STORED),
    tensors=list(_STORED.values()),
  )
  return prefix


@pytest.fixture
def no_diagnosis(monkeypatch):
  """Spares the seconds that error messages take to name the network."""
  monkeypatch.setattr(diagnosis, 'describe', lambda unused: '')


@pytest.mark.parametrize('use, weights', [(None, 2), (True, 2), (False, 1)])
def test_a_training_with_averages(prefix, use, weights):
  network = _network()
  report = checkpoints.restore(network, prefix, use_moving_averages=use)
  assert _numbers(network) == {'net/weights': weights, 'net/moving_mean': 4}
  assert not report.left_over and not report.initialized
  if weights == 2:
    assert report.averaged == ['net/weights'] and not report.not_averaged
    assert '1 of them are moving averages (1 have none)' in str(report)
  else:
    assert report.not_averaged == ['net/weights'] and not report.averaged
    assert '1 have a moving average in the file, which is not' in str(report)


@pytest.mark.parametrize('use, weights', [(None, 1), (True, 2), (False, 1)])
def test_files_of_the_original_are_read_as_it_reads_them(foreign, use, weights):
  network = _network()
  checkpoints.restore(network, foreign, use_moving_averages=use)
  assert _numbers(network) == {'net/weights': weights, 'net/moving_mean': 4}


def test_training_goes_on_with_both(prefix):
  """A training has variables for the averages too, and all keep apart."""
  state = {name: tf.Variable(_value(0)) for name in _STORED}
  report = checkpoints.restore(state, prefix)
  assert _numbers(state) == {name: v[0] for name, v in _STORED.items()}
  assert not report.averaged and not report.not_averaged


def test_no_averages(tmp_path):
  values = {'net/weights': _value(1), 'net/moving_mean': _value(4)}
  prefix = checkpoints.save(str(tmp_path), 7, values)
  report = checkpoints.restore(_network(), prefix)
  assert not report.averaged and 'moving average' not in str(report)
  network = _network()
  with pytest.raises(InputError, match='--use_moving_averages'):
    checkpoints.restore(network, prefix, use_moving_averages=True)
  assert _numbers(network) == {'net/weights': 0, 'net/moving_mean': 0}


def test_excluded_variables_get_no_average(prefix):
  network = _network()
  report = checkpoints.restore(network, prefix, exclude=['net/weights'])
  assert report.initialized == ['net/weights'] and not report.averaged


def test_averages_alone(tmp_path, no_diagnosis):
  """Left in the file by someone who wanted a small one."""
  names = ('net/weights/ExponentialMovingAverage', 'net/moving_mean')
  prefix = checkpoints.save(
    str(tmp_path), 7, {name: _STORED[name] for name in names}
  )
  network = _network()
  checkpoints.restore(network, prefix)
  assert _numbers(network) == {'net/weights': 2, 'net/moving_mean': 4}
  with pytest.raises(InputError, match=r'lacks 1 of .*: net/weights'):
    checkpoints.restore(network, prefix, use_moving_averages=False)


def test_averages_of_another_shape(tmp_path, no_diagnosis):
  name = 'net/weights/ExponentialMovingAverage'
  prefix = checkpoints.save(
    str(tmp_path), 7, {**_STORED, name: np.ones([4], np.float32)}
  )
  with pytest.raises(InputError, match=r'net/weights is \[4\] in the file'):
    checkpoints.restore(_network(), prefix)


def test_what_network_it_is_does_not_depend_on_averages(tmp_path):
  options = common.ModelOptions(
    {'semantic': 5},
    crop_size=[33, 33],
    output_stride=16,
    depth_multiplier=0.35,
    aspp_convs_filters=8,
  )
  network = model.build_model(options)
  variables = checkpoints.named_variables(network)
  recipe.assign(variables)
  averages = {
    name + _AVERAGE: np.full(variable.shape, 0.25, np.float32)
    for name, variable in variables.items()
    if variable.trainable
  }
  prefix = checkpoints.save(str(tmp_path), 7, {**variables, **averages})
  stored = checkpoints.read(prefix)
  found = diagnosis.diagnose({name: stored[name][0] for name in stored})
  assert not found.unused and not found.missing and not found.reshaped
  assert found.fields['depth_multiplier'] == 0.35
  report = checkpoints.restore(network, prefix)
  assert len(report.averaged) == len(averages)
  for name, variable in variables.items():
    expected = averages.get(name + _AVERAGE)
    if expected is None:
      expected = recipe.make_value(name, variable.shape)
    np.testing.assert_array_equal(variable.numpy(), expected)

"""One seed, one training."""

import pytest
import tensorflow as tf
import training_process

from deeplab.common import InputError
from deeplab.training import strategies


@pytest.mark.parametrize(
  'num_clones', [1, pytest.param(2, marks=pytest.mark.slow)]
)
def test_a_run_comes_out_the_same(num_clones, tmp_path):
  settings = {
    'num_clones': num_clones,
    'train_batch_size': 4,
    'training_number_of_steps': 2,
    'deterministic': True,
  }
  first = training_process.train(tmp_path / 'first', **settings)
  second = training_process.train(tmp_path / 'second', **settings)
  assert training_process.difference(first, second) == 0


def test_kernels_without_a_deterministic_form(monkeypatch):
  calls = []
  monkeypatch.setattr(
    tf.config.experimental, 'enable_op_determinism', lambda: calls.append(1)
  )
  error = tf.errors.UnimplementedError(None, None, 'A deterministic GPU ...')
  with (
    pytest.raises(InputError, match=r'A deterministic GPU .*--nodeterministic'),
    strategies.deterministic_kernels(True),
  ):
    raise error
  assert calls == [1]
  with (
    pytest.raises(tf.errors.UnimplementedError),
    strategies.deterministic_kernels(False),
  ):
    raise error
  assert calls == [1]


def test_not_with_a_data_service(tmp_path):
  with pytest.raises(InputError, match='data_service=grpc://a:1 gives'):
    training_process.make_config(
      tmp_path, deterministic=True, data_service='grpc://a:1'
    )

"""The step of every network as one XLA program, which is what a TPU needs."""

import numpy as np
import pytest
import tensorflow as tf
import training_process

from deeplab.core import feature_extractor
from deeplab.training import strategies, train_step

_SIZE = 33
_CASES = {
  **{variant: {} for variant in feature_extractor.BACKBONES},
  'nas_hnasnet': {'output_stride': 8},
  'vgg_16': {
    'output_stride': 8,
    'aspp_with_batch_norm': False,
    'vgg_fc_filters': 32,
  },
  'mobilenet_v2': {'depth_multiplier': 0.35},
  'decoder': {
    'model_variant': 'mobilenet_v2',
    'depth_multiplier': 0.35,
    'decoder_output_stride': [4],
    'atrous_rates': [1, 2],
  },
}


def _run(model, jit_compile):
  config = training_process.make_config(
    'unused',
    model={'depth_multiplier': 1.0, **model},
    train_batch_size=2,
    # Statistics of two images would make rounding visible.
    fine_tune_batch_norm=False,
  )
  step = train_step.TrainStep(config, strategies.make_strategy(1, True), 255)
  random = np.random.default_rng(0)
  images = random.uniform(0, 255, (2, _SIZE, _SIZE, 3)).astype(np.float32)
  labels = random.integers(0, 21, (2, _SIZE, _SIZE, 1)).astype(np.int32)
  batch = {'image': tf.constant(images), 'label': tf.constant(labels)}
  spec = {name: tf.type_spec_from_value(x) for name, x in batch.items()}
  run = step.compile(spec, jit_compile=jit_compile)
  for _ in range(2):
    metrics, _ = run(batch['image'], batch['label'])
  state = {name: value.numpy() for name, value in step.state().items()}
  return float(metrics[train_step.TOTAL_LOSS]), state


@pytest.mark.slow
@pytest.mark.parametrize('name', _CASES)
def test_agrees_with_plain_steps(name):
  model = {'model_variant': name, **_CASES[name]}
  plain_loss, plain = _run(model, None)
  loss, state = _run(model, True)
  assert loss == pytest.approx(plain_loss, rel=1e-5)
  assert training_process.difference(plain, state) < 1e-3

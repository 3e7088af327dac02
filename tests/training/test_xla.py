"""The step of every network as one XLA program, which is what a TPU needs."""

import json
import math
import os
import subprocess
import sys

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


# Changes of the configuration, and the bound on the state.
_STEPS = {
  # The gradients of random weights hold no digit of float32 at the worst: of
  # the state only that it is finite.
  'float32': ({}, math.inf),
  'float64': ({}, 1e-5),
  'frozen': ({'fine_tune_batch_norm': False}, 1e-5),
  'guarded': (
    {
      'fine_tune_batch_norm': False,
      'gradient_accumulation_steps': 2,
      'max_nan_steps': 1,
      'moving_average_decay': 0.9,
      'recompute_grad': 'blocks',
    },
    1e-5,
  ),
  'float16': ({'mixed_precision': 'float16'}, math.inf),
}


def _run(model, changes, jit_compile=False):
  """Loss of the first step, and the state after two steps."""
  config = training_process.make_config(
    'unused',
    model={'depth_multiplier': 1.0, **model},
    train_batch_size=2,
    # At the flag's default the second step of ResNet-101 has four thousand
    # times the rounding of the first one; so both are taken at one point.
    base_learning_rate=1e-8,
    jit_compile=jit_compile,
    **changes,
  )
  step = train_step.TrainStep(config, strategies.make_strategy(1, True), 255)
  random = np.random.default_rng(0)
  images = random.uniform(0, 255, (2, _SIZE, _SIZE, 3)).astype(np.float32)
  labels = random.integers(0, 21, (2, _SIZE, _SIZE, 1)).astype(np.int32)
  batch = {'image': tf.constant(images), 'label': tf.constant(labels)}
  spec = {name: tf.type_spec_from_value(x) for name, x in batch.items()}
  run = step.compile(spec)
  losses = [
    float(run(batch['image'], batch['label'])[0][train_step.TOTAL_LOSS])
    for _ in range(2)
  ]
  return losses[0], {name: x.numpy() for name, x in step.state().items()}


def _compare(name, kind):
  """Largest differences of the loss and of a variable, relative."""
  if kind == 'float64':
    training_process.use_floatx(kind)
  changes, _ = _STEPS[kind]
  model = {'model_variant': name, **_CASES[name]}
  plain_loss, plain = _run(model, changes)
  loss, state = _run(model, changes, jit_compile=True)
  # What is left of a gradient that cancels is rounding.
  norms = {name: np.linalg.norm(plain[name]) for name in plain if 'Mom' in name}
  cancelled = {n for n in norms if norms[n] < 1e-6 * max(norms.values())}
  plain, state = (
    {name: values[name] for name in values if name not in cancelled}
    for values in (plain, state)
  )
  return (
    abs(loss - plain_loss) / plain_loss,
    training_process.difference(plain, state),
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, kind',
  [(name, kind) for kind in ('float32', 'float64') for name in _CASES]
  + [('mobilenet_v2', kind) for kind in ('frozen', 'guarded', 'float16')],
)
def test_agrees_with_plain_steps(name, kind):
  # A process for each: XLA keeps what it has compiled.
  result = subprocess.run(
    [sys.executable, __file__, name, kind],
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  assert result.returncode == 0, result.stderr[-3000:]
  loss, state = json.loads(result.stdout.splitlines()[-1])
  assert loss < {'float16': 1e-3, 'float64': 1e-6}.get(kind, 1e-5)
  # Between the cells of HNASNet are bilinear resizes, which give float32.
  bound = (
    1e-4 if (name, kind) == ('nas_hnasnet', 'float64') else _STEPS[kind][1]
  )
  assert state < bound


if __name__ == '__main__':
  print(json.dumps(_compare(*sys.argv[1:])))

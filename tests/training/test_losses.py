"""The loss against what the original computed, in 54 settings."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from deeplab.training import losses

_DATA = pathlib.Path(__file__).parent.parent / 'testdata' / 'training'
_GOLDEN = json.loads((_DATA / 'loss_unit.json').read_text())
_CASES = _GOLDEN['cases']


@pytest.fixture(scope='module')
def arrays():
  return dict(np.load(_DATA / 'loss_unit.npz'))


def _setting(case):
  skipped = ('losses', 'gradients')
  return '-'.join(str(v) for k, v in case.items() if k not in skipped)


def _compute(arrays, case, **changes):
  logits = {
    'logits_0.50': tf.constant(arrays['logits_0_50']),
    'merged_logits': tf.constant(arrays['merged_logits']),
  }
  labels = tf.cast(arrays['labels'], tf.int32)
  if case['all_ignored']:
    labels = tf.fill(labels.shape, _GOLDEN['ignore_label'])
  arguments = {
    'num_classes': _GOLDEN['num_classes'],
    'ignore_label': _GOLDEN['ignore_label'],
    **{
      name: case[name]
      for name in (
        'loss_weight',
        'upsample_logits',
        'hard_example_mining_step',
        'top_k_percent_pixels',
        'global_step',
      )
    },
    **changes,
  }

  with tf.GradientTape() as tape:
    tape.watch(logits)
    values = losses.softmax_cross_entropy_loss_for_each_scale(
      logits, labels, **arguments
    )
    total = tf.add_n(list(values.values()))
  return values, tape.gradient(total, logits)


def _expect_golden(case, values, gradients):
  np.testing.assert_allclose(
    [values[name] for name in ('logits_0.50', 'merged_logits')],
    case['losses'],
    rtol=1e-5,
  )
  for name, (norm, samples) in case['gradients'].items():
    gradient = gradients[name].numpy()
    np.testing.assert_allclose(np.linalg.norm(gradient), norm, rtol=1e-5)
    positions = np.linspace(0, gradient.size - 1, 5).astype(int)
    np.testing.assert_allclose(
      gradient.ravel()[positions], samples, rtol=1e-4, atol=1e-6 * norm
    )


def test_golden_file_is_complete():
  assert len(_CASES) == 54


@pytest.mark.parametrize('case', _CASES, ids=_setting)
def test_original(arrays, case):
  _expect_golden(case, *_compute(arrays, case))


@pytest.mark.parametrize(
  'case',
  [_CASES[5], _CASES[23]],
  ids=_setting,
)
def test_compiles_with_xla_for_a_step_that_is_a_tensor(arrays, case):
  @tf.function(jit_compile=True)
  def compute(step):
    return _compute(arrays, case, global_step=step)

  step = tf.constant(case['global_step'], tf.int64)
  _expect_golden(case, *compute(step))


def test_ignore_label_among_the_classes(arrays):
  """ADE20K ignores class 0, which has logits all the same."""
  labels = arrays['labels'].astype(np.int32)
  labels[labels == 255] = 0
  values, _ = _compute({**arrays, 'labels': labels}, _CASES[0], ignore_label=0)
  resized = tf.raw_ops.ResizeBilinear(
    images=arrays['merged_logits'], size=labels.shape[1:3], align_corners=True
  )
  log_p = tf.nn.log_softmax(resized).numpy().reshape(-1, 7)
  counted = np.flatnonzero(labels)
  expected = -log_p[counted, labels.ravel()[counted]].mean()
  np.testing.assert_allclose(values['merged_logits'], expected, rtol=1e-5)

"""Training of DeepLab v1 and v2: scopes, initial weights, scales."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab import checkpoints, common
from deeplab.common import InputError
from deeplab.training import config as config_lib
from deeplab.training import loop, strategies, train_step


def _config(folder, records, **changes):
  options = common.ModelOptions(
    **{
      'outputs_to_num_classes': {'semantic': 21},
      'crop_size': [33, 33],
      'output_stride': 8,
      'model_variant': 'vgg_16',
      'aspp_with_batch_norm': False,
      **changes.pop('options', {'vgg_fc_filters': 8}),
    }
  )
  return config_lib.TrainConfig(
    **{
      'model_options': options,
      'train_logdir': str(folder),
      'dataset_dir': str(records),
      'train_split': 'trainval',
      'train_batch_size': 2,
      'training_number_of_steps': 1,
      'base_learning_rate': 0.01,
      **changes,
    }
  )


_SMALL = {'model_variant': 'mobilenet_v2', 'depth_multiplier': 0.1}


def _step(**changes):
  config = _config('unused', 'unused', **changes)
  return train_step.TrainStep(config, strategies.make_strategy(1, True), 255)


def _values(prefix):
  return {name: get() for name, (_, get) in checkpoints.read(prefix).items()}


@pytest.fixture
def records(testdata):
  return testdata / 'voc_tfrecord'


def test_a_loss_for_each_scale_and_for_their_maximum():
  """As v2's models were trained."""
  step = _step(
    image_pyramid=[0.5, 0.75, 1.0],
    options={'vgg_fc_filters': 8, 'atrous_rates': [2, 4]},
    upsample_logits=False,
  )
  generator = np.random.default_rng(0)
  images = generator.uniform(0, 255, (2, 33, 33, 3)).astype(np.float32)
  labels = generator.integers(0, 21, (2, 33, 33, 1)).astype(np.int32)
  metrics, gradients, _ = tf.function(
    lambda: step.strategy.run(
      step.compute_gradients, args=(images, labels, step.global_step)
    ),
    autograph=False,
  )()
  scales = ['logits_0.50', 'logits_0.75', 'logits_1.00', 'merged_logits']
  losses = [metrics.pop(f'semantic_{scale}') for scale in scales]
  assert set(metrics) == {train_step.REGULARIZATION, train_step.TOTAL_LOSS}
  np.testing.assert_allclose(
    metrics[train_step.TOTAL_LOSS],
    sum(losses) + metrics[train_step.REGULARIZATION],
    rtol=1e-5,
  )
  assert all(np.abs(gradient).max() > 0 for gradient in gradients.values())


# Scopes to train.


def test_only_these_scopes_train(tmp_path, records):
  scopes = ['logits', 'concat_projection', 'MobilenetV2/expanded_conv_16/']
  config = _config(
    tmp_path, records, options=_SMALL | {'aspp_with_batch_norm': True}
  )
  before = _values(
    loop.train(
      config.replace(
        train_logdir=str(tmp_path / 'before'), base_learning_rate=0.0
      )
    )
  )
  after = _values(
    loop.train(
      config.replace(
        trainable_scopes=scopes, train_logdir=str(tmp_path / 'after')
      )
    )
  )
  slots = {name for name in after if name.endswith('/Momentum')}
  assert {name.removesuffix('/Momentum') for name in slots} == {
    name
    for name in before
    if name.startswith(tuple(scopes)) and f'{name}/Momentum' in before
  }
  assert (
    set(before) - set(after)
    == {name for name in before if name.endswith('/Momentum')} - slots
  )
  for name in set(after) - slots - {'global_step'}:
    if 'moving' in name:
      continue
    same = np.array_equal(after[name], before[name])
    assert same != name.startswith(tuple(scopes)), name


def test_what_does_not_train_has_no_weight_decay():
  scopes = ['vgg_16/data', 'vgg_16/pool', 'logits']
  options = {'vgg_side_branches': True}
  step = _step(trainable_scopes=scopes, weight_decay=0.5, options=options)
  kernels = [
    variable.numpy()
    for name, variable in step.variables.items()
    if name.startswith(tuple(scopes)) and name.endswith('weights')
  ]
  assert len(kernels) == 11 == len(step.model.losses)
  expected = sum(0.25 * np.sum(kernel**2) for kernel in kernels)
  assert float(sum(step.model.losses)) == pytest.approx(expected, rel=1e-4)
  assert len(step.optimizer.slots) == 22


@pytest.mark.parametrize(
  'scopes, message',
  [
    (
      ['logits', 'vgg_16/fc8'],
      r"begins with 'vgg_16/fc8'.*vgg_16/conv1/conv1_1, .*logits/semantic\.",
    ),
    (['Logits'], "begins with 'Logits'"),
    ([], 'must name one scope'),
    ('logits', 'must name one scope'),
    (['logits', ''], 'must name one scope'),
  ],
)
def test_scopes_that_are_none(scopes, message):
  with pytest.raises(InputError, match=message):
    _step(trainable_scopes=scopes)


def test_going_on_with_other_scopes(tmp_path, records):
  config = _config(tmp_path, records, options=_SMALL)
  loop.train(config.replace(trainable_scopes=['logits']))
  config = config.replace(training_number_of_steps=2)
  with pytest.raises(InputError, match=r'of its variables.*trainable_scopes'):
    loop.train(config)
  loop.train(config.replace(trainable_scopes=['logits']))


# Starting from ImageNet.


def test_begins_with_decimated_layers(tmp_path, records, caplog):
  first = _config(
    tmp_path / 'first',
    records,
    options={'vgg_fc6_kernel_size': 7, 'vgg_fc_filters': 16},
  )
  initial = _values(loop.train(first))
  second = _config(
    tmp_path / 'second',
    records,
    options={'vgg_fc_filters': 8, 'atrous_rates': [6, 12]},
    tf_initial_checkpoint=str(tmp_path / 'first'),
    initialize_last_layer=False,
    # Nothing moves, so that the checkpoint shows what was restored.
    base_learning_rate=0.0,
  )
  with caplog.at_level('INFO', logger='absl'):
    values = _values(loop.train(second))
  assert '8 made from others: vgg_16/fc6_1/weights [3, 3, 512, 8] from ' in (
    caplog.text
  )
  # There is no batch norm to warn of.
  assert 'Batch norm is fine-tuned' not in caplog.text
  for suffix in ('_1', '_2'):
    np.testing.assert_array_equal(
      values[f'vgg_16/fc6{suffix}/weights'],
      initial['vgg_16/fc6/weights'][::3, ::3, :, ::2],
    )
  name = 'vgg_16/conv5/conv5_3/weights'
  np.testing.assert_array_equal(values[name], initial[name])

"""Steps of a training on one batch that is repeated.

Settings: `batch`, `size`, `classes`; `fine_tune_batch_norm` for our step;
`module`, `name`, `output_stride` and `steps_per_call` for the peers, which
train batch norm.
"""

import numpy as np

from benchmarks import inference
from benchmarks.case import Task, make_images

_IGNORE_LABEL = 255


def _batch(context):
  """float32 images [batch, size, size, 3], int32 labels [batch, size, size].

  Labels come in blocks, with a border that does not count.
  """
  size, batch, classes = (
    context.settings[name] for name in ('size', 'batch', 'classes')
  )
  images = make_images(batch, size, size).astype(np.float32)
  blocks = np.random.default_rng(1).integers(0, classes, (batch, 8, 8))
  index = np.linspace(0, 7, size).round().astype(int)
  labels = blocks[:, index][:, :, index].astype(np.int32)
  labels[:, :4] = _IGNORE_LABEL
  return images, labels


def train_step(context):
  """The step of train.py: `TrainStep`, compiled as the loop does it."""
  import tensorflow as tf

  from deeplab import common, stored_options
  from deeplab.training import config, strategies
  from deeplab.training import train_step as train_step_lib

  settings = context.settings
  options = stored_options.load(context.artifacts['checkpoint'])
  train_config = config.TrainConfig(
    options,
    train_logdir='unused',
    dataset_dir='unused',
    train_batch_size=settings['batch'],
    fine_tune_batch_norm=settings['fine_tune_batch_norm'],
  )
  strategy = strategies.make_strategy()
  step = train_step_lib.TrainStep(train_config, strategy, _IGNORE_LABEL)
  images, labels = _batch(context)
  batches = tf.data.Dataset.from_tensors(
    {common.IMAGE: images, common.LABEL: labels[..., np.newaxis]}
  ).repeat()
  batches = strategy.experimental_distribute_dataset(batches)
  run_step = step.compile(batches.element_spec)
  batch = next(iter(batches))

  def call():
    metrics, _ = run_step(batch[common.IMAGE], batch[common.LABEL])
    return float(metrics[train_step_lib.TOTAL_LOSS])

  return Task(call)


def plain_peer(context):
  """One of the modules in `peers`."""
  peer, network = inference.build_peer(context)
  train = peer.trainer(network, *_batch(context))
  # `fit` begins anew at each call: that counts once in several steps.
  steps = context.settings['steps_per_call']
  return Task(lambda: train(steps), steps)

"""What a training starts from."""

import os

import tensorflow as tf
from absl import logging

from deeplab import checkpoints, model
from deeplab.common import InputError
from deeplab.core import feature_extractor


def restore(config, step):
  """Restores the newest checkpoint, else the initial one, else nothing.

  Returns:
    The prefix of the checkpoint in train_logdir, None if there is none.
  """
  optional, values = step.optional_state(), {}

  def check(prefix):
    stored = checkpoints.read(prefix)
    _check_slots(config, prefix, stored, step)
    # Now, while there are older checkpoints to take if one of them is damaged.
    values.clear()
    values.update({name: stored[name][1]() for name in {*optional} & {*stored}})

  report = checkpoints.restore_latest(
    {k: v for k, v in step.state().items() if k not in optional},
    config.train_logdir,
    check=check,
    use_moving_averages=False,
  )
  if report is not None:
    if config.tf_initial_checkpoint:
      logging.info(
        'Ignoring --tf_initial_checkpoint=%s: %s exists.',
        config.tf_initial_checkpoint,
        report.checkpoint,
      )
    logging.info('%s', report)
    # What the run may not have asked for until now begins here.
    step.averages.start()
    for name, value in values.items():
      optional[name].assign(value)
    return report.checkpoint
  if tf.io.gfile.exists(os.path.join(config.train_logdir, 'checkpoint')):
    raise InputError(
      f'--train_logdir={config.train_logdir} has a file called checkpoint, but '
      'no complete checkpoint. Restore the model.ckpt files, or remove that '
      'file to begin anew.'
    )
  _initialize(config, step)
  step.averages.start()
  return None


def _initialize(config, step):
  """Takes the initial checkpoint, if there is one."""
  if not config.tf_initial_checkpoint:
    logging.info('Not initialising the model from a checkpoint.')
    return
  exclude = []
  if not config.initialize_last_layer:
    exclude = model.get_extra_layer_scopes(
      config.last_layers_contain_logits_only
    )
  backbone = feature_extractor.get_backbone(config.model_options.model_variant)
  report = checkpoints.restore(
    step.variables,
    config.tf_initial_checkpoint,
    exclude=exclude,
    allow_missing=True,
    initial_values=backbone.initial_values,
    use_moving_averages=False,
  )
  logging.info('%s', report)


def _check_slots(config, prefix, stored, step):
  """The checkpoint was written with the same optimiser and scopes."""
  missing = sorted(
    slot
    for slot in step.optimizer.slots
    if slot not in stored and slot.rpartition('/')[0] in stored
  )
  if missing:
    raise InputError(
      f'{prefix} has no state of --optimizer={config.optimizer} for '
      f'{len(missing)} of its variables (such as {missing[0]}), so training '
      'cannot go on from it. Give the optimizer and the --trainable_scopes it '
      'was trained with, or another --train_logdir and this checkpoint as '
      '--tf_initial_checkpoint.'
    )

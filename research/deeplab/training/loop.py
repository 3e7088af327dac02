"""The training loop."""

import contextlib
import os
import time

import numpy as np
import tensorflow as tf
from absl import logging

from deeplab import checkpoints, common, model, stored_options
from deeplab.common import InputError
from deeplab.core import feature_extractor
from deeplab.datasets import data_generator
from deeplab.training import strategies, summaries, train_step

# Fewer images a batch than this give poor batch statistics; official advice.
_MIN_BATCH_FOR_BATCH_NORM = 12

_NUM_READERS = 2

# Steps after the first that a profile leaves out, and the number it holds.
_PROFILE_SKIP = 5
_PROFILE_STEPS = 5


def train(config):
  """Trains, or goes on where the checkpoint in train_logdir stops.

  Args:
    config: TrainConfig.

  Returns:
    The prefix of the last checkpoint.

  Raises:
    InputError: bad options or data, a checkpoint that does not fit, a loss
      that is not finite, or a folder that cannot be written.
  """
  strategy = strategies.make_strategy(
    config.num_clones, config.clone_on_cpu, config.tpu
  )
  dataset = _make_dataset(config)
  _check_classes(config, dataset)
  step = train_step.TrainStep(config, strategy, dataset.ignore_label)
  if (
    config.fine_tune_batch_norm
    and any(name.endswith('/moving_mean') for name in step.variables)
    and config.train_batch_size < _MIN_BATCH_FOR_BATCH_NORM
  ):
    logging.warning(
      'Batch norm is fine-tuned with batches of %d images; its statistics '
      'want at least %d. Consider --fine_tune_batch_norm=false.',
      config.train_batch_size,
      _MIN_BATCH_FOR_BATCH_NORM,
    )
  restored = _restore(config, step)
  start_step = int(step.global_step.numpy())
  if start_step >= config.training_number_of_steps:
    logging.info(
      '%s is at step %d already; --training_number_of_steps=%d asks for no '
      'more.',
      restored,
      start_step,
      config.training_number_of_steps,
    )
    return restored
  _describe(config, dataset)
  logging.info(
    'Training on %d images of split %r of %s, from step %d to %d.',
    dataset.num_examples,
    config.train_split,
    dataset.info.name,
    start_step,
    config.training_number_of_steps,
  )
  with contextlib.ExitStack() as stack:
    return _Run(config, dataset, step, start_step, stack).run()


def _make_dataset(config):
  return data_generator.Dataset(
    dataset_name=config.dataset_name,
    split_name=config.train_split,
    dataset_dir=config.dataset_dir,
    batch_size=config.train_batch_size,
    crop_size=list(config.model_options.crop_size),
    min_resize_value=config.min_resize_value,
    max_resize_value=config.max_resize_value,
    resize_factor=config.resize_factor,
    min_scale_factor=config.min_scale_factor,
    max_scale_factor=config.max_scale_factor,
    scale_factor_step_size=config.scale_factor_step_size,
    model_variant=config.model_options.model_variant,
    num_readers=_NUM_READERS,
    is_training=True,
    should_shuffle=True,
    should_repeat=True,
    keep_aspect_ratio=config.keep_aspect_ratio,
    seed=config.seed,
  )


def _check_classes(config, dataset):
  for output, classes in config.model_options.outputs_to_num_classes.items():
    if classes != dataset.num_of_classes:
      raise InputError(
        f'the model has {classes} classes in output {output!r}, the data set '
        f'{dataset.info.name!r} has {dataset.num_of_classes}.'
      )


def _describe(config, dataset):
  """Writes what eval, vis and export need to know beside the checkpoints."""
  try:
    checkpoints.remove_unfinished(config.train_logdir)
    stored_options.save(config.train_logdir, config.model_options)
    dataset.info.save(config.train_logdir)
  except (OSError, tf.errors.OpError) as error:
    raise InputError(
      f'{config.train_logdir}: cannot be written: '
      f'{str(error).splitlines()[0]}. Give another --train_logdir or make it '
      'writable.'
    ) from error


# Restoring.


def _restore(config, step):
  """Restores the newest checkpoint, else the initial one, else nothing.

  Returns:
    The prefix of the checkpoint in train_logdir, None if there is none.
  """
  prefix = checkpoints.latest(config.train_logdir)
  if prefix is not None:
    if config.tf_initial_checkpoint:
      logging.info(
        'Ignoring --tf_initial_checkpoint=%s: %s exists.',
        config.tf_initial_checkpoint,
        prefix,
      )
    _check_slots(config, prefix, step)
    logging.info('%s', checkpoints.restore(step.state(), prefix))
    return prefix
  if tf.io.gfile.exists(os.path.join(config.train_logdir, 'checkpoint')):
    raise InputError(
      f'--train_logdir={config.train_logdir} has a file called checkpoint, but '
      'no complete checkpoint. Restore the model.ckpt files, or remove that '
      'file to begin anew.'
    )
  if not config.tf_initial_checkpoint:
    logging.info('Not initialising the model from a checkpoint.')
    return None
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
  )
  logging.info('%s', report)
  return None


def _check_slots(config, prefix, step):
  """The checkpoint was written with the same optimiser and scopes."""
  stored = checkpoints.read(prefix)
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


# Running.


class _Run:
  """One run from a step on: what happens between the compiled steps."""

  def __init__(self, config, dataset, step, start_step, stack):
    self._config = config
    self._dataset = dataset
    self._step = step
    self._start_step = start_step
    self._last_saved = (start_step, time.monotonic())
    self._log = summaries.TrainLog(config.train_logdir, start_step)
    stack.callback(self._log.close)
    self._summaries = summaries.Summaries(
      config.train_logdir, config.save_summaries_secs
    )
    stack.callback(self._summaries.close)
    self._progress = summaries.Progress(
      start_step,
      config.training_number_of_steps,
      config.train_batch_size,
      self._log.seconds,
    )
    stack.callback(self._progress.close)
    self._profiler = _Profiler(
      config.profile_logdir, start_step, config.training_number_of_steps
    )
    stack.callback(self._profiler.close)

  def run(self):
    """Runs to the last step; returns the prefix of its checkpoint."""
    strategy = self._step.strategy
    # Names are strings, which no accelerator takes; see _not_finite.
    batches = strategy.experimental_distribute_dataset(
      self._dataset.as_dataset(start_step=self._start_step).map(
        lambda sample: {
          key: sample[key] for key in (common.IMAGE, common.LABEL)
        }
      )
    )
    run_step = self._step.compile(batches.element_spec)
    total = self._config.training_number_of_steps
    checked = None
    for number, batch in enumerate(
      self._dataset.iterate(batches), self._start_step + 1
    ):
      self._profiler.before(number)
      metrics, predictions = run_step(batch[common.IMAGE], batch[common.LABEL])
      # The step before: its loss is there, while this one may still run.
      if checked is not None:
        self._check_finite(*checked)
      checked = (number, metrics)
      self._progress.advance()
      self._report(number, metrics, predictions, batch)
      if number == total or self._save_due(number):
        prefix = self._save(number, metrics)
      if number == total:
        logging.info('Finished: %s.', prefix)
        return prefix
    raise InputError(
      f'the split {self._config.train_split!r} ended before step {total}.'
    )

  def _report(self, number, metrics, predictions, batch):
    """Log line and summaries, where they are due."""
    config = self._config
    last = number == config.training_number_of_steps
    log_due = number % config.log_steps == 0 or last
    summary_due = self._summaries.due() or last
    if not (log_due or summary_due):
      return
    self._check_finite(number, metrics)
    values = {name: float(value) for name, value in metrics.items()}
    if log_due:
      self._log.write(self._progress.log(number, values))
    if summary_due:
      images = None
      if config.save_summaries_images:
        images = summaries.sample_images(
          self._first_replica(batch[common.IMAGE]),
          self._first_replica(batch[common.LABEL]),
          predictions,
          self._dataset.num_of_classes,
        )
      self._summaries.write(number, values, self._step.variables, images)

  def _first_replica(self, value):
    return self._step.strategy.experimental_local_results(value)[0].numpy()

  def _save_due(self, number):
    last_step, last_time = self._last_saved
    steps = self._config.save_interval_steps
    return (steps is not None and number % steps == 0) or (
      number > last_step
      and time.monotonic() - last_time >= self._config.save_interval_secs
    )

  def _save(self, number, metrics):
    self._check_finite(number, metrics)
    values = {
      name: variable.numpy() for name, variable in self._step.state().items()
    }
    if self._config.model_options.quantize_delay_step > 0:
      values[checkpoints.QUANTIZATION_STEP] = np.int64(number)
    for name, value in values.items():
      # The loss of a step says nothing of the update that follows it.
      if not np.isfinite(value).all():
        raise self._not_finite(
          number, metrics, f'the update of variable {name}'
        )
    prefix = checkpoints.save(
      self._config.train_logdir,
      number,
      values,
      self._config.keep_checkpoint_max,
    )
    self._last_saved = (number, time.monotonic())
    return prefix

  def _check_finite(self, number, metrics):
    if not np.isfinite(float(metrics[train_step.TOTAL_LOSS])):
      raise self._not_finite(number, metrics, 'the loss')

  def _not_finite(self, number, metrics, what):
    """The error for a loss or an update that is NaN or infinite."""
    # The order of the data is known: the batch is read again.
    batch = next(iter(self._dataset.as_dataset(start_step=number - 1)))
    labels, counts = np.unique(batch[common.LABEL].numpy(), return_counts=True)
    histogram = ', '.join(
      f'{label}: {count}' for label, count in zip(labels, counts, strict=True)
    )
    names = [
      name.decode(errors='replace') for name in batch[common.IMAGE_NAME].numpy()
    ]
    values = ', '.join(
      f'{name} {float(value):g}' for name, value in metrics.items()
    )
    saved = checkpoints.latest(self._config.train_logdir)
    return InputError(
      f'{what} is not finite at step {number}: {values}. '
      f'Images: {", ".join(names)}. Pixels of each label: {histogram}. '
      f'Nothing of this step is saved; the last checkpoint is {saved}. '
      'A smaller --base_learning_rate or a longer --slow_start_step may help.'
    )


class _Profiler:
  """A TensorBoard profile of a few steps."""

  def __init__(self, folder, start_step, total_steps):
    self._folder = folder
    self._first = min(start_step + 1 + _PROFILE_SKIP, total_steps)
    self._running = False
    if folder:
      # Now rather than when the profile has been taken.
      with self._clear_errors():
        tf.io.gfile.makedirs(folder)

  @contextlib.contextmanager
  def _clear_errors(self):
    try:
      yield
    except (OSError, tf.errors.OpError) as error:
      raise InputError(
        f'--profile_logdir={self._folder}: cannot be written: '
        f'{str(error).splitlines()[0]}. Give another folder.'
      ) from error

  def before(self, number):
    """To be called before step `number`."""
    if self._folder and number == self._first:
      with self._clear_errors():
        tf.profiler.experimental.start(self._folder)
      self._running = True
    elif self._running and number == self._first + _PROFILE_STEPS:
      self.close()

  def close(self):
    """Ends and writes the profile, if one is being taken."""
    if self._running:
      self._running = False
      with self._clear_errors():
        tf.profiler.experimental.stop()
      logging.info('Wrote a profile to %s.', self._folder)

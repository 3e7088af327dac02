"""The training loop."""

import contextlib
import re
import time

import numpy as np
import tensorflow as tf
from absl import logging

from deeplab import checkpoints, common, stored_options
from deeplab.common import InputError
from deeplab.datasets import data_generator, read_errors
from deeplab.training import (
  data_checks,
  interruption,
  profiling,
  restoring,
  step_guards,
  strategies,
  summaries,
  train_step,
  validation,
)

# Fewer images a batch than this give poor batch statistics; official advice.
_MIN_BATCH_FOR_BATCH_NORM = 12

_NUM_READERS = 2

# Seconds between attempts to write a checkpoint, at first and at most.
_FIRST_WAIT, _MOST_WAIT = 1.0, 60.0

# Time for the other hosts to end before the first one.
_LEAVING_SECS = 5.0

# What a collective operation fails with when another host is gone.
_LOST_HOST = (
  tf.errors.UnavailableError,
  tf.errors.AbortedError,
  tf.errors.CancelledError,
  tf.errors.DeadlineExceededError,
  tf.errors.InternalError,
  tf.errors.UnknownError,
  tf.errors.FailedPreconditionError,
)


def train(config):
  """Trains, or goes on where the checkpoint in train_logdir stops.

  Args:
    config: TrainConfig.

  Returns:
    The prefix of the last checkpoint.

  Raises:
    InputError: bad options or data, a checkpoint that does not fit, a loss
      that is not finite, or a folder that cannot be written.
    interruption.Interrupted: a signal asked for the end, or another host is
      gone. The same command goes on from the last checkpoint.
  """
  if config.cluster is not None:
    # The other hosts may have ended; they would be waited for.
    last = checkpoints.latest(config.train_logdir)
    if last and _is_finished(config, checkpoints.global_step(last), last):
      return last
  try:
    strategy = strategies.make_strategy(
      config.num_clones, config.clone_on_cpu, config.tpu, config.cluster
    )
    with contextlib.ExitStack() as stack:
      stack.enter_context(_lost_hosts(config))
      stack.enter_context(
        strategies.deterministic_kernels(config.deterministic)
      )
      return _train(config, strategy, stack)
  except interruption.Interrupted as end:
    logging.warning('%s', end)
    raise


@contextlib.contextmanager
def _lost_hosts(config):
  """Turns errors about other hosts into an end that can be taken up again."""
  try:
    yield
  except _LOST_HOST as error:
    if config.cluster is None:
      raise
    lines = re.sub(r'\{\{.*?\}\}', '', error.message or '').splitlines()
    lines = lines or [type(error).__name__]
    reason = next((line for line in lines if 'abort' in line), lines[0])
    raise interruption.Interrupted(
      f'another host is gone: {reason.strip()} Started again, all hosts go on '
      f'from {checkpoints.latest(config.train_logdir)}.'
    ) from error


def _train(config, strategy, stack):
  stop = interruption.StopRequest()
  stack.enter_context(stop.listen())
  if config.jit_compile and strategy.num_replicas_in_sync > 1:
    raise InputError(
      '--jit_compile is for one device: XLA compiles no step across several '
      f'GPUs or hosts, and all of it on a TPU. Received: {config.num_clones} '
      f'devices on {len(config.cluster.hosts) if config.cluster else 1} hosts.'
    )
  dataset = _make_dataset(config)
  data_checks.check(config, dataset, _is_chief(config))
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
  restored = restoring.restore(config, step)
  start_step = int(step.global_step.numpy())
  if _is_finished(config, start_step, restored):
    return restored
  if step.mean_over_hosts(start_step) != start_step:
    # Or what it lists of a network file system is of a while ago.
    raise interruption.Interrupted(
      f'this host finds step {start_step} in --train_logdir='
      f'{config.train_logdir}, others another one. It must be a folder that '
      'all hosts share.'
    )
  if _is_chief(config):
    _describe(config, dataset)
  logging.info(
    'Training on %d images of split %r of %s, from step %d to %d.',
    dataset.num_examples,
    config.train_split,
    dataset.info.name,
    start_step,
    config.training_number_of_steps,
  )
  logging.info(
    '%d images in each step%s, on %d devices of %s',
    config.train_batch_size,
    f' in {config.gradient_accumulation_steps} parts'
    if config.gradient_accumulation_steps > 1
    else '',
    strategy.num_replicas_in_sync,
    f'{len(config.cluster.hosts)} hosts.' if config.cluster else 'one host.',
  )
  return _Run(config, dataset, step, start_step, stop, stack).run()


def _is_finished(config, step, prefix):
  """Whether a checkpoint leaves nothing to do but to evaluate it."""
  if step < config.training_number_of_steps:
    return False
  logging.info(
    '%s is at step %d already; --training_number_of_steps=%d asks for no more.',
    prefix,
    step,
    config.training_number_of_steps,
  )
  if config.eval_interval_steps is not None and _is_chief(config):
    # It may have been killed before it had evaluated the last step.
    validation.Validation(config, is_chief=True).resume(prefix, step)
  return True


def _is_chief(config):
  """Whether this host writes the files of the run."""
  return config.cluster is None or config.cluster.index == 0


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
    shard_by=config.shard_by,
    data_service=config.data_service,
    data_service_job=config.train_logdir,
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


# Running.


class _Run:
  """One run from a step on: what happens between the compiled steps."""

  def __init__(self, config, dataset, step, start_step, stop, stack):
    self._config = config
    self._dataset = dataset
    self._step = step
    self._start_step = start_step
    self._stop = stop
    self._is_chief = _is_chief(config)
    self._last_saved = (start_step, time.monotonic())
    self._num_nan_steps = 0
    self._log = summaries.TrainLog(
      config.train_logdir, start_step, self._is_chief
    )
    self._summaries = summaries.Summaries(
      config.train_logdir, config.save_summaries_secs, self._is_chief
    )
    stack.callback(self._summaries.close)
    self._progress = summaries.Progress(
      start_step,
      config.training_number_of_steps,
      config.train_batch_size,
      self._log.seconds,
    )
    stack.callback(self._progress.close)
    self._profiler = profiling.Profiler(config, start_step)
    stack.callback(self._profiler.close)
    self._validation = None
    if config.eval_interval_steps is not None:
      self._validation = validation.Validation(
        config,
        self._is_chief,
        self._step.mean_over_hosts,
        lambda: self._stop.received,
        self._persist,
      )

  def run(self):
    """Runs to the last step; returns the prefix of its checkpoint."""
    batches = self._batches(self._start_step)
    run_step = self._step.compile(batches.element_spec)
    total = self._config.training_number_of_steps
    start = self._start_step
    if self._validation is not None and start:
      # A run may end before it has evaluated what it saved.
      last = checkpoints.prefix_of(self._config.train_logdir, start)
      with self._progress.pause():
        is_over = self._validation.resume(last, start)
      if is_over:
        self._leave(start)
        return last
    before = None
    for number, batch in enumerate(
      self._progress.wait_for(self._iterate(batches)), self._start_step + 1
    ):
      self._profiler.before(number)
      metrics, predictions = run_step(
        batch[common.IMAGE], batch[common.LABEL], self._stop.received
      )
      # The step before: its loss is there, while this one may still run.
      stops = before is not None and self._check(*before)
      if self._config.cluster is None:
        stops = stops or self._stop.received
      before = (number, metrics)
      self._progress.advance()
      self._report(number, metrics, predictions, batch)
      is_last = number == total
      validates = self._validation and self._validation.is_due(number)
      if is_last or stops or validates or self._save_due(number):
        prefix = self._save(number, metrics)
      if stops and not is_last:
        self._leave(number)
        raise interruption.Interrupted(
          f'stopped at step {number} of {total}. Saved {prefix}; the same '
          'command goes on from there.'
        )
      if validates:
        with self._progress.pause():
          # Not before the first host has written it.
          self._step.mean_over_hosts(number)
          is_last |= self._validation.evaluate(prefix, number)
      if is_last:
        self._leave(number)
        logging.info('Finished: %s.', prefix)
        return prefix
    raise InputError(
      f'the split {self._config.train_split!r} ended before step {total}.'
    )

  def _leave(self, number):
    """Ends together with the other hosts."""
    self._step.mean_over_hosts(number)
    self._log.draw(now=True)
    if self._config.cluster is not None and self._is_chief:
      # The first host serves the others, which hang if it is gone while they
      # release what they hold.
      time.sleep(_LEAVING_SECS)

  def _batches(self, start_step):
    """The distributed batches from a step on."""

    def pipeline(context):
      part, num_parts = context.input_pipeline_id, context.num_input_pipelines
      if num_parts > 1:
        logging.info(
          'Input is shared among %d hosts %s.',
          num_parts,
          self._dataset.describe_sharding(part, num_parts),
        )
      batches = self._dataset.as_dataset(start_step, part, num_parts)
      # Names are strings, which no accelerator takes; see _not_finite.
      batches = batches.map(
        lambda sample: {
          key: sample[key] for key in (common.IMAGE, common.LABEL)
        }
      )
      size = self._step.replica_batch_size
      if size < self._config.train_batch_size // num_parts:
        batches = batches.rebatch(size, drop_remainder=True)
      # Hosts need not ask each other whether there is more.
      batches = batches.apply(
        tf.data.experimental.assert_cardinality(
          tf.data.experimental.INFINITE_CARDINALITY
        )
      )
      return batches.prefetch(tf.data.AUTOTUNE)

    return self._step.strategy.distribute_datasets_from_function(pipeline)

  def _iterate(self, batches):
    return self._dataset.iterate(
      batches,
      retry=lambda count: self._batches(self._start_step + count),
      waits=read_errors.waits(self._config.max_read_retries),
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
    values = {
      name: float(value)
      for name, value in metrics.items()
      if name != train_step.STOP
    }
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
    """Writes a checkpoint, on the first host; returns its prefix."""
    self._check_finite(number, metrics)
    self._last_saved = (number, time.monotonic())
    config = self._config
    if not self._is_chief:
      return checkpoints.prefix_of(config.train_logdir, number)
    values = {
      name: variable.numpy() for name, variable in self._step.state().items()
    }
    if config.model_options.quantize_delay_step > 0:
      values[checkpoints.QUANTIZATION_STEP] = np.int64(number)
    for name, value in values.items():
      # The loss of a step says nothing of the update that follows it.
      if not np.isfinite(value).all():
        raise self._not_finite(
          number, metrics, f'the update of variable {name}'
        )
    with self._progress.pause():
      prefix = self._persist(
        lambda: checkpoints.save(
          config.train_logdir, number, values, config.keep_checkpoint_max
        )
      )
      self._log.draw()
      return prefix

  def _persist(self, write):
    """Calls a function that writes, for `save_retry_secs` where it cannot."""
    deadline = time.monotonic() + self._config.save_retry_secs
    wait = _FIRST_WAIT
    while True:
      try:
        return write()
      except InputError as error:
        if self._stop.received or time.monotonic() + wait > deadline:
          raise
        logging.warning('%s Trying again in %.0f seconds.', error, wait)
        time.sleep(wait)
        wait = min(2 * wait, _MOST_WAIT)

  def _check(self, number, metrics):
    """Looks at a finished step, once; returns whether to stop."""
    self._check_finite(number, metrics)
    if self._step.is_guarded and float(metrics[step_guards.SKIPPED]):
      loss = float(metrics[train_step.TOTAL_LOSS])
      # Gradients beyond half precision are what the scale of the loss is for.
      scale = float(metrics.get(step_guards.LOSS_SCALE, 1.0))
      if scale <= 1.0 or not np.isfinite(loss):
        self._num_nan_steps += 1
        if self._num_nan_steps > self._config.max_nan_steps:
          raise self._not_finite(number, metrics, 'the loss or a gradient')
        logging.warning(
          'Step %d is skipped: its loss or a gradient is not finite. That was '
          'number %d of --max_nan_steps=%d.',
          number,
          self._num_nan_steps,
          self._config.max_nan_steps,
        )
    return float(metrics[train_step.STOP]) > 0

  def _check_finite(self, number, metrics):
    loss = float(metrics[train_step.TOTAL_LOSS])
    if not self._step.is_guarded and not np.isfinite(loss):
      raise self._not_finite(number, metrics, 'the loss')

  def _not_finite(self, number, metrics, what):
    """The error for a loss or an update that is NaN or infinite."""
    text = ''
    if self._config.cluster is None and self._config.data_service is None:
      text = self._describe_batch(number)
    values = ', '.join(
      f'{name} {float(value):g}'
      for name, value in metrics.items()
      if name != train_step.STOP
    )
    saved = checkpoints.latest(self._config.train_logdir)
    return InputError(
      f'{what} is not finite at step {number}: {values}. {text}'
      f'Nothing of this step is saved; the last checkpoint is {saved}. '
      'A smaller --base_learning_rate or a longer --slow_start_step may help.'
    )

  def _describe_batch(self, number):
    """What was seen at a step: the order of the data is known."""
    batch = next(iter(self._dataset.as_dataset(start_step=number - 1)))
    labels, counts = np.unique(batch[common.LABEL].numpy(), return_counts=True)
    histogram = ', '.join(
      f'{label}: {count}' for label, count in zip(labels, counts, strict=True)
    )
    names = [
      name.decode(errors='replace') for name in batch[common.IMAGE_NAME].numpy()
    ]
    return f'Images: {", ".join(names)}. Pixels of each label: {histogram}. '

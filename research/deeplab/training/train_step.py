"""The training step: forward, losses, gradients, update."""

import functools

import tensorflow as tf

from deeplab import checkpoints, common, model, rematerialization, slim
from deeplab.common import InputError
from deeplab.training import losses, optimizers, step_guards

# Keys of what a step returns, beside one '<output>_<scale>' for each loss.
REGULARIZATION = 'regularization'
TOTAL_LOSS = 'total_loss'
LEARNING_RATE = 'learning_rate'
# The share of the hosts that want to stop.
STOP = 'stop'

# Images of a summary, TensorBoard's number.
_MAX_SUMMARY_IMAGES = 3


class TrainStep:
  """The network, its optimiser and the compiled step.

  Each replica takes the mean loss over the pixels of its own images, and
  weight decay; gradients are the mean over the replicas. This is what the
  original's clones do. With `sync_batch_norm` the mean is over the pixels of
  all replicas, as are the statistics of batch norm: the step is that of one
  device with the whole batch.

  Attributes:
    model: the keras.Model, built for training.
    variables: {official name: tf.Variable} of the model.
    optimizer: of the trainable ones.
    averages: optimizers.MovingAverages of the variables.
    loss_scale: step_guards.LossScale.
    global_step: int64 tf.Variable, the number of finished steps.
    multipliers: {official name: factor of the gradient} where not 1.
    replica_batch_size: images of a replica in a step.
    compiled: the tf.function of the last `compile`, None before.
    is_guarded: whether a step that is not finite is skipped.
  """

  def __init__(self, config, strategy, ignore_label):
    """Builds the network.

    Args:
      config: TrainConfig.
      strategy: tf.distribute strategy.
      ignore_label: label of the pixels that do not count.

    Raises:
      InputError: the batch does not divide by the replicas and the parts, the
        network cannot be built, or a scope to train has no variable.
    """
    self.config = config
    self.strategy = strategy
    self.ignore_label = ignore_label
    self.learning_rate = config.learning_rate()
    self.compiled = None
    self.replica_batch_size = _replica_batch_size(
      config, strategy.num_replicas_in_sync
    )
    with strategy.scope():
      self.model = model.build_model(
        config.model_options,
        image_pyramid=config.image_pyramid,
        is_training=True,
        fine_tune_batch_norm=config.fine_tune_batch_norm,
        weight_decay=config.weight_decay,
        seed=config.seed,
        nas_training_hyper_parameters=config.nas_training_hyper_parameters(),
        mixed_precision=config.mixed_precision,
      )
      named = checkpoints.named_variables(self.model)
      if config.trainable_scopes is not None:
        _freeze_others(named, config.trainable_scopes)
      # The TensorFlow variables under the Keras ones: these have an update
      # across replicas.
      self.variables = {name: named[name].value for name in named}
      self._trainable = {
        name: variable
        for name, variable in self.variables.items()
        if named[name].trainable
      }
      self._weight_decay = {
        name: 2.0 * named[name].regularizer.l2
        for name in self._trainable
        if named[name].regularizer is not None
      }
      self.optimizer = _make_optimizer(config, self._trainable)
      self.averages = optimizers.MovingAverages(
        self.variables if config.moving_average_decay else {},
        config.moving_average_decay,
      )
      self.loss_scale = step_guards.LossScale(
        config.mixed_precision == 'float16'
      )
      self.global_step = tf.Variable(
        0, dtype=tf.int64, trainable=False, name=checkpoints.GLOBAL_STEP
      )
    self.is_guarded = config.max_nan_steps > 0 or self.loss_scale.is_variable
    self.multipliers = optimizers.gradient_multipliers(
      self.variables,
      model.get_extra_layer_scopes(config.last_layers_contain_logits_only),
      config.last_layer_gradient_multiplier,
    )

  def state(self):
    """{official name: tf.Variable} of everything that a checkpoint holds."""
    return {
      **self._replicated(),
      **self.loss_scale.state(),
      checkpoints.GLOBAL_STEP: self.global_step,
    }

  def optional_state(self):
    """The part of `state` that a checkpoint may lack."""
    return {**self.averages.slots, **self.loss_scale.state()}

  def _replicated(self):
    """The part of `state` that the replicas change."""
    return {**self.variables, **self.optimizer.slots, **self.averages.slots}

  def compile(self, element_spec):
    """The step as a function of one batch, traced once.

    Args:
      element_spec: of the (distributed) data set.

    Returns:
      A function of images float32 [batch, height, width, 3] and labels int32
      [batch, height, width, 1], as the distributed data set gives them, and of
      whether this host wants to stop (False by default). It returns {loss name,
      REGULARIZATION, TOTAL_LOSS, LEARNING_RATE, STOP, and where steps may be
      skipped those of `step_guards`: float32 scalar}, with the mean over
      replicas, before the update; and {'semantic': int64 [images, h, w, 1]}
      predictions of the first replica, for summaries, if the configuration asks
      for them.
    """
    self.compiled = tf.function(
      self.run,
      input_signature=[
        element_spec[common.IMAGE],
        element_spec[common.LABEL],
        tf.TensorSpec([], tf.bool),
      ],
      autograph=False,
      # None for what TensorFlow does.
      jit_compile=self.config.jit_compile or None,
    )
    return lambda images, labels, stop=False: self.compiled(
      images, labels, tf.constant(stop)
    )

  def run(self, images, labels, stop):
    """One step, not compiled; see `compile`."""
    step = tf.identity(self.global_step)
    run = (
      self._whole_step
      if self.config.gradient_accumulation_steps == 1
      else self._step_in_parts
    )
    metrics, predictions = tf.nest.map_structure(
      lambda value: self.strategy.experimental_local_results(value)[0],
      run(images, labels, step, stop),
    )
    self.loss_scale.update(metrics)
    self.global_step.assign_add(1)
    metrics[LEARNING_RATE] = self.learning_rate(step)
    return metrics, predictions

  def mean_over_hosts(self, value):
    """The mean of a number that each host gives; waits for all of them."""

    if self.config.cluster is None:
      return float(value)
    mean = self._host_mean(tf.constant(value, tf.float64))
    return float(self.strategy.experimental_local_results(mean)[0].numpy())

  @functools.cached_property
  def _host_mean(self):
    def replica_mean(value):
      replica = tf.distribute.get_replica_context()
      # On a device of the replica, where the reduction looks for it.
      value = tf.identity(value)
      return replica.all_reduce(tf.distribute.ReduceOp.MEAN, value)

    return tf.function(
      lambda value: self.strategy.run(replica_mean, args=(value,))
    )

  def _whole_step(self, images, labels, step, stop):
    def replica_step(images, labels):
      start = self._snapshot()
      metrics, gradients, predictions = self._part_gradients(
        images, labels, step, 0
      )
      metrics = self._update([metrics], gradients, start, step, stop)
      return metrics, predictions

    return self.strategy.run(replica_step, args=(images, labels))

  def _step_in_parts(self, images, labels, step, stop):
    """The step with accumulated gradients.

    The loop is here, over a function that is traced once: replicas cannot meet
    inside a loop of the graph, as they do in synchronised batch norm.
    """

    def add_part(images, labels, sums, part):
      metrics, gradients, predictions = self._part_gradients(
        images, labels, step, part
      )
      return (
        metrics,
        tf.nest.map_structure(tf.add, sums, gradients),
        predictions,
      )

    add = tf.function(
      lambda sums, part: self.strategy.run(
        add_part, args=(images, labels, sums, part)
      ),
      autograph=False,
    )
    start = self.strategy.run(self._snapshot)
    sums = self.strategy.run(self._zero_gradients)
    all_metrics = []
    for part in range(self.config.gradient_accumulation_steps):
      metrics, sums, found = add(sums, tf.constant(part, tf.int64))
      all_metrics.append(metrics)
      if part == 0:
        predictions = found
    metrics = self.strategy.run(
      self._update, args=(all_metrics, sums, start, step, stop)
    )
    return metrics, predictions

  def _snapshot(self):
    """The values that a skipped step goes back to, in a replica."""
    if not self.is_guarded:
      return {}
    return {
      name: tf.identity(variable)
      for name, variable in self._replicated().items()
    }

  def _zero_gradients(self):
    return {
      name: tf.zeros(variable.shape, variable.dtype)
      for name, variable in self._trainable.items()
    }

  def compute_gradients(self, images, labels, step):
    """Losses and gradients in a replica; batch norm gathers its statistics.

    Args:
      images: float32 [batch, height, width, 3].
      labels: int32 [batch, height, width, 1].
      step: int64 scalar tensor.

    Returns:
      Scalars by name and gradients by official name, before the multipliers,
      both as the mean over replicas; and predictions for summaries.
    """
    metrics, gradients, predictions = self._part_gradients(
      images, labels, step, 0
    )
    return *self._mean([metrics], gradients), predictions

  def _part_gradients(self, images, labels, step, part):
    """Losses and gradients of one part of a replica's batch.

    Args:
      images: float32 [batch, height, width, 3], those of all parts.
      labels: int32 [batch, height, width, 1].
      step: int64 scalar tensor.
      part: number of the part, an integer or a scalar tensor.

    Returns:
      As `compute_gradients`, before the mean over the replicas.
    """
    images, labels = self._with_static_shape(images, labels)
    num_parts = self.config.gradient_accumulation_steps
    size = self.replica_batch_size // num_parts
    first = tf.cast(part, tf.int64) * size
    replica = tf.distribute.get_replica_context()
    offset = tf.cast(replica.replica_id_in_sync_group, tf.int64)
    batch = losses.Batch(
      labels,
      num_parts,
      functools.partial(replica.all_reduce, tf.distribute.ReduceOp.MEAN)
      if self.config.sync_batch_norm
      else tf.identity,
    )
    if num_parts > 1:
      images, labels = (
        tf.ensure_shape(value[first : first + size], [size, *value.shape[1:]])
        for value in (images, labels)
      )
    with tf.GradientTape() as tape:
      with slim.train_step_context(
        step,
        tf.stack([tf.constant(self.config.seed, tf.int64), step]),
        first_image=offset * self.replica_batch_size + first,
        sync_batch_norm=self.config.sync_batch_norm,
      ):
        outputs = self._call(images)
      metrics = self._losses(outputs, labels, step, batch)
      data_loss = tf.add_n(list(metrics.values()))
      scaled_loss = self.loss_scale.multiply(data_loss)
    gradients = tape.gradient(
      scaled_loss,
      self._trainable,
      unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    gradients = tf.nest.map_structure(self.loss_scale.divide, gradients)
    metrics[REGULARIZATION] = self._add_weight_decay(gradients)
    metrics[TOTAL_LOSS] = data_loss + metrics[REGULARIZATION]
    return metrics, gradients, self._predictions(outputs)

  def _add_weight_decay(self, gradients):
    """Adds its part to the gradients; returns its part of the loss.

    Both are that of `model.losses`. They are written out so that a kernel is
    read once, where its gradient is there: a tape would hold a second gradient
    of all kernels from the beginning of the step.
    """
    losses = [tf.constant(0.0)]
    for name, factor in self._weight_decay.items():
      with tf.control_dependencies([gradients[name]]):
        kernel = tf.convert_to_tensor(self._trainable[name])
        losses.append(tf.cast(factor * tf.nn.l2_loss(kernel), tf.float32))
        gradients[name] += factor * kernel
    return tf.add_n(losses)

  def _call(self, images):
    is_xla = self.config.jit_compile or self.config.tpu is not None
    way = self.config.recompute_grad or rematerialization.default_way(is_xla)
    return rematerialization.call(self.model, images, way, is_xla)

  def _mean(self, all_metrics, gradients):
    """Means over parts and replicas, of metrics and of summed gradients."""
    num_parts = len(all_metrics)
    metrics = {
      name: tf.add_n([part[name] for part in all_metrics]) / num_parts
      for name in all_metrics[0]
    }
    if num_parts > 1:
      gradients = tf.nest.map_structure(lambda g: g / num_parts, gradients)
    replica = tf.distribute.get_replica_context()
    return tuple(
      replica.all_reduce(tf.distribute.ReduceOp.MEAN, values)
      for values in (metrics, gradients)
    )

  def _update(self, all_metrics, gradients, start, step, stop):
    """Takes the step, in a replica; returns the metrics."""
    stop = {STOP: tf.cast(stop, tf.float32)}
    metrics, gradients = self._mean(
      [metrics | stop for metrics in all_metrics], gradients
    )
    rate = self.learning_rate(step)
    if self.config.optimizer == 'adam':
      rate = tf.constant(self.config.adam_learning_rate, tf.float32)
    self.optimizer.apply_gradients(
      {
        name: gradient * self.multipliers.get(name, 1.0)
        for name, gradient in gradients.items()
      },
      rate,
    )
    self.averages.update(step)
    if self.is_guarded:
      is_finite = step_guards.is_finite([metrics[TOTAL_LOSS], gradients])
      step_guards.undo_unless(is_finite, self._replicated(), start)
      metrics[step_guards.SKIPPED] = 1.0 - tf.cast(is_finite, tf.float32)
    return metrics

  def _with_static_shape(self, images, labels):
    """TPUs need static shapes, and a split batch has lost its own."""
    size = [self.replica_batch_size, *self.config.model_options.crop_size]
    return tf.ensure_shape(images, [*size, 3]), tf.ensure_shape(
      labels, [*size, 1]
    )

  def _losses(self, outputs, labels, step, batch):
    options = self.config.model_options
    weights = options.label_weights
    return {
      f'{output}_{scale}': loss
      for output, scales_to_logits in outputs.items()
      for scale, loss in losses.softmax_cross_entropy_loss_for_each_scale(
        scales_to_logits,
        labels,
        options.outputs_to_num_classes[output],
        self.ignore_label,
        loss_weight=1.0 if weights is None else list(weights),
        upsample_logits=self.config.upsample_logits,
        hard_example_mining_step=self.config.hard_example_mining_step,
        top_k_percent_pixels=self.config.top_k_percent_pixels,
        global_step=step,
        batch=batch,
      ).items()
    }

  def _predictions(self, outputs):
    if not self.config.save_summaries_images:
      return {}
    return {
      output: tf.argmax(
        logits[model.MERGED_LOGITS_SCOPE][:_MAX_SUMMARY_IMAGES], axis=-1
      )[..., tf.newaxis]
      for output, logits in outputs.items()
    }


def _replica_batch_size(config, replicas):
  batch_size, num_parts = (
    config.train_batch_size,
    config.gradient_accumulation_steps,
  )
  if batch_size % (replicas * num_parts):
    raise InputError(
      f'--train_batch_size={batch_size} is the batch of all replicas in one '
      f'step and must divide by {replicas} replicas times {num_parts} parts '
      f'(--gradient_accumulation_steps={num_parts}).'
    )
  return batch_size // replicas


def _freeze_others(variables, scopes):
  """Makes variables outside the scopes constant, as to weight decay too."""
  trainable = [name for name in variables if variables[name].trainable]
  for scope in scopes:
    if not any(name.startswith(scope) for name in trainable):
      there = dict.fromkeys(name.rpartition('/')[0] for name in trainable)
      raise InputError(
        f'trainable_scopes: no variable to train begins with {scope!r}. Scopes '
        f'are, for example, {", ".join(_sample(list(there)))}. Received: '
        f'trainable_scopes={list(scopes)}.'
      )
  for name in trainable:
    if not name.startswith(tuple(scopes)):
      variables[name].trainable = False


def _sample(items, most=8):
  """At most that many items, evenly, the first and the last included."""
  if len(items) <= most:
    return items
  return [items[i * (len(items) - 1) // (most - 1)] for i in range(most)]


def _make_optimizer(config, variables):
  if config.optimizer == 'adam':
    return optimizers.Adam(variables, epsilon=config.adam_epsilon)
  return optimizers.Momentum(variables, momentum=config.momentum)

"""The training step: forward, losses, gradients, update."""

import tensorflow as tf

from deeplab import checkpoints, common, model, slim
from deeplab.common import InputError
from deeplab.training import losses, optimizers

# Keys of what a step returns, beside one '<output>_<scale>' for each loss.
REGULARIZATION = 'regularization'
TOTAL_LOSS = 'total_loss'
LEARNING_RATE = 'learning_rate'

# Images of a summary, TensorBoard's number.
_MAX_SUMMARY_IMAGES = 3


class TrainStep:
  """The network, its optimiser and the compiled step.

  Each replica takes the mean loss over the pixels of its own images, and
  weight decay; gradients are the mean over the replicas. This is what the
  original's clones do.

  Attributes:
    model: the keras.Model, built for training.
    variables: {official name: tf.Variable} of the model.
    optimizer: of the trainable ones.
    global_step: int64 tf.Variable, the number of finished steps.
    multipliers: {official name: factor of the gradient} where not 1.
  """

  def __init__(self, config, strategy, ignore_label):
    """Builds the network.

    Args:
      config: TrainConfig.
      strategy: tf.distribute strategy.
      ignore_label: label of the pixels that do not count.

    Raises:
      InputError: the batch does not divide by the replicas, the network
        cannot be built, or a scope to train has no variable.
    """
    self.config = config
    self.strategy = strategy
    self.ignore_label = ignore_label
    self.learning_rate = config.learning_rate()
    self.replica_batch_size = _replica_batch_size(
      config.train_batch_size, strategy.num_replicas_in_sync
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
      self.optimizer = _make_optimizer(config, self._trainable)
      self.global_step = tf.Variable(
        0, dtype=tf.int64, trainable=False, name=checkpoints.GLOBAL_STEP
      )
    self.multipliers = optimizers.gradient_multipliers(
      self.variables,
      model.get_extra_layer_scopes(config.last_layers_contain_logits_only),
      config.last_layer_gradient_multiplier,
    )

  def state(self):
    """{official name: tf.Variable} of everything that a checkpoint holds."""
    return {
      **self.variables,
      **self.optimizer.slots,
      checkpoints.GLOBAL_STEP: self.global_step,
    }

  def compile(self, element_spec, jit_compile=None):
    """The step as a function of one batch, traced once.

    Args:
      element_spec: of the (distributed) data set.
      jit_compile: whether to compile with XLA; None for what TensorFlow does.

    Returns:
      A function of images float32 [batch, height, width, 3] and labels int32
      [batch, height, width, 1], as the distributed data set gives them. It
      returns {loss name, REGULARIZATION, TOTAL_LOSS, LEARNING_RATE: float32
      scalar}, with the mean over replicas, before the update; and
      {'semantic': int64 [images, h, w, 1]} predictions of the first replica,
      for summaries, if the configuration asks for them.
    """
    signature = [element_spec[common.IMAGE], element_spec[common.LABEL]]
    return tf.function(
      self.run,
      input_signature=signature,
      autograph=False,
      jit_compile=jit_compile,
    )

  def run(self, images, labels):
    """One step, not compiled; see `compile`."""
    step = tf.identity(self.global_step)
    metrics, predictions = self.strategy.run(
      self._replica_step, args=(images, labels, step)
    )
    self.global_step.assign_add(1)
    metrics, predictions = tf.nest.map_structure(
      lambda value: self.strategy.experimental_local_results(value)[0],
      (metrics, predictions),
    )
    metrics[LEARNING_RATE] = self.learning_rate(step)
    return metrics, predictions

  def _replica_step(self, images, labels, step):
    metrics, gradients, predictions = self.compute_gradients(
      images, labels, step
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
    return metrics, predictions

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
    images, labels = self._with_static_shape(images, labels)
    replica = tf.distribute.get_replica_context()
    replicas = tf.cast(self.strategy.num_replicas_in_sync, tf.int64)
    draw = step * replicas + tf.cast(replica.replica_id_in_sync_group, tf.int64)
    seed = tf.stack([tf.constant(self.config.seed, tf.int64), draw])
    with tf.GradientTape() as tape:
      with slim.train_step_context(step, seed):
        outputs = self.model(images)
      metrics = self._losses(outputs, labels, step)
      data_loss = tf.add_n(list(metrics.values()))
      metrics[REGULARIZATION] = tf.add_n(self.model.losses or [0.0])
      metrics[TOTAL_LOSS] = data_loss + metrics[REGULARIZATION]
    gradients = tape.gradient(
      metrics[TOTAL_LOSS],
      self._trainable,
      unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    metrics, gradients = replica.all_reduce(
      tf.distribute.ReduceOp.MEAN, (metrics, gradients)
    )
    return metrics, gradients, self._predictions(outputs)

  def _with_static_shape(self, images, labels):
    """TPUs need static shapes, and a split batch has lost its own."""
    size = [self.replica_batch_size, *self.config.model_options.crop_size]
    return tf.ensure_shape(images, [*size, 3]), tf.ensure_shape(
      labels, [*size, 1]
    )

  def _losses(self, outputs, labels, step):
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


def _replica_batch_size(batch_size, replicas):
  if batch_size % replicas:
    raise InputError(
      f'--train_batch_size={batch_size} is the batch of all replicas and '
      f'must divide by their number, {replicas}.'
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

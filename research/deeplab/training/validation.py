"""Evaluation during training: the best checkpoint, and stopping early."""

import json
import math
import os
import tempfile

import tensorflow as tf
from absl import logging

from deeplab import best_checkpoint
from deeplab.common import InputError
from deeplab.datasets import data_generator
from deeplab.evaluation import evaluator
from deeplab.training.interruption import Interrupted

# Folder of the results in train_logdir.
FOLDER = 'eval'


class _Stoppable(data_generator.Dataset):
  """A data set that ends in between where the training is told to end."""

  def iterate(self, *arguments, **options):
    for batch in super().iterate(*arguments, **options):
      if self.should_stop():
        raise Interrupted(
          'stopped during an evaluation; the same command evaluates the '
          'checkpoint again and goes on.'
        )
      yield batch


class Validation:
  """Evaluates checkpoints of a run on another split.

  Every host of several does all of it and they agree on the value, so that all
  of them come to the same end; what the first one writes is kept.
  """

  def __init__(
    self,
    config,
    is_chief,
    agree=float,
    should_stop=lambda: False,
    persist=lambda write: write(),
  ):
    """Checks the split; the network is built with the first evaluation.

    Args:
      config: TrainConfig with `eval_interval_steps`.
      is_chief: whether this host writes the best checkpoint.
      agree: function from a number to the one that all hosts go by; GPUs
        need not compute the same to the last bit.
      should_stop: function of nothing, whether to end an evaluation.
      persist: calls a function that writes, and again where it cannot.

    Raises:
      InputError: the split is not there, or has no labels.
    """
    self._config = config
    self._is_chief = is_chief
    self._agree = agree
    self._evaluation = None
    self._persist = persist
    crop_size = config.eval_crop_size or config.model_options.crop_size
    self._crop_size = list(crop_size)
    self._dataset = _Stoppable(
      dataset_name=config.dataset_name,
      split_name=config.eval_split,
      dataset_dir=config.dataset_dir,
      batch_size=1,
      crop_size=self._crop_size,
      min_resize_value=config.min_resize_value,
      max_resize_value=config.max_resize_value,
      resize_factor=config.resize_factor,
      keep_aspect_ratio=config.keep_aspect_ratio,
      model_variant=config.model_options.model_variant,
    )
    self._dataset.should_stop = should_stop
    if not self._dataset.has_labels:
      raise InputError(
        f'--eval_split={config.eval_split} has no labels to evaluate with. '
        'Choose another split.'
      )
    # The value and the step of the best one.
    self._best = None
    name = config.keep_best_by
    best = name and best_checkpoint.read_best(config.train_logdir, name)
    if best:
      self._best = (best[name], best['step'])

  def resume(self, prefix, number):
    """Makes up for what a run that ended had not done yet.

    It may have ended before it had evaluated its last checkpoint, or before it
    had kept that as the best.

    Args:
      prefix: the checkpoint that the run goes on from.
      number: its step.

    Returns:
      Whether to stop, as `evaluate`.
    """
    if not self.is_due(number):
      return False
    result = os.path.join(
      self._config.train_logdir, FOLDER, f'miou_{number}.json'
    )
    values = _read_result(result)
    # Decided together: the first host may write it in between.
    if self._agree(float(values is not None)) < 1:
      return self.evaluate(prefix, number)
    return self._take(values, prefix, number)

  def is_due(self, number):
    """Whether a checkpoint of this step is to be evaluated."""
    config = self._config
    is_last = number == config.training_number_of_steps
    return is_last or number % config.eval_interval_steps == 0

  def evaluate(self, prefix, number):
    """Evaluates a checkpoint and keeps it if it is the best.

    Args:
      prefix: the checkpoint.
      number: its step.

    Returns:
      Whether to stop: there was no better one for so long.

    Raises:
      InputError: something in the split is broken, or a file cannot be written.
    """
    config = self._config
    if self._evaluation is None:
      folder = (
        os.path.join(config.train_logdir, FOLDER)
        if self._is_chief
        else self._own_folder()
      )
      self._evaluation = evaluator.Evaluation(
        config.model_options,
        self._dataset,
        self._crop_size,
        folder,
        image_pyramid=config.image_pyramid,
      )
    values = self._evaluation.evaluate(prefix, number)
    return self._take(values, prefix, number)

  def _own_folder(self):
    """A folder that goes away with this object."""
    self._temporary = tempfile.TemporaryDirectory()
    return self._temporary.name

  def _take(self, values, prefix, number):
    """Keeps an evaluated checkpoint if it is the best; whether to stop."""
    config = self._config
    name = config.keep_best_by
    if name is None:
      return False
    value = values[name]
    value = self._agree(math.nan if value is None else value)
    if value == value and (self._best is None or value > self._best[0]):
      if self._is_chief:
        self._persist(
          lambda: best_checkpoint.keep_best(
            config.train_logdir, prefix, value, name
          )
        )
      self._best = (value, number)
      logging.info('The best checkpoint so far: %s %.4f.', name, value)
    return self._is_over(number)

  def _is_over(self, number):
    """Whether there was no better one for so long."""
    config = self._config
    patience = config.early_stopping_evals * config.eval_interval_steps
    if not (patience and self._best and number - self._best[1] >= patience):
      return False
    logging.info(
      'Stopped early: no better %s in %d evaluations.',
      config.keep_best_by,
      config.early_stopping_evals,
    )
    return True


def _read_result(path):
  """The values that an evaluation wrote; None where there are none."""
  try:
    with tf.io.gfile.GFile(path) as file:
      return json.load(file)
  except (OSError, ValueError, tf.errors.OpError):
    return None

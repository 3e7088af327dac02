"""Evaluation during training: the best checkpoint, and stopping early."""

import math
import os
import tempfile

import tensorflow as tf
from absl import logging

from deeplab import best_checkpoint
from deeplab.common import InputError
from deeplab.datasets import data_generator
from deeplab.evaluation import evaluator

# Folder of the results in train_logdir.
FOLDER = 'eval'


class Validation:
  """Evaluates checkpoints of a run on another split.

  Every host of several does all of it and they agree on the value, so that all
  of them come to the same end; what the first one writes is kept.
  """

  def __init__(self, config, is_chief, agree=float):
    """Checks the split; the network is built with the first evaluation.

    Args:
      config: TrainConfig with `eval_interval_steps`.
      is_chief: whether this host writes the best checkpoint.
      agree: function from a number to the one that all hosts go by; GPUs
        need not compute the same to the last bit.

    Raises:
      InputError: the split is not there, or has no labels.
    """
    self._config = config
    self._is_chief = is_chief
    self._agree = agree
    self._evaluation = None
    # What a host writes that is not the first goes away with it.
    self._own_folder = tempfile.TemporaryDirectory()
    crop_size = config.eval_crop_size or config.model_options.crop_size
    self._crop_size = list(crop_size)
    self._dataset = data_generator.Dataset(
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
    """Evaluates what a run that ended had not evaluated yet.

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
    # Decided together: the first host may write it in between.
    if self._agree(float(tf.io.gfile.exists(result))) < 1:
      return self.evaluate(prefix, number)
    return self._is_over(number)

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
        else self._own_folder.name
      )
      self._evaluation = evaluator.Evaluation(
        config.model_options,
        self._dataset,
        self._crop_size,
        folder,
        image_pyramid=config.image_pyramid,
      )
    values = self._evaluation.evaluate(prefix, number)
    name = config.keep_best_by
    if name is None:
      return False
    value = values[name]
    value = self._agree(math.nan if value is None else value)
    if value == value and (self._best is None or value > self._best[0]):
      self._best = (value, number)
      if self._is_chief:
        best_checkpoint.keep_best(config.train_logdir, prefix, value, name)
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

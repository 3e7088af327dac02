"""Evaluation during training: the best checkpoint, and stopping early."""

import os
import tempfile

from absl import logging

from deeplab import best_checkpoint
from deeplab.datasets import data_generator
from deeplab.evaluation import evaluator

# Folder of the results in train_logdir.
FOLDER = 'eval'


class Validation:
  """Evaluates checkpoints of a run on another split.

  Every host of several does all of it, so that all of them come to the same
  end without asking each other; the first one alone writes.
  """

  def __init__(self, config, is_chief):
    """Checks the split; the network is built with the first evaluation.

    Args:
      config: TrainConfig with `eval_interval_steps`.
      is_chief: whether this host writes the best checkpoint.

    Raises:
      InputError: the split is not there.
    """
    self._config = config
    self._is_chief = is_chief
    self._evaluation = None
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
    # The value and the step of the best one.
    self._best = None
    name = config.keep_best_by
    best = name and best_checkpoint.read_best(config.train_logdir, name)
    if best:
      self._best = (best[name], best['step'])

  def is_due(self, number):
    """Whether a checkpoint of this step is to be evaluated."""
    return number % self._config.eval_interval_steps == 0

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
        else tempfile.mkdtemp()
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
    if value is not None and (self._best is None or value > self._best[0]):
      self._best = (value, number)
      if self._is_chief:
        best_checkpoint.keep_best(config.train_logdir, prefix, value, name)
      logging.info('The best checkpoint so far: %s %.4f.', name, value)
    patience = config.early_stopping_evals * config.eval_interval_steps
    return bool(patience and self._best and number - self._best[1] >= patience)

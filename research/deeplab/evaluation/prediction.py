"""What evaluation and visualisation share: checkpoints in, label maps out."""

import dataclasses
import os
import re
import sys
import time
from collections.abc import Callable, Sequence

import tensorflow as tf
from tqdm import tqdm

from deeplab import checkpoints, common, inference
from deeplab.common import InputError

# What may follow a checkpoint's prefix in the name of one of its files.
_FILE_SUFFIX = re.compile(r'\.(index|meta|data-\d{5}-of-\d{5})$')


def _is_checkpoint(prefix):
  return tf.io.gfile.exists(f'{prefix}.index')


def _step_in_name(prefix):
  """30000 for '.../model.ckpt-30000', -1 where the name has no step."""
  match = re.search(r'-(\d+)$', prefix)
  return int(match.group(1)) if match else -1


def _without_state_file(directory):
  """The checkpoint of the highest step in a downloaded directory, or None.

  Published checkpoints come without the `checkpoint` state file that
  `tf.train.latest_checkpoint` goes by.
  """
  if tf.io.gfile.exists(os.path.join(directory, 'checkpoint')):
    return None
  files = tf.io.gfile.glob(os.path.join(directory, '*.index'))
  prefixes = [_FILE_SUFFIX.sub('', file) for file in files]
  return max(prefixes, key=_step_in_name, default=None)


def fixed_checkpoint(path):
  """The one checkpoint that `path` means, if it does not mean a training run.

  Args:
    path: a directory, a prefix ('.../model.ckpt-30000') or a checkpoint's file
      ('.../model.ckpt-30000.index').

  Returns:
    The prefix; None for a directory that a training run writes to (or will).

  Raises:
    InputError: there is nothing at `path`.
  """
  if tf.io.gfile.isdir(path):
    return _without_state_file(path)
  prefix = _FILE_SUFFIX.sub('', path)
  if _is_checkpoint(prefix):
    return prefix
  raise InputError(
    f'--checkpoint_dir={path} is neither a directory nor a checkpoint: '
    f'{prefix}.index does not exist. Give the directory of a training run, a '
    "prefix such as '.../model.ckpt-30000', or one of a checkpoint's files."
  )


def checkpoint_paths(path, limit=0, interval_secs=300, timeout_secs=None):
  """Goes through the checkpoints of a training run as they appear.

  Args:
    path: as in `fixed_checkpoint`; anything but a training run's directory is
      yielded once.
    limit: number of checkpoints to yield; 0 or less for no end.
    interval_secs: least time between two of them.
    timeout_secs: end when no new checkpoint appeared for so long; None waits
      for ever.

  Yields:
    Prefixes, always the newest one.

  Raises:
    InputError: there is nothing at `path`; or no checkpoint appeared before
      the timeout; or one is wanted, there is none, and no timeout was given.
  """
  fixed = fixed_checkpoint(path)
  if fixed:
    yield fixed
    return
  if tf.train.latest_checkpoint(path) is None:
    if limit == 1 and timeout_secs is None:
      raise InputError(
        f'--checkpoint_dir={path} holds no checkpoint. Train first, or give '
        '--timeout_secs to wait for one.'
      )
    print(f'Waiting for a checkpoint in {path}.', flush=True)
  found = tf.train.checkpoints_iterator(
    path, min_interval_secs=interval_secs, timeout=timeout_secs
  )
  # Not asked for one more than the limit: it would wait for that one.
  count = 0
  while limit <= 0 or count < limit:
    prefix = next(found, None)
    if prefix is None:
      break
    yield prefix
    count += 1
  if not count:
    raise InputError(
      f'--checkpoint_dir={path}: no checkpoint appeared in {timeout_secs} '
      'seconds (--timeout_secs).'
    )


def checkpoint_step(prefix):
  """The training step of a checkpoint: its global_step, else from its name."""
  reader = tf.train.load_checkpoint(prefix)
  if reader.has_tensor('global_step'):
    return int(reader.get_tensor('global_step'))
  return max(_step_in_name(prefix), 0)


class Predictor:
  """A network that labels images, built once, its weights loaded many times."""

  def __init__(
    self,
    options,
    crop_size,
    eval_scales=(1.0,),
    add_flipped_images=False,
    image_pyramid=None,
  ):
    """Builds the network; the weights come with `restore`.

    Args:
      options: ModelOptions.
      crop_size: [height, width] of the images it will get.
      eval_scales: scales whose probabilities are averaged.
      add_flipped_images: average over the mirrored images too.
      image_pyramid: scales of the network's own image pyramid, or None.
    """
    self._model = inference.build_predictor(
      options,
      eval_scales=eval_scales,
      add_flipped_images=add_flipped_images,
      image_pyramid=image_pyramid,
    )
    # One trace serves every batch: the last one may be smaller.
    signature = tf.TensorSpec([None, *crop_size, 3], tf.float32)
    self._predict = tf.function(self._labels, input_signature=[signature])

  def _labels(self, images):
    return self._model(images, training=False)[common.OUTPUT_TYPE]

  def restore(self, prefix):
    """Loads the weights of a checkpoint.

    Args:
      prefix: the checkpoint.

    Returns:
      The checkpoint's training step.

    Raises:
      InputError: it is not a checkpoint of this network.
    """
    checkpoints.restore(self._model, prefix)
    return checkpoint_step(prefix)

  def __call__(self, images):
    """Labels a batch.

    Args:
      images: float32 [batch, height, width, 3] in 0..255.

    Returns:
      Integer NumPy array [batch, height, width].
    """
    return self._predict(images).numpy()


def batches(dataset, description):
  """The batches of a data set as NumPy, behind a progress bar in images.

  Args:
    dataset: a data_generator.Dataset.
    description: a word or two, shown before the bar.

  Yields:
    Dictionaries of the samples' items; the image stays a tensor.

  Raises:
    InputError: a record, image or label is broken, or an image does not fit
      into the crop.
  """
  # A log file gets a line now and then instead of a line for each batch.
  interval = 0.2 if sys.stderr.isatty() else 30
  with tqdm(
    total=dataset.num_examples,
    desc=description,
    unit='image',
    mininterval=interval,
  ) as bar:
    for batch in dataset.iterate():
      yield {
        name: value if name == common.IMAGE else value.numpy()
        for name, value in batch.items()
      }
      bar.update(int(batch[common.IMAGE].shape[0]))


@dataclasses.dataclass(frozen=True)
class Job:
  """Which checkpoints to run, and how; what eval.py and vis.py share.

  Attributes:
    checkpoint_dir: directory, prefix or file; see `fixed_checkpoint`.
    make_options: called with the first checkpoint's prefix; returns the
      ModelOptions. (A training run that has only just begun may not have
      written them yet.)
    crop_size: [height, width] of the images.
    eval_scales: scales whose probabilities are averaged.
    add_flipped_images: average over the mirrored images too.
    image_pyramid: scales of the network's own image pyramid, or None.
    limit: stop after so many checkpoints; 0 for no end.
    interval_secs: least time between two checkpoints.
    timeout_secs: stop when no new checkpoint appeared for so long, or None.
  """

  checkpoint_dir: str
  make_options: Callable[[str], common.ModelOptions]
  crop_size: Sequence[int]
  eval_scales: Sequence[float] = (1.0,)
  add_flipped_images: bool = False
  image_pyramid: Sequence[float] | None = None
  limit: int = 0
  interval_secs: float = 300
  timeout_secs: float | None = None

  def predictors(self):
    """Goes through the checkpoints; see `checkpoint_paths`.

    Yields:
      (predictor, step, prefix): the same Predictor each time, with the weights
      of checkpoint `prefix`, which training wrote at `step`.
    """
    predictor = None
    for prefix in checkpoint_paths(
      self.checkpoint_dir, self.limit, self.interval_secs, self.timeout_secs
    ):
      predictor = predictor or Predictor(
        self.make_options(prefix),
        self.crop_size,
        self.eval_scales,
        self.add_flipped_images,
        self.image_pyramid,
      )
      step = predictor.restore(prefix)
      print(f'{time.strftime("%F %T")}  {prefix} (step {step})', flush=True)
      yield predictor, step, prefix

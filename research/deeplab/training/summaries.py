"""What a training run leaves to read: log, curves, progress, TensorBoard."""

import contextlib
import json
import math
import os
import sys
import time

import numpy as np
import tensorflow as tf
import tqdm
from absl import logging

from deeplab import atomic_files
from deeplab.common import InputError
from deeplab.training import plot_curves, train_step

LOG_FILE = plot_curves.LOG_FILE

_SUMMARY_IMAGES = 3

# Least seconds between two drawings of the curves.
_DRAWING_SECS = 60


def _cannot_write(path, error):
  return InputError(
    f'{path}: cannot be written: {str(error).splitlines()[0]}. Checkpoints are '
    'intact. Free some space or make the folder writable, and start the same '
    'command again.'
  )


class TrainLog:
  """One JSON line for each logged step, in train_log.jsonl.

  When a run resumes, lines after the restored step are dropped first, so
  that the file is the curve of a run that never stopped.

  Attributes:
    seconds: seconds of training until the last line that was kept.
  """

  def __init__(self, folder, start_step, writes=True):
    """Opens the file.

    Args:
      folder: where it is.
      start_step: number of finished steps.
      writes: whether this host is the one that writes.

    Raises:
      InputError: the file cannot be written.
    """
    self.path = os.path.join(folder, LOG_FILE)
    self.seconds = 0.0
    self._writes = writes
    self._unwritten = []
    self._folder = folder
    self._drawn = time.monotonic()
    if not writes:
      return
    try:
      lines = self._kept_lines(start_step)
      self._rewrite(lines)
    except (OSError, tf.errors.OpError) as error:
      raise _cannot_write(self.path, error) from error
    if lines:
      self.seconds = lines[-1]['seconds']

  def _kept_lines(self, start_step):
    if not tf.io.gfile.exists(self.path):
      return []
    lines = plot_curves.read_log(self.path)
    return [line for line in lines if line['step'] <= start_step]

  def write(self, line):
    """Appends {'step': ..., 'seconds': ..., ...}, null for NaN.

    Lines that cannot be written are kept for the next time: only a checkpoint
    that cannot be written ends a run.
    """
    if not self._writes:
      return
    line = {
      name: value if math.isfinite(value) else None
      for name, value in line.items()
    }
    self._unwritten.append(line)
    try:
      if len(self._unwritten) == 1:
        self._append(line)
      else:
        # What could not be written may be there in part.
        first = self._unwritten[0]['step']
        self._rewrite(self._kept_lines(first - 1) + self._unwritten)
      self._unwritten = []
    except (OSError, InputError, tf.errors.OpError) as error:
      logging.warning('%s', _cannot_write(self.path, error))

  def draw(self, now=False):
    """Draws curves.png from the log and the evaluations.

    A picture is nothing to end a training for: any fault is a warning.

    Args:
      now: at once; otherwise not more than once a minute.
    """
    is_due = now or time.monotonic() - self._drawn > _DRAWING_SECS
    if not (self._writes and is_due):
      return
    try:
      plot_curves.write(self._folder)
    except Exception as error:
      logging.warning('The curves are not drawn: %s', error)
    self._drawn = time.monotonic()

  def _append(self, line):
    with tf.io.gfile.GFile(self.path, 'a') as file:
      file.write(json.dumps(line) + '\n')

  def _rewrite(self, lines):
    atomic_files.write(
      self.path, ''.join(json.dumps(line) + '\n' for line in lines)
    )


class Progress:
  """Speed, and a progress bar on a terminal or a line for each logged step."""

  def __init__(self, start_step, total_steps, batch_size, seconds=0.0):
    """Starts the clock.

    Args:
      start_step: number of finished steps.
      total_steps: step to stop at.
      batch_size: images a step.
      seconds: of training before this run.
    """
    self._batch_size = batch_size
    self._total = total_steps
    self._start = time.monotonic() - seconds
    self._logged = (start_step, time.monotonic())
    # Seconds since the last line.
    self._waited = self._paused = 0.0
    self._bar = tqdm.tqdm(
      total=total_steps,
      initial=start_step,
      unit='step',
      dynamic_ncols=True,
      disable=not sys.stderr.isatty(),
    )

  def wait_for(self, batches):
    """Yields the batches, and takes the time that each is waited for."""
    iterator = iter(batches)
    while True:
      start = time.monotonic()
      batch = next(iterator, None)
      self._waited += time.monotonic() - start
      if batch is None:
        return
      yield batch

  @contextlib.contextmanager
  def pause(self):
    """What happens inside is no part of a step: evaluating, saving."""
    start = time.monotonic()
    try:
      yield
    finally:
      self._paused += time.monotonic() - start

  def advance(self):
    """Counts a step."""
    self._bar.update()

  def log(self, step, metrics):
    """Shows a logged step.

    Args:
      step: number of finished steps.
      metrics: {name: float}.

    Returns:
      The line for the log file. Its speed is that since the line before,
      without pauses; in the first line it includes building the graph.
    """
    now = time.monotonic()
    last_step, last_time = self._logged
    self._logged = (step, now)
    steps = step - last_step
    seconds = max(now - last_time - self._paused, 1e-9)
    steps_per_sec = steps / seconds
    waited = min(self._waited, seconds)
    self._waited = self._paused = 0.0
    line = {
      'step': step,
      **metrics,
      'steps_per_sec': round(steps_per_sec, 4),
      'images_per_sec': round(steps_per_sec * self._batch_size, 3),
      # Of each step: until its batch was there, and from then on.
      'input_secs': round(waited / steps, 5),
      'compute_secs': round((seconds - waited) / steps, 5),
      'seconds': round(now - self._start, 3),
    }
    loss = metrics[train_step.TOTAL_LOSS]
    if self._bar.disable:
      left = tqdm.tqdm.format_interval((self._total - step) / steps_per_sec)
      logging.info(
        'step %d/%d: loss %.4f, learning rate %.3g, %.3g steps/s, '
        '%.3g images/s (%.0f%% waiting for input), %s left',
        step,
        self._total,
        loss,
        metrics[train_step.LEARNING_RATE],
        steps_per_sec,
        line['images_per_sec'],
        100 * waited / seconds,
        left,
      )
    else:
      self._bar.set_postfix_str(
        f'loss {loss:.4f}, {line["images_per_sec"]:.3g} images/s',
        refresh=False,
      )
    return line

  def close(self):
    """Ends the bar."""
    self._bar.close()


class Summaries:
  """TensorBoard summaries under the official tags, now and then."""

  def __init__(self, folder, interval_secs, writes=True):
    """Opens the file.

    Args:
      folder: where it is.
      interval_secs: seconds between two of them.
      writes: whether this host is the one that writes.
    """
    self._folder = folder
    self._interval = interval_secs
    self._last = None
    self._writer = tf.summary.create_file_writer(folder) if writes else None

  def due(self):
    """Whether it is time: at the first step, then every interval."""
    if self._writer is None:
      return False
    return self._last is None or time.monotonic() - self._last > self._interval

  def write(self, step, metrics, variables, images=None):
    """Writes losses, learning rate, histograms, and images if given.

    What cannot be written is left out, with a warning.

    Args:
      step: number of finished steps.
      metrics: {name: float}.
      variables: {official name: variable}.
      images: {tag: uint8 [batch, height, width, 1 or 3]}.
    """
    if self._writer is None:
      return
    self._last = time.monotonic()
    try:
      with self._writer.as_default(step=step):
        for name, value in metrics.items():
          plain = name in (train_step.TOTAL_LOSS, train_step.LEARNING_RATE)
          tf.summary.scalar(name if plain else f'losses/{name}', value)
        for name, variable in variables.items():
          tf.summary.histogram(name, variable.numpy())
        for tag, value in (images or {}).items():
          tf.summary.image(tag, value, max_outputs=_SUMMARY_IMAGES)
      self._writer.flush()
    except (OSError, tf.errors.OpError) as error:
      logging.warning('%s', _cannot_write(self._folder, error))

  def close(self):
    """Closes the file."""
    if self._writer is not None:
      with contextlib.suppress(OSError, tf.errors.OpError):
        self._writer.close()


def sample_images(images, labels, predictions, num_classes):
  """The official pictures of a batch: image, label and prediction.

  Args:
    images: float32 [batch, height, width, 3] in 0..255.
    labels: int32 [batch, height, width, 1].
    predictions: {output: integers [batch, h, w, 1]}.
    num_classes: labels are spread over the grey levels by it.

  Returns:
    {tag: uint8 array}.
  """
  spread = max(1, 255 // num_classes)

  def grey(values):
    # As the original's cast does, the ignore label wraps around.
    return (np.asarray(values) * spread % 256).astype(np.uint8)

  return {
    'samples/image': np.clip(np.asarray(images), 0, 255).astype(np.uint8),
    'samples/label': grey(labels),
    **{f'samples/{name}': grey(value) for name, value in predictions.items()},
  }

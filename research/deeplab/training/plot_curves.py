"""Plots how trainings went: losses, learning rate, speed and mIoU by step.

  python -m deeplab.training.plot_curves logs/train --output=curves.png
  python -m deeplab.training.plot_curves run_a run_b --output=comparison.png

A folder is a --train_logdir (train_log.jsonl, and the evaluations of
--eval_interval_steps in eval/) or an --eval_logdir (miou_<step>.json). Of one
training all parts of the loss are shown, of several the total loss. Runs are
named by what their paths differ in, or with --labels='a,b'. --output may end in
.png, .pdf or .svg. train.py draws curves.png into --train_logdir by itself.
"""

import argparse
import dataclasses
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab import atomic_files, flags
from deeplab.common import InputError
from deeplab.training import step_guards, train_step
from deeplab.utils import plots

# In train_logdir: what is read, and what train.py draws.
LOG_FILE = 'train_log.jsonl'
PICTURE = 'curves.png'

# Where evaluations are, and one of them.
_RESULTS = ('miou_*.json', 'eval/miou_*.json')

_STEP, _SPEED = 'step', 'images_per_sec'

# Values of a logged step that are no part of the loss.
_NO_LOSS = (
  _STEP,
  _SPEED,
  train_step.LEARNING_RATE,
  'steps_per_sec',
  'input_secs',
  'compute_secs',
  'seconds',
  step_guards.SKIPPED,
  step_guards.LOSS_SCALE,
)

# The mean that is drawn of noisy values is over this share of them.
_SMOOTHED_SHARE = 0.08

# Losses that go over more than this ratio are shown on a logarithmic scale.
_LOG_RATIO = 10


@dataclasses.dataclass(frozen=True)
class Run:
  """A training, its evaluations, or both.

  Attributes:
    label: its name in the plot.
    lines: the logged steps in order, {'step': ..., 'total_loss': ..., ...}.
    miou: {step: mIoU} of the evaluations.
  """

  label: str
  lines: Sequence[Mapping[str, Any]]
  miou: Mapping[int, float]

  def series(self, name):
    """Steps and values of something logged, float64 [lines] each.

    NaN where it was not a finite number.
    """
    rows = [(line[_STEP], _number(line.get(name))) for line in self.lines]
    return np.array(rows, np.float64).reshape(-1, 2).T

  def losses(self):
    """Names of the parts of the loss, the total loss last."""
    names = dict.fromkeys(name for line in self.lines for name in line)
    parts = [name for name in names if name not in _NO_LOSS]
    return sorted(parts, key=lambda name: name == train_step.TOTAL_LOSS)


def _number(value):
  return value if isinstance(value, int | float) else math.nan


# Reading.


def read_log(path):
  """The lines of a train_log.jsonl.

  Args:
    path: of the file, local or remote.

  Returns:
    A list of {'step': ..., 'seconds': ..., ...}. A line that is broken, since
    the process was killed while it wrote it, is left out.

  Raises:
    OSError or tf.errors.OpError: it cannot be read.
  """
  with tf.io.gfile.GFile(path, 'rb') as file:
    texts = file.read().decode(errors='replace').splitlines()
  lines = []
  for text in texts:
    try:
      line = json.loads(text)
      if line[_STEP] >= 0 and line['seconds'] >= 0:
        lines.append(line)
    except (ValueError, TypeError, LookupError):
      continue
  return lines


def _read_miou(folder):
  """{step: mIoU} of the evaluations in a folder, in order."""
  found = {}
  for pattern in _RESULTS:
    for path in tf.io.gfile.glob(os.path.join(folder, pattern)):
      try:
        with tf.io.gfile.GFile(path) as file:
          values = json.load(file)
        found[int(values[_STEP])] = float(values['miou'])
      except (ValueError, TypeError, LookupError):
        # Nothing counted, or another file of this name.
        continue
  return dict(sorted(found.items()))


def read(folder, label=''):
  """Reads what is in a folder of a training or of evaluations.

  Args:
    folder: local or remote.
    label: name of the run.

  Returns:
    A Run.

  Raises:
    InputError: it holds neither, or cannot be read.
  """
  try:
    run = _read(folder, label)
  except (OSError, tf.errors.OpError) as error:
    reason = str(error).partition('\n')[0]
    raise InputError(f'{folder} cannot be read: {reason}.') from error
  if not run.lines and not run.miou:
    raise InputError(
      f'{folder} has neither logged steps ({LOG_FILE}) nor evaluations '
      '(miou_<step>.json). Give a --train_logdir or an --eval_logdir.'
    )
  return run


def _read(folder, label):
  path = os.path.join(folder, LOG_FILE)
  lines = read_log(path) if tf.io.gfile.exists(path) else []
  return Run(label, lines, _read_miou(folder))


# Drawing.


def draw(runs, file_format='png'):
  """Draws the curves of runs, those that there are.

  Args:
    runs: Runs.
    file_format: 'png', 'pdf' or 'svg'.

  Returns:
    The file's bytes.
  """
  panels = [_draw_losses] * any(run.lines for run in runs)
  panels += [_draw_miou] * any(run.miou for run in runs)
  panels += [_draw_rate, _draw_speed] * any(run.lines for run in runs)
  columns = min(len(panels), 2)
  rows = -(-len(panels) // 2)
  canvas = plots.new_figure(5.5 * columns, 3.6 * rows)
  for index, panel in enumerate(panels, 1):
    axes = canvas.add_subplot(rows, columns, index)
    panel(axes, runs)
    axes.set_xlabel(_STEP)
    axes.grid(alpha=0.3)
  return plots.to_bytes(canvas, file_format)


def _draw_losses(axes, runs):
  """Of one run all parts of the loss, of several the total loss."""
  if len(runs) == 1:
    curves = [(name, *runs[0].series(name)) for name in runs[0].losses()]
  else:
    total = train_step.TOTAL_LOSS
    curves = [(run.label, *run.series(total)) for run in runs]
  _draw_noisy(axes, curves)
  axes.set_title('loss' if len(runs) == 1 else 'total loss')
  values = np.concatenate([[], *(values for _, _, values in curves)])
  values = values[np.isfinite(values)]
  if values.size and values.max() > _LOG_RATIO * values.min() > 0:
    axes.set_yscale('log')


def _draw_noisy(axes, curves):
  """Draws (name, steps, values): what was logged in pale, means in full."""
  lines = []
  for _, steps, values in curves:
    mean = _running_mean(values)
    lines += axes.plot(steps, mean, marker='.' if len(steps) == 1 else None)
    axes.plot(steps, values, color=lines[-1].get_color(), alpha=0.25)
  if len(lines) > 1:
    plots.add_legend(axes, lines, [name for name, *_ in curves], fontsize=8)


def _running_mean(values):
  """Means over the neighbours that are numbers; NaN stays NaN."""
  window = 2 * int(_SMOOTHED_SHARE * len(values) / 2) + 1
  finite = np.isfinite(values)
  sums, counts = (
    _window_sums(array, window)
    for array in (np.where(finite, values, 0), finite)
  )
  return np.where(finite, sums / np.maximum(counts, 1), np.nan)


def _window_sums(values, window):
  """Sums over as many neighbours before as behind, in linear time.

  A difference of running sums would lose the small values behind a huge one.

  Args:
    values: [number].
    window: how many to add up, odd; less at the ends.

  Returns:
    The same shape.
  """
  half, number = window // 2, len(values)
  padded = np.pad(values, (half, half + -(number + 2 * half) % window))
  blocks = padded.reshape(-1, window)
  # Of each block, up to a place and from it on.
  starts = blocks.cumsum(axis=1).ravel()
  rests = blocks[:, ::-1].cumsum(axis=1)[:, ::-1].ravel()
  first = np.arange(number)
  # A window is a block, or the rest of one and the start of the next.
  return rests[first] + np.where(first % window, starts[first + window - 1], 0)


def _draw_miou(axes, runs):
  """mIoU of the evaluations; the title tells the best one of a run."""
  lines = []
  for run in runs:
    lines += axes.plot(
      list(run.miou), list(run.miou.values()), marker='o', markersize=3
    )
  title = 'mIoU'
  if len(runs) == 1:
    step = max(runs[0].miou, key=runs[0].miou.get)
    title += f' (best: {runs[0].miou[step]:.4f} at step {step})'
  else:
    plots.add_legend(axes, lines, [run.label for run in runs], fontsize=8)
  axes.set_title(title)


def _draw_rate(axes, runs):
  curves = [(run.label, *run.series(train_step.LEARNING_RATE)) for run in runs]
  for _, steps, values in curves:
    axes.plot(steps, values)
  axes.set_title('learning rate')
  axes.set_ylim(bottom=0)


def _draw_speed(axes, runs):
  _draw_noisy(axes, [(run.label, *run.series(_SPEED)) for run in runs])
  axes.set_title('images per second')
  axes.set_ylim(bottom=0)


def write(folder):
  """Draws the curves of a training into its folder, if there are any yet."""
  run = _read(folder, '')
  if run.lines or run.miou:
    atomic_files.write(os.path.join(folder, PICTURE), draw([run]))


# The command.


def _parser():
  parser = argparse.ArgumentParser(
    prog='python -m deeplab.training.plot_curves',
    description='Plots losses, learning rate, speed and mIoU of trainings.',
    allow_abbrev=False,
  )
  parser.add_argument(
    'folders', nargs='+', metavar='LOGDIR', help='Of train.py or eval.py.'
  )
  parser.add_argument(
    '--output', required=True, help='The plot: .png, .pdf or .svg.'
  )
  parser.add_argument(
    '--labels', help='Names of the runs, comma separated, in order.'
  )
  return parser


def main():
  """Runs the command of the command line."""
  values = _parser().parse_args()
  del sys.argv[1:]

  def plot():
    file_format = plots.check_output(values.output)
    labels = plots.name_paths(values.folders, values.labels)
    runs = [
      read(folder, label)
      for folder, label in zip(values.folders, labels, strict=True)
    ]
    atomic_files.write(values.output, draw(runs, file_format))
    print(f'Plot: {values.output}')

  flags.run(plot)


if __name__ == '__main__':
  main()

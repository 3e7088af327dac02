"""What is measured: cases, their rows, and the task of a row's process.

This module and those of the tasks import nothing but NumPy by themselves: the
time that a process needs to import a framework is one of the measurements.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

# How one run of a row becomes one number, in seconds.
MEDIAN = 'median'  # Median of the calls.
FIRST_PREDICTION = 'first_prediction'  # From the start of the process.

# What the rows of a case are compared for.
RATIOS = 'ratios'
GROWTH = 'growth'


@dataclasses.dataclass(frozen=True)
class Row:
  """One implementation of a case, or one point of a curve.

  Attributes:
    name: unique in the case.
    build: 'module:function', from a Context to a Task.
    settings: JSON values for that function.
    packages: what it imports; their time is the import time.
    artifacts: {name: artifacts.Artifact} that it reads.
    stats: artifacts.Stats with its multiply-adds, None where they are unknown.
    x: place on the curve, where the case is one.
    dtype: type of its arithmetic, whose matrix product is the limit.
    same_network: whether its labels have to be the baseline's.
    other_python: whether it runs in the interpreter of --smp_python.
    note: what a reader of the table has to know.
  """

  name: str
  build: str
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  packages: Sequence[str] = ()
  artifacts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  stats: Any = None
  x: float | None = None
  dtype: str = 'float32'
  same_network: bool = False
  other_python: bool = False
  note: str = ''


@dataclasses.dataclass(frozen=True)
class Case:
  """Rows that are compared with each other in turn.

  Attributes:
    name: group and name, as in 'inference/mobilenet_v2_os16_batch1'.
    title: for table and plot.
    rows: the first one is the baseline.
    unit: what `Task.units` counts.
    measure: MEDIAN or FIRST_PREDICTION.
    kind: RATIOS or GROWTH.
    x_label: of a curve: what `Row.x` is.
  """

  name: str
  title: str
  rows: Sequence[Row]
  unit: str = 'image'
  measure: str = MEDIAN
  kind: str = RATIOS
  x_label: str = ''


@dataclasses.dataclass(frozen=True)
class Context:
  """What the builder of a task gets.

  Attributes:
    settings: those of the row.
    artifacts: {name: path}.
    threads: number of threads to use; None for the default.
  """

  settings: Mapping[str, Any]
  artifacts: Mapping[str, str]
  threads: int | None = None

  @property
  def num_threads(self):
    """The number for implementations whose own default is a single one."""
    return self.threads or num_processors()


@dataclasses.dataclass(frozen=True)
class Task:
  """What a process measures.

  Attributes:
    call: computes once and waits for the result.
    units: images, steps or the like in one call.
    labels: from the result of `call` to integer labels, to compare with the
      baseline's; None where there are none.
    facts: called after the measurement, {name: number} for the table.
    times: function that measures by itself and gives seconds of single calls;
      `call` is not used then.
  """

  call: Callable[[], Any] | None = None
  units: int = 1
  labels: Callable[[Any], np.ndarray] | None = None
  facts: Callable[[], Mapping[str, float]] = dict
  times: Callable[[], Sequence[float]] | None = None


def num_processors():
  """Number of processors that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def make_images(batch, height, width):
  """Pictures of soft patches with some noise, always the same.

  Args:
    batch: number of images.
    height: of the images.
    width: of the images.

  Returns:
    uint8 [batch, height, width, 3].
  """
  rng = np.random.default_rng(0)
  rows = np.linspace(0, 7, height).round().astype(int)
  columns = np.linspace(0, 7, width).round().astype(int)
  patches = rng.uniform(20, 235, (batch, 8, 8, 3))[:, rows][:, :, columns]
  noise = rng.normal(0, 12, (batch, height, width, 3))
  return np.clip(patches + noise, 0, 255).astype(np.uint8)


def images_of(settings):
  """The images of a row.

  Args:
    settings: 'size', the side; optionally 'batch', and 'image', the file of a
      photograph, that is resized, in place of made pictures.

  Returns:
    uint8 [batch, size, size, 3].
  """
  size, batch = settings['size'], settings.get('batch', 1)
  path = settings.get('image')
  if path is None:
    return make_images(batch, size, size)
  from PIL import Image

  with Image.open(path) as image:
    pixels = np.asarray(image.convert('RGB').resize((size, size)))
  return np.stack([pixels] * batch)

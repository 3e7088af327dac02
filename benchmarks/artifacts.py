"""What rows read: checkpoints, exports, records. Commands make them.

They lie in a folder named by a digest of the sources and of what else decides
about them, so that an export of other code is never measured.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

from benchmarks import machine
from deeplab.common import InputError

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Beginnings of lines that scripts, absl and Python name an error with.
_ERROR = re.compile(r'error: |FATAL |[\w.]*(Error|Exception): ')

# What an artifact is a function of, beside the processor: which operations a
# folded export has depends on that and on oneDNN.
_SOURCES = (
  'research',
  'datasets',
  'export_model.py',
  'benchmarks/make_checkpoint.py',
  'benchmarks/onnx_labels.py',
)
_PACKAGES = ('tensorflow', 'keras', 'numpy', 'onnx', 'tf2onnx')
_ENVIRONMENT = 'TF_ENABLE_ONEDNN_OPTS'


@dataclasses.dataclass(frozen=True)
class Weights:
  """Trained weights.

  Attributes:
    checkpoint: its prefix, or its single file.
    digest: of its values.
  """

  checkpoint: str
  digest: str

  @classmethod
  def of(cls, checkpoint):
    """Those of a checkpoint that `deeplab.checkpoints.find` has found."""
    # The index has checksums of all values.
    file = pathlib.Path(f'{checkpoint}.index')
    if not file.exists():
      file = pathlib.Path(checkpoint)
    return cls(checkpoint, _short(hashlib.sha256(file.read_bytes())))


@dataclasses.dataclass(frozen=True)
class Network:
  """A network by the flags of its scripts.

  Attributes:
    name: for files and tables.
    flags: of the network.
    crop: side of the image in pixels.
    classes: number of classes.
    weights: Weights, None for random ones.
  """

  name: str
  flags: tuple[str, ...] = ()
  crop: int = 513
  classes: int = 21
  weights: Weights | None = None

  @property
  def key(self):
    """A name for files that no other network has."""
    key = f'{self.name}_{self.crop}_{self.classes}'
    return key if self.weights is None else f'{key}_{self.weights.digest}'

  def all_flags(self):
    """The flags of scripts that build it."""
    return [
      *self.flags,
      f'--crop_size={self.crop},{self.crop}',
      f'--num_classes={self.classes}',
    ]

  def replace(self, **changes):
    """A copy with some fields changed."""
    return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """The checkpoint of a network."""

  network: Network

  @property
  def name(self):
    """Of the file or folder."""
    return f'{self.network.key}/checkpoint'

  def command(self, path, make):
    """The command that writes it to `path`; `make` finds what it needs."""
    del make
    weights = self.network.weights
    return [
      '-m',
      'benchmarks.make_checkpoint',
      f'--output_dir={path}',
      *self.network.all_flags(),
      *([f'--trained_checkpoint={weights.checkpoint}'] if weights else []),
    ]


@dataclasses.dataclass(frozen=True)
class Export:
  """What export_model.py writes.

  Attributes:
    network: Network.
    format: value of --export_format.
    flags: further flags, such as --inference_dtype=bfloat16.
  """

  network: Network
  format: str
  flags: tuple[str, ...] = ()

  @property
  def name(self):
    """Of the file or folder."""
    suffix = {'frozen_graph': '.pb', 'onnx': '.onnx'}.get(self.format, '')
    suffix = '.tflite' if self.format.startswith('tflite') else suffix
    flags = ''.join(flag.replace('/', '_') for flag in self.flags)
    return f'{self.network.key}/{self.format}{flags}{suffix}'

  def command(self, path, make):
    """See Checkpoint."""
    return [
      'export_model.py',
      f'--checkpoint_path={make(Checkpoint(self.network))}',
      f'--export_path={path}',
      f'--export_format={self.format}',
      f'--crop_size={self.network.crop},{self.network.crop}',
      '--noverify',
      *self.flags,
    ]


@dataclasses.dataclass(frozen=True)
class OnnxLabels:
  """An ONNX export that computes the labels alone."""

  network: Network

  @property
  def name(self):
    """Of the file."""
    return f'{self.network.key}/labels.onnx'

  def command(self, path, make):
    """See Checkpoint."""
    return [
      '-m',
      'benchmarks.onnx_labels',
      make(Export(self.network, 'onnx')),
      path,
    ]


@dataclasses.dataclass(frozen=True)
class Stats:
  """The multiply-adds of a network for one image.

  Attributes:
    network: Network.
    flags: further flags, such as --eval_scales.
  """

  network: Network
  flags: tuple[str, ...] = ()

  @property
  def name(self):
    """Of the file."""
    return f'{self.network.key}/stats{"".join(self.flags)}.json'

  def command(self, path, make):
    """See Checkpoint."""
    del make
    return [
      '-m',
      'deeplab.model_stats',
      *self.network.all_flags(),
      *self.flags,
      '--format=json',
      f'--output={path}',
    ]


@dataclasses.dataclass(frozen=True)
class Records:
  """Generated JPEG images of VOC's size with masks, as TFRecord files."""

  count: int = 96
  size: tuple[int, int] = (375, 500)

  @property
  def name(self):
    """Of the folder."""
    return f'shapes_{self.count}_{self.size[0]}x{self.size[1]}'

  def command(self, path, make):
    """See Checkpoint."""
    del make
    return [
      'datasets/build_shapes_data.py',
      f'--output_dir={path}',
      f'--num_train={self.count}',
      '--num_val=4',
      f'--image_size={self.size[0]},{self.size[1]}',
    ]


class Store:
  """Makes artifacts, each once."""

  def __init__(self, work_dir, log=print):
    """Opens the folder of today's sources, packages and machine.

    Args:
      work_dir: folder; what is in it from an earlier run is used again.
      log: takes a line for each artifact that is made.
    """
    self._folder = pathlib.Path(work_dir).resolve() / _digest()
    self._log = log
    self._failed = {}

  def make(self, artifact):
    """The path of an artifact.

    Raises:
      InputError: its command failed, with what it said.
    """
    path = self._folder / artifact.name
    if path.exists():
      return str(path)
    if artifact in self._failed:
      raise InputError(self._failed[artifact])
    # Under another name while it is unfinished.
    new = self._folder / 'unfinished' / artifact.name
    command = [sys.executable, *artifact.command(str(new), self.make)]
    self._log(f'making {artifact.name}')
    _remove(new)
    for folder in (new.parent, path.parent):
      folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
      command,
      cwd=ROOT,
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      check=False,
    )
    if done.returncode:
      self._failed[artifact] = f'{artifact.name}: {reason(done.stderr)}'
      raise InputError(self._failed[artifact])
    new.rename(path)
    return str(path)

  def multiply_adds(self, stats):
    """Those of Stats, without what the split of atrous convolutions pads."""
    with open(self.make(stats), encoding='utf-8') as file:
      return json.load(file)['total']['direct_multiply_adds']


def reason(log):
  """The line of a failed command's output that says why.

  Args:
    log: text.

  Returns:
    That of the error where one is marked, else the last line.
  """
  lines = [line.strip() for line in log.splitlines() if line.strip()]
  marked = [line for line in lines if _ERROR.match(line)]
  return (marked or lines or ['no message'])[-1]


def _remove(path):
  """What a run that was stopped has left."""
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


def _digest():
  """A short digest of all that artifacts depend on."""
  digest = hashlib.sha256()
  for source in _SOURCES:
    path = ROOT / source
    for file in sorted(path.rglob('*.py')) if path.is_dir() else [path]:
      digest.update(os.fsencode(file.relative_to(ROOT)))
      digest.update(file.read_bytes())
  versions = [machine.version(package) for package in _PACKAGES]
  settings = os.environ.get(_ENVIRONMENT)
  digest.update(repr((versions, machine.processor(), settings)).encode())
  return _short(digest)


def _short(digest):
  return digest.hexdigest()[:12]

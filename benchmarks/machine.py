"""What a measurement was made on."""

import importlib.metadata
import platform

from benchmarks.case import num_processors

# What changes which kernels run.
_FLAGS = (
  'avx',
  'avx2',
  'fma',
  'avx512f',
  'avx512_vnni',
  'avx512_bf16',
  'amx_bf16',
  'asimd',
  'bf16',
)

_PACKAGES = (
  'tensorflow',
  'keras',
  'numpy',
  'keras-hub',
  'torch',
  'onnxruntime',
  'openvino',
  'ai-edge-litert',
  'tf2onnx',
)


def describe():
  """JSON values: processor, memory, system and versions."""
  name, flags = processor()
  return {
    'processor': name,
    'processors': num_processors(),
    'flags': flags,
    'memory_gib': _memory_gib(),
    'system': f'{platform.system()} {platform.release()}',
    'python': platform.python_version(),
    'packages': {name: version(name) for name in _PACKAGES},
  }


def as_text(machine):
  """One line for the head of a report."""
  packages = ', '.join(
    f'{name} {version}'
    for name, version in machine['packages'].items()
    if version
  )
  return (
    f'{machine["processors"]} processors of {machine["processor"]} '
    f'({" ".join(machine["flags"])}), {machine["memory_gib"]} GiB, '
    f'{machine["system"]}, Python {machine["python"]}, {packages}'
  )


def processor():
  """Name and flags; the flags are known on Linux alone."""
  name, flags = platform.processor() or platform.machine(), set()
  for key, value in _lines('/proc/cpuinfo'):
    if key == 'model name':
      name = value
    elif key in ('flags', 'Features'):
      flags = set(value.split())
  return name, [flag for flag in _FLAGS if flag in flags]


def _memory_gib():
  for key, value in _lines('/proc/meminfo'):
    if key == 'MemTotal':
      return round(int(value.split()[0]) / 2**20)
  return None


def _lines(path):
  try:
    with open(path) as file:
      for line in file:
        key, _, value = line.partition(':')
        yield key.strip(), value.strip()
  except OSError:
    return


def version(package):
  """That of an installed package, else None."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None

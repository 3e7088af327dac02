"""Installs the port under the official import names.

The folders keep the official layout (research/, datasets/); the import names
are deeplab, deeplab.slim and deeplab.datasets, so that no top-level package
called datasets, slim, nets or research shadows anybody else's.
"""

import setuptools

_PACKAGE_DIRS = {
  'deeplab': 'research/deeplab',
  'deeplab.slim': 'research/slim',
  'deeplab.datasets': 'datasets',
}


def _packages():
  """The three roots and every package below them."""
  names = []
  for root, folder in _PACKAGE_DIRS.items():
    names.append(root)
    names += [f'{root}.{name}' for name in setuptools.find_packages(folder)]
  return names


setuptools.setup(
  name='deeplab-keras3',
  version='0.1.0',
  description='DeepLab v1 to v3+ for TensorFlow 2 and Keras 3',
  license='Apache-2.0',
  python_requires='>=3.10',
  package_dir=_PACKAGE_DIRS,
  packages=_packages(),
  package_data={
    # Dense prediction cells.
    'deeplab.core': ['*.json'],
    # Inside the pages of vis.py.
    'deeplab.evaluation': ['*.css', '*.html', '*.js'],
  },
  entry_points={
    'console_scripts': [
      'compare_evals = deeplab.evaluation.compare_evals:main',
    ],
  },
  install_requires=[
    'absl-py>=2.1',
    'grpcio>=1.60',
    # What tensorflow-datasets needs to prepare data, and does not say.
    'importlib-resources>=6.0',
    'keras>=3.10',
    'matplotlib>=3.8',
    'numpy>=1.26',
    'pillow>=10.1',
    # What tensorflow-metadata wants there; pip searches for very long without.
    'protobuf>=6.31.1,<=6.32; python_version < "3.11"',
    'scipy>=1.11',
    'tensorboard>=2.20',
    'tensorflow>=2.20',
    'tensorflow-datasets>=4.9.7',
    'tqdm>=4.66',
  ],
  extras_require={
    'cuda': ['tensorflow[and-cuda]>=2.20'],
    # The page of `python -m deeplab.demo`.
    'demo': ['gradio>=6.0'],
    # Peers of python -m benchmarks.
    'benchmark': [
      'deeplab-keras3[onnx]',
      'ai-edge-litert>=2.0',
      'keras-hub>=0.20',
      'openvino>=2025.0',
      'torch>=2.5',
    ],
    # export_model.py --export_format=onnx.
    'onnx': ['onnx>=1.17', 'onnxruntime>=1.20', 'tf2onnx>=1.17'],
    'test': [
      'deeplab-keras3[demo,onnx]',
      'playwright>=1.50',
      'pytest>=8.0',
      'pytest-xdist>=3.6',
      'ruff>=0.9',
    ],
  },
)

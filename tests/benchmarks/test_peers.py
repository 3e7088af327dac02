"""The peers of the benchmarks are the same networks as ours."""

import importlib.util

import numpy as np
import pytest

from benchmarks import inference, make_checkpoint, registry
from benchmarks.case import Context
from benchmarks.peers import networks
from deeplab import checkpoints, common, model

_SIDE = 33


@pytest.fixture(scope='module', params=networks.NAMES)
def ours(request):
  """(name, {official name: value}, images, logits at their size)."""
  options = {}
  if request.param in networks.SKIP_LAYERS:
    options = {
      'atrous_rates': list(networks.ATROUS_RATES),
      'decoder_output_stride': [networks.DECODER_STRIDE],
    }
  network = model.build_model(
    common.ModelOptions(
      outputs_to_num_classes={'semantic': 21},
      crop_size=[_SIDE, _SIDE],
      output_stride=16,
      model_variant=request.param,
      **options,
    ),
    seed=3,
  )
  random = np.random.default_rng(0)
  variables = checkpoints.named_variables(network)
  for name, variable in variables.items():
    if 'BatchNorm' in name:
      # Not what every implementation begins with.
      variable.assign(random.uniform(0.7, 1.3, variable.shape))
  images = random.integers(0, 256, (2, _SIDE, _SIDE, 3), np.uint8)
  logits = network(images.astype(np.float32))['semantic']['merged_logits']
  values = {name: variable.numpy() for name, variable in variables.items()}
  return request.param, values, images, logits.numpy()


def _resized(logits):
  import tensorflow as tf

  return tf.compat.v1.image.resize(
    logits, [_SIDE, _SIDE], align_corners=True
  ).numpy()


def _check_step(peer, network, kernel):
  """A step of training changes a kernel; the loss is finite."""
  random = np.random.default_rng(0)
  images = random.uniform(0, 255, (2, _SIDE, _SIDE, 3)).astype(np.float32)
  labels = random.integers(0, 21, (2, _SIDE, _SIDE)).astype(np.int32)
  labels[:, :9] = networks.IGNORE_LABEL
  train = peer.trainer(network, images, labels)
  before = _array(kernel)
  assert np.isfinite(train(1))
  assert (_array(kernel) != before).any()
  assert np.isfinite(train(2))


def _array(kernel):
  """A copy of a variable of Keras or a parameter of PyTorch."""
  kernel = kernel.detach() if hasattr(kernel, 'detach') else kernel
  return np.array(kernel.numpy())


def _check_labels(peer, network, images, expected):
  labels = np.asarray(peer.predictor(network)(images))
  assert (labels == expected.argmax(-1)).mean() > 0.999


def test_naive_keras(ours):
  from benchmarks.peers import naive_keras

  name, values, images, logits = ours
  network = naive_keras.build(name, _SIDE)
  assert sum(np.prod(w.shape) for w in network.weights) == sum(
    value.size for value in values.values()
  )
  naive_keras.load(network, values)
  found, expected = network(images.astype(np.float32)).numpy(), _resized(logits)
  np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())
  _check_labels(naive_keras, network, images, expected)


@pytest.mark.slow
def test_naive_keras_trains():
  from benchmarks.peers import naive_keras

  network = naive_keras.build('mobilenet_v2', _SIDE)
  kernel = network.get_layer('MobilenetV2.Conv').kernel
  _check_step(naive_keras, network, kernel)


def test_plain_torch(ours):
  torch = pytest.importorskip('torch')
  from benchmarks.peers import plain_torch

  name, values, images, logits = ours
  network = plain_torch.build(name, _SIDE).eval()
  found = [*network.parameters(), *network.buffers()]
  # num_batches_tracked is PyTorch's own.
  assert sum(x.numel() for x in found if x.dim()) == sum(
    value.size for value in values.values()
  )
  plain_torch.load(network, values)
  inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
  with torch.no_grad():
    found = network(inputs).numpy().transpose(0, 2, 3, 1)
  expected = _resized(logits)
  np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())
  _check_labels(plain_torch, network, images, expected)
  if name == 'mobilenet_v2':
    _check_step(plain_torch, network, network.stem.conv.weight)


# Rows of the registry.


def _rows_by_network():
  """{network with small images: {name of a peer: its row}}."""
  found = {}
  for case in registry.all_cases():
    for row in case.rows:
      if 'module' in row.settings:
        network = row.artifacts['checkpoint'].network.replace(crop=65)
        found.setdefault(network, {})[row.name] = row
  return found


class _Noted(dict):
  """Notes what is read."""

  def __init__(self, values):
    super().__init__(values)
    self.read = set()

  def __getitem__(self, name):
    self.read.add(name)
    return super().__getitem__(name)


@pytest.mark.parametrize(
  ('network', 'rows'),
  [pytest.param(*pair, id=pair[0].name) for pair in _rows_by_network().items()],
)
def test_peers_load_what_the_flags_build(network, rows, parse, tmp_path):
  arguments = [*network.all_flags(), f'--output_dir={tmp_path}']
  parse(make_checkpoint, make_checkpoint._define_flags, arguments)
  make_checkpoint.main()
  with np.load(tmp_path / make_checkpoint.WEIGHTS_FILE) as file:
    values = dict(file)
  assert set(rows) == {'naive_keras', 'plain_torch'}
  for row in rows.values():
    if row.name == 'plain_torch' and importlib.util.find_spec('torch') is None:
      continue
    settings = {**row.settings, 'size': network.crop}
    peer, its_network = inference.build_peer(Context(settings, {}))
    noted = _Noted(values)
    peer.load(its_network, noted)
    assert noted.read == set(values), row.name

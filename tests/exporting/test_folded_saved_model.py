"""SavedModels of folded networks: their weights, and where they run."""

import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import small_checkpoint
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from deeplab import checkpoints, export, inference
from deeplab.common import InputError
from deeplab.exporting.network import LABELS, PROBABILITIES

# Runs where nothing of this package is imported.
_RUN = """
import sys
import numpy as np
import tensorflow as tf
run = tf.saved_model.load(sys.argv[1]).signatures['serving_default']
np.savez(sys.argv[3], **run(ImageTensor=tf.constant(np.load(sys.argv[2]))))
"""


@pytest.fixture(scope='module')
def network(tmp_path_factory):
  """checkpoint, options, predictor, images, and folders of SavedModels.

  At output stride 8 some depthwise convolutions are dilated.
  """
  root = tmp_path_factory.mktemp('folded')
  options = small_checkpoint.write(
    root / 'train', output_stride=8, add_image_level_feature=True
  )
  folders = {}
  for dtype in inference.DTYPES:
    folders[dtype] = str(root / dtype)
    export.export(
      str(root / 'train'),
      folders[dtype],
      options,
      formats=['saved_model'],
      inference_dtype=dtype,
    )
  predictor = inference.build_predictor(options)
  checkpoints.restore(predictor, str(root / 'train'))
  colors = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), np.uint8)
  images = colors.repeat(13, 1).repeat(13, 2)
  np.save(root / 'images.npy', images)
  return types.SimpleNamespace(
    checkpoint=str(root / 'train'),
    options=options,
    predictor=predictor,
    images=images,
    image_file=str(root / 'images.npy'),
    folders=folders,
  )


def _graph(folder):
  """The GraphDef of a SavedModel."""
  model = saved_model_pb2.SavedModel()
  with open(os.path.join(folder, 'saved_model.pb'), 'rb') as file:
    model.ParseFromString(file.read())
  (graph,) = (meta_graph.graph_def for meta_graph in model.meta_graphs)
  return graph


def _nodes(folder):
  """The nodes of all functions of a SavedModel."""
  graph = _graph(folder)
  nodes = list(graph.node)
  for function in graph.library.function:
    nodes += function.node_def
  return nodes


@pytest.mark.parametrize('dtype, size', [('float32', 4), ('bfloat16', 2)])
def test_each_weight_is_there_once(network, dtype, size):
  nodes = _nodes(network.folders[dtype])
  variables = network.predictor.variables
  # Batch norm goes into kernels, and leaves a bias.
  kernels = sum(int(np.prod(v.shape)) for v in variables if v.ndim == 4)
  constants = sum(
    tf.make_ndarray(node.attr['value'].tensor).nbytes
    for node in nodes
    if node.op == 'Const'
  )
  # The last convolution is float32 in any case, Winograd's kernels are larger.
  most = 1.5 * size * network.predictor.count_params()
  assert size * kernels < constants < most
  assert not any('Variable' in node.op for node in nodes)


def test_few_functions_call_those_with_weights(network):
  """`tf.saved_model.load` makes a copy of the weights for each of them."""
  functions = _graph(network.folders['float32']).library.function
  calls = {
    function.signature.name: {
      attribute.func.name
      for node in function.node_def
      for attribute in node.attr.values()
    }
    for function in functions
  }
  found = {max(functions, key=lambda f: f.ByteSize()).signature.name}
  while callers := {f for f, called in calls.items() if called & found} - found:
    found |= callers
  signatures = tf.saved_model.load(network.folders['float32']).signatures
  # Two of each signature; the weights, and the loop over images and its body.
  assert len(found) == 2 * len(signatures) + 3


def test_there_are_no_variables(network):
  for folder in network.folders.values():
    saved = tf.saved_model.load(folder)
    assert not any(s.variables for s in saved.signatures.values())


def test_convolutions_are_of_the_type(network):
  for dtype in inference.DTYPES:
    types_of = [
      tf.as_dtype(node.attr['T'].type).name
      for node in _nodes(network.folders[dtype])
      if node.op in ('Conv2D', 'DepthwiseConv2dNative')
    ]
    assert types_of.count(dtype) > 20
    # All but the last one.
    if dtype != 'float32':
      assert types_of.count('float32') == 1


def _run(network, dtype, tmp_path, **environment):
  """{output: array} of a process of its own."""
  subprocess.run(
    [
      sys.executable,
      '-c',
      _RUN,
      network.folders[dtype],
      network.image_file,
      str(tmp_path / 'outputs.npz'),
    ],
    env={**os.environ, **environment},
    check=True,
  )
  return np.load(tmp_path / 'outputs.npz')


@pytest.mark.parametrize(
  'dtype, least', [('float32', 0.999), ('bfloat16', 0.9)]
)
@pytest.mark.parametrize('onednn', ['0', '1'])
def test_runs_with_and_without_onednn(network, dtype, least, onednn, tmp_path):
  found = _run(network, dtype, tmp_path, TF_ENABLE_ONEDNN_OPTS=onednn)
  expected = network.predictor(network.images.astype(np.float32))
  labels = expected['semantic'].numpy()
  assert len(np.unique(labels)) > 1
  assert (found[LABELS] == labels).mean() >= least
  difference = np.abs(found[PROBABILITIES] - expected['semantic_prob']).max()
  assert found[PROBABILITIES].dtype == np.float32
  assert difference < (2e-5 if dtype == 'float32' else 0.2)
  assert difference > (0 if dtype == 'float32' else 1e-4)


# The flag.


def _export(repository, network, *arguments):
  return subprocess.run(
    [
      sys.executable,
      str(repository / 'export_model.py'),
      f'--checkpoint_path={network.checkpoint}',
      '--crop_size=65,65',
      '--output_stride=8',
      *arguments,
    ],
    capture_output=True,
    text=True,
    check=False,
  )


def test_the_script_writes_bfloat16_and_verifies(repository, network, tmp_path):
  """Of the formats, only the SavedModel is of that type."""
  done = _export(
    repository,
    network,
    f'--export_path={tmp_path / "out"}',
    '--export_format=saved_model,frozen_graph',
    '--inference_dtype=bfloat16',
  )
  assert done.returncode == 0, done.stderr
  report = json.loads((tmp_path / 'out' / export.REPORT_FILE).read_text())
  differences = {
    name: entry['max_probability_difference']
    for name, entry in report['formats'].items()
  }
  assert 1e-4 < differences['saved_model'] < 0.2
  assert differences['frozen_graph'] < 1e-4
  file = tmp_path / 'out' / 'saved_model.pb'
  size = os.path.getsize(f'{network.folders["bfloat16"]}/saved_model.pb')
  assert file.stat().st_size == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize(
  'arguments, message',
  [
    (
      ['--export_format=frozen_graph', '--inference_dtype=bfloat16'],
      'error: --inference_dtype=bfloat16 has no effect without '
      '--export_format=saved_model',
    ),
    (['--inference_dtype=float16'], 'should be one of <float32|bfloat16>'),
  ],
)
def test_the_script_refuses(repository, network, tmp_path, arguments, message):
  done = _export(
    repository, network, f'--export_path={tmp_path / "out"}', *arguments
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert message in done.stderr
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['frozen_graph', 'tflite_float', 'onnx'])
def test_formats_that_have_no_such_type(network, tmp_path, monkeypatch, name):
  """They are refused before anything is built."""
  monkeypatch.delattr(inference, 'build_predictor')
  with pytest.raises(InputError, match='bfloat16 has no effect without'):
    export.export(
      network.checkpoint,
      str(tmp_path / 'out'),
      network.options,
      formats=[name],
      inference_dtype='bfloat16',
    )
  assert not list(tmp_path.iterdir())


def test_a_quantised_network_is_refused(network, tmp_path):
  with pytest.raises(InputError, match=r'bfloat16 cannot be combined .*=0'):
    export.export(
      network.checkpoint,
      str(tmp_path / 'out'),
      network.options.replace(quantize_delay_step=0),
      formats=['saved_model'],
      inference_dtype='bfloat16',
    )
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('dtype', inference.DTYPES)
def test_verification_notices_wrong_weights(
  network, tmp_path, monkeypatch, dtype
):
  """Looser limits of bfloat16 let no other network pass."""
  fold = inference.fold

  def wrong(options, store, *arguments):
    kernel = store.layers['logits/semantic'].kernel
    values = kernel.numpy()
    kernel.assign(values[..., ::-1])
    try:
      return fold(options, store, *arguments)
    finally:
      kernel.assign(values)

  monkeypatch.setattr(inference, 'fold', wrong)
  with pytest.raises(InputError, match='--export_format=saved_model'):
    export.export(
      network.checkpoint,
      str(tmp_path / 'out'),
      network.options,
      formats=['saved_model'],
      inference_dtype=dtype,
      verify=True,
    )
  assert not list(tmp_path.iterdir())

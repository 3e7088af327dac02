"""Weights out of frozen graphs: published ones and our own."""

import numpy as np
import pytest
import tensorflow as tf

import recipe
from deeplab import checkpoints, common, export, frozen_graph, inference, model
from deeplab.common import InputError
from deeplab.evaluation import prediction

# The network of tests/testdata/original.
_OPTIONS = common.ModelOptions(
  {'semantic': 21},
  crop_size=[65, 65],
  output_stride=16,
  depth_multiplier=0.5,
)


def _freeze_as_tensorflow_1(prefix, path, skip=()):
  """Writes what freeze_graph makes of a checkpoint: Const and Identity."""
  graph = tf.compat.v1.GraphDef()
  for name, (_, get) in checkpoints.read(str(prefix)).items():
    if name.endswith(tuple(skip)):
      continue
    value = get()
    node = graph.node.add(name=name, op='Const')
    node.attr['dtype'].type = tf.as_dtype(value.dtype).as_datatype_enum
    node.attr['value'].tensor.CopyFrom(tf.make_tensor_proto(value))
    read = graph.node.add(name=f'{name}/read', op='Identity', input=[name])
    read.attr['T'].CopyFrom(node.attr['dtype'])
  # Constants that never were variables.
  node = graph.node.add(name='ResizeBilinear/size', op='Const')
  node.attr['value'].tensor.CopyFrom(tf.make_tensor_proto([65, 65]))
  path.write_bytes(graph.SerializeToString())


@pytest.fixture
def original(testdata):
  return testdata / 'original' / 'ckpt_mobilenet_v2_dm05_os16'


@pytest.fixture
def published(original, tmp_path):
  """A folder with nothing but a frozen graph."""
  _freeze_as_tensorflow_1(original, tmp_path / frozen_graph.FILE_NAME)
  return tmp_path


def test_a_published_graph(published):
  path = str(published / frozen_graph.FILE_NAME)
  assert checkpoints.find(published) == checkpoints.find(path) == path
  assert prediction.fixed_checkpoint(str(published)) == path
  assert checkpoints.latest(str(published)) is None
  network = model.build_model(_OPTIONS)
  report = checkpoints.restore(network, published)
  assert not report.initialized and not report.left_over
  for name, variable in checkpoints.named_variables(network).items():
    np.testing.assert_array_equal(
      variable.numpy(), recipe.make_value(name, variable.shape)
    )
  assert 'ResizeBilinear/size' not in checkpoints.read(path)


def test_evaluation_takes_it(published, testdata):
  """As eval.py does, without model_options.json."""

  class Data:
    num_of_classes = 21

  job = prediction.Job(
    checkpoint_dir=str(published),
    make_dataset=lambda unused: Data(),
    make_options=lambda classes, prefix: _OPTIONS,
    crop_size=[65, 65],
  )
  (run,) = job.runs()
  assert run.step == 0
  images = np.random.default_rng(0).uniform(0, 255, (1, 65, 65, 3))
  from_graph = run.predict(images.astype(np.float32))
  predictor = inference.build_predictor(_OPTIONS)
  checkpoints.restore(
    predictor, str(testdata / 'original' / 'ckpt_mobilenet_v2_dm05_os16')
  )
  labels = predictor(images.astype(np.float32))['semantic']
  np.testing.assert_array_equal(from_graph, labels)


def test_our_own_export_gives_the_weights_back(tmp_path):
  options = common.ModelOptions(
    {'semantic': 5},
    crop_size=[33, 33],
    output_stride=16,
    depth_multiplier=0.1,
    aspp_convs_filters=8,
    atrous_rates=[2],
    decoder_output_stride=[4],
    decoder_filters=8,
  )
  network = model.build_model(options)
  recipe.assign(checkpoints.named_variables(network))
  values = checkpoints.named_variables(network)
  prefix = checkpoints.save(str(tmp_path / 'train'), 3, values)
  # Several scales read each variable several times.
  export.export(prefix, str(tmp_path / 'out'), options, [0.5, 1.0], True)
  stored = checkpoints.read(checkpoints.find(tmp_path / 'out'))
  assert set(stored) == set(values)
  other = model.build_model(options)
  checkpoints.restore(other, tmp_path / 'out')
  for name, variable in checkpoints.named_variables(other).items():
    np.testing.assert_array_equal(variable.numpy(), values[name].numpy())


def test_the_renamed_graph_still_runs(tmp_path):
  options = _OPTIONS.replace(depth_multiplier=0.1, crop_size=[33, 33])
  network = model.build_model(options)
  recipe.assign(checkpoints.named_variables(network))
  prefix = checkpoints.save(
    str(tmp_path), 3, checkpoints.named_variables(network)
  )
  path = tmp_path / 'graph.pb'
  export.export(prefix, str(path), options)
  graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
  wrapped = tf.compat.v1.wrap_function(
    lambda: tf.import_graph_def(graph_def, name=''), []
  )
  run = wrapped.prune('ImageTensor:0', 'SemanticPredictions:0')
  image = np.random.default_rng(0).integers(0, 256, (1, 33, 33, 3), np.uint8)
  predictor = inference.build_predictor(options)
  checkpoints.restore(predictor, str(path))
  labels = predictor(image.astype(np.float32))['semantic']
  np.testing.assert_array_equal(run(tf.constant(image)), labels)


def test_folded_batch_norm_is_named(original, tmp_path):
  path = tmp_path / 'folded.pb'
  _freeze_as_tensorflow_1(
    original, path, ('gamma', 'beta', 'moving_mean', 'moving_variance')
  )
  network = model.build_model(_OPTIONS)
  for allow_missing in (False, True):  # As eval.py, and as train.py.
    with pytest.raises(InputError, match=r'Conv/BatchNorm/gamma.*folded'):
      checkpoints.restore(network, path, allow_missing=allow_missing)
  _freeze_as_tensorflow_1(original, path, ['depthwise_weights'])
  with pytest.raises(InputError, match=r'depthwise_weights.*rewritten'):
    checkpoints.restore(network, path)


def test_other_files(published, tmp_path):
  path = tmp_path / frozen_graph.FILE_NAME
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])
  with pytest.raises(InputError, match='damaged'):
    checkpoints.read(str(path))
  path.write_bytes(b'<html>404</html>')
  with pytest.raises(InputError, match='not a frozen graph'):
    checkpoints.read(str(path))
  path.write_bytes(b'')
  with pytest.raises(InputError, match='no weights'):
    checkpoints.read(str(path))
  with pytest.raises(InputError, match='no such checkpoint'):
    checkpoints.find(tmp_path / 'absent.pb')


def test_a_saved_model_is_told_apart(tmp_path):
  module = tf.Module()
  module.value = tf.Variable(1.0)
  tf.saved_model.save(module, str(tmp_path))
  with pytest.raises(InputError, match='is a SavedModel'):
    checkpoints.read(str(tmp_path / 'saved_model.pb'))
  with pytest.raises(InputError, match='no checkpoint in this directory'):
    checkpoints.find(tmp_path)

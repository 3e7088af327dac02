"""Functions are traced when they are first called, and never again."""

import numpy as np
import pytest
import small_checkpoint
import tensorflow as tf
from tensorflow.python.framework import func_graph

from deeplab.evaluation import any_size, prediction
from deeplab.exporting import network as network_lib
from deeplab.exporting import saved_model

_SCALES = (0.5, 1.0)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  """A folder with a checkpoint, and its ModelOptions."""
  folder = tmp_path_factory.mktemp('train')
  return str(folder), small_checkpoint.write(folder, crop_size=[33, 33])


@pytest.fixture
def traces(monkeypatch):
  """A list that grows whenever TensorFlow makes the graph of a function."""
  made = []
  trace = func_graph.func_graph_from_py_func

  def note(name, *arguments, **options):
    made.append(name)
    return trace(name, *arguments, **options)

  monkeypatch.setattr(func_graph, 'func_graph_from_py_func', note)
  return made


def _batches(dtype, sizes=((33, 33),)):
  """Batches as evaluation makes them, of which the last one is smaller."""
  rng = np.random.default_rng(0)
  for size in sizes:
    for number in (2, 2, 1):
      yield rng.integers(0, 256, (number, *size, 3)).astype(dtype)


def _check(traces, run, batches):
  """Calls a function with all batches, and looks for new graphs."""
  count = None
  for batch in batches:
    run(batch)
    assert traces, 'nothing is counted'
    count = count or len(traces)
    assert len(traces) == count, traces[count:]


@pytest.mark.parametrize('for_speed', [True, False])
@pytest.mark.parametrize(
  ('scales', 'flips'), [((1.0,), False), (_SCALES, True)]
)
def test_predictor(checkpoint, traces, scales, flips, for_speed):
  folder, options = checkpoint
  predict = prediction.Predictor(
    options, options.crop_size, scales, flips, for_speed=for_speed
  )
  predict.restore(folder)
  traces.clear()
  _check(traces, predict, _batches(np.float32))


@pytest.mark.parametrize('scales', [(1.0,), _SCALES])
def test_any_size_predictor(checkpoint, traces, scales):
  folder, options = checkpoint
  predict = any_size.AnySizePredictor(options, None, scales)
  predict.restore(folder)
  traces.clear()
  # One network serves all sizes.
  _check(traces, predict, _batches(np.uint8, [(33, 33), (40, 50)]))


@pytest.mark.parametrize(
  ('scales', 'flips'), [((1.0,), False), (_SCALES, True)]
)
def test_saved_model(checkpoint, traces, tmp_path, scales, flips):
  folder, options = checkpoint
  network = network_lib.Network(
    folder, options, inference_scales=scales, add_flipped_images=flips
  )
  serve = network_lib.serving_function(
    network, (network_lib.LABELS,), for_speed=True
  )
  sizes = [(33, 33), (20, 31)]
  _check(traces, lambda x: serve(tf.constant(x)), _batches(np.uint8, sizes))
  assert serve.experimental_get_tracing_count() == 1

  network_lib.save(str(tmp_path / 'saved'), serve)
  run = tf.saved_model.load(str(tmp_path / 'saved')).signatures[
    saved_model.DEFAULT_SIGNATURE
  ]
  traces.clear()
  for batch in _batches(np.uint8, sizes):
    run(ImageTensor=tf.constant(batch))
  assert not traces

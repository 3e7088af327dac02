"""Probabilities averaged by strips against whole images."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from resized_means import mean_of_softmaxes

import recipe
from deeplab import checkpoints, inference, slim
from deeplab.common import ModelOptions
from deeplab.core import averaging
from deeplab.slim import devices


def _logits(batch, classes, sides):
  rng = np.random.default_rng(0)
  return [
    tf.constant(5 * rng.normal(size=[batch, *side, classes]), tf.float32)
    for side in sides
  ]


@pytest.mark.parametrize(
  ('batch', 'classes', 'sides', 'size'),
  [
    (1, 21, [(5, 5), (9, 9), (7, 7)], (65, 65)),
    (3, 2, [(4, 6), (3, 8)], (37, 50)),
    (1, 151, [(1, 5)], (1, 65)),
    (2, 3, [(17, 1), (33, 1)], (65, 1)),
    # Smaller than the logits.
    (1, 4, [(33, 33)], (9, 17)),
  ],
)
def test_equals_the_mean_of_whole_images(batch, classes, sides, size):
  logits = _logits(batch, classes, sides)
  values = averaging.mean_probabilities(logits, size)
  assert values.shape == (batch, *size, classes)
  np.testing.assert_allclose(values, mean_of_softmaxes(logits, size), atol=1e-6)


@pytest.mark.parametrize('strips', [1, 100])
def test_numbers_of_strips(strips, monkeypatch):
  monkeypatch.setattr(averaging, '_STRIPS', strips)
  logits = _logits(3, 2, [(4, 6), (3, 8)])
  # Not by way of a function that has been traced with another number.
  values = averaging._mean(logits, tf.constant([37, 50]))
  np.testing.assert_allclose(
    values, mean_of_softmaxes(logits, (37, 50)), atol=1e-6
  )


def test_large_logits():
  logits = [1e3 * x for x in _logits(1, 5, [(5, 5), (9, 9)])]
  values = averaging.mean_probabilities(logits, (33, 33))
  # float32 has steps of a thousandth there.
  np.testing.assert_allclose(
    values, mean_of_softmaxes(logits, (33, 33)), atol=1e-3
  )


def test_batch_and_size_known_when_run():
  inputs = [keras.Input((None, None, 4)) for _ in range(2)]
  size = keras.Input(batch_shape=(2,), dtype='int32')
  model = keras.Model(
    [*inputs, size], averaging.mean_probabilities(inputs, size)
  )
  assert model.output_shape == (None, None, None, 4)
  logits = _logits(2, 4, [(5, 7), (9, 13)])
  values = model([*logits, tf.constant([33, 49])])
  np.testing.assert_allclose(
    values, mean_of_softmaxes(logits, (33, 49)), atol=1e-6
  )


@pytest.fixture(scope='module')
def small():
  """ModelOptions, and a LayerStore with a network of them."""
  options = ModelOptions(
    outputs_to_num_classes={'semantic': 5},
    crop_size=[33, 33],
    model_variant='mobilenet_v2',
    depth_multiplier=0.1,
    output_stride=16,
    atrous_rates=[2],
    decoder_output_stride=[4],
  )
  store = slim.LayerStore()
  predictor = inference.build_predictor(options, store=store)
  variables = checkpoints.named_variables(predictor)
  recipe.assign(variables)
  # So that classes are as sure as trained ones, and change with the place.
  weights = variables['logits/semantic/weights']
  weights.assign(10 * weights.numpy())
  return options, store, predictor


def _check_labels(labels, probabilities):
  """The labels are the best ones, but for ties within rounding."""
  best = np.take_along_axis(probabilities, labels.numpy()[..., np.newaxis], -1)
  assert (probabilities.max(-1) - best[..., 0]).max() < 1e-5


@pytest.mark.parametrize(
  ('flips', 'pooling', 'are_processors'),
  [
    (True, None, True),
    (False, None, True),
    (True, [17, 33], True),
    (True, None, False),
  ],
)
def test_several_passes(small, flips, pooling, are_processors, monkeypatch):
  options, store, predictor = small
  monkeypatch.setattr(devices, 'are_processors', lambda: are_processors)
  # With it each size has a network of its own.
  options = options.replace(image_pooling_crop_size=pooling)
  scales = (0.5, 1.5, 1.0)
  plain = inference.build_predictor(options, scales, flips, store=store)
  network = inference.fold(options, store, scales, flips)
  spec = tf.TensorSpec([None, 33, 33, 3])
  scores = tf.function(network.scores, input_signature=[spec])
  images = tf.random.stateless_uniform([3, 33, 33, 3], [0, 1], maxval=255.0)
  expected = plain(images)
  # There is something to mistake.
  probabilities = expected['semantic_prob'].numpy()
  assert np.ptp(probabilities) > 0.5
  assert np.abs(probabilities - predictor(images)['semantic_prob']).max() > 0.1
  for found in network.finish(scores(images)), network.predictor()(images):
    np.testing.assert_allclose(found['semantic_prob'], probabilities, atol=1e-5)
    _check_labels(found['semantic'], probabilities)


def test_scales_share_their_weights(small):
  options, store, predictor = small

  def bytes_of_constants(scales):
    network = inference.fold(options, store, scales, True)
    spec = tf.TensorSpec([None, 33, 33, 3])
    function = tf.function(network.scores, input_signature=[spec])
    graph = function.get_concrete_function().graph.as_graph_def()
    bodies = [graph.node, *(f.node_def for f in graph.library.function)]
    return sum(
      tf.make_ndarray(node.attr['value'].tensor).nbytes
      for nodes in bodies
      for node in nodes
      if node.op == 'Const'
    )

  one, three = bytes_of_constants((1.5,)), bytes_of_constants((0.5, 1.0, 1.5))
  weights = sum(v.numpy().nbytes for v in predictor.variables)
  assert one > 0.5 * weights
  assert three - one < 0.02 * weights


def _optimized(compiled, spec):
  """The nodes that TensorFlow makes of a function to run it."""
  graph = compiled.graph.as_graph_def()
  feed = f'{spec.name}:0'
  with tf.Graph().as_default():
    tf.import_graph_def(graph, name='')
    run = tf.compat.v1.RunMetadata()
    with tf.compat.v1.Session() as session:
      session.run(
        [output.name for output in compiled.outputs],
        {feed: np.zeros([1, *spec.shape[1:]], np.float32)},
        tf.compat.v1.RunOptions(output_partition_graphs=True),
        run,
      )
  (graph,) = run.partition_graphs
  return graph.node


def test_scales_call_one_function_that_is_not_copied(small):
  """Each copy would have kernels with weights of its own."""
  options, store, _ = small
  spec = tf.TensorSpec([None, 33, 33, 3], name='images')
  network = inference.fold(options, store, (0.5, 1.0, 1.5), True)
  compiled = tf.function(
    network.scores, input_signature=[spec]
  ).get_concrete_function()
  calls = [
    node.attr['f'].func.name
    for node in _optimized(compiled, spec)
    if node.op.endswith('PartitionedCall')
  ]
  assert len(calls) == 3
  assert len(set(calls)) == 1

"""Networks and predictions against what the original computed."""

import hashlib
import json
import pathlib
import typing

import keras
import numpy as np
import pytest
import tensorflow as tf

import recipe
from deeplab import (
  checkpoints,
  common,
  constant_graph,
  inference,
  model,
  slim,
)
from deeplab.core import dense_prediction_cell

_GOLDEN = pathlib.Path(__file__).parent / 'testdata' / 'golden'
_INDEX = json.loads((_GOLDEN / 'index.json').read_text())
# These take more than a few seconds each.
_SLOW = ('xception_65_os16_513', 'xception_65_os8')
# To fold and compile takes longer than to build. Each of these has a shallower
# or smaller network of the same kind among the others: the backbones with and
# without units of multi-grid, strides of 8, 16 and 32, decoders and none, ASPP
# of separable and of full convolutions, and an image pyramid.
_SLOW_TO_FOLD = (
  *_SLOW,
  'nas_pnasnet_os8',
  'resnet_v1_101_beta_os16',
  'resnet_v1_50_beta_os16',
  'resnet_v1_50_beta_os16_fullconv',
  'resnet_v1_50_beta_os32_nodec',
  'resnet_v1_50_beta_os8',
  'resnet_v1_50_beta_pyramid_3',
  'xception_65_os16',
)


def _configurations(slow):
  return [
    pytest.param(name, marks=pytest.mark.slow if name in slow else ())
    for name in _INDEX
  ]


def make_options(spec):
  """ModelOptions from the flags of a golden configuration."""
  flags = dict(spec['flags'])
  for name in (
    'decoder_output_stride',
    'image_pooling_crop_size',
    'image_pooling_stride',
  ):
    if name in flags:
      flags[name] = [int(value) for value in flags[name]]
  cell = flags.pop('dense_prediction_cell_json', None)
  if cell:
    flags['dense_prediction_cell_config'] = dense_prediction_cell.read_config(
      cell
    )
  return common.ModelOptions(
    outputs_to_num_classes=spec['outputs_to_num_classes'],
    crop_size=spec['crop_size'],
    atrous_rates=spec['atrous_rates'],
    output_stride=spec['output_stride'],
    **flags,
  )


def _check_variables(built, golden):
  described = [
    [name, list(variable.shape), variable.trainable]
    for name, variable in built.variables.items()
  ]
  # One digest stands for names, shapes, trainability and order.
  digest = hashlib.sha256(json.dumps(described).encode()).hexdigest()
  assert digest == golden['variables_sha256'], described[:5]
  assert built.predictor.count_params() == golden['num_parameters']
  trainable = sum(
    v.shape.num_elements() for v in built.predictor.trainable_variables
  )
  assert trainable == golden['num_trainable_parameters']


def _check_labels(labels, expected, probabilities):
  """Equal but for pixels whose two best classes are a rounding apart."""
  differs = labels != expected
  best = np.sort(probabilities, axis=-1)[..., -2:]
  assert (best[..., 1] - best[..., 0])[differs].max(initial=0.0) < 1e-5


def _check_outputs(name, logits, predictions):
  """Compares what a network gives for the image of a configuration.

  Args:
    name: of the configuration.
    logits: {output: {name: [1, height, width, classes]}}; what is not there is
      not compared.
    predictions: what `inference.build_predictor` gives.
  """
  golden = _INDEX[name]
  # Logits come first among the arrays. What their error can do to a softmax
  # is half of it; large logits make that more than rounding.
  logits_error = 0.0
  for key, expected in np.load(_GOLDEN / f'{name}.npz').items():
    output, _, item = key.partition('__')
    stride = golden['strides'].get(key, 1)
    if 'logits' in item and item in logits[output]:
      value = logits[output][item][0].numpy()[::stride, ::stride]
      error = np.abs(value - expected).max()
      assert error <= 1e-4 * expected.std(), key
      logits_error = max(logits_error, error)
    elif item == 'averaged_softmax' or (
      item.endswith('_prob') and not golden['spec']['eval_scales']
    ):
      # The original's multi-scale probabilities are softmaxed twice.
      probabilities = item if output == 'predictions' else output + '_prob'
      value = predictions[probabilities][0].numpy()[::stride, ::stride]
      assert np.abs(value - expected).max() < 1e-5 + logits_error / 2, key
    elif output == 'predictions' and not item.endswith('_prob'):
      probabilities = predictions[item + '_prob'][0].numpy()
      _check_labels(predictions[item][0].numpy(), expected, probabilities)


def _image(name):
  return np.load(_GOLDEN / f'{name}.npz')['image'][np.newaxis].astype('float32')


def _passes(spec):
  """The arguments of a predictor behind the ModelOptions."""
  return {
    'eval_scales': spec['eval_scales'] or [1.0],
    'add_flipped_images': spec['add_flipped_images'],
    'image_pyramid': spec['image_pyramid'],
  }


class _Built(typing.NamedTuple):
  """The predictor of a configuration, with its weights.

  Attributes:
    name: of the configuration.
    options: ModelOptions.
    store: slim.LayerStore of the layers.
    predictor: what `inference.build_predictor` returns.
    variables: {official name: variable}.
  """

  name: str
  options: common.ModelOptions
  store: slim.LayerStore
  predictor: keras.Model
  variables: dict


@pytest.fixture(scope='module')
def built(request):
  """A _Built; the tests of a configuration share it."""
  spec = _INDEX[request.param]['spec']
  options = make_options(spec)
  store = slim.LayerStore()
  predictor = inference.build_predictor(options, store=store, **_passes(spec))
  variables = checkpoints.named_variables(predictor)
  recipe.assign(variables)
  return _Built(request.param, options, store, predictor, variables)


@pytest.mark.parametrize('built', _configurations(_SLOW), indirect=True)
def test_equals_the_original(built):
  golden = _INDEX[built.name]
  _check_variables(built, golden)
  assert recipe.weights_sha256(built.variables) == golden['weights_sha256']
  network = model.build_model(built.options, golden['spec']['image_pyramid'])
  recipe.assign(checkpoints.named_variables(network))

  images = _image(built.name)
  _check_outputs(built.name, network(images), built.predictor(images))


@pytest.mark.parametrize('built', _configurations(_SLOW_TO_FOLD), indirect=True)
def test_folded_equals_the_original(built):
  if built.options.is_quantized:
    pytest.skip('quantised networks are not folded')
  spec = _INDEX[built.name]['spec']
  network = inference.fold(built.options, built.store, **_passes(spec))

  scores = network.scores.output
  outputs = {'scores': scores, 'predictions': network.finish(scores)}
  run = keras.Model(network.scores.input, outputs)

  sides = spec['crop_size'] or [None, None]
  images = tf.TensorSpec([1, *sides, 3], name='images')
  if isinstance(next(iter(scores.values())), list):
    # The network of each scale is compiled.
    compiled = tf.function(run, input_signature=[images])
  else:
    compiled = constant_graph.compile_function(run, images)
  values = compiled(tf.constant(_image(built.name)))
  # Of several passes the original keeps no logits.
  logits = {
    output: {}
    if isinstance(value, list)
    else {model.MERGED_LOGITS_SCOPE: value}
    for output, value in values['scores'].items()
  }
  _check_outputs(built.name, logits, values['predictions'])

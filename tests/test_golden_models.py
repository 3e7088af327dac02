"""Networks and predictions against what the original computed."""

import hashlib
import json
import pathlib

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


def _configurations():
  for name in _INDEX:
    slow = any(part in name for part in _SLOW)
    yield pytest.param(name, marks=[pytest.mark.slow] if slow else [])


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


def _check_variables(predictor, golden):
  variables = checkpoints.named_variables(predictor)
  described = [
    [name, list(variable.shape), variable.trainable]
    for name, variable in variables.items()
  ]
  # One digest stands for names, shapes, trainability and order.
  digest = hashlib.sha256(json.dumps(described).encode()).hexdigest()
  assert digest == golden['variables_sha256'], described[:5]
  assert predictor.count_params() == golden['num_parameters']
  trainable = sum(v.shape.num_elements() for v in predictor.trainable_variables)
  assert trainable == golden['num_trainable_parameters']
  return variables


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
      name = item if output == 'predictions' else output + '_prob'
      value = predictions[name][0].numpy()[::stride, ::stride]
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


@pytest.mark.parametrize('name', _configurations())
def test_equals_the_original(name):
  golden = _INDEX[name]
  spec = golden['spec']
  options = make_options(spec)

  predictor = inference.build_predictor(options, **_passes(spec))
  variables = _check_variables(predictor, golden)
  recipe.assign(variables)
  assert recipe.weights_sha256(variables) == golden['weights_sha256']
  network = model.build_model(options, spec['image_pyramid'])
  recipe.assign(checkpoints.named_variables(network))

  images = _image(name)
  _check_outputs(name, network(images), predictor(images))


@pytest.mark.parametrize('name', _configurations())
def test_folded_equals_the_original(name):
  spec = _INDEX[name]['spec']
  options = make_options(spec)
  if options.is_quantized:
    pytest.skip('quantised networks are not folded')
  store = slim.LayerStore()
  predictor = inference.build_predictor(options, store=store, **_passes(spec))
  recipe.assign(checkpoints.named_variables(predictor))
  network = inference.fold(options, store, **_passes(spec))
  sides = spec['crop_size'] or [None, None]
  run = constant_graph.compile_function(
    lambda images: (
      {
        f'{output}_scores': value
        for output, value in network.scores(images).items()
      }
      | network.predictor()(images)
    ),
    tf.TensorSpec([1, *sides, 3], name='images'),
  )
  values = run(tf.constant(_image(name)))
  logits = {output: {} for output in network.scores.output}
  if not inference.averages(
    spec['eval_scales'] or [1.0], spec['add_flipped_images']
  ):
    logits = {
      output: {model.MERGED_LOGITS_SCOPE: values[f'{output}_scores']}
      for output in logits
    }
  _check_outputs(name, logits, values)

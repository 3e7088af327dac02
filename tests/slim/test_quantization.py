"""Fake quantisation and folded batch norm against their definitions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab import slim

_SEED = np.array([1, 2], np.int64)


def _network(delay, is_training=True, batch_statistics=True):
  """Every kind of layer: {official name: variable} and a model."""
  with (
    slim.layer_store(seed=1) as store,
    slim.quantized(delay, is_training),
    slim.arg_scope(
      [slim.conv2d, slim.separable_conv2d],
      normalizer_fn=slim.batch_norm,
      activation_fn=keras.ops.relu6,
    ),
    slim.arg_scope(
      [slim.batch_norm], scale=True, decay=0.9, is_training=batch_statistics
    ),
  ):
    inputs = keras.Input((9, 9, 3))
    net = slim.conv2d(inputs, 8, 3, stride=2, scope='first')
    skip = net
    net = slim.separable_conv2d(net, None, 3, rate=2, scope='depthwise')
    net = slim.separable_conv2d(net, 8, 3, scope='separable')
    net = slim.conv2d(net, 8, 1, activation_fn=None, scope='project')
    net = slim.quantize(net + skip, 'sum_quant')
    outputs = slim.conv2d(
      net, 5, 1, normalizer_fn=None, activation_fn=None, scope='logits'
    )
    model = keras.Model(inputs, outputs)
  del store
  layers = [x for x in model.layers if hasattr(x, 'creation_index')]
  return model, {
    slim.official_name(v): v for layer in layers for v in layer.variables
  }


def _run(model, named, images, step=0):
  """Output, and gradients of its mean square, by name."""
  weights = {n: v.value for n, v in named.items() if v.trainable}
  with tf.GradientTape() as tape:
    with slim.train_step_context(tf.constant(step, tf.int64), _SEED):
      outputs = model(images)
    loss = tf.reduce_mean(outputs**2)
  gradients = tape.gradient(loss, weights)
  return outputs.numpy(), {n: g.numpy() for n, g in gradients.items()}


@pytest.fixture
def images():
  return np.random.default_rng(0).normal(size=(4, 9, 9, 3)).astype(np.float32)


def _make_unlike_initial(named):
  """Statistics and offsets other than 0 and 1."""
  rng = np.random.default_rng(1)
  for name, variable in named.items():
    if name.endswith(('moving_variance', 'gamma')):
      variable.assign(rng.uniform(0.5, 2.0, variable.shape))
    elif name.endswith(('moving_mean', 'beta', 'biases')):
      variable.assign(rng.normal(size=variable.shape))


@pytest.mark.parametrize('batch_statistics', [True, False])
def test_before_the_delay_folding_changes_nothing(images, batch_statistics):
  plain = _network(-1, batch_statistics=batch_statistics)
  quantized = _network(1000, batch_statistics=batch_statistics)
  for _, named in (plain, quantized):
    _make_unlike_initial(
      {name: v for name, v in named.items() if '_quant/' not in name}
    )
  assert set(plain[1]) < set(quantized[1])
  outputs, gradients = _run(*plain, images)
  folded_outputs, folded_gradients = _run(*quantized, images)
  np.testing.assert_allclose(folded_outputs, outputs, rtol=1e-4, atol=1e-5)
  assert gradients.keys() == folded_gradients.keys()
  for name, gradient in gradients.items():
    scale = np.abs(gradient).max() + 1e-6
    np.testing.assert_allclose(
      folded_gradients[name] / scale, gradient / scale, atol=1e-4, err_msg=name
    )
  # The moving statistics of the batch are gathered alike.
  for name, variable in plain[1].items():
    np.testing.assert_allclose(
      quantized[1][name], variable, rtol=1e-5, atol=1e-6, err_msg=name
    )


def test_quantisation_begins_at_the_delay(images):
  """The step being made counts, so that delay 3 means the third step."""
  model, named = _network(3)
  plain, _ = _network(-1)
  for step, same in ((0, True), (1, True), (2, False)):
    outputs, _ = _run(model, named, images, step)
    close = np.allclose(outputs, plain(images), rtol=1e-4, atol=1e-5)
    assert close == same, step


def test_ranges_are_gathered_before_the_delay(images):
  _, named = model = _network(1000)
  before = {n: v.numpy() for n, v in named.items() if n.endswith('_quant/max')}
  _run(*model, images)
  assert len(before) == 13
  for name, value in before.items():
    assert named[name].numpy() != value, name


def test_moving_ranges_follow_the_formula():
  """Averages with decay 0.999, divided by the weight of what they hold."""
  with slim.layer_store(), slim.quantized(0, is_training=True):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, slim.quantize(inputs, 'scope/act_quant'))
  named = {slim.official_name(v): v for v in model.variables}
  prefix = 'scope/act_quant/scope/act_quant'
  assert set(named) == {
    'scope/act_quant/min',
    'scope/act_quant/max',
    f'{prefix}/min/biased',
    f'{prefix}/min/local_step',
    f'{prefix}/max/biased',
    f'{prefix}/max/local_step',
  }
  assert not model.trainable_variables
  biased = np.zeros(2)
  # The third batch is all positive: zero stays in the range.
  batches = [[-1, 2, 0, 1], [-3, 1, 0, 0], [1, 5, 2, 3]]
  for step, batch in enumerate(batches, 1):
    extremes = np.array([min(*batch, 0), max(*batch, 0)])
    biased += 0.001 * (extremes - biased)
    ranges = biased / (1 - 0.999**step)
    outputs = model(np.array([batch], np.float32))
    for kind, value, average in zip(
      ('min', 'max'), ranges, biased, strict=True
    ):
      np.testing.assert_allclose(
        named[f'scope/act_quant/{kind}'], value, rtol=1e-4
      )
      np.testing.assert_allclose(
        named[f'{prefix}/{kind}/biased'], average, rtol=1e-4
      )
      assert named[f'{prefix}/{kind}/local_step'].numpy() == step
    expected = tf.quantization.fake_quant_with_min_max_vars(
      np.array([batch], np.float32), *ranges
    )
    np.testing.assert_allclose(outputs, expected, atol=0.03)


def test_kernels_are_rounded_to_their_own_range():
  with slim.layer_store(), slim.quantized(0, is_training=True):
    inputs = keras.Input((1, 1, 1))
    model = keras.Model(
      inputs,
      slim.conv2d(inputs, 3, 1, activation_fn=None, biases_initializer=None),
    )
  named = {slim.official_name(v): v for v in model.variables}
  named['Conv/weights'].assign(np.reshape([-0.5, 0.102, 1.0], (1, 1, 1, 3)))
  outputs = model(np.ones((1, 1, 1, 1), np.float32)).numpy().ravel()
  assert named['Conv/weights_quant/min'].numpy() == -0.5
  assert named['Conv/weights_quant/max'].numpy() == 1.0
  # 254 levels apart (a narrow range); the outputs have 255 of their own.
  kernel = np.round(np.array([-0.5, 0.102, 1.0]) * 254 / 1.5) * 1.5 / 254
  np.testing.assert_allclose(outputs, kernel, atol=1.5 / 255 / 2 + 1e-6)
  assert np.abs(outputs - [-0.5, 0.102, 1.0]).max() > 1e-4


def test_evaluation_uses_what_training_gathered(images):
  """Folded moving statistics and fixed ranges, nothing changed."""
  trained, named = _network(0)
  for step in range(3):
    _run(trained, named, images, step)
  evaluated, fixed = _network(0, is_training=False, batch_statistics=False)
  assert {n for n in named if 'biased' in n or 'local_step' in n} == (
    set(named) - set(fixed)
  )
  for name, variable in fixed.items():
    variable.assign(named[name])
  plain, unquantized = _network(-1, is_training=False, batch_statistics=False)
  for name, variable in unquantized.items():
    variable.assign(named[name])
  outputs, float_outputs = evaluated(images), plain(images).numpy()
  for name, variable in fixed.items():
    np.testing.assert_array_equal(variable, named[name])
  error = np.abs(outputs - float_outputs).max() / float_outputs.std()
  assert 1e-4 < error < 0.3


def test_shared_layers_share_their_ranges():
  with slim.layer_store() as store, slim.quantized(0, is_training=True):
    inputs = keras.Input((5, 5, 3))
    for _ in range(2):
      with slim.variable_scope('net'):
        slim.conv2d(inputs, 2, 3)
  names = set(store.layers)
  assert names == {
    'net/Conv',
    'net/Conv/quantized',
    'net/Conv/act_quant',
  }


def test_a_step_compiles_with_xla(images):
  model, named = _network(2)
  weights = [v.value for v in named.values() if v.trainable]

  @tf.function(jit_compile=True)
  def compiled(step):
    with tf.GradientTape() as tape, slim.train_step_context(step, _SEED):
      loss = tf.reduce_mean(model(images) ** 2)
    return loss, tape.gradient(loss, weights)

  reference = _network(2)
  outputs, _ = _run(*reference, images, 1)
  loss, gradients = compiled(tf.constant(1, tf.int64))
  np.testing.assert_allclose(loss, np.mean(outputs**2), rtol=1e-2)
  assert all(np.isfinite(g).all() for g in gradients)


def test_a_converter_gets_the_same_kernels(images):
  """Rounded by plain arithmetic: no FakeQuant on them, equal values."""
  trained, named = _network(0)
  for step in range(3):
    _run(trained, named, images, step)
  networks = []
  for for_converter in (False, True):
    with (
      slim.layer_store(),
      slim.quantized(0, for_converter=for_converter),
      slim.arg_scope([slim.batch_norm], scale=True, is_training=False),
    ):
      inputs = keras.Input((9, 9, 3))
      net = slim.conv2d(
        inputs, 8, 3, stride=2, scope='first', normalizer_fn=slim.batch_norm
      )
      model = keras.Model(inputs, net)
    for variable in model.variables:
      variable.assign(named[slim.official_name(variable)])
    function = tf.function(lambda x, model=model: model(x))
    graph = function.get_concrete_function(images).graph
    kinds = [node.type for node in graph.get_operations()]
    networks.append((model(images), kinds.count('FakeQuantWithMinMaxVars')))
  (plain, both), (converted, activations) = networks
  assert (both, activations) == (2, 1)
  # A value on the border of two levels may go either way.
  assert np.isclose(plain, converted, atol=1e-5).mean() > 0.99

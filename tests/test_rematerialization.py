"""Rematerialised networks against the same ones run plainly."""

import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import training_process
from rematerialized import CASES, build, make_images, make_step

import recipe
from deeplab import rematerialization, slim
from deeplab.common import InputError
from deeplab.slim import devices

_TESTS = str(pathlib.Path(__file__).resolve().parent)

# What is free is some of the activations.
_WAYS = ('activations', 'blocks')


def flat(values):
  """All values of a dictionary as one vector."""
  return np.concatenate([np.ravel(values[name]) for name in sorted(values)])


def distance(actual, expected):
  """Of two dictionaries, relative to the second."""
  actual, expected = flat(actual), flat(expected)
  return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def compare(case, way, compiled=False, **arguments):
  """Asks that outputs, gradients and statistics agree."""
  results, roots = [], []
  for each in ('nothing', way):
    network, named = build(case, **arguments)
    step = make_step(network, named, each, is_xla=compiled)
    step = tf.function(step, jit_compile=compiled, autograph=False)
    outputs, gradients = step(make_images())
    if compiled:
      program = step.experimental_get_compiler_ir(make_images())
      roots.append(program(stage='optimized_hlo').count(' rsqrt('))
    results.append((outputs, gradients, named))
  if compiled:  # Those of batch norm; XLA has not found out.
    assert roots[1] > 1.5 * roots[0]
  plain, again = results
  assert plain[0].keys() == again[0].keys()
  # TensorFlow fuses other operations where more is kept: rounding differs.
  assert distance(again[0], plain[0]) < 1e-5
  # With batch statistics two plain runs of a ResNet differ by 2e-6.
  assert distance(again[1], plain[1]) < 5e-6
  moving = [name for name, v in plain[2].items() if not v.trainable]
  changed = 0
  for name in moving:
    value = plain[2][name].numpy()
    np.testing.assert_allclose(
      again[2][name], value, rtol=1e-5, atol=1e-6, err_msg=name
    )
    if '_quant/' not in name:
      changed += np.any(value != recipe.make_value(name, value.shape))
  assert bool(changed) == bool(
    arguments.get('fine_tune_batch_norm', True) and moving
  )


# Training on processors goes by some of the activations, and its steps are
# compared with those of the original.
_FAST = {
  ('activations', 'mobilenet_v3'),
  ('activations', 'any_size'),
  ('blocks', 'mobilenet_v2'),
  ('blocks', 'resnet_v1_18'),
  ('blocks', 'vgg_16'),
}


@pytest.mark.parametrize(
  'way, case',
  [
    pytest.param(
      way, case, marks=() if (way, case) in _FAST else pytest.mark.slow
    )
    for way in _WAYS
    for case in CASES
  ],
)
def test_equals_the_plain_network(way, case):
  """Dropout and drop path are active, batch statistics are gathered."""
  compare(case, way)


@pytest.mark.parametrize(
  'way', ['activations', pytest.param('blocks', marks=pytest.mark.slow)]
)
def test_frozen_batch_norm(way):
  compare('mobilenet_v2', way, fine_tune_batch_norm=False)


# What is rematerialised is the same layers, whatever the type.
@pytest.mark.parametrize(
  'way, dtype',
  [
    ('activations', 'bfloat16'),
    pytest.param('activations', 'float16', marks=pytest.mark.slow),
    pytest.param('blocks', 'bfloat16', marks=pytest.mark.slow),
  ],
)
def test_mixed_precision(way, dtype):
  compare('mobilenet_v2', way, mixed_precision=dtype)


@pytest.mark.slow
@pytest.mark.parametrize('way', _WAYS)
def test_compiled_with_xla(way):
  compare('mobilenet_v2', way, compiled=True)


def _graph_of(case, way):
  """The operations of the forward pass of a step, and of the backward pass.

  Without those that TensorFlow drops, whose results nothing needs.
  """
  network, named = build(case, crop_size=[65, 65])
  number = []

  @tf.function(autograph=False)
  def step(images):
    weights = {name: v.value for name, v in named.items() if v.trainable}
    with tf.GradientTape() as tape:
      context = slim.train_step_context(tf.constant(10, tf.int64), [1, 2])
      with context:
        outputs = rematerialization.call(network, images, way)
      loss = tf.reduce_mean(outputs['semantic']['merged_logits'] ** 2)
    number.append(len(tf.compat.v1.get_default_graph().get_operations()))
    return tape.gradient(loss, weights)

  images = tf.TensorSpec([4, 65, 65, 3])
  graph = step.get_concrete_function(images).graph
  operations = graph.get_operations()
  needed = {x.op for x in graph.outputs}
  for operation in operations[::-1]:
    if operation in needed:
      needed.update(x.op for x in operation.inputs)
  backward = [x for x in operations[number[0] :] if x in needed]
  return operations[: number[0]], backward


def _kept_bytes(forward, backward):
  """Of what the forward pass computes and the backward pass needs."""
  made = {id(x): x for operation in forward for x in operation.outputs}
  kept = {id(x) for operation in backward for x in operation.inputs}
  total = 0
  for key in kept & made.keys():
    tensor = made[key]
    # Variables are there anyway, and the space that cuDNN reserves, whose shape
    # is not known, is empty on other devices.
    if tensor.op.type != 'ReadVariableOp' and tensor.shape.rank is not None:
      total += math.prod(tensor.shape) * tensor.dtype.size
  return total


def _convolutions(operations):
  kinds = [operation.type for operation in operations]
  return kinds.count('Conv2D') + kinds.count('DepthwiseConv2dNative')


def test_less_is_kept():
  plain, by_activations, by_blocks = (
    _graph_of('mobilenet_v2', way) for way in ('nothing', *_WAYS)
  )
  kept = _kept_bytes(*plain)
  assert _kept_bytes(*by_activations) < 0.6 * kept
  assert _kept_bytes(*by_blocks) < 0.25 * kept
  convolutions = _convolutions(plain[0])
  assert _convolutions(by_activations[0]) == convolutions
  assert _convolutions(by_blocks[0]) == convolutions
  assert _convolutions(by_activations[1]) == _convolutions(plain[1])
  # Most are; the last of a unit for one is not.
  again = _convolutions(by_blocks[1]) - _convolutions(plain[1])
  assert 0.5 * convolutions < again < convolutions


@pytest.mark.slow
@pytest.mark.parametrize('case', ['quantized', 'xception', 'pnasnet'])
def test_activations_need_no_convolution_twice(case):
  """Not where the gradient needs what comes between two convolutions."""
  plain, again = (_graph_of(case, way) for way in ('nothing', 'activations'))
  assert _convolutions(plain[1]) == _convolutions(again[1])


def test_no_gradient_of_a_bias_beside_that_of_another_kernel():
  """oneDNN joins them where they take two results of one operation.

  It looks at the operation alone, and gives the bias the sum of the other one.
  """
  _, backward = _graph_of('mobilenet_v3', 'activations')

  def gradients(kind, index):
    """{(operation, number of its result)}."""
    taken = [x.inputs[index] for x in backward if x.type == kind]
    return {(tensor.op.name, tensor.value_index) for tensor in taken}

  biases = gradients('BiasAddGrad', 0)
  assert biases
  others = gradients('Conv2DBackpropFilter', 2) - biases
  assert not {name for name, _ in biases} & {name for name, _ in others}


_PEAK = """
import sys
sys.path.insert(0, {tests!r})
import rematerialized, tensorflow as tf
network, named = rematerialized.build(
  'mobilenet_v2', crop_size=[257, 257], depth_multiplier=1.0)
step = rematerialized.make_step(network, named, {way!r})
step = tf.function(step, autograph=False)
images = tf.constant(rematerialized.make_images(4, 257))
step.get_concrete_function(images)
def peak():
  lines = open('/proc/self/status').read().splitlines()
  return int(next(x for x in lines if x.startswith('VmHWM')).split()[1])
before = peak()
step(images)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_peak_memory():
  """Measured, of a step of MobileNetV2 with a decoder at full depth."""
  peaks = [
    int(_python(_PEAK.format(tests=_TESTS, way=way)).split()[-1])
    for way in ('nothing', *_WAYS)
  ]
  assert peaks[1] < 0.8 * peaks[0]
  assert peaks[2] < 0.6 * peaks[0]


# Replicas.


def compare_replicas():
  """Two replicas with synchronised batch norm, rematerialised, and one device.

  They are compared with two that are not rematerialised.
  """
  tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices('CPU')[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
  )
  # One for all: the collectives of several would get the same numbers.
  mirrored = tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])
  images = make_images()

  def run(strategy, way='nothing'):
    with strategy.scope():
      network, named = build('resnet_v1_18')
    return _run_replicas(strategy, network, named, way, images)

  two = run(mirrored)
  for way in ('activations', 'blocks'):
    again = run(mirrored, way)
    assert distance(again[0], two[0]) < 5e-6
    assert distance(again[1], two[1]) < 1e-6
  one = run(tf.distribute.get_strategy())
  # One device has the same batch, with sums in another order. Changing the
  # images by 1e-7 of themselves changes its gradients by 6e-4.
  assert distance(two[1], one[1]) < 1e-6
  assert distance(two[0], one[0]) < 5e-3


def _run_replicas(strategy, network, named, way, images):
  """Mean gradients, and moving statistics."""
  local = strategy.experimental_local_results

  def step(images):
    context = tf.distribute.get_replica_context()
    first = images.shape[0] * context.replica_id_in_sync_group
    step = make_step(
      network,
      named,
      way,
      first_image=first,
      sync_batch_norm=True,
    )
    return context.all_reduce('MEAN', step(images)[1])

  @tf.function(autograph=False)
  def run():
    parts = tf.split(tf.constant(images), strategy.num_replicas_in_sync)
    part = strategy.experimental_distribute_values_from_function(
      lambda context: parts[context.replica_id_in_sync_group]
    )
    return strategy.run(step, (part,))

  gradients = {name: local(x)[0].numpy() for name, x in run().items()}
  return gradients, {
    name: v.numpy() for name, v in named.items() if not v.trainable
  }


def _python(code):
  done = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'PYTHONPATH': _TESTS},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-4000:]
  return done.stdout


# Two replicas without rematerialisation, on a smaller network:
# slim/test_train_step_context.py.
@pytest.mark.slow
def test_two_replicas():
  _python('import test_rematerialization as t; t.compare_replicas()')


# Random draws.


@pytest.mark.parametrize('way', _WAYS)
def test_every_call_draws_anew_in_the_same_order(way):
  network, _ = build('mobilenet_v2', fine_tune_batch_norm=False)
  images = make_images(2)

  def run(way):
    results = []
    with slim.train_step_context(tf.constant(10, tf.int64), [1, 2]):
      for _ in range(2):
        outputs = rematerialization.call(network, images, way)
        results.append(outputs['semantic']['merged_logits'])
    return results

  plain, again = run('nothing'), run(way)
  assert np.abs(plain[0] - plain[1]).max() > 0.01
  np.testing.assert_allclose(again, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('way', _WAYS)
def test_needs_the_seed(way):
  network, _ = build('mobilenet_v2')
  with pytest.raises(ValueError, match='train_step_context'):
    rematerialization.call(network, make_images(), way)


def test_default(monkeypatch):
  for are_processors, is_xla, way in (
    (True, False, 'free_activations'),
    (True, True, 'nothing'),
    (False, False, 'nothing'),
  ):
    monkeypatch.setattr(devices, 'are_processors', lambda x=are_processors: x)
    assert rematerialization.default_way(is_xla) == way


def test_ways_have_names():
  with pytest.raises(
    InputError, match=r'recompute_grad must be one of nothing, .*Received: True'
  ):
    training_process.make_config('unused', recompute_grad=True)

"""Rematerialised networks against the same ones run plainly."""

import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import recipe
from deeplab import checkpoints, common, graph, model, rematerialization, slim

_TESTS = str(pathlib.Path(__file__).resolve().parent)

_CASES = {
  'mobilenet_v2': {'depth_multiplier': 0.35, 'decoder_output_stride': [4]},
  'image_pyramid': {'depth_multiplier': 0.35, 'image_pyramid': [0.5, 1.0]},
  'resnet_v1_50_beta': {
    'model_variant': 'resnet_v1_50_beta',
    'multi_grid': [1, 2, 4],
    'decoder_output_stride': [4],
  },
  'resnet_v1_18': {
    'model_variant': 'resnet_v1_18',
    'add_image_level_feature': False,
  },
  'vgg_16': {
    'model_variant': 'vgg_16',
    'output_stride': 8,
    'aspp_with_batch_norm': False,
    'atrous_rates': [6, 12],
    'vgg_fc_filters': 16,
  },
  # Its head is that of the published ones.
  'mobilenet_v3': {
    'model_variant': 'mobilenet_v3_small_seg',
    'output_stride': 32,
    'aspp_convs_filters': 8,
    'aspp_with_concat_projection': False,
    'aspp_with_squeeze_and_excitation': True,
    'decoder_use_sum_merge': True,
    'decoder_filters': 4,
    'decoder_output_is_logits': True,
    'image_se_uses_qsigmoid': True,
    'decoder_output_stride': [8],
  },
  'quantized': {'depth_multiplier': 0.35, 'quantize_delay_step': 0},
  'any_size': {'depth_multiplier': 0.35, 'crop_size': None},
  'xception': {'model_variant': 'xception_41', 'decoder_output_stride': [4]},
  'pnasnet': {'model_variant': 'nas_pnasnet'},
  'hnasnet': {
    'model_variant': 'nas_hnasnet',
    'output_stride': 8,
    'nas_architecture_options': {'nas_stem_output_num_conv_filters': 8},
  },
}
_SPLITS = ('activations', 'blocks')


def build(case, fine_tune_batch_norm=True, **build):
  """A network with recipe weights, and {official name: variable}."""
  case = {'crop_size': [33, 33], **_CASES[case], **build}
  drop_path = None
  if case.get('model_variant', '').startswith('nas_'):
    drop_path = {'drop_path_keep_prob': 0.7, 'total_training_steps': 10}
  pyramid = case.pop('image_pyramid', None)
  mixed_precision = case.pop('mixed_precision', None)
  network = model.build_model(
    common.ModelOptions({'semantic': 4}, **case),
    image_pyramid=pyramid,
    is_training=True,
    fine_tune_batch_norm=fine_tune_batch_norm,
    seed=1,
    nas_training_hyper_parameters=drop_path,
    mixed_precision=mixed_precision,
  )
  named = checkpoints.named_variables(network)
  recipe.assign({n: v for n, v in named.items() if '_quant/' not in n})
  return network, named


def make_images(images=4, size=33):
  rng = np.random.default_rng(0)
  shape = (images, size, size, 3)
  return rng.uniform(0, 255, shape).astype(np.float32)


def call(network, images, split, is_xla=False):
  """By the segments of `rematerialization` of that name; None: plainly."""
  if split is None:
    return network(images)
  return rematerialization.call(
    network, images, rematerialization.SPLITS[split], is_xla
  )


def make_step(network, named, split, is_xla=False, **context):
  """A function of images: outputs of all scales, and gradients by name."""
  weights = {name: v.value for name, v in named.items() if v.trainable}

  def step(images):
    with tf.GradientTape() as tape:
      with slim.train_step_context(
        tf.constant(10, tf.int64), tf.constant([1, 2]), **context
      ):
        outputs = call(network, images, split, is_xla)['semantic']
      loss = tf.add_n([tf.reduce_mean(x**2) for x in outputs.values()])
      loss += tf.add_n(network.losses)
    return outputs, tape.gradient(loss, weights)

  return step


def flat(values):
  """All values of a dictionary as one vector."""
  return np.concatenate([np.ravel(values[name]) for name in sorted(values)])


def distance(actual, expected):
  """Of two dictionaries, relative to the second."""
  actual, expected = flat(actual), flat(expected)
  return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def compare(case, split='blocks', compiled=False, **arguments):
  """Asks that outputs, gradients and statistics agree."""
  results, roots = [], []
  for way in (None, split):
    network, named = build(case, **arguments)
    step = make_step(network, named, way, is_xla=compiled)
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


# Training goes by activations on processors: its steps are compared with the
# original's. Fast are the kinds of operations that these lack.
_FAST = {
  ('activations', 'mobilenet_v3'),
  ('activations', 'any_size'),
  ('blocks', 'mobilenet_v2'),
  ('blocks', 'resnet_v1_18'),
  ('blocks', 'vgg_16'),
}


@pytest.mark.parametrize(
  'split, case',
  [
    pytest.param(
      split, case, marks=() if (split, case) in _FAST else pytest.mark.slow
    )
    for split in _SPLITS
    for case in _CASES
  ],
)
def test_equals_the_plain_network(split, case):
  """Dropout and drop path are active, batch statistics are gathered."""
  compare(case, split)


@pytest.mark.parametrize(
  'split', ['activations', pytest.param('blocks', marks=pytest.mark.slow)]
)
def test_frozen_batch_norm(split):
  compare('mobilenet_v2', split, fine_tune_batch_norm=False)


# What is rematerialised is the same layers, whatever the type.
@pytest.mark.parametrize(
  'dtype', ['bfloat16', pytest.param('float16', marks=pytest.mark.slow)]
)
def test_mixed_precision(dtype):
  compare('mobilenet_v2', mixed_precision=dtype)


@pytest.mark.slow
@pytest.mark.parametrize('split', _SPLITS)
def test_compiled_with_xla(split):
  compare('mobilenet_v2', split, compiled=True)


def _graph_of(case, split):
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
        outputs = call(network, images, split)
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
    _graph_of('mobilenet_v2', split) for split in (None, *_SPLITS)
  )
  kept = _kept_bytes(*plain)
  assert _kept_bytes(*by_activations) < 0.6 * kept
  assert _kept_bytes(*by_blocks) < 0.25 * kept
  convolutions = _convolutions(plain[0])
  assert _convolutions(by_activations[0]) == convolutions
  assert _convolutions(by_blocks[0]) == convolutions
  # No convolution twice.
  assert _convolutions(by_activations[1]) == _convolutions(plain[1])
  # Most are; the last of a unit for one is not.
  again = _convolutions(by_blocks[1]) - _convolutions(plain[1])
  assert 0.5 * convolutions < again < convolutions


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
import test_rematerialization as test, tensorflow as tf
network, named = test.build(
  'mobilenet_v2', crop_size=[257, 257], depth_multiplier=1.0)
step = test.make_step(network, named, {split!r})
step = tf.function(step, autograph=False)
images = tf.constant(test.make_images(4, 257))
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
    int(_python(_PEAK.format(tests=_TESTS, split=split)).split()[-1])
    for split in (None, *_SPLITS)
  ]
  assert peaks[1] < 0.8 * peaks[0]
  assert peaks[2] < 0.6 * peaks[0]


# Replicas.


def compare_replicas(one_device):
  """Two replicas with synchronised batch norm, plain and rematerialised.

  Args:
    one_device: whether to compare them with one device, and rematerialised by
      blocks, too.
  """
  splits = _SPLITS if one_device else ['activations']
  tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices('CPU')[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
  )
  # One for both: the collectives of two strategies would get the same numbers.
  mirrored = tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])
  images = make_images()
  results = []
  runs = [(mirrored, None), *((mirrored, split) for split in splits)]
  if one_device:
    runs.append((tf.distribute.get_strategy(), None))
  for strategy, split in runs:
    with strategy.scope():
      network, named = build('resnet_v1_18')
    results.append(_run_replicas(strategy, network, named, split, images))
  two, *again = results[: 1 + len(splits)]
  one = results[1 + len(splits) :]
  for result in again:
    assert distance(result[0], two[0]) < 5e-6
    assert distance(result[1], two[1]) < 1e-6
  if not one_device:
    return
  (one,) = one
  # One device has the same batch, with sums in another order. Changing the
  # images by 1e-7 of themselves changes its gradients by 6e-4.
  assert distance(two[1], one[1]) < 1e-6
  assert distance(two[0], one[0]) < 5e-3


def _run_replicas(strategy, network, named, split, images):
  """Mean gradients, and moving statistics."""
  local = strategy.experimental_local_results

  def step(images):
    context = tf.distribute.get_replica_context()
    first = images.shape[0] * context.replica_id_in_sync_group
    step = make_step(
      network,
      named,
      split,
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


# That two replicas compute what one device does is seen on a smaller network in
# slim/test_train_step_context.py.
@pytest.mark.parametrize(
  'one_device', [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_two_replicas(one_device):
  _python(
    f'import test_rematerialization as t; t.compare_replicas({one_device})'
  )


# Random draws.


@pytest.mark.parametrize('split', _SPLITS)
def test_every_call_draws_anew_in_the_same_order(split):
  network, _ = build('mobilenet_v2', fine_tune_batch_norm=False)
  images = make_images(2)

  def run(split):
    with slim.train_step_context(tf.constant(10, tf.int64), [1, 2]):
      return [
        call(network, images, split)['semantic']['merged_logits']
        for _ in range(2)
      ]

  plain, again = run(None), run(split)
  assert np.abs(plain[0] - plain[1]).max() > 0.01
  np.testing.assert_allclose(again, plain, rtol=1e-5, atol=1e-5)


def test_needs_the_seed():
  network, _ = build('mobilenet_v2')
  with pytest.raises(ValueError, match='train_step_context'):
    call(network, make_images(), 'activations')


# Segments.


@pytest.mark.parametrize('split', _SPLITS)
@pytest.mark.parametrize('case', ['mobilenet_v2', 'image_pyramid', 'pnasnet'])
def test_segments_are_the_graph(case, split):
  """Every node once, and after what it takes."""
  network, _ = build(case)
  segments = rematerialization.SPLITS[split](network)
  nodes = [node for segment in segments for node in segment.nodes]
  wanted = [
    node for node in graph.nodes_in_order(network.outputs) if not node.is_input
  ]
  assert len(nodes) == len(wanted)
  assert {id(node) for node in nodes} == {id(node) for node in wanted}
  made = {id(network.inputs[0])}
  for segment in segments:
    assert {id(x) for x in segment.inputs} <= made
    known = {id(x) for x in segment.inputs}
    for node in segment.nodes:
      assert {id(x) for x in node.input_tensors} <= known
      known |= {id(x) for x in node.outputs}
    made |= {id(x) for x in segment.outputs}
  assert {id(x) for x in network.outputs} <= made


def test_a_unit_keeps_its_output():
  """Not the two summands, nor what a ReLU made for the next unit."""
  counts = {}
  for case in ('vgg_16', 'resnet_v1_50_beta', 'xception', 'pnasnet'):
    network, _ = build(case, decoder_output_stride=None)
    segments = rematerialization.blocks(network)
    # The first has the preprocessing of the images.
    counts[case] = [len(segment.outputs) for segment in segments[:-1]]
  assert counts['vgg_16'] == [1] * 7
  assert counts['resnet_v1_50_beta'] == [1] * 18
  assert counts['xception'] == [1] * 15
  # Each cell takes the two before it.
  assert counts['pnasnet'] == [2] * 12 + [1, 1]


def test_what_runs_once_is_last():
  network, _ = build('mobilenet_v2')
  last = rematerialization.blocks(network)[-1]
  names = [node.operation.name for node in last.nodes]
  assert names == ['logits.semantic']


def test_activations_end_at_convolutions():
  """What runs twice is one costly operation and what is cheap before it."""
  network, _ = build('resnet_v1_50_beta')
  segments = rematerialization.activations(network)
  twice = [segment.nodes for segment in segments if segment.is_run_twice]
  named = {nodes[-1].operation.name: nodes for nodes in twice}

  def kinds(name):
    return [type(node.operation).__name__ for node in named[name]]

  unit = 'resnet_v1_50.block1.unit_2.bottleneck_v1.'
  assert kinds(unit + 'conv2') == ['BatchNorm', 'Relu', 'Conv2D']
  assert kinds('decoder.decoder_conv0_depthwise')[-2:] == [
    'Concatenate',
    'SeparableConv2D',
  ]
  # What the shortcut takes, too, is kept anyway.
  assert unit + 'conv1' not in named
  assert [type(x[-1].operation).__name__ for x in twice].count('MaxPool') == 1
  for nodes in twice:
    assert [type(x.operation).__name__ for x in nodes[:-1]].count('Conv2D') == 0

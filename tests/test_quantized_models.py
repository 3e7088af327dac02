"""Quantisation-aware training and eight-bit export of whole networks."""

import json

import numpy as np
import pytest
import tensorflow as tf

import recipe
from deeplab import (
  checkpoints,
  common,
  export,
  inference,
  model,
  model_flags,
  stored_options,
)
from deeplab.common import InputError
from deeplab.datasets import build_voc2012_data, data_generator
from deeplab.evaluation import metrics
from deeplab.training import config as config_lib
from deeplab.training import loop, strategies, train_step

_PUBLISHED = 'deeplabv3_mnv2_pascal_trainval'
# What the two kinds of range consist of, as the original names them.
_LAST = ('{0}/min', '{0}/max')
_MOVING = (
  *_LAST,
  *(
    f'{{0}}/{{0}}/{end}/{part}'
    for end in ('min', 'max')
    for part in ('biased', 'local_step')
  ),
)


def _options(**changes):
  return common.ModelOptions(
    **{
      'outputs_to_num_classes': {'semantic': 21},
      'crop_size': [65, 65],
      'output_stride': 16,
      'quantize_delay_step': 0,
      **changes,
    }
  )


def _small(**changes):
  """A network that builds and converts in seconds."""
  return _options(
    depth_multiplier=0.35, aspp_convs_filters=32, crop_size=[33, 33], **changes
  )


def _ranges(names):
  return {n.rpartition('/')[0] for n in names if n.endswith('_quant/min')}


def _golden_ranges(testdata, network):
  golden = json.loads((testdata / 'quantized_names.json').read_text())
  return {
    f'{scope}/{kind}'
    for kinds, scopes in golden[network].items()
    for kind in kinds.split()
    for scope in scopes
  }


def test_variables_of_training_are_the_originals(testdata):
  options = _options(crop_size=[129, 129])
  names = checkpoints.named_variables(
    model.build_model(options, is_training=True, fine_tune_batch_norm=True)
  )
  expected = {
    name.format(scope)
    for scope in _golden_ranges(testdata, 'training')
    for name in (_LAST if scope.endswith('weights_quant') else _MOVING)
  }
  assert {name for name in names if '_quant/' in name} == expected
  plain = checkpoints.named_variables(
    model.build_model(options.replace(quantize_delay_step=-1))
  )
  assert set(names) - expected == set(plain)
  assert not any(names[name].trainable for name in expected)
  assert all(names[name].shape == () for name in expected)


def _fake_quantised(graph):
  """Scopes of the fake-quantisation nodes of a graph."""
  return {
    node.name.removesuffix('/FakeQuantWithMinMaxVars')
    for node in graph.node
    if node.op == 'FakeQuantWithMinMaxVars'
  }


def test_nodes_of_a_frozen_graph_are_the_originals(tmp_path, testdata):
  options = _options(crop_size=[129, 129])
  predictor = inference.build_predictor(options)
  names = checkpoints.named_variables(predictor)
  assert not any(n.endswith(('biased', 'local_step')) for n in names)
  prefix = checkpoints.save(str(tmp_path / 'train'), 0, names)
  path = tmp_path / 'graph.pb'
  export.export(prefix, str(path), options)
  graph = tf.compat.v1.GraphDef()
  graph.ParseFromString(path.read_bytes())
  expected = _golden_ranges(testdata, 'frozen_graph')
  assert _fake_quantised(graph) == expected
  assert sum(n.op == 'FakeQuantWithMinMaxVars' for n in graph.node) == 120


_VARIANTS = {
  'mobilenet_v2': {'decoder_output_stride': [4]},
  'mobilenet_v3_large_seg': {
    'aspp_with_squeeze_and_excitation': True,
    'image_se_uses_qsigmoid': True,
    'decoder_output_stride': [8],
    'decoder_use_sum_merge': True,
    'decoder_output_is_logits': True,
    'decoder_filters': 21,
    'output_stride': 32,
  },
  'mobilenet_v3_small_seg': {},
  'mobilenet_edgetpu': {},
  'vgg_16': {
    'aspp_with_batch_norm': False,
    'atrous_rates': [2, 3],
    'vgg_fc_filters': 32,
  },
  'xception_41': {'atrous_rates': [1, 2]},
  'resnet_v1_18_beta': {'atrous_rates': [1, 2], 'multi_grid': [1, 2]},
}


@pytest.mark.parametrize(
  'variant',
  [
    variant
    if variant == 'resnet_v1_18_beta'
    else pytest.param(variant, marks=pytest.mark.slow)
    for variant in _VARIANTS
  ],
)
def test_every_kind_of_network_trains(variant):
  """Falling loss, ranges gathered everywhere, evaluation with them."""
  options = _options(
    model_variant=variant,
    aspp_convs_filters=16,
    **{'output_stride': 16, **_VARIANTS[variant]},
  )
  config = config_lib.TrainConfig(
    model_options=options,
    train_logdir='unused',
    dataset_dir='unused',
    train_batch_size=2,
    base_learning_rate=0.01,
    learning_power=0.0,
    fine_tune_batch_norm=False,
  )
  step = train_step.TrainStep(config, strategies.make_strategy(1, True), 255)
  rng = np.random.default_rng(0)
  labels = np.repeat(np.repeat(rng.integers(0, 3, (2, 5, 5, 1)), 13, 1), 13, 2)
  images = (labels * 80 + rng.normal(size=(2, 65, 65, 3))).astype(np.float32)
  spec = {
    common.IMAGE: tf.TensorSpec([2, 65, 65, 3], tf.float32),
    common.LABEL: tf.TensorSpec([2, 65, 65, 1], tf.int32),
  }
  before = {n: v.numpy() for n, v in step.variables.items()}
  run = step.compile(spec)
  losses = [
    float(run(images, labels.astype(np.int32))[0][train_step.TOTAL_LOSS])
    for _ in range(6)
  ]
  assert np.isfinite(losses).all()
  assert min(losses[3:]) < losses[0]
  counts = [n for n in before if n.endswith('local_step')]
  assert counts
  assert all(step.variables[name].numpy() == 6 for name in counts)
  predictor = inference.build_predictor(options)
  names = checkpoints.named_variables(predictor)
  ranges = _ranges(names)
  # What only training has are the two products of dropout.
  assert all('dropout' in name for name in _ranges(before) - ranges)
  assert sum(name.endswith('weights_quant') for name in ranges) == sum(
    name.endswith('weights') for name in names
  )
  for name, variable in names.items():
    variable.assign(step.variables[name])
  probabilities = predictor(images)['semantic_prob'].numpy()
  assert np.isfinite(probabilities).all()


def _train(folder, records, steps, **changes):
  delay = changes.pop('quantize_delay_step', 2)
  config = config_lib.TrainConfig(
    model_options=_small(quantize_delay_step=delay),
    train_logdir=str(folder),
    dataset_dir=str(records),
    train_split='trainval',
    train_batch_size=2,
    training_number_of_steps=steps,
    decay_steps=100.0,
    save_interval_steps=2,
    base_learning_rate=0.01,
  )
  return loop.train(config.replace(**changes))


@pytest.mark.slow
def test_training_resumes_exactly(tmp_path, testdata):
  records = testdata / 'voc_tfrecord'
  whole = checkpoints.read(_train(tmp_path / 'whole', records, 4))
  _train(tmp_path / 'parts', records, 2)
  parts = checkpoints.read(_train(tmp_path / 'parts', records, 4))
  assert whole.keys() == parts.keys()
  assert whole[checkpoints.QUANTIZATION_STEP][1]() == 4
  for name, (_, get) in whole.items():
    np.testing.assert_array_equal(get(), parts[name][1](), err_msg=name)


@pytest.mark.slow
def test_begins_from_a_float_checkpoint(tmp_path, testdata):
  records = testdata / 'voc_tfrecord'
  first = _train(tmp_path / 'float', records, 2, quantize_delay_step=-1)
  assert not stored_options.is_quantized(first)
  second = _train(
    tmp_path / 'quantized',
    records,
    2,
    quantize_delay_step=0,
    tf_initial_checkpoint=first,
  )
  assert stored_options.is_quantized(second)
  report = checkpoints.restore(inference.build_predictor(_small()), second)
  assert not report.initialized
  # Nothing but the ranges of dropout is of no use to evaluation.
  assert all('dropout' in name for name in report.left_over)


def _checkpoint(folder, options):
  """A checkpoint with the recipe's weights, and sensible ranges."""
  variables = checkpoints.named_variables(model.build_model(options))
  recipe.assign({n: v for n, v in variables.items() if '_quant/' not in n})
  return checkpoints.save(str(folder / 'train'), 0, variables)


def _interpret(path, image):
  interpreter = tf.lite.Interpreter(str(path))
  run = interpreter.get_signature_runner()
  return run(ImageTensor=image)['SemanticPredictions']


def _operations(path):
  interpreter = tf.lite.Interpreter(str(path))
  details = {d['index']: d for d in interpreter.get_tensor_details()}
  return {
    operation['op_name']: {
      details[index]['dtype'] for index in operation['outputs']
    }
    for operation in interpreter._get_ops_details()
  }


def _write_images(folder, count=3, size=33):
  rng = np.random.default_rng(0)
  for i in range(count):
    pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
    (folder / f'{i}.png').write_bytes(tf.io.encode_png(pixels).numpy())
  return [str(folder / '*.png')]


@pytest.mark.parametrize('delay', [-1, 0])
def test_int8_model_is_all_integers(delay, tmp_path):
  """From calibration, and from quantisation-aware training."""
  options = _small(quantize_delay_step=delay)
  prefix = _checkpoint(tmp_path, options)
  pattern = _write_images(tmp_path) if delay < 0 else None
  path = tmp_path / 'model.tflite'
  assert export.export(
    prefix, str(path), options, calibration_images=pattern
  ) == [str(path)]
  for operation, types in _operations(path).items():
    assert np.float32 not in types, operation
  # Atrous convolutions stay one operation.
  assert not {'SPACE_TO_BATCH_ND', 'BATCH_TO_SPACE_ND'} & set(_operations(path))
  image = np.random.default_rng(1).integers(0, 256, (1, 33, 33, 3), np.uint8)
  labels = _interpret(path, image)
  assert labels.dtype == np.int32 and labels.shape == (1, 33, 33)
  expected = inference.build_predictor(options)
  checkpoints.restore(expected, prefix)
  same = labels == expected(image.astype(np.float32))['semantic'].numpy()
  assert same.mean() > 0.5


def test_a_directory_of_several_formats(tmp_path, testdata):
  options = _small(quantize_delay_step=-1)
  written = export.export(
    _checkpoint(tmp_path, options),
    str(tmp_path / 'exported'),
    options,
    formats=['tflite_int8', 'frozen_graph', 'saved_model'],
    calibration_images=[str(testdata / 'voc_tfrecord' / 'val-*.tfrecord')],
    calibration_limit=2,
    min_resize_value=33,
    max_resize_value=33,
  )
  names = {path.name for path in (tmp_path / 'exported').iterdir()}
  assert {
    'saved_model.pb',
    export.FROZEN_GRAPH_FILE,
    export.TFLITE_INT8_FILE,
  } <= names
  assert len(written) == 3


@pytest.mark.parametrize(
  'message, delay, arguments',
  [
    ('needs --calibration_images', -1, {}),
    ('no such file', -1, {'calibration_images': ['nowhere/*.jpg']}),
    ('has its ranges', 0, {'calibration_images': ['*.jpg']}),
    ('single scale', 0, {'inference_scales': [0.5, 1.0]}),
    ('is a file', 0, {'formats': ['saved_model', 'tflite_int8']}),
    ('must be of', 0, {'formats': ['onnxx']}),
    (
      'calibration_limit.*at least 1',
      -1,
      {'calibration_images': ['*.jpg'], 'calibration_limit': 0},
    ),
  ],
)
def test_bad_requests(message, delay, arguments, tmp_path):
  options = _small(quantize_delay_step=delay)
  prefix = _checkpoint(tmp_path, options)
  with pytest.raises(InputError, match=message):
    export.export(prefix, str(tmp_path / 'x.tflite'), options, **arguments)
  assert not (tmp_path / 'x.tflite').exists()


# Flags.


@pytest.mark.parametrize('has_options', [True, False])
def test_the_checkpoint_says_whether_it_is_quantised(
  has_options, parse_flags, tmp_path
):
  options = _small(quantize_delay_step=7)
  prefix = _checkpoint(tmp_path, options)
  if has_options:
    stored_options.save(str(tmp_path / 'train'), options)
  found = {}
  for text in ('', '--quantize_delay_step=-1', '--quantize_delay_step=3'):
    parse_flags(*filter(None, [text]))
    found[text] = model_flags.model_options(
      21, [33, 33], prefix
    ).quantize_delay_step
  assert list(found.values()) == [7 if has_options else 0, -1, 3]


@pytest.mark.parametrize('has_options', [True, False])
def test_a_float_checkpoint_is_not_quantised(
  has_options, parse_flags, tmp_path
):
  options = _small(quantize_delay_step=-1)
  prefix = _checkpoint(tmp_path, options)
  if has_options:
    stored_options.save(str(tmp_path / 'train'), options)
  parse_flags('--quantize_delay_step=0')
  with pytest.raises(InputError, match='trained without quantisation'):
    model_flags.model_options(21, [33, 33], prefix)
  parse_flags()
  assert not model_flags.model_options(21, [33, 33], prefix).is_quantized


# Real images.

_VOC = {'crop_size': [513, 513], 'output_stride': 16}


@pytest.fixture
def voc(real_data, tmp_path):
  """Folder of records of real images."""
  root = real_data('VOCdevkit/VOC2012')
  build_voc2012_data.convert(
    str(root / 'JPEGImages'),
    str(root / 'SegmentationClass'),
    str(root / 'ImageSets' / 'Segmentation'),
    str(tmp_path / 'records'),
  )
  return tmp_path / 'records'


def _mean_iou(records, label):
  """mIoU on val of label(uint8 image [1, 513, 513, 3])."""
  dataset = data_generator.Dataset(
    dataset_name=None,
    split_name='val',
    dataset_dir=str(records),
    batch_size=1,
    crop_size=_VOC['crop_size'],
    model_variant='mobilenet_v2',
  )
  matrix = metrics.ConfusionMatrix(21, ignore_label=255)
  for batch in dataset.iterate():
    image = np.round(batch[common.IMAGE].numpy()).astype(np.uint8)
    matrix.update(batch[common.LABEL].numpy()[..., 0], label(image))
  return matrix.mean_iou()


def _mean_iou_of_tflite(records, path):
  interpreter = tf.lite.Interpreter(str(path), num_threads=2)
  run = interpreter.get_signature_runner()
  return _mean_iou(
    records, lambda image: run(ImageTensor=image)['SemanticPredictions']
  )


def _mean_iou_of_checkpoint(records, prefix, options):
  predictor = inference.build_predictor(options)
  checkpoints.restore(predictor, prefix)
  return _mean_iou(
    records,
    lambda image: predictor(image.astype(np.float32))['semantic'].numpy(),
  )


@pytest.mark.slow
def test_calibration_costs_less_than_two_points(
  voc, published_checkpoint, tmp_path
):
  prefix = str(published_checkpoint(_PUBLISHED))
  options = _options(quantize_delay_step=-1, **_VOC)
  path = tmp_path / 'model.tflite'
  export.export(
    prefix,
    str(path),
    options,
    calibration_images=[str(voc / 'train-*.tfrecord')],
    calibration_limit=20,
  )
  exact = _mean_iou_of_checkpoint(voc, prefix, options)
  assert exact > 0.76
  assert _mean_iou_of_tflite(voc, path) > exact - 0.02


@pytest.mark.slow
def test_int8_after_quantised_training_equals_its_evaluation(
  voc, published_checkpoint, tmp_path
):
  """Far too short a training, for the quality of eight bits of what it gives.

  A kernel with one range for all channels costs the published network most of
  its quality at first, which thousands of steps win back.
  """
  config = config_lib.TrainConfig(
    model_options=_options(crop_size=[129, 129]),
    train_logdir=str(tmp_path / 'train'),
    dataset_dir=str(voc),
    train_batch_size=4,
    training_number_of_steps=60,
    base_learning_rate=3e-5,
    tf_initial_checkpoint=str(published_checkpoint(_PUBLISHED)),
  )
  prefix = loop.train(config)
  losses = [
    json.loads(line)['total_loss']
    for line in (tmp_path / 'train' / 'train_log.jsonl').open()
  ]
  assert min(losses[1:]) < losses[0]
  options = _options(**_VOC)
  path = tmp_path / 'model.tflite'
  export.export(prefix, str(path), options)
  simulated = _mean_iou_of_checkpoint(voc, prefix, options)
  assert simulated > 0.1
  assert abs(_mean_iou_of_tflite(voc, path) - simulated) < 0.02

"""Parameters, multiply-adds and memory, against the published figures."""

import json
import math
import os
import shutil
import subprocess
import sys

import keras
import pytest

from deeplab import (
  common,
  graph,
  inference,
  model_stats,
  stats,
  stored_options,
)
from deeplab.common import InputError
from deeplab.zoo import table

_SCALES = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
_RATES = (6, 12, 18)
_PLAIN = {
  'aspp_with_separable_conv': False,
  'decoder_use_separable_conv': False,
}
_DECODER = {'decoder_output_stride': [4]}
_XCEPTION = {'model_variant': 'xception_65', 'rates': _RATES}
_RESNET = {
  'model_variant': 'resnet_v1_101_beta',
  'rates': _RATES,
  'multi_grid': [1, 2, 4],
  **_PLAIN,
}


def _options(
  output_stride=16, classes=21, crop_size=(513, 513), rates=(), **fields
):
  """ModelOptions; the atrous rates are those at output stride 16."""
  return common.ModelOptions(
    {'semantic': classes},
    output_stride=output_stride,
    crop_size=list(crop_size),
    atrous_rates=[rate * 16 // output_stride for rate in rates] or None,
    **fields,
  )


def _cityscapes(classes=19, **fields):
  return _options(classes=classes, crop_size=(1025, 2049), **fields)


def _published(name, **changes):
  """ModelOptions of a checkpoint of the zoo, here all of Cityscapes."""
  return table.get(name).model_options().replace(**changes)


def _xception_71(classes):
  return _published(
    'xception71_dpc_cityscapes_trainfine',
    outputs_to_num_classes={'semantic': classes},
  )


def _edgetpu(output_stride, name='EdgeTPU-DeepLab'):
  return _published(name, output_stride=output_stride, crop_size=[513, 513])


def _edgetpu_slim(output_stride):
  return _edgetpu(output_stride, 'EdgeTPU-DeepLab-slim')


def _auto_deeplab(filters):
  return _cityscapes(
    output_stride=8,
    rates=_RATES,
    model_variant='nas_hnasnet',
    nas_architecture_options={'nas_stem_output_num_conv_filters': filters},
    **_DECODER,
    **_PLAIN,
  )


# Billions of multiply-adds, digits after the point, millions of trainable
# parameters.
_FAST = [
  (_options(), 2.74, 2, 2.114),
  (_options(depth_multiplier=0.5), 0.87, 2, 0.697),
  (_options(8, depth_multiplier=0.5), 2.83, 2, 0.697),
  (_options(rates=_RATES, **_PLAIN), 5.82, 2, 4.524),
  (_cityscapes(), 21.24, 2, 2.113),
  (_options(**_XCEPTION, **_DECODER), 54.05, 2, 41.055),
  (_options(32, **_RESNET), 52.25, 2, 58.164),
  (_published('mobilenetv3_small_cityscapes_trainfine'), 1.96, 2, 0.469),
  (_edgetpu_slim(32), 3.40, 2, 1.942),
]
_SLOW = [
  (_options(8, **_XCEPTION, **_DECODER), 176.96, 2, 41.055),
  (_options(**_XCEPTION, **_DECODER, **_PLAIN), 89.61, 2, 54.711),
  (_options(**_XCEPTION, **_PLAIN), 67.85, 2, 53.408),
  (_options(**_RESNET), 80.83, 2, 58.164),
  (_options(8, **_RESNET), 275.94, 2, 58.164),
  (_options(32, **_RESNET, **_DECODER), 74.01, 2, 59.468),
  (_options(16, **_RESNET, **_DECODER), 102.59, 2, 59.468),
  (_options(8, **_RESNET, **_DECODER), 297.68, 2, 59.468),
  # The known figures of these two, 418.51 and 501.90, are those of 21
  # classes; Cityscapes has 19.
  (_cityscapes(21, **_XCEPTION, **_DECODER), 418.51, 2, 41.055),
  (_cityscapes(19, **_XCEPTION, **_DECODER), 418.45, 2, 41.055),
  (_xception_71(21), 501.90, 2, 41.609),
  (_xception_71(19), 501.83, 2, 41.609),
  (_published('mobilenetv3_large_cityscapes_trainfine'), 7.58, 2, 1.507),
  (_edgetpu(32), 5.49, 2, 3.603),
  (_edgetpu(16), 7.07, 2, 3.603),
  (_edgetpu_slim(16), 4.22, 2, 1.942),
  (_auto_deeplab(20), 327.9, 1, 10.147),
  (_auto_deeplab(32), 452.3, 1, 21.622),
  (_auto_deeplab(48), 682.1, 1, 44.425),
]


def _check_figures(options, multiply_adds, digits, parameters):
  result = model_stats.stats(options)
  assert round(result.multiply_adds / 1e9, digits) == multiply_adds
  assert round(result.parameters / 1e6, 3) == parameters
  # Nothing with a kernel is left out.
  for row in result.layers:
    assert row.multiply_adds or not row.parameters or row.type == 'BatchNorm'


@pytest.mark.parametrize('options, multiply_adds, digits, parameters', _FAST)
def test_published_figures(options, multiply_adds, digits, parameters):
  _check_figures(options, multiply_adds, digits, parameters)


@pytest.mark.slow
@pytest.mark.parametrize('options, multiply_adds, digits, parameters', _SLOW)
def test_more_published_figures(options, multiply_adds, digits, parameters):
  _check_figures(options, multiply_adds, digits, parameters)


def test_eight_bits_change_no_count():
  options = _options(crop_size=(65, 65))
  result = model_stats.stats(options)
  quantized = model_stats.stats(options.replace(quantize_delay_step=0))
  assert 'QuantizedConvolution' in {row.type for row in quantized.layers}
  assert quantized.multiply_adds == result.multiply_adds
  assert quantized.parameters == result.parameters
  # The ranges of values come on top.
  assert quantized.parameter_bytes > result.parameter_bytes


def test_scales_and_mirror_images_count_for_each_call():
  result = model_stats.stats(
    _options(8), eval_scales=_SCALES, add_flipped_images=True
  )
  assert f'{result.multiply_adds / 1e9:.2f}' == '152.53'
  # The weights are shared.
  assert f'{result.parameters / 1e6:.3f}' == '2.114'
  assert max(row.call for row in result.layers) == 12
  # One scale after the other: at most the largest, and the sums.
  largest = model_stats.stats(_options(8), eval_scales=[1.75])
  image = 513 * 513 * 21 * 4
  grown = result.peak_activation_bytes - largest.peak_activation_bytes
  assert 0 <= grown <= 2 * image


def test_image_pyramid():
  """The same convolutions as for several scales of the image."""
  options = _options(crop_size=(65, 65))
  pyramid = model_stats.stats(options, image_pyramid=[0.5, 1.0])
  scales = model_stats.stats(options, eval_scales=[0.5, 1.0])
  single = model_stats.stats(options)
  assert pyramid.multiply_adds == scales.multiply_adds > single.multiply_adds
  assert pyramid.parameters == single.parameters


def test_atrous_convolutions_count_their_padding():
  options = _options(rates=_RATES, **_PLAIN)
  result = model_stats.stats(options)
  rows = {row.name: row for row in result.layers if row.type == 'Conv2D'}
  kernel = 9 * 320 * 256
  for i, rate in enumerate([6, 12, 18], 1):
    row = rows[f'aspp{i}']
    assert row.direct_multiply_adds == kernel * 33 * 33
    assert row.multiply_adds == kernel * (math.ceil(33 / rate) * rate) ** 2
  assert rows['aspp0'].multiply_adds == 320 * 256 * 33 * 33


def test_rows_by_hand():
  result = model_stats.stats(_options())
  rows = {(row.name, row.type): row for row in result.layers}
  stem = rows['MobilenetV2/Conv', 'Conv2D']
  assert stem.part == 'backbone' and stem.output_shape == (257, 257, 32)
  assert stem.parameters == 3 * 3 * 3 * 32
  assert stem.multiply_adds == 3 * 3 * 3 * 32 * 257 * 257
  assert stem.activation_bytes == 4 * 257 * 257 * 32
  norm = rows['MobilenetV2/Conv/BatchNorm', 'BatchNorm']
  assert (norm.parameters, norm.non_trainable_parameters) == (64, 64)
  depthwise = rows['MobilenetV2/expanded_conv/depthwise', 'SeparableConv2D']
  assert depthwise.multiply_adds == 9 * 32 * 257 * 257
  assert rows['logits/semantic', 'Conv2D'].parameters == 256 * 21 + 21
  assert rows['MobilenetV2/Conv', 'Relu6'].part == 'backbone'
  assert rows['logits/semantic', 'resize_bilinear'].part == 'logits'
  assert rows['images', 'InputLayer'].part == 'input'


def test_sums_and_variables():
  """Rows, parts and totals add up, and to what the network holds."""
  options = _options(
    crop_size=(65, 65), model_variant='xception_41', decoder_output_stride=[4]
  )
  result = model_stats.stats(options)
  predictor = inference.build_predictor(options)
  elements = lambda variables: sum(math.prod(v.shape) for v in variables)
  total = result.total()
  assert total['parameters'] == elements(predictor.trainable_variables)
  assert total['non_trainable_parameters'] == elements(
    predictor.non_trainable_variables
  )
  assert result.parameter_bytes == 4 * elements(predictor.variables)
  for count in stats.COUNTS:
    parts = [result.total(part)[count] for part in stats.PARTS]
    assert sum(parts) == total[count]
    assert all(parts[1:]) or count.endswith('parameters')


def test_peak_by_hand():
  """The comments count channels that are alive while a node runs."""
  size = 100 * 4
  image = keras.Input((10, 10, 1))
  wide = keras.ops.concatenate([image, image], axis=-1)  # 1 + 2
  other = keras.ops.relu(wide)  # 2 + 2: the image is gone
  narrow = keras.ops.max(other, axis=-1, keepdims=True)  # 2 + 2 + 1
  last = wide + narrow  # 2 + 1 + 2: `other` is gone
  network = keras.Model(image, last)
  nodes = graph.nodes_in_order(network.outputs)
  assert len(nodes) == 5
  assert stats._peak(nodes, network.outputs) == 5 * size
  # An output stays.
  network = keras.Model(image, [last, other])
  nodes = graph.nodes_in_order(network.outputs)
  assert stats._peak(nodes, network.outputs) == 7 * size


def test_nothing_is_computed():
  """The images alone would take 6 GB."""
  options = _options(classes=19, crop_size=(16385, 32769))
  result = model_stats.stats(options)
  assert result.multiply_adds > 5e12
  assert result.peak_activation_bytes > 9e10


def test_a_size_is_needed():
  options = common.ModelOptions({'semantic': 21})
  with pytest.raises(InputError, match='crop_size must be given'):
    model_stats.stats(options)


def test_text():
  result = model_stats.stats(_options(crop_size=(65, 65)))
  text = model_stats.to_text(result, top=3)
  lines = text.splitlines()
  assert lines[0].startswith('mobilenet_v2, 65x65, output stride 16')
  total = next(line for line in lines if line.startswith('total'))
  assert f'{result.parameters:,}' in total
  assert f'{result.multiply_adds:,}' in total
  first = lines[next(i for i, t in enumerate(lines) if t[:5] == 'layer') + 1]
  heaviest = max(result.layers, key=lambda row: row.multiply_adds)
  assert first.split()[0] == heaviest.name
  assert lines[-1] == (
    f'{len(result.layers) - 3} operations more; --top=0 lists all.'
  )
  every = model_stats.to_text(result, top=0).splitlines()
  header = next(i for i, line in enumerate(every) if line[:5] == 'layer')
  assert len(every) - header - 1 == len(result.layers)
  assert len({len(line) for line in every[header:]}) == 1


def _run(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'deeplab.model_stats', *arguments],
    capture_output=True,
    text=True,
    env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''},
  )


def test_command(tmp_path):
  path = tmp_path / 'new' / 'stats.json'
  result = _run(
    '--crop_size=65,129',
    '--num_classes=5',
    '--eval_scales=0.5,1',
    '--add_flipped_images',
    '--format=json',
    f'--output={path}',
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout == ''
  assert os.listdir(path.parent) == ['stats.json']
  values = json.loads(path.read_text())
  expected = model_stats.stats(
    _options(classes=5, crop_size=(65, 129)),
    eval_scales=[0.5, 1.0],
    add_flipped_images=True,
  )
  expected = json.loads(model_stats.to_json(expected))
  assert values.keys() == expected.keys()
  for key in values.keys() - {'options'}:
    assert values[key] == expected[key], key
  assert values['options']['outputs_to_num_classes'] == {'semantic': 5}


def test_command_takes_the_flags_of_a_checkpoint(tmp_path, testdata):
  name = 'ckpt_mobilenet_v2_dm05_os16'
  for path in (testdata / 'original').glob(f'{name}.*'):
    shutil.copy(path, tmp_path)
  options = _options(classes=5, depth_multiplier=0.5)
  stored_options.save(str(tmp_path), options)
  result = _run('--crop_size=65,65', f'--checkpoint_path={tmp_path / name}')
  assert result.returncode == 0, result.stderr
  expected = model_stats.stats(options.replace(crop_size=[65, 65]))
  assert result.stdout == model_stats.to_text(expected)


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--crop_size=513'], 'crop_size must be two positive integers'),
    (['--min_resize_value=5'], '--min_resize_value=5 has no effect'),
    (['--format=json', '--top=3'], '--top=3 has no effect'),
    (['--output=/dev/null/x'], '/dev/null/x cannot be written'),
    (['--checkpoint_path=/no/such'], '/no/such'),
  ],
)
def test_bad_values_of_flags(arguments, message, parse):
  arguments = ['--crop_size=65,65', *arguments]
  with pytest.raises(InputError) as error:
    parse(model_stats, model_stats._define_flags, arguments)
    model_stats.main()
  assert message in str(error.value)


def test_a_bad_command_line():
  result = _run('--crop_size=65,65', '--format=json', '--top=3')
  assert result.returncode == 1
  assert '--top=3 has no effect' in result.stderr
  assert 'Traceback' not in result.stderr

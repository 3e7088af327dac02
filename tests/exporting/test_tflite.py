"""TFLite models: what they compute, and with which operations."""

import numpy as np
import pytest
import small_checkpoint
import tensorflow as tf

from deeplab import export
from deeplab.common import InputError
from deeplab.exporting import tflite
from deeplab.exporting.network import LABELS, Network

_SMALL_HEAD = {
  'atrous_rates': [6, 12, 18],
  'aspp_convs_filters': 16,
  'decoder_output_stride': [4],
  'decoder_filters': 16,
  'crop_size': [65, 65],
}
# Atrous convolutions, depthwise or not, wherever there are any.
_NETWORKS = {
  'mobilenet_v2_os16': {'depth_multiplier': 0.1},
  'mobilenet_v2_os8': {'depth_multiplier': 0.1, 'output_stride': 8},
  'plain_aspp': {'depth_multiplier': 0.1, 'aspp_with_separable_conv': False},
  'upsampled_labels': {
    'depth_multiplier': 0.1,
    'prediction_with_upsampled_logits': False,
  },
  'resnet_v1_50_beta': {
    'model_variant': 'resnet_v1_50_beta',
    'multi_grid': [1, 2, 4],
  },
  'xception_41': {'model_variant': 'xception_41'},
  'xception_41_os8': {'model_variant': 'xception_41', 'output_stride': 8},
  'mobilenet_v3': {'model_variant': 'mobilenet_v3_large_seg'},
  'vgg_16': {
    'model_variant': 'vgg_16',
    'output_stride': 8,
    'aspp_with_batch_norm': False,
    'decoder_output_stride': None,
    'vgg_fc_filters': 32,
  },
}
_ONE_OPERATION = {'SPACE_TO_BATCH_ND', 'BATCH_TO_SPACE_ND'}
_FILES = {
  'tflite_float': 'model_float.tflite',
  'tflite_float16': 'model_float16.tflite',
  'tflite_int8': 'model_int8.tflite',
}


@pytest.mark.parametrize(
  'case',
  [
    'mobilenet_v2_os8',
    *(
      pytest.param(case, marks=pytest.mark.slow)
      for case in _NETWORKS
      if case != 'mobilenet_v2_os8'
    ),
  ],
)
def test_atrous_convolutions_are_one_operation(tmp_path, case):
  options = small_checkpoint.write(
    tmp_path / 'train', **{**_SMALL_HEAD, **_NETWORKS[case]}
  )
  path = tmp_path / 'model.tflite'
  export.export(
    str(tmp_path / 'train'), str(path), options, formats=['tflite_float']
  )
  counts = tflite.operations(path.read_bytes())
  assert counts['CONV_2D'] >= 10
  if options.model_variant == 'mobilenet_v2':
    assert counts['DEPTHWISE_CONV_2D'] >= 17
  assert not _ONE_OPERATION & set(counts)


@pytest.mark.parametrize('name', _FILES)
def test_files_are_interchangeable(exported, name):
  content = (exported.folder / _FILES[name]).read_bytes()
  counts = tflite.operations(content)
  assert not _ONE_OPERATION & set(counts)
  loaded = tflite.load(str(exported.folder / _FILES[name]))
  assert loaded.inputs == {'ImageTensor': 'uint8 [1, 65, 97, 3]'}
  assert loaded.outputs == {'SemanticPredictions': 'int32 [1, 65, 97]'}
  shape = (1, *exported.options.crop_size, 3)
  image = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
  labels = loaded.run(image)[LABELS]
  expected = exported.predictor(image.astype(np.float32))['semantic']
  least = {'tflite_float': 0.999, 'tflite_float16': 0.99}.get(name, 0.5)
  assert np.mean(labels == expected.numpy()) >= least


def test_float16_is_half_the_size(exported):
  sizes = [
    (exported.folder / _FILES[name]).stat().st_size
    for name in ('tflite_float16', 'tflite_float')
  ]
  assert sizes[0] < 0.75 * sizes[1]


@pytest.mark.parametrize(
  'formats, calibrated, message',
  [
    (None, False, 'tflite_float needs none'),
    (['tflite_float'], True, 'calibration_images=.* has no effect'),
    (['tflite_float', 'tflite_float16'], False, 'is a file'),
    (['onnx'], False, 'is a file, for one of tflite_float'),
  ],
)
def test_bad_requests(exported, tmp_path, formats, calibrated, message):
  path = tmp_path / 'model.tflite'
  with pytest.raises(InputError, match=message):
    export.export(
      exported.checkpoint,
      str(path),
      exported.options,
      formats=formats,
      calibration_images=exported.photos if calibrated else None,
    )
  assert not path.exists()


def test_resizing_without_effect(exported, tmp_path):
  """TFLite models leave it to the caller; calibration images are resized."""
  with pytest.raises(InputError, match='no effect on TFLite'):
    export.export(
      exported.checkpoint,
      str(tmp_path / 'model.tflite'),
      exported.options,
      formats=['tflite_float'],
      max_resize_value=65,
    )


class _Runner:
  """An interpreter's, of a model for which grey levels are converted."""

  def get_input_details(self):
    return {'ImageTensor': {'quantization': (0.498, 0)}}


def test_a_model_that_takes_no_grey_levels(exported, monkeypatch):
  monkeypatch.setattr(
    tf.lite.Interpreter, 'get_signature_runner', lambda self: _Runner()
  )
  with pytest.raises(InputError, match=r'does not take grey levels.*0\.498'):
    tflite.load(str(exported.folder / 'model_int8.tflite'))


def test_calibration_on_dark_images_keeps_grey_levels(exported, tmp_path):
  """Measured on dark images alone, the range of the input would end there."""
  shape = (*exported.options.crop_size, 3)
  dark = np.random.default_rng(0).integers(0, 40, shape, np.uint8)
  (tmp_path / 'dark.png').write_bytes(tf.io.encode_png(dark).numpy())
  path = tmp_path / 'model.tflite'
  export.export(
    exported.checkpoint,
    str(path),
    exported.options,
    calibration_images=[str(tmp_path / 'dark.png')],
  )
  details = tf.lite.Interpreter(str(path)).get_input_details()
  assert details[0]['quantization'] == (1.0, 0)
  labels = tflite.load(str(path)).run(dark[np.newaxis])[LABELS]
  expected = exported.predictor(dark[np.newaxis].astype(np.float32))
  assert np.mean(labels == expected['semantic'].numpy()) > 0.9


@pytest.mark.parametrize(
  'name, content, message',
  [
    ('0.png', b'no image', r'calibration_images=.*0\.png is not an image'),
    ('0.tfrecord', b'no record' * 9, 'cannot be read as official records'),
    ('0.tfrecord', b'', 'there is no image'),
  ],
)
def test_calibration_images_that_cannot_be_used(
  exported, tmp_path, name, content, message
):
  (tmp_path / name).write_bytes(content)
  path = tmp_path / 'x.tflite'
  with pytest.raises(InputError, match=message):
    export.export(
      exported.checkpoint,
      str(path),
      exported.options,
      calibration_images=[str(tmp_path / name)],
    )
  assert not path.exists()


def test_quantised_training_has_no_float_model(exported):
  options = exported.options.replace(quantize_delay_step=0)
  with pytest.raises(InputError, match='only --export_format=tflite_int8'):
    tflite.check_float(Network(exported.checkpoint, options))

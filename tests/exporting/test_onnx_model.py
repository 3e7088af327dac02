"""ONNX models in onnxruntime."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import small_checkpoint

from deeplab import export
from deeplab.common import InputError
from deeplab.exporting import formats
from deeplab.exporting.network import LABELS, PROBABILITIES


@pytest.fixture(scope='module')
def session(exported):
  return onnxruntime.InferenceSession(
    str(exported.folder / 'model.onnx'), providers=['CPUExecutionProvider']
  )


def _images(count, height, width):
  shape = (count, height, width, 3)
  return np.random.default_rng(3).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize('shape', [(1, 65, 97), (3, 40, 51)])
def test_any_batch_and_size(exported, session, shape):
  saved = formats.FORMATS['saved_model'].load(str(exported.folder))
  images = _images(*shape)
  names = [LABELS, PROBABILITIES]
  found = session.run(names, {'ImageTensor': images})
  expected = saved.run(images)
  assert found[0].dtype == np.int32 and found[1].dtype == np.float32
  np.testing.assert_array_equal(found[0], expected[LABELS])
  np.testing.assert_allclose(found[1], expected[PROBABILITIES], atol=1e-5)


def test_sides_have_names(session):
  (images,) = session.get_inputs()
  assert images.type == 'tensor(uint8)'
  assert images.shape == ['batch', 'height', 'width', 3]


def test_an_image_larger_than_the_crop(session):
  for shape in ((1, 66, 97), (1, 130, 97), (2, 65, 194)):
    with pytest.raises(Exception, match='cannot be reshaped'):
      session.run(None, {'ImageTensor': _images(*shape)})


def test_atrous_convolutions_have_dilations(exported):
  graph = onnx.load(str(exported.folder / 'model.onnx')).graph
  rates = {
    tuple(attribute.ints)
    for node in graph.node
    if node.op_type == 'Conv'
    for attribute in node.attribute
    if attribute.name == 'dilations'
  }
  # Of the last block at output stride 16, and of ASPP.
  assert {(2, 2), (4, 4)} <= rates


def test_a_missing_package(exported, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tf2onnx', None)
  with pytest.raises(InputError, match=r"pip install -e '\.\[onnx\]'"):
    export.export(
      exported.checkpoint, str(tmp_path / 'model.onnx'), exported.options
    )
  assert not list(tmp_path.iterdir())


def test_quantised_training_is_refused(exported, tmp_path):
  with pytest.raises(InputError, match='--quantize_delay_step=-1'):
    export.export(
      exported.checkpoint,
      str(tmp_path / 'model.onnx'),
      exported.options.replace(quantize_delay_step=0),
    )


@pytest.mark.parametrize(
  'changes, arguments',
  [
    pytest.param(
      {},
      {'inference_scales': [0.5, 1.0], 'add_flipped_images': True},
      marks=pytest.mark.slow,
    ),
    pytest.param({}, {'image_pyramid': [0.5, 1.0]}, marks=pytest.mark.slow),
    (
      {'prediction_with_upsampled_logits': False},
      {'min_resize_value': 33, 'max_resize_value': 65},
    ),
  ],
)
def test_sizes_that_float32_ratios_miss(tmp_path, changes, arguments):
  """33 / 65 in float32 makes 32 of 65, 5 / 3 makes 4 of 3."""
  options = small_checkpoint.write(
    tmp_path / 'train', crop_size=[65, 65], **changes
  )
  path = tmp_path / 'model.onnx'
  export.export(
    str(tmp_path / 'train'), str(path), options, verify=True, **arguments
  )
  report = json.loads((tmp_path / 'model.onnx.export_report.json').read_text())
  assert report['formats']['onnx']['equal_labels'] > 0.999

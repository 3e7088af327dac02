"""Every format of the published checkpoint on real images."""

import json

import pytest

from deeplab import common, export
from deeplab.datasets import build_voc2012_data
from deeplab.exporting import formats

_PUBLISHED = 'deeplabv3_mnv2_pascal_trainval'


@pytest.mark.slow
def test_formats_equal_the_network(real_data, published_checkpoint, tmp_path):
  """The quality of eight bits, as mIoU, is in test_quantized_models."""
  root = real_data('VOCdevkit/VOC2012')
  build_voc2012_data.convert(
    str(root / 'JPEGImages'),
    str(root / 'SegmentationClass'),
    str(root / 'ImageSets' / 'Segmentation'),
    str(tmp_path / 'records'),
  )
  export.export(
    str(published_checkpoint(_PUBLISHED)),
    str(tmp_path / 'exported'),
    common.ModelOptions(
      outputs_to_num_classes={'semantic': 21},
      crop_size=[513, 513],
      output_stride=16,
    ),
    formats=export.FORMATS,
    calibration_images=[str(tmp_path / 'records' / 'train-*.tfrecord')],
    calibration_limit=20,
    verify=True,
    verify_images=[str(tmp_path / 'records' / 'val-*.tfrecord')],
    verify_limit=30,
  )
  report = json.loads((tmp_path / 'exported' / export.REPORT_FILE).read_text())
  assert report['num_images'] == 30
  assert report['largest_class_share'] < 0.9
  for name, entry in report['formats'].items():
    least = 0.97 if name == formats.TFLITE_INT8 else 0.999
    assert entry['equal_labels'] >= least, name
    if not formats.FORMATS[name].takes_crop:
      assert entry['max_probability_difference'] < 1e-4
    assert 'SPACE_TO_BATCH_ND' not in entry.get('operations', {})

"""Real images of PASCAL VOC."""

import converter_files
import numpy as np
from PIL import Image

from deeplab.datasets import build_voc2012_data


def test_palette_masks_become_their_indices(real_data, tmp_path):
  root = real_data('VOCdevkit/VOC2012')
  info = build_voc2012_data.convert(
    str(root / 'JPEGImages'),
    str(root / 'SegmentationClass'),
    str(root / 'ImageSets/Segmentation'),
    str(tmp_path / 'out'),
  )
  assert info.splits == {'train': 46, 'trainval': 76, 'val': 30}
  for record in converter_files.read_records(tmp_path / 'out', 'val'):
    name = record['filename'].decode()
    original = Image.open(root / 'SegmentationClass' / f'{name}.png')
    np.testing.assert_array_equal(converter_files.labels(record), original)
    image = (root / 'JPEGImages' / f'{name}.jpg').read_bytes()
    assert record['encoded'] == image

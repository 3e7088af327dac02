"""CamVid in SegNet's layout."""

import converter_files
import numpy as np
import pytest

from deeplab.common import InputError
from deeplab.datasets import build_camvid_data


def test_void_becomes_the_ignore_label(tmp_path):
  label = np.array([[0, 10, 11, 255]], np.uint8)
  converter_files.write_image(tmp_path / 'train/x.jpg', label.shape)
  converter_files.write_mask(tmp_path / 'trainannot/x.png', label)
  # A line of SegNet's own lists.
  (tmp_path / 'train.txt').write_text(
    '/SegNet/CamVid/train/x.png /SegNet/CamVid/trainannot/x.png\n'
  )
  info = build_camvid_data.convert(str(tmp_path), str(tmp_path / 'out'))
  assert (info.name, info.num_classes, info.ignore_label) == ('camvid', 11, 255)
  assert info.splits == {'train': 1}
  (record,) = converter_files.read_records(tmp_path / 'out', 'train')
  found = converter_files.labels(record)
  np.testing.assert_array_equal(found, [[0, 10, 255, 255]])
  converter_files.write_mask(tmp_path / 'trainannot/x.png', label + 1)
  with pytest.raises(InputError, match=r'no class: 12 '):
    build_camvid_data.convert(str(tmp_path), str(tmp_path / 'out'))


def test_a_folder_without_lists(tmp_path):
  with pytest.raises(InputError, match=r'train\.txt'):
    build_camvid_data.convert(str(tmp_path), str(tmp_path / 'out'))

"""PASCAL VOC's augmentation: from SBD's files, and from masks and a list."""

import contextlib

import converter_files
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from converter_files import write_image, write_mask
from PIL import Image

from deeplab.common import InputError
from deeplab.datasets import build_voc2012_data, dataset_info, sbd

_VOC = np.full([6, 8], 20, np.uint8)
_VOC[0] = 255
_SBD = np.full([6, 8], 3, np.uint8)


def _save_mat(path, labels, key='GTcls', do_compression=True):
  """Writes classes as the data set has them."""
  path.parent.mkdir(parents=True, exist_ok=True)
  boundaries = np.empty([20, 1], object)
  boundaries[:, 0] = [scipy.sparse.csc_matrix(labels.shape[-2:])] * 20
  scipy.io.savemat(
    path,
    {
      key: {
        'Segmentation': labels,
        'Boundaries': boundaries,
        'CategoriesPresent': np.unique(labels[labels > 0]),
      }
    },
    do_compression=do_compression,
  )


def _write_list(path, names):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(f'{name}\n' for name in names))


@pytest.fixture
def root(tmp_path):
  """VOC with a (train) and v (val); SBD with these, b, and c, not in VOC."""
  for name in ('a', 'v'):
    write_mask(tmp_path / f'SegmentationClass/{name}.png', _VOC)
  for name in ('a', 'v', 'b'):
    write_image(tmp_path / f'JPEGImages/{name}.jpg', seed=1)
  for name in ('a', 'b', 'v', 'c'):
    write_image(tmp_path / f'sbd/img/{name}.jpg', seed=2)
    _save_mat(tmp_path / f'sbd/cls/{name}.mat', _SBD)
  _write_list(tmp_path / 'lists/train.txt', 'a')
  _write_list(tmp_path / 'lists/val.txt', 'v')
  _write_list(tmp_path / 'sbd/train.txt', 'bv')
  _write_list(tmp_path / 'sbd/val.txt', 'ca')
  return tmp_path


def _convert(root, masks='SegmentationClass', sbd_root='sbd'):
  return build_voc2012_data.convert(
    str(root / 'JPEGImages'),
    str(root / masks),
    str(root / 'lists'),
    str(root / 'out'),
    sbd_root=str(root / sbd_root) if sbd_root else None,
  )


def test_train_aug(root):
  """All but the images of val; VOC's own files where there are two."""
  assert _convert(root).splits == {'train': 1, 'train_aug': 3, 'val': 1}
  records = converter_files.read_records(root / 'out', 'train_aug')
  assert converter_files.names(records) == ['a', 'b', 'c']
  for record, mask in zip(records, (_VOC, _SBD, _SBD), strict=True):
    np.testing.assert_array_equal(converter_files.labels(record), mask)
  images = 'JPEGImages/a.jpg', 'JPEGImages/b.jpg', 'sbd/img/c.jpg'
  for record, image in zip(records, images, strict=True):
    assert record['encoded'] == (root / image).read_bytes()
  found = converter_files.check_readable(
    root / 'out', 'pascal_voc_seg', 'train_aug'
  )
  assert found == {3, 20, 255}


def test_script(root):
  arguments = [
    f'--image_folder={root}/JPEGImages',
    f'--semantic_segmentation_folder={root}/SegmentationClass',
    f'--list_folder={root}/lists',
    f'--output_dir={root}/out',
  ]
  script = 'build_voc2012_data.py'
  result = converter_files.run(script, *arguments, f'--sbd_root={root}/sbd')
  assert "'train_aug': 3" in result.stdout, result.stderr
  result = converter_files.run(script, *arguments, f'--sbd_root={root}')
  assert result.returncode == 1
  assert f'error: there is no folder {root}/cls.' in result.stderr


def test_masks_and_list(root):
  """SegmentationClassAug and train_aug.txt, as other people publish them."""
  for name, mask in (('a', _VOC), ('b', _SBD), ('v', _VOC)):
    write_mask(root / f'SegmentationClassAug/{name}.png', mask)
  _write_list(root / 'lists/train_aug.txt', 'ab')
  splits = _convert(root, 'SegmentationClassAug', None).splits
  assert splits == {'train': 1, 'train_aug': 2, 'val': 1}
  records = converter_files.read_records(root / 'out', 'train_aug')
  np.testing.assert_array_equal(converter_files.labels(records[1]), _SBD)
  with pytest.raises(InputError, match=r'has train_aug\.txt, and --sbd_root'):
    _convert(root, 'SegmentationClassAug')


def test_missing_files(root):
  (root / 'sbd/cls/b.mat').unlink()
  with pytest.raises(InputError, match=r"'b'.* no .*b\.png or .*b\.mat"):
    _convert(root)
  _save_mat(root / 'sbd/cls/b.mat', _SBD)
  (root / 'sbd/img/c.jpg').unlink()
  with pytest.raises(InputError, match=r"'c'.* no .*/c\.jpg or "):
    _convert(root)
  (root / 'lists/val.txt').unlink()
  with pytest.raises(InputError, match=r'lists/val\.txt cannot be read'):
    _convert(root)


def _cut(path):
  path.write_bytes(path.read_bytes()[:150])


def _flip(path):
  """Changes a byte of the compressed data, on which scipy can crash."""
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def _no_matlab(path):
  path.write_text('no MATLAB file')


@pytest.mark.parametrize(
  'damage, message',
  [
    (_cut, r'b\.mat is damaged'),
    (_flip, r'b\.mat is damaged.*while decompressing'),
    (_no_matlab, r'b\.mat is damaged'),
    (
      lambda path: _save_mat(path, _SBD, 'GTinst'),
      r'no MATLAB file with GTcls',
    ),
    (lambda path: _save_mat(path, _SBD.astype(float)), r'uint8.*double'),
    (lambda path: _save_mat(path, np.stack([_SBD] * 2)), r'\[2, 6, 8\]'),
    (lambda path: _save_mat(path, _SBD + 18), r'no class: 21 '),
    (lambda path: _save_mat(path, _SBD[1:]), r'must have one size'),
  ],
)
def test_bad_mat_files(root, damage, message):
  damage(root / 'sbd/cls/b.mat')
  with pytest.raises(InputError, match=message):
    _convert(root)
  assert not (root / 'out').exists()


def test_damage_without_checksums(tmp_path):
  """Some of it would make scipy end the process."""
  path = tmp_path / 'a.mat'
  _save_mat(path, _SBD, do_compression=False)
  np.testing.assert_array_equal(sbd.decode_label(str(path)), _SBD)
  whole = path.read_bytes()
  rng = np.random.default_rng(0)
  for place in rng.integers(128, len(whole), 300):
    data = bytearray(whole)
    data[place] ^= 1 << rng.integers(8)
    path.write_bytes(data)
    with contextlib.suppress(InputError):
      assert sbd.decode_label(str(path)).dtype == np.uint8


def test_real_voc(real_data, tmp_path):
  """Masks saved as SBD's files give the same labels."""
  root = real_data('VOCdevkit/VOC2012')
  lists = root / 'ImageSets/Segmentation'
  names = (lists / 'train.txt').read_text().split()
  for name in names:
    mask = np.array(Image.open(root / f'SegmentationClass/{name}.png'))
    # SBD has no void at the borders.
    _save_mat(tmp_path / f'cls/{name}.mat', np.where(mask == 255, 0, mask))
  _write_list(tmp_path / 'train.txt', names[:20])
  _write_list(tmp_path / 'val.txt', names[20:])
  # As if VOC had annotated the first ten alone.
  _write_list(tmp_path / 'lists/train.txt', names[:10])
  (tmp_path / 'lists/val.txt').write_bytes((lists / 'val.txt').read_bytes())
  for name in names[:10]:
    mask = (root / f'SegmentationClass/{name}.png').read_bytes()
    (tmp_path / 'masks').mkdir(exist_ok=True)
    (tmp_path / f'masks/{name}.png').write_bytes(mask)
  examples = sbd.find_train_aug(
    str(tmp_path),
    str(tmp_path / 'lists'),
    str(root / 'JPEGImages'),
    str(tmp_path / 'masks'),
  )
  assert [example.name for example in examples] == sorted(names)
  decoded = [example for example in examples if example.decode_label]
  assert len(decoded) == 36
  for example in decoded:
    mask = np.array(Image.open(root / f'SegmentationClass/{example.name}.png'))
    labels = example.decode_label(example.label_path)
    np.testing.assert_array_equal(labels, np.where(mask == 255, 0, mask))


def test_published_images_are_taken_as_they_are_stored(root):
  """The masks fit the pixels, whatever the EXIF tag says to viewers."""
  exif = Image.Exif()
  exif[0x0112] = 3
  path = root / 'JPEGImages/a.jpg'
  with Image.open(path) as image:
    image.save(path, exif=exif)
  folders = [
    str(root / f) for f in ('JPEGImages', 'SegmentationClass', 'lists', 'out')
  ]
  build_voc2012_data.convert(*folders)
  (record,) = converter_files.read_records(root / 'out', 'train')
  assert record['encoded'] == path.read_bytes()
  own = dataset_info.BUILTIN['pascal_voc_seg'].replace(name='own')
  with pytest.raises(InputError, match=r'a\.jpg has the EXIF orientation 3'):
    build_voc2012_data.convert(*folders[:-1], str(root / 'own'), info=own)

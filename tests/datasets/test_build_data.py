"""Conversion to records: the official schema, and what is refused."""

import io
import os
import threading

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab.common import InputError
from deeplab.datasets import (
  build_data,
  build_voc2012_data,
  class_tables,
  dataset_info,
)

_KEYS = {
  'image/encoded',
  'image/filename',
  'image/format',
  'image/height',
  'image/width',
  'image/channels',
  'image/segmentation/class/encoded',
  'image/segmentation/class/format',
}
_PALETTE = np.array(class_tables.pascal_colormap(256), np.uint8)
_LABEL = np.repeat(np.array([[0, 1, 20, 255]], np.uint8), 3, axis=0)


def _records(path):
  """The records of a shard as {key: (kind, values)}."""
  records = []
  for serialized in tf.data.TFRecordDataset(str(path)):
    features = tf.train.Example.FromString(serialized.numpy()).features.feature
    record = {}
    for key, value in features.items():
      kind = value.WhichOneof('kind')
      record[key] = kind, list(getattr(value, kind).value)
    records.append(record)
  return records


def _write(path, pixels, mode=None, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  image = Image.fromarray(pixels)
  if mode == 'P':
    image.putpalette(_PALETTE.ravel().tolist())
  image.save(path, **options)


def _rgb(seed=0):
  return np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)


@pytest.fixture
def voc(tmp_path):
  """Two images in VOC's layout, as pathlib paths and arguments."""
  for name in ('a', 'b'):
    _write(tmp_path / f'JPEGImages/{name}.jpg', _rgb())
    _write(tmp_path / f'SegmentationClass/{name}.png', _LABEL, 'P')
  (tmp_path / 'lists').mkdir()
  (tmp_path / 'lists/train.txt').write_text('a\n\n  b \n')
  return tmp_path


def _convert(root, **options):
  return build_voc2012_data.convert(
    str(root / 'JPEGImages'),
    str(root / 'SegmentationClass'),
    str(root / 'lists'),
    str(root / 'out'),
    **options,
  )


def _first(root):
  (record,) = _records(root / 'out/train-00000-of-00004.tfrecord')
  return record


def _decoded(record, key, channels):
  decode = tf.io.decode_image(record[key][1][0], channels=channels)
  return decode.numpy()


def test_same_records_as_the_original(testdata, tmp_path):
  """Images and masks of the golden shards give the golden shards again."""
  golden = sorted((testdata / 'voc_tfrecord').glob('*.tfrecord'))
  assert len(golden) == 12
  for name in ('JPEGImages', 'SegmentationClass', 'lists'):
    (tmp_path / name).mkdir()
  for path in golden:
    split = path.name.split('-')[0]
    with open(tmp_path / f'lists/{split}.txt', 'a') as names:
      for record in _records(path):
        name = record['image/filename'][1][0].decode()
        image = record['image/encoded'][1][0]
        mask = record['image/segmentation/class/encoded'][1][0]
        (tmp_path / f'JPEGImages/{name}.jpg').write_bytes(image)
        (tmp_path / f'SegmentationClass/{name}.png').write_bytes(mask)
        names.write(f'{name}\n')
  info = _convert(tmp_path)
  written = sorted((tmp_path / 'out').glob('*.tfrecord'))
  assert [p.name for p in written] == [p.name for p in golden]
  for ours, theirs in zip(written, golden, strict=True):
    assert _records(ours) == _records(theirs)
  assert info.splits == {'train': 5, 'trainval': 8, 'val': 3}
  assert dataset_info.load(str(tmp_path / 'out')) == info


def test_schema(voc):
  _convert(voc)
  record = _first(voc)
  assert set(record) == _KEYS
  assert record['image/filename'] == ('bytes_list', [b'a'])
  assert record['image/format'] == ('bytes_list', [b'jpeg'])
  assert record['image/height'] == ('int64_list', [3])
  assert record['image/width'] == ('int64_list', [4])
  assert record['image/channels'] == ('int64_list', [3])
  assert record['image/segmentation/class/format'] == ('bytes_list', [b'png'])
  assert sorted(os.listdir(voc / 'out')) == [
    'dataset_info.json',
    *(f'train-{i:05d}-of-00004.tfrecord' for i in range(4)),
  ]


def test_output_is_deterministic(voc):
  path = voc / 'out/train-00001-of-00004.tfrecord'
  _convert(voc)
  first = path.read_bytes()
  _convert(voc)
  assert first and path.read_bytes() == first


@pytest.mark.parametrize('mode', ['P', 'L', 'RGB', 'RGBA'])
def test_masks_become_indices(voc, mode):
  path = voc / 'SegmentationClass/a.png'
  if mode in ('P', 'L'):
    _write(path, _LABEL, mode)
  else:
    colors = _PALETTE[_LABEL]
    alpha = np.full(_LABEL.shape + (1,), 255, np.uint8)
    _write(path, np.concatenate([colors, alpha], -1)[..., : len(mode)])
  _convert(voc)
  data = _first(voc)['image/segmentation/class/encoded'][1][0]
  mask = Image.open(io.BytesIO(data))
  assert mask.mode == 'L'
  np.testing.assert_array_equal(mask, _LABEL)
  np.testing.assert_array_equal(tf.io.decode_png(data)[..., 0], _LABEL)


def test_palette_mask_of_few_bits(voc):
  path = voc / 'SegmentationClass/a.png'
  label = np.minimum(_LABEL, 1)
  _write(path, label, 'P', bits=1)
  assert path.read_bytes()[24] == 1
  _convert(voc)
  mask = _decoded(_first(voc), 'image/segmentation/class/encoded', 1)
  np.testing.assert_array_equal(mask[..., 0], label)


@pytest.mark.parametrize('kind', ['L', 'P', 'RGBA', 'LA', '1'])
def test_lossless_images_become_rgb(voc, kind):
  (voc / 'JPEGImages/a.jpg').unlink()
  grey = _rgb()[..., 0]
  image = Image.fromarray(_rgb()) if kind == 'RGBA' else Image.fromarray(grey)
  if kind == 'P':
    image.putpalette(_PALETTE.ravel().tolist())
  else:
    image = image.convert(kind)
  image.save(voc / 'JPEGImages/a.png')
  _convert(voc)
  record = _first(voc)
  assert record['image/format'][1] == [b'png']
  np.testing.assert_array_equal(
    _decoded(record, 'image/encoded', 3), image.convert('RGB')
  )
  assert Image.open(io.BytesIO(record['image/encoded'][1][0])).mode == 'RGB'


def test_grey_jpeg_keeps_its_bytes(voc):
  path = voc / 'JPEGImages/a.jpg'
  _write(path, _rgb()[..., 0])
  _convert(voc)
  assert _first(voc)['image/encoded'][1] == [path.read_bytes()]


def test_format_is_that_of_the_bytes(voc):
  path = voc / 'JPEGImages/a.jpg'
  _write(path, _rgb(), format='PNG')
  _convert(voc)
  record = _first(voc)
  assert record['image/format'][1] == [b'png']
  assert record['image/encoded'][1] == [path.read_bytes()]


def _cut(path):
  path.write_bytes(path.read_bytes()[:-20])


def _cut_end_marker(path):
  """Without its last two bytes Pillow reads this file, TensorFlow does not."""
  noise = np.random.default_rng(0).integers(0, 256, (281, 500, 3), np.uint8)
  _write(path, noise)
  path.write_bytes(path.read_bytes()[:-2])


def _flip_byte_of_png(path):
  _write(path, _rgb(), format='PNG')
  data = bytearray(path.read_bytes())
  data[data.index(b'IDAT') + 10] ^= 1
  path.write_bytes(data)


def _transparent(path):
  rgba = np.dstack([_rgb(), np.full((3, 4), 254, np.uint8)])
  _write(path, rgba, format='PNG')


def _transparent_palette(path):
  image = Image.fromarray(np.zeros((3, 4), np.uint8))
  image.putpalette(_PALETTE.ravel().tolist())
  image.save(path, 'PNG', transparency=0)


def _rgb_of_16_bits(path):
  pixels = tf.constant(_rgb().astype(np.uint16) * 257)
  path.write_bytes(tf.io.encode_png(pixels).numpy())


def _two_pages(path):
  pages = [Image.fromarray(_rgb(seed)) for seed in range(2)]
  pages[0].save(path, 'TIFF', save_all=True, append_images=pages[1:])


def _tiff_of_16_bits(path):
  Image.fromarray(np.ones((3, 4), np.uint16)).save(path, 'TIFF')


@pytest.mark.parametrize(
  'spoil, message',
  [
    (_cut, r'a\.jpg is damaged or truncated'),
    (_cut_end_marker, r'a\.jpg is damaged or truncated'),
    (_flip_byte_of_png, r'a\.jpg is damaged or truncated'),
    (lambda p: p.write_text('hello'), r'a\.jpg is not an image'),
    (lambda p: p.write_bytes(b''), r'a\.jpg is not an image'),
    (_transparent, r'a\.jpg is transparent.*lowest alpha 254'),
    (_transparent_palette, r'a\.jpg is transparent.*lowest alpha 0'),
    (
      lambda p: _write(p, np.ones((3, 4), np.uint16), format='PNG'),
      r'a\.jpg has 16 bits',
    ),
    (_rgb_of_16_bits, r'a\.jpg has 16 bits'),
    (
      lambda p: Image.fromarray(_rgb()).convert('CMYK').save(p),
      r'a\.jpg has pixels of the kind CMYK',
    ),
    (lambda p: _write(p, _rgb(), format='PPM'), r'a\.jpg is a PPM file'),
    (_two_pages, r'a\.jpg holds 2 pictures'),
    (_tiff_of_16_bits, r'a\.jpg has 16 bits'),
    (
      lambda p: _write(p, np.zeros((5, 6, 3), np.uint8)),
      r'a\.jpg has 5 x 6 pixels.*a\.png has 3 x 4',
    ),
  ],
)
def test_bad_images(voc, spoil, message):
  spoil(voc / 'JPEGImages/a.jpg')
  with pytest.raises(InputError, match=message):
    _convert(voc)
  assert not (voc / 'out').exists()


def _label_with(value):
  label = _LABEL.copy()
  label[0, 0] = value
  return label


@pytest.mark.parametrize(
  'spoil, message',
  [
    (lambda p: _write(p, _label_with(21)), r'a\.png holds .*no class: 21 \(1'),
    (lambda p: _write(p, _label_with(99), 'P'), r'no class: 99 \(1 pixels\)'),
    (
      lambda p: _write(p, _LABEL.astype(np.uint16)),
      r'a\.png has 16 bits',
    ),
    (lambda p: _write(p, _PALETTE[_label_with(21)]), r'a\.png is a coloured'),
    (
      lambda p: _write(p, np.full((3, 4, 3), 7, np.uint8)),
      r'a\.png is a coloured mask.*\[7, 7, 7\] \(12 pixels, nearest: .back',
    ),
    (lambda p: _write(p, _LABEL > 0), r'a\.png is a grey PNG of 1 bits'),
    (lambda p: _write(p, _LABEL, format='JPEG'), r'a\.png is a JPEG file'),
    (
      lambda p: _write(p, _LABEL, format='TIFF', compression='jpeg'),
      r'a\.png is a TIFF file.*without loss',
    ),
    (lambda p: _write(p, _LABEL, format='WEBP'), r'a\.png is a WEBP file'),
    (_cut, r'a\.png is damaged or truncated'),
  ],
)
def test_bad_masks(voc, spoil, message):
  spoil(voc / 'SegmentationClass/a.png')
  with pytest.raises(InputError, match=message):
    _convert(voc)
  assert not (voc / 'out').exists()


def test_missing_files_are_named(voc):
  (voc / 'JPEGImages/b.jpg').unlink()
  with pytest.raises(InputError, match=r'train\.txt, line 3: .*b\.jpg or'):
    _convert(voc)
  _write(voc / 'JPEGImages/b.png', _rgb())
  with pytest.raises(InputError, match=r'line 1: there is no .*a\.png'):
    _convert(voc, image_format='png')
  _convert(voc)
  (voc / 'SegmentationClass/a.png').unlink()
  with pytest.raises(InputError, match=r'line 1: there is no .*Class/a\.png'):
    _convert(voc)
  os.rename(voc / 'SegmentationClass', voc / 'elsewhere')
  with pytest.raises(InputError, match=r'no folder .*SegmentationClass'):
    _convert(voc)


def test_bad_lists(voc):
  path = voc / 'lists/train.txt'
  path.write_text('a\nb\na\n')
  with pytest.raises(InputError, match=r"line 3: 'a' is already in line 1"):
    _convert(voc)
  path.write_text('\n')
  with pytest.raises(InputError, match='names no images'):
    _convert(voc)
  path.write_bytes(b'\xff\xfe\x00')
  with pytest.raises(InputError, match='not a text file'):
    _convert(voc)
  path.unlink()
  with pytest.raises(InputError, match='has no list files'):
    _convert(voc)


def test_split_test_needs_no_labels(voc):
  (voc / 'lists/test.txt').write_text('c.jpg\r\n')
  _write(voc / 'JPEGImages/c.jpg', _rgb())
  assert _convert(voc).splits == {'test': 1, 'train': 2}
  (record,) = _records(voc / 'out/test-00000-of-00004.tfrecord')
  assert record['image/filename'][1] == [b'c']
  assert 'image/segmentation/class/encoded' not in record


def test_a_failure_leaves_the_old_records(voc):
  _convert(voc)
  before = {p.name: p.read_bytes() for p in (voc / 'out').iterdir()}
  (voc / 'lists/val.txt').write_text('a\nb\n')
  _cut(voc / 'JPEGImages/b.jpg')
  with pytest.raises(InputError):
    _convert(voc)
  assert {p.name: p.read_bytes() for p in (voc / 'out').iterdir()} == before


def test_splits_of_two_conversions_add_up(voc):
  _convert(voc)
  os.rename(voc / 'lists/train.txt', voc / 'lists/val.txt')
  assert _convert(voc).splits == {'train': 2, 'val': 2}
  for path in (voc / 'out').glob('train-*'):
    path.unlink()
  assert _convert(voc).splits == {'val': 2}


def test_shards_of_another_number_are_replaced(voc):
  (voc / 'lists/train_all.txt').write_text('a')
  _convert(voc)
  examples = [build_data.Example('a', str(voc / 'JPEGImages/a.jpg'))]
  info = dataset_info.BUILTIN['pascal_voc_seg']
  build_data.convert({'train': examples}, str(voc / 'out'), info, num_shards=2)
  assert sorted(os.listdir(voc / 'out')) == [
    'dataset_info.json',
    'train-00000-of-00002.tfrecord',
    'train-00001-of-00002.tfrecord',
    *(f'train_all-{i:05d}-of-00004.tfrecord' for i in range(4)),
  ]


def test_new_records_are_there_before_old_ones_go(voc, monkeypatch):
  _convert(voc)
  examples = [build_data.Example('a', str(voc / 'JPEGImages/a.jpg'))]
  info = dataset_info.BUILTIN['pascal_voc_seg']
  there = []

  def save(info, folder):
    del info
    there.extend(os.listdir(folder))
    raise OSError('the disk is full')

  monkeypatch.setattr(dataset_info.DatasetInfo, 'save', save)
  with pytest.raises(InputError, match='the disk is full'):
    build_data.convert({'train': examples}, str(voc / 'out'), info, None, 2)
  assert len([name for name in there if name.startswith('train')]) == 6


def test_images_are_read_in_several_threads(voc, monkeypatch):
  monkeypatch.setattr(os, 'cpu_count', lambda: 2)
  # Passed only by two at the same time.
  barrier = threading.Barrier(2, timeout=30)

  def make(name):
    barrier.wait()
    return build_data.image_seg_to_tfexample(b'', name, 1, 1, None)

  names = [f'n{i}' for i in range(6)]
  info = dataset_info.BUILTIN['pascal_voc_seg']
  out = voc / 'out'
  build_data.convert({'s': names}, str(out), info, num_shards=1, make=make)
  found = [
    record['image/filename'][1][0].decode()
    for record in _records(out / 's-00000-of-00001.tfrecord')
  ]
  assert found == names


def test_numbers_of_shards_have_five_digits(tmp_path):
  info = dataset_info.BUILTIN['pascal_voc_seg']
  with pytest.raises(InputError, match=r'num_shards must be .*99999'):
    build_data.convert({}, str(tmp_path), info, num_shards=100000)


def test_names_of_files_that_are_no_text(voc):
  path = voc / 'JPEGImages' / os.fsdecode(b'\xff.jpg')
  _write(path, _rgb())
  example = build_data.Example('a', str(path))
  with pytest.raises(InputError, match=r'is not Unicode text\. Rename it'):
    build_data.make_record(example, dataset_info.BUILTIN['pascal_voc_seg'])


def test_other_data_set_in_the_folder(voc):
  _convert(voc)
  other = dataset_info.DatasetInfo('fruit', 21)
  with pytest.raises(InputError, match=r"'pascal_voc_seg'.*'fruit'"):
    _convert(voc, info=other)


def test_own_classes(voc):
  info = dataset_info.DatasetInfo(
    'fruit', 3, class_names=['x', 'y', 'z'], colors=[[1, 1, 1]] * 3
  )
  with pytest.raises(InputError, match=r"no class: 20 .*0\.\.2.*'fruit'"):
    _convert(voc, info=info)
  _write(voc / 'SegmentationClass/a.png', _PALETTE[_LABEL])
  with pytest.raises(InputError, match='share a colour'):
    _convert(voc, info=info)


def test_output_that_cannot_be_written(voc):
  (voc / 'out').write_text('a file')
  with pytest.raises(InputError, match='cannot write into'):
    _convert(voc)


@pytest.mark.parametrize(
  'count, sizes', [(1, [1, 0, 0, 0]), (5, [2, 2, 1, 0]), (8, [2, 2, 2, 2])]
)
def test_shards_are_contiguous(voc, count, sizes):
  names = [f'n{i}' for i in range(count)]
  examples = [
    build_data.Example(
      name, str(voc / 'JPEGImages/a.jpg'), str(voc / 'SegmentationClass/a.png')
    )
    for name in names
  ]
  info = dataset_info.BUILTIN['pascal_voc_seg']
  build_data.convert({'s': examples}, str(voc / 'out'), info)
  found = [
    [
      record['image/filename'][1][0].decode()
      for record in _records(voc / f'out/s-{i:05d}-of-00004.tfrecord')
    ]
    for i in range(4)
  ]
  assert [len(shard) for shard in found] == sizes
  assert [name for shard in found for name in shard] == names


def test_lists_whose_names_are_no_text(tmp_path):
  for name in (os.fsdecode(b'\xff.txt'), 'a\nb.txt'):
    (tmp_path / name).write_text('a\n')
    with pytest.raises(InputError, match=r'no plain text\. Rename the list'):
      build_data.find_lists(str(tmp_path))
    (tmp_path / name).unlink()

"""check_dataset: faults that were put in are found, and nothing else is."""

import io
import json
import os
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab.common import InputError
from deeplab.datasets import (
  build_data,
  build_image_folder_data,
  check_dataset,
  dataset_info,
  folder_examples,
)
from deeplab.datasets.checks import (
  check_findings,
  check_report,
  check_suggestions,
  dataset_checks,
)
from deeplab.datasets.checks.check_tally import SplitTally

_COLORS = [[0, 0, 0], [200, 0, 0], [0, 200, 0]]


def _info(**changes):
  values = {'name': 'mine', 'num_classes': 3, 'colors': _COLORS, **changes}
  return dataset_info.DatasetInfo(**values)


def _png(array):
  with io.BytesIO() as output:
    Image.fromarray(array).save(output, 'PNG')
    return output.getvalue()


def _record(name, image=None, label=None):
  """A record; arrays are encoded, bytes taken as they are."""
  noise = np.random.default_rng(len(name) + sum(name.encode()))
  if image is None:
    image = noise.integers(0, 256, [20, 30, 3], np.uint8)
  if label is None:
    label = noise.integers(0, 3, [20, 30], np.uint8)
  image, label = (
    value if isinstance(value, bytes) else _png(value)
    for value in (image, label)
  )
  return build_data.image_seg_to_tfexample(
    image, name, 20, 30, label or None
  ).SerializeToString()


def _write(folder, info=None, **splits):
  """One shard for each split, of serialized records."""
  folder.mkdir(exist_ok=True)
  for split, serialized in splits.items():
    path = folder / f'{split}-00000-of-00001.tfrecord'
    with tf.io.TFRecordWriter(str(path)) as writer:
      for record in serialized:
        writer.write(record)
  info = info or _info()
  info.replace(splits={k: len(v) for k, v in splits.items()}).save(str(folder))
  return folder


def _check(folder, **arguments):
  return dataset_checks.check_shards(None, str(folder), **arguments)


def _texts(report, level):
  return [f.text for f in report.findings if f.level == level]


def _places(report, words):
  """The places of the one finding whose text holds these words."""
  (finding,) = [f for f in report.findings if words in f.text]
  return list(finding.places)


def test_good_data_have_no_findings_and_true_figures(tmp_path):
  label = np.full([20, 30], 2, np.uint8)
  label[:5], label[0, 0] = 1, 255
  train = [_record('a', label=label), _record('b', label=label * 0)]
  report = _check(_write(tmp_path, train=train, val=[_record('c')]))
  assert report.findings == []
  tally = report.splits[0]
  assert tally.class_pixels.tolist() == [600, 149, 450]
  assert tally.occurrences[:3].tolist() == [1, 1, 1]
  assert tally.surroundings[:3].tolist() == [600, 599, 599]
  assert tally.num_one_class == 1
  assert tally.ignored_share == 1 / 1200
  assert tally.sizes == {(20, 30): 2}
  assert tally.kinds == {'PNG, RGB': 2}


def test_every_fault_is_found_not_only_the_first(tmp_path):
  grey = np.zeros([20, 30], np.uint8)
  bad = grey.copy()
  bad[0, :3] = 3, 77, 255
  train = [
    _record('fine'),
    _record('torn', image=_png(np.zeros([20, 30, 3], np.uint8))[:60]),
    _record('odd', label=bad),
    _record('small', label=np.zeros([19, 30], np.uint8)),
    b'\xff' * 40,
    _record('bare', label=b''),
    _record('odd', label=bad),
    _record('void', label=grey + 255),
    _record('last', image=grey),
  ]
  report = _check(_write(tmp_path, train=train, val=[_record('val')]))
  path = tmp_path / 'train-00000-of-00001.tfrecord'
  unreadable = _places(report, 'cannot be read')
  assert [p.split(':')[1].strip() for p in unreadable] == [
    'record 1 "torn"',
    'record 4',
  ]
  assert _places(report, 'values that are no class') == [
    f'{path}: record 2 "odd": 3, 77',
    f'{path}: record 6 "odd": 3, 77',
  ]
  (place,) = _places(report, 'another size')
  assert 'record 3 "small"' in place and '19' in place
  assert 'record 5 "bare"' in _places(report, 'without label')[0]
  assert _places(report, 'with the name')
  assert 'record 7 "void"' in _places(report, 'wholly ignored')[0]
  assert '1 of PNG, grey' in str(_texts(report, check_findings.HINT))
  assert report.num_errors == 5


def _flip_byte(path, place):
  data = bytearray(path.read_bytes())
  data[place] ^= 1
  path.write_bytes(bytes(data))


def test_reading_goes_on_behind_corrupt_records(tmp_path):
  names = 'abcde'
  _write(tmp_path, train=[_record(name) for name in names])
  path = tmp_path / 'train-00000-of-00001.tfrecord'
  (length,) = struct.unpack_from('<Q', path.read_bytes())
  _flip_byte(path, 60)
  _flip_byte(path, 2 * (16 + length) + 60)
  report = _check(tmp_path)
  places = _places(report, 'cannot be read')
  assert [p.split(':')[1] for p in places] == [' record 0', ' record 2']
  assert sorted(report.splits[0].names) == ['b', 'd', 'e']


@pytest.mark.parametrize('damage', ['header', 'cut'])
def test_what_is_behind_a_broken_header_is_reported(tmp_path, damage):
  _write(tmp_path, train=[_record(name) for name in 'abc'])
  path = tmp_path / 'train-00000-of-00001.tfrecord'
  data = path.read_bytes()
  (length,) = struct.unpack_from('<Q', data)
  if damage == 'header':
    _flip_byte(path, 16 + length + 6)
  else:
    path.write_bytes(data[: 16 + length + 50])
  (place,) = _places(_check(tmp_path), 'cannot be read')
  assert 'record 1 and all behind it' in place


def test_a_split_that_lacks_shards_does_not_hide_the_others(tmp_path):
  _write(tmp_path, train=[_record('a')])
  name = 'val-00000-of-00002.tfrecord'
  (tmp_path / name).write_bytes(b'')
  (tmp_path / 'dev-00000-of-00001.tfrecord').write_bytes(b'')
  report = _check(tmp_path)
  texts = _texts(report, check_findings.ERROR)
  assert any('only 1 of 2 shards' in text for text in texts)
  assert any('hold no records' in text for text in texts)
  assert [tally.name for tally in report.splits] == ['dev', 'train']
  (text,) = _texts(_check(tmp_path, splits=['test']), check_findings.ERROR)
  assert "It has ['dev', 'train', 'val']" in text


def test_images_that_splits_share(tmp_path):
  twin = _png(np.zeros([20, 30, 3], np.uint8))
  train = [_record('a'), _record('b', twin)]
  val = [_record('c'), _record('d', twin)]
  folder = _write(tmp_path, train=train, val=val, trainval=train + val)
  report = _check(folder)
  (place,) = _places(report, 'same pixels')
  assert '"b"' in place and '"d"' in place
  # trainval is meant to hold the others.
  pairs = [f.splits for f in report.findings if len(f.splits) > 1]
  assert pairs == [['train', 'val']]
  assert len(report.overlaps['train', 'trainval']['names']) == 2
  assert report.num_errors == 1
  (folder / 'train-00000-of-00001.tfrecord').rename(
    folder / 'test-00000-of-00001.tfrecord'
  )
  assert _check(folder, splits=['test', 'val']).num_errors == 0


def test_classes_that_are_missing(tmp_path):
  zeros = np.zeros([20, 30], np.uint8)
  one = zeros.copy()
  one[0] = 1
  report = _check(
    _write(
      tmp_path,
      _info(num_classes=4, colors=()),
      train=[_record('a', label=zeros)],
      val=[_record('b', label=one)],
    )
  )
  hints = '\n'.join(_texts(report, check_findings.HINT))
  assert 'never occur: 2 (2 class_2, 3 class_3)' in hints
  assert 'in val, but not in train, where they could be' in hints
  assert 'learnt: 1 (1 class_1)' in hints
  assert '100.00% of the pixels that count are of class 0' in hints


def _suspicions(values, **changes):
  pixels = np.zeros(256, np.int64)
  pixels[values] = 10
  info = _info(**{'num_classes': 21, 'colors': (), **changes})
  return ' '.join(check_findings.suspicions(pixels, pixels > 0, info))


@pytest.mark.parametrize(
  ('values', 'changes', 'words'),
  [
    ([0, 38, 75, 113, 255], {}, 'grey levels of the colours'),
    ([0, 255], {}, 'black-and-white'),
    ([0, 255], {'num_classes': 2}, 'black-and-white'),
    (range(0, 200, 7), {}, 'with interpolation'),
    (range(1, 22), {}, 'counted from 0'),
    ([0, 1, 30], {}, '30 is the only value'),
  ],
)
def test_common_mistakes_are_named(values, changes, words):
  assert words in _suspicions(list(values), **changes)


def test_what_is_no_mistake():
  assert _suspicions([0, 5, 14, 255]) == ''
  assert _suspicions([]) == ''


def test_ignored_class_and_nothing_to_learn(tmp_path):
  label = np.zeros([20, 30], np.uint8)
  report = _check(
    _write(tmp_path, _info(ignore_label=0), train=[_record('a', label=label)])
  )
  assert 'nothing to learn' in _texts(report, check_findings.ERROR)[0]
  assert 'is also the class' in str(_texts(report, check_findings.HINT))


# Suggestions.


def _tally(name, sizes):
  tally = SplitTally(name, _info())
  tally.sizes.update(sizes)
  tally.num_images = sum(sizes.values())
  return tally


@pytest.mark.parametrize(
  ('sizes', 'train', 'largest'),
  [
    ({(375, 500): 90, (500, 375): 10}, '513,513', '513,513'),
    ({(360, 480): 5}, '369,481', '369,481'),
    ({(1024, 2048): 5}, '769,769', '1025,2049'),
    ({(33, 65): 1}, '33,65', '33,65'),
  ],
)
def test_crops(sizes, train, largest):
  tallies = [_tally('train', sizes), _tally('val', sizes)]
  found = {s.name: s.value for s in check_suggestions.suggest(tallies, 16)}
  assert found == {'train_crop_size': train, 'eval_crop_size': largest}


def test_weights_balance_by_the_median_frequency():
  tally = SplitTally('train', _info(num_classes=4, colors=()))
  tally.pixels[:4] = 700, 200, 100, 0
  tally.surroundings[:4] = 1000, 1000, 200, 0
  weights = check_suggestions.label_weights(tally)
  # Frequencies 0.7, 0.2 and 0.5.
  np.testing.assert_allclose(weights, [5 / 7, 2.5, 1, 1])


# Files before their conversion.


def _folders(tmp_path, masks):
  """Folders of images and of these masks; returns both."""
  for name in ('images', 'masks'):
    (tmp_path / name).mkdir()
  for name, mask in masks.items():
    image = np.random.default_rng(sum(name.encode())).integers(
      0, 256, [20, 30, 3]
    )
    Image.fromarray(image.astype(np.uint8)).save(
      tmp_path / f'images/{name}.jpg'
    )
    mask.save(tmp_path / f'masks/{name}.png')
  return str(tmp_path / 'images'), str(tmp_path / 'masks')


def _masks():
  labels = (np.arange(600) % 3).astype(np.uint8).reshape(20, 30)
  palette = Image.fromarray(labels)
  palette.putpalette(np.ravel(_COLORS).tolist())
  return {
    'grey': Image.fromarray(labels),
    'palette1': palette,
    'colors22': Image.fromarray(np.array(_COLORS, np.uint8)[labels]),
  }


def _check_folders(tmp_path, masks, table=None, **options):
  """The report on these masks and images of their names."""
  images, labels = _folders(tmp_path, masks)
  path = tmp_path / 'classes.csv'
  path.write_text(
    table or 'first,0,0,0\nsecond,200,0,0\nthird,0,200,0\nvoid,9,9,9\n'
  )
  values = {'class_table': str(path), 'ignore_classes': ['void'], **options}
  return dataset_checks.check_folders(
    images, labels, folder_examples.Options(**{'split': 'train', **values})
  )


@pytest.mark.parametrize('kind', ['grey', 'palette1', 'colors22'])
def test_masks_of_all_kinds_are_read(tmp_path, kind):
  mask = _masks()[kind]
  report = _check_folders(tmp_path, {'a': mask, 'b': mask})
  assert report.findings == []
  assert report.splits[0].class_pixels.tolist() == [400, 400, 400]


def test_what_the_table_does_not_name(tmp_path):
  report = _check_folders(
    tmp_path,
    {'a': _masks()['colors22']},
    table='first,0,0,0\nsecond,200,0,0\n',
    ignore_classes=[],
  )
  (place,) = _places(report, 'Labels that cannot be used')
  assert 'a.png' in place and '1 colours' in place
  assert report.num_errors == 1


def test_files_without_partner_and_bad_files(tmp_path):
  mask = _masks()['grey']
  (tmp_path / 'more').mkdir()
  names = {name: mask for name in ('a', 'b', 'c', 'd')}
  images, masks = _folders(tmp_path, names)
  Image.fromarray(np.full([20, 30], 9, np.uint8)).save(f'{masks}/a.png')
  mask.save(f'{masks}/lonely.png')
  Image.new('CMYK', (30, 20)).save(f'{images}/b.jpg')
  Image.new('RGB', (31, 20)).save(f'{images}/c.jpg')
  Image.new('RGB', (30, 20)).save(f'{images}/unmasked.png')
  table = tmp_path / 'classes.txt'
  table.write_text('first\nsecond\nthird\n')
  options = folder_examples.Options(class_table=str(table), split='train')
  report = dataset_checks.check_folders(images, masks, options)
  errors = '\n'.join(_texts(report, check_findings.ERROR))
  assert 'labels without an image are 1: lonely' in errors
  assert 'images without a label are 1: unmasked' in errors
  (place,) = _places(report, 'cannot be read')
  assert place.startswith(f'{images}/b.jpg: ') and 'CMYK' in place
  assert '20 x 31' in str(_places(report, 'another size'))
  assert 'a.png' in str(_places(report, 'Labels that cannot be used'))
  assert report.splits[0].num_labels == 1


def test_names_that_are_no_text_are_errors_of_their_own(tmp_path):
  images, _ = _folders(tmp_path, {'a': _masks()['grey']})
  path = f'{images}/{os.fsdecode(b"x")}.jpg'
  bad = f'{images}/{os.fsdecode(bytes([255]))}.jpg'
  os.rename(f'{images}/a.jpg', path)
  shutil.copy(path, bad)
  examples = [build_data.Example(name, name) for name in (path, bad)]
  report = dataset_checks.check_files({'test': examples}, _info())
  (place,) = _places(report, 'cannot be read')
  assert 'not Unicode text' in place
  json.dumps(check_report.to_json(report)).encode()


def test_lists_make_splits(tmp_path):
  (tmp_path / 'train.txt').write_text('a\nb\n')
  (tmp_path / 'val.txt').write_text('c\nmissing\n')
  names = {name: _masks()['grey'] for name in ('a', 'b', 'c')}
  report = _check_folders(
    tmp_path, names, split=None, list_folder=str(tmp_path)
  )
  sizes = {tally.name: tally.num_examples for tally in report.splits}
  assert sizes == {'train': 2, 'val': 1}
  assert "there is no image 'missing'" in str(report.findings)


def test_images_that_no_list_names(tmp_path):
  (tmp_path / 'train.txt').write_text('a\nb\n')
  names = {name: _masks()['grey'] for name in ('a', 'b', 'c')}
  report = _check_folders(
    tmp_path, names, split=None, list_folder=str(tmp_path)
  )
  assert _places(report, 'in no split') == ['c']
  assert report.num_errors == 0


def test_the_check_counts_what_the_conversion_writes(tmp_path):
  """Subfolders, ignored rows, a suffix and a random split."""
  images, masks = _folders(tmp_path, {})
  table = tmp_path / 'classes.csv'
  table.write_text('void,0,0,0\nroad,200,0,0\ncar,0,200,0\n')
  for number in range(6):
    name = f'{number % 2}/{number}'
    for folder in (images, masks):
      os.makedirs(f'{folder}/{number % 2}', exist_ok=True)
    labels = np.random.default_rng(number).integers(0, 3, [20, 30])
    color = np.array(_COLORS, np.uint8)[labels]
    Image.fromarray(255 - color).save(f'{images}/{name}.png')
    Image.fromarray(color).save(f'{masks}/{name}_L.png')
  options = folder_examples.Options(
    class_table=str(table),
    ignore_classes=['void'],
    label_suffix='_L',
    val_fraction=0.4,
  )
  report = dataset_checks.check_folders(images, masks, options)
  info, pixels, _ = build_image_folder_data.convert(
    images, masks, str(tmp_path / 'out'), options=options
  )
  assert report.num_errors == 0
  assert report.info.class_names == info.class_names == ['road', 'car']
  for tally in report.splits:
    assert tally.num_examples == info.splits[tally.name]
    np.testing.assert_array_equal(tally.pixels, pixels[tally.name])


# The script.


def _run(repository, *arguments):
  return subprocess.run(
    [sys.executable, str(repository / 'datasets/check_dataset.py'), *arguments],
    capture_output=True,
    text=True,
    timeout=300,
  )


def test_script_on_shards(tmp_path, repository):
  bad = np.full([20, 30], 9, np.uint8)
  folder = _write(
    tmp_path / 'data', train=[_record('a'), _record('b', label=bad)]
  )
  page, figures = tmp_path / 'out/check.html', tmp_path / 'check.json'
  result = _run(
    repository, f'--dataset={folder}', f'--output={page}', f'--json={figures}'
  )
  assert result.returncode == 1, result.stderr
  assert 'record 1 "b": 9' in result.stdout
  assert '--train_crop_size=33,33' in result.stdout
  values = json.loads(figures.read_text())
  assert values['errors'] == 1
  assert values['splits']['train']['label_values']['9'] == 600
  assert values['suggestions']['label_weights']['value'].count(',') == 2
  assert page.read_text().startswith('<!doctype html>')


def test_script_on_folders(tmp_path, repository):
  images, masks = _folders(tmp_path, dict.fromkeys('ab', _masks()['palette1']))
  folders = [f'--image_folder={images}', f'--label_folder={masks}']
  result = _run(repository, *folders, '--output=')
  assert result.returncode == 0, result.stderr
  assert 'Errors: 0. Hints: 0.' in result.stdout


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--image_folder=x'], 'give both'),
    (['--dataset=x', '--split=train'], '--split=train has no effect without'),
    (
      ['--image_folder=x', '--label_folder=y', '--dataset=ade20k'],
      '--dataset=ade20k has no effect with --image_folder',
    ),
    (['--dataset=x', '--output=', '--num_samples=5'], 'without a page'),
  ],
)
def test_flags_that_would_be_ignored(parse, arguments, message):
  parse(check_dataset, check_dataset._define_flags, arguments)
  with pytest.raises(InputError, match=message):
    check_dataset.main()

"""Shards, records and the batches made of them."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from deeplab import common
from deeplab.datasets import data_generator, records

# Written by the original's converter; some shards are empty.
VOC = str(pathlib.Path(__file__).parents[1] / 'testdata' / 'voc_tfrecord')

# Sizes of the golden records, height and width.
VAL_SIZES = {'2007_000006': (81, 120), '2007_000007': (129, 129)}


def make(split='trainval', batch_size=4, crop_size=(65, 65), **arguments):
  return data_generator.Dataset(
    arguments.pop('dataset_name', None),
    split,
    arguments.pop('dataset_dir', VOC),
    batch_size,
    list(crop_size),
    model_variant='mobilenet_v2',
    **arguments,
  )


def make_training(**arguments):
  settings = {
    'is_training': True,
    'should_shuffle': True,
    'should_repeat': True,
    'min_scale_factor': 0.5,
    'max_scale_factor': 2.0,
    'scale_factor_step_size': 0.25,
  }
  return make(**(settings | arguments))


def fingerprint(batch):
  """Names and a checksum of what the network sees."""
  data = batch['image'].numpy().tobytes() + batch['label'].numpy().tobytes()
  names = [name.decode() for name in batch['image_name'].numpy()]
  return names, hashlib.sha256(data).hexdigest()


def fingerprints(dataset, count, start_step=0):
  return [fingerprint(b) for b in dataset.as_dataset(start_step).take(count)]


def image_bytes(array):
  return tf.io.encode_png(array).numpy()


def example(name='one', image=None, label=None, size=(6, 8)):
  """A serialized record; `label` may be bytes, an array or False for none."""
  image = np.zeros([*size, 3], np.uint8) if image is None else image
  label = np.zeros([*size, 1], np.uint8) if label is None else label
  values = {records.NAME_KEY: name.encode()}
  for key, value in ((records.IMAGE_KEY, image), (records.LABEL_KEY, label)):
    if value is not False:
      values[key] = value if isinstance(value, bytes) else image_bytes(value)
  feature = {
    key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    for key, value in values.items()
  }
  features = tf.train.Features(feature=feature)
  return tf.train.Example(features=features).SerializeToString()


def write_split(folder, shards, split='train', num_classes=3):
  """Writes lists of serialized records as the shards of a split."""
  for index, shard in enumerate(shards):
    name = f'{split}-{index:05d}-of-{len(shards):05d}.tfrecord'
    with tf.io.TFRecordWriter(str(folder / name)) as writer:
      for record in shard:
        writer.write(record)
  info = {'name': 'mine', 'num_classes': num_classes, 'ignore_label': 255}
  (folder / 'dataset_info.json').write_text(json.dumps(info))
  return str(folder)


def test_attributes():
  dataset = make('train')
  assert dataset.info.name == 'pascal_voc_seg'
  assert dataset.num_of_classes == 21
  assert dataset.ignore_label == 255
  assert dataset.num_examples == 5
  assert dataset.has_labels
  assert [s.num_records for s in dataset.shards] == [2, 2, 1, 0]


def test_training_batches():
  dataset = make_training(crop_size=(65, 97))
  spec = dataset.as_dataset().element_spec
  assert set(spec) == {'image', 'label', 'image_name', 'height', 'width'}
  assert spec['image'] == tf.TensorSpec([4, 65, 97, 3], tf.float32)
  assert spec['label'] == tf.TensorSpec([4, 65, 97, 1], tf.int32)
  batch = next(dataset.get_one_shot_iterator())
  assert batch['image'].numpy().min() >= 0
  assert batch['image'].numpy().max() <= 255
  assert set(np.unique(batch['label'])) <= {*range(21), 255}


def test_batches_do_not_tune_themselves():
  """The thread that does could sleep for a minute when an iterator ends."""
  assert make('val').as_dataset().options().autotune.enabled is False


def test_every_epoch_holds_every_example_in_another_order():
  dataset = make_training()
  batches = fingerprints(dataset, 8)
  names = [name for batch, _ in batches for name in batch]
  epochs = [tuple(names[i : i + 8]) for i in range(0, 32, 8)]
  assert all(len(set(epoch)) == 8 for epoch in epochs)
  assert len(set(epochs)) == 4
  # The same images come back augmented differently.
  assert len({digest for _, digest in batches}) == 8


def test_batches_go_on_over_the_end_of_an_epoch():
  dataset = make_training(split='train', batch_size=3)
  names = [n for batch, _ in fingerprints(dataset, 5) for n in batch]
  assert len(names) == 15
  for start in (0, 5, 10):
    assert len(set(names[start : start + 5])) == 5


@pytest.mark.parametrize('batch_size', [3, 11])
def test_start_step_goes_on_where_the_run_stopped(batch_size):
  dataset = make_training(batch_size=batch_size)
  whole = fingerprints(dataset, 7)
  for step in (1, 3, 6):
    assert fingerprints(dataset, 7 - step, step) == whole[step:]


def test_start_step_without_repetition():
  dataset = make('train', 2, (200, 200))
  whole = fingerprints(dataset, 9)
  assert [len(names) for names, _ in whole] == [2, 2, 1]
  for step in range(4):
    assert fingerprints(dataset, 9, step) == whole[step:]


def test_start_step_decodes_nothing_that_it_skips(tmp_path):
  """A label out of range shows which records are decoded."""
  bad = example('bad', label=np.full([6, 8, 1], 7, np.uint8))
  shards = [[bad, bad, example('good')]]
  dataset = make(
    batch_size=1,
    split='train',
    dataset_dir=write_split(tmp_path, shards),
  )
  assert [n for n, _ in fingerprints(dataset, 5, 2)] == [['good']]
  with pytest.raises(common.InputError, match='bad'):
    list(dataset.iterate(dataset.as_dataset(1)))


def test_order_depends_on_nothing_but_the_seed():
  first = fingerprints(make_training(), 4)
  tf.random.set_seed(5)
  assert fingerprints(make_training(num_readers=4), 4) == first
  assert fingerprints(make_training(seed=1), 4) != first


def test_another_process_sees_the_same(tmp_path):
  code = (
    'import sys; sys.path.insert(0, sys.argv[1])\n'
    'import test_data_generator as t\n'
    'print(t.fingerprints(t.make_training(), 4, 3))\n'
  )
  here = str(pathlib.Path(__file__).parent)
  run = subprocess.run(
    [sys.executable, '-c', code, here],
    capture_output=True,
    text=True,
    check=True,
    cwd=tmp_path,
    env=os.environ | {'TF_CPP_MIN_LOG_LEVEL': '3'},
  )
  assert run.stdout.strip() == str(fingerprints(make_training(), 4, 3))


def test_evaluation_batches_of_images_of_several_sizes():
  batches = list(make('val', 2, (150, 140)).as_dataset())
  assert [len(b['image']) for b in batches] == [2, 1]
  assert 'original_image' not in batches[0]
  names = [n.decode() for b in batches for n in b['image_name'].numpy()]
  assert names == ['2007_000006', '2007_000007', '2007_000008']
  for name, height, width, image, label in zip(
    names,
    *(batches[0][k] for k in ('height', 'width', 'image', 'label')),
    strict=False,
  ):
    assert (height, width) == VAL_SIZES[name]
    np.testing.assert_array_equal(image[height:], 127.5)
    np.testing.assert_array_equal(label[:, width:], 255)
    assert (label.numpy()[:height, :width] != 255).any()


def test_evaluation_of_one_image_at_a_time_has_the_original():
  batch = next(iter(make('val', 1, (150, 140)).as_dataset()))
  assert batch['original_image'].shape == [1, 81, 120, 3]
  assert batch['original_image'].dtype == tf.uint8
  image = batch['image'][:, :81, :120]
  np.testing.assert_array_equal(image, batch['original_image'])


def test_resized_size_is_that_before_padding():
  dataset = make('val', 1, (65, 65), min_resize_value=65, max_resize_value=65)
  batch = next(iter(dataset.as_dataset()))
  assert (batch['height'][0], batch['width'][0]) == (81, 120)
  assert (batch['resized_height'][0], batch['resized_width'][0]) == (43, 65)
  assert batch['original_image'].shape == [1, 43, 65, 3]
  assert (batch['image'].numpy()[0, 43:] == 127.5).all()
  square = make(
    'val', 2, (65, 65), max_resize_value=65, keep_aspect_ratio=False
  )
  batch = next(iter(square.as_dataset()))
  assert batch['resized_height'].numpy().tolist() == [65, 65]


def test_the_split_test_is_read_with_its_labels(tmp_path):
  label = np.full([6, 8, 1], 2, np.uint8)
  shards = [[example('a', label=label)], [example('b')]]
  dataset = make('test', 1, dataset_dir=write_split(tmp_path, shards, 'test'))
  first, second = dataset.as_dataset()
  assert (first['label'][0, :6, :8] == 2).numpy().all()
  assert (second['label'][0, :6, :8] == 0).numpy().all()


def test_images_without_label_among_others(tmp_path):
  shards = [[example('a'), example('b')], [example('c', label=False)]]
  for split in ('test', 'val'):
    write_split(tmp_path, shards, split)
  test = make('test', 1, dataset_dir=str(tmp_path))
  assert not test.has_labels
  assert len(list(test.iterate())) == 3
  val = make('val', 1, dataset_dir=str(tmp_path))
  with pytest.raises(common.InputError, match='label of "c" is missing'):
    list(val.iterate())


def test_splits_without_labels(tmp_path):
  for split in ('test', 'val'):
    folder = tmp_path / split
    folder.mkdir()
    write_split(folder, [[example(label=False)]], split)
    dataset = make(split, 1, dataset_dir=str(folder))
    assert not dataset.has_labels
    batch = next(iter(dataset.as_dataset()))
    assert 'label' not in batch
    assert batch['original_image'].shape == [1, 6, 8, 3]
    with pytest.raises(common.InputError, match='training needs labels'):
      make(split, 1, dataset_dir=str(folder), is_training=True)


def test_jpeg_and_png_are_known_by_their_content(tmp_path):
  grey = np.arange(48, dtype=np.uint8).reshape(6, 8, 1)
  color = np.repeat(grey % 3, 3, axis=2)
  shard = [
    example('jpeg', tf.io.encode_jpeg(np.repeat(grey, 3, 2)).numpy()),
    example('grey', grey),
    example('grey_as_color', grey, label=color),
  ]
  dataset = make('train', 1, dataset_dir=write_split(tmp_path, [shard]))
  jpeg, png, colored = dataset.as_dataset()
  assert np.abs(jpeg['original_image'].numpy()[0] - 1.0 * grey).max() < 8
  np.testing.assert_array_equal(
    png['original_image'][0], np.repeat(grey, 3, axis=2)
  )
  np.testing.assert_array_equal(colored['label'][0, :6, :8], grey % 3)


def test_images_without_a_name_get_that_of_their_record(tmp_path):
  shards = [[example('')], [example('a'), example('')]]
  dataset = make('train', 1, dataset_dir=write_split(tmp_path, shards))
  names = [batch['image_name'].numpy()[0] for batch in dataset.as_dataset()]
  assert names == [
    b'train-00000-of-00002.tfrecord__0',
    b'a',
    b'train-00001-of-00002.tfrecord__1',
  ]


def png16(channels=1):
  return tf.io.encode_png(np.zeros([6, 8, channels], np.uint16)).numpy()


@pytest.mark.parametrize(
  ('broken', 'words'),
  [
    (example('x', size=(6, 8), label=np.zeros([6, 7, 1], np.uint8)),
     ['"x"', '6x8', '6x7']),
    (example('x', label=np.full([6, 8, 1], 3, np.uint8)),
     ['"x" holds 3.', '0..2', '255']),
    (example('x', label=np.arange(48, dtype=np.uint8).reshape(6, 8, 1)),
     ['"x" holds 3, 4, 5', '46, 47.']),
    (example('x', image=png16(3)), ['"x"', '16 bits']),
    (example('x', label=png16()), ['label of "x"', '16 bits']),
    (example('x', image=b'GIF89a...'), ['"x"', 'neither JPEG nor PNG']),
    (example('x', label=False), ['label of "x" is missing']),
    (example('x', label=np.tile(np.uint8([1, 2, 0]), [6, 8, 1])),
     ['label of "x"', 'colour']),
    (example('x', image=image_bytes(np.zeros([6, 8, 3], np.uint8))[:-30]),
     ['"x"', 'record 1', 'of-00002.tfrecord', 'damaged']),
    (b'\x0a\xff\xffjunk', ['record 1', 'not a tf.train.Example']),
    (b'no example at all', ['record 1', 'not a tf.train.Example']),
  ],
)  # fmt: skip
@pytest.mark.parametrize('training', [True, False])
def test_broken_records_are_named(tmp_path, broken, words, training):
  shards = [[example('a')], [example('b'), broken, example('c')]]
  arguments = {'dataset_dir': write_split(tmp_path, shards), 'batch_size': 1}
  if training:
    dataset = make_training(split='train', **arguments)
  else:
    dataset = make('train', **arguments)
  with pytest.raises(common.InputError) as caught:
    for _, batch in zip(range(20), dataset.iterate(), strict=False):
      assert batch['image_name'][0] != b'x'
  for word in words:
    assert word in str(caught.value)
  assert '{{' not in str(caught.value)


def test_image_larger_than_the_crop(tmp_path):
  folder = write_split(tmp_path, [[example('big', size=(70, 20))]])
  dataset = make('train', 1, (65, 65), dataset_dir=folder)
  with pytest.raises(common.InputError) as caught:
    next(dataset.iterate())
  assert '"big" of 70x20' in str(caught.value)
  assert '--eval_crop_size=70,65 or larger' in str(caught.value)


@pytest.mark.parametrize('distributed', [False, True])
def test_corrupt_data_of_a_record(tmp_path, distributed):
  folder = write_split(tmp_path, [[example('a'), example('b')]])
  path = tmp_path / 'train-00000-of-00001.tfrecord'
  content = bytearray(path.read_bytes())
  content[-30] ^= 1
  path.write_bytes(content)
  dataset = make_training(split='train', batch_size=2, dataset_dir=folder)
  assert dataset.num_examples == 2
  batches = dataset.as_dataset()
  if distributed:
    strategy = tf.distribute.MirroredStrategy(['CPU:0'])
    batches = strategy.experimental_distribute_dataset(batches)
  with pytest.raises(common.InputError, match=r'record 1 .*corrupt') as caught:
    next(dataset.iterate(batches))
  assert str(path) in str(caught.value)


@pytest.mark.parametrize(
  ('cut', 'words'), [(3, 'cut off'), (-1, 'corrupt header'), (-9, 'header')]
)
def test_corrupt_structure_is_found_on_construction(tmp_path, cut, words):
  folder = write_split(tmp_path, [[], [example('a'), example('b')]])
  path = tmp_path / 'train-00001-of-00002.tfrecord'
  content = bytearray(path.read_bytes())
  if cut > 0:
    content = content[:-cut]
  else:
    content[len(content) // 2 - cut - 1] ^= 255
  path.write_bytes(content)
  with pytest.raises(common.InputError, match=f'record 1 .*{words}') as caught:
    make('train', 1, dataset_dir=folder)
  assert str(path) in str(caught.value)


def test_a_shard_that_is_a_folder(tmp_path):
  folder = write_split(tmp_path, [[example('a')]])
  path = tmp_path / 'train-00000-of-00001.tfrecord'
  path.unlink()
  path.mkdir()
  with pytest.raises(common.InputError, match='tfrecord cannot be read'):
    make('train', 1, dataset_dir=folder)


def test_a_shard_that_is_a_pipe(tmp_path):
  """Opening it would wait for ever."""
  folder = write_split(tmp_path, [[example('a')]])
  path = tmp_path / 'train-00000-of-00001.tfrecord'
  path.unlink()
  os.mkfifo(path)
  with pytest.raises(common.InputError, match='tfrecord cannot be read'):
    make('train', 1, dataset_dir=folder)


def test_names_in_the_folder_that_are_no_text(tmp_path):
  folder = write_split(tmp_path, [[example('a')]])
  (tmp_path / os.fsdecode(b'\xff')).touch()
  assert make('train', 1, dataset_dir=folder).num_examples == 1


def test_first_record_corrupt(tmp_path):
  folder = write_split(tmp_path, [[b'no example']])
  with pytest.raises(common.InputError, match=r'record 0 .*tf\.train\.Example'):
    make('train', 1, dataset_dir=folder)


def test_other_errors_pass_unchanged():
  dataset = make('val')
  error = tf.errors.InvalidArgumentError(None, None, 'of the network')
  with (
    pytest.raises(tf.errors.InvalidArgumentError, match='of the network'),
    data_generator.clear_errors(dataset),
  ):
    raise error


def test_missing_files(tmp_path):
  def refuse(match, split='train'):
    with pytest.raises(common.InputError, match=match):
      make(split, 1, dataset_dir=str(tmp_path / 'records'))

  refuse('no such folder')
  shutil.copytree(VOC, tmp_path / 'records')
  refuse(r"no shards of the split 'train_aug'.*'train', 'trainval', 'val'",
         'train_aug')  # fmt: skip
  (tmp_path / 'records' / 'train-00001-of-00004.tfrecord').unlink()
  refuse('only 3 of 4 shards.*train-00001-of-00004')
  (tmp_path / 'records' / 'train-00000-of-00001.tfrecord').write_bytes(b'')
  refuse(r'several conversions, of \[1, 4\]')
  for path in (tmp_path / 'records').iterdir():
    path.unlink()
  refuse('no splits at all')
  (tmp_path / 'records' / 'train-00000-of-00001.tfrecord').write_bytes(b'')
  refuse('is empty')


@pytest.mark.parametrize(
  ('arguments', 'match'),
  [
    ({'batch_size': 0}, 'batch_size=0'),
    ({'num_readers': 0}, 'num_readers=0'),
    ({'crop_size': (65,)}, 'crop_size'),
    ({'crop_size': (65, -1)}, 'crop_size'),
    ({'dataset_name': 'unknown'}, 'unknown'),
    ({'min_resize_value': -1}, 'min_resize_value'),
    ({'min_resize_value': 9, 'resize_factor': 0}, 'resize_factor'),
    ({'resize_factor': 4}, 'nothing would be resized'),
    ({'min_scale_factor': 0.0}, 'min_scale_factor'),
    ({'min_scale_factor': 3.0}, 'must not be above max_scale_factor'),
    ({'scale_factor_step_size': -1.0}, 'scale_factor_step_size'),
  ],
)
def test_bad_arguments(arguments, match):
  with pytest.raises(common.InputError, match=match):
    make(**arguments)


def test_distributed_batches_are_the_same():
  strategy = tf.distribute.MirroredStrategy(['CPU:0'])
  dataset = make_training()
  batches = strategy.experimental_distribute_dataset(dataset.as_dataset())
  want = fingerprints(dataset, 3)
  got = []
  for _, batch in zip(range(3), dataset.iterate(batches), strict=False):
    got.append(fingerprint(batch))
  assert got == want


def test_distributed_errors_are_clear(tmp_path):
  bad = example('bad', label=np.full([6, 8, 1], 7, np.uint8))
  dataset = make_training(
    split='train', dataset_dir=write_split(tmp_path, [[bad]])
  )
  strategy = tf.distribute.MirroredStrategy(['CPU:0'])
  batches = strategy.experimental_distribute_dataset(dataset.as_dataset())
  message = r'split .train.: .*"bad" holds 7'
  with pytest.raises(common.InputError, match=message):
    next(dataset.iterate(batches))

"""Data sets as TFDS has prepared them: what they are, and their batches."""

import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tfds_files
from PIL import Image

from deeplab.common import InputError
from deeplab.datasets import (
  data_generator,
  dataset_info,
  records,
  shard_files,
  tfds_data,
)
from deeplab.datasets.class_tables import TRAIN_ID_OF_ID
from deeplab.evaluation import visualizer

_PETS = 'tfds:oxford_iiit_pet'
_F = tfds.features


@pytest.fixture(scope='module')
def pets(tmp_path_factory):
  """Nine pets to train on, in three files, and four to test."""
  folder = tmp_path_factory.mktemp('tfds')
  tfds_files.prepare_pets(folder, num_shards=3)
  return str(folder)


def make(folder, split='train', batch_size=1, name=_PETS, **arguments):
  return data_generator.Dataset(
    name,
    split,
    folder,
    batch_size,
    [65, 65],
    model_variant='mobilenet_v2',
    **arguments,
  )


def make_training(folder, split='train', batch_size=3, **arguments):
  settings = {'is_training': True, 'should_shuffle': True}
  settings |= {'should_repeat': True, 'max_scale_factor': 2.0}
  return make(folder, split, batch_size, **(settings | arguments))


def names(dataset):
  records = shard_files.read_all(dataset.shards)
  return [dataset.parse(*one)[2].numpy().decode() for one in records]


def rows(dataset, count, *arguments):
  """[(name, checksum of image and label)] of the examples of each batch."""
  return [
    [
      (name, hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest())
      for name, image, label in zip(
        *(batch[key].numpy() for key in ('image_name', 'image', 'label')),
        strict=True,
      )
    ]
    for batch in dataset.as_dataset(*arguments).take(count)
  ]


def refusal(name, folder, split='train'):
  """The message that a data set or a split of it is refused with."""
  with pytest.raises(InputError) as caught:
    make(folder, split, name=name)
  return str(caught.value)


def test_description(pets):
  info = dataset_info.resolve(_PETS, pets)
  assert info.name == 'oxford_iiit_pet'
  assert info.class_names == ['pet', 'background', 'outline']
  assert info.ignore_label == 255
  assert info.splits == {'train': 9, 'test': 4}


def test_images_and_masks_are_those_of_tfds(pets):
  dataset = make(pets)
  assert dataset.num_examples == 9 and dataset.has_labels
  assert [shard.num_records for shard in dataset.shards] == [3, 3, 3]
  for number, batch in enumerate(dataset.as_dataset()):
    assert batch['image_name'].numpy() == [f'pet_{number}.jpg'.encode()]
    want = tf.io.decode_jpeg(tfds_files.jpeg(number))
    np.testing.assert_array_equal(batch['original_image'][0], want)
    label = batch['label'].numpy()[0, :40, : 48 + number]
    np.testing.assert_array_equal(label, tfds_files.mask(number) - 1)
  assert number == 8


def test_records_are_parsed_in_graphs(pets):
  parse = tf.function(records.parse_example)
  split = tfds_data.open_data(_PETS, pets).split('train')
  for record_id, serialized in shard_files.read_all(split.shards):
    _, label, _ = parse(serialized, True, split.record_format, record_id)
    assert set(np.unique(label)) == {0, 1, 2}
  assert parse.experimental_get_tracing_count() == 1


def test_pictures_have_its_colors(pets):
  colors = visualizer._colormap(None, make(pets))
  want = dataset_info.resolve(_PETS, pets).colors
  np.testing.assert_array_equal(colors[:3], want)


def test_the_test_split_has_labels_too(pets):
  dataset = make(pets, 'test')
  assert dataset.has_labels and dataset.num_examples == 4


@pytest.mark.parametrize(
  ('split', 'numbers'),
  [
    ('train[:5]', range(5)),
    ('train[5:]', range(5, 9)),
    ('train[2:8]', range(2, 8)),
    ('train[:50%]', range(4)),
    ('train[-1:]', [8]),
    ('train[4:5]+test', [4, *range(9, 13)]),
    ('train[:2]+train[1:3]', [0, 1, 1, 2]),
    ('all', range(13)),
  ],
)
def test_parts_of_splits(pets, split, numbers):
  dataset = make(pets, split)
  assert names(dataset) == [f'pet_{number}.jpg' for number in numbers]
  assert dataset.num_examples == len(numbers)
  assert all(shard.num_bytes > 0 for shard in dataset.shards)


@pytest.mark.parametrize(
  ('split', 'words'),
  [
    ('val', ["no split 'val'", "['test', 'train']", 'train[:90%]']),
    ('train[', ["no split 'train['"]),
    ('train[:99]', ['incompatible with 9 examples']),
    ('train[:0]', ['is empty']),
    ('train[5:2]', ['is empty']),
    ('train[5:4]+test', ['is empty']),
    ('', ["no split ''"]),
  ],
)
def test_splits_that_are_none(pets, split, words):
  message = refusal(_PETS, pets, split)
  assert all(word in message for word in words)
  assert _PETS in message


@pytest.mark.parametrize('split', ['train', 'train[1:8]'])
def test_order_does_not_depend_on_where_reading_began(pets, split):
  dataset = make_training(pets, split)
  whole = rows(dataset, 8)
  count = dataset.num_examples
  flat = [name for batch in whole for name, _ in batch]
  assert len(set(flat[:count])) == count
  assert set(flat[count : 2 * count]) == set(flat[:count])
  assert flat[count : 2 * count] != flat[:count]
  assert rows(dataset, 4, 4) == whole[4:]


def test_several_hosts_share_records_or_files(pets):
  dataset = make_training(pets, 'train[1:8]', 4, shard_by='records')
  parts = [rows(dataset, 3, 1, part, 2) for part in range(2)]
  both = [a + b for a, b in zip(*parts, strict=True)]
  assert both == rows(dataset, 3, 1)
  dataset = make_training(pets, 'train', 2, shard_by='files')
  parts = [rows(dataset, 4, 0, part, 2) for part in range(2)]
  own = [{name for batch in part for name, _ in batch} for part in parts]
  assert [len(one) for one in own] in ([3, 4], [4, 3]) and not own[0] & own[1]


def cityscapes_example(number, values):
  return {
    'image_id': f'aachen_{number}',
    'image_left': np.full([40, 48 + number, 3], 9, np.uint8),
    'segmentation_label': tfds_files.mask(number, values),
  }


def test_cityscapes_has_train_ids(tmp_path):
  ids = list(TRAIN_ID_OF_ID)
  examples = {
    'train': [cityscapes_example(number, ids) for number in range(2)],
    'test': [cityscapes_example(number, [0]) for number in range(2, 4)],
  }
  tfds_files.prepare(
    tmp_path,
    'cityscapes',
    tfds_files.CITYSCAPES_FEATURES,
    examples,
    config='semantic_segmentation',
    version='1.0.0',
  )
  for name in (
    'tfds:cityscapes',
    'tfds:cityscapes/semantic_segmentation:1.*.*',
  ):
    dataset = make(str(tmp_path), name=name)
    assert dataset.info.name == 'cityscapes'
    assert dataset.info.class_names[0] == 'road'
    assert dataset.num_of_classes == 19
  batches = list(dataset.as_dataset())
  assert [b['image_name'].numpy()[0] for b in batches] == [
    b'aachen_0',
    b'aachen_1',
  ]
  label = batches[1]['label'].numpy()[0, :40, :49]
  stored = tfds_files.mask(1, ids)
  assert {7, 33, 0} < set(stored.flat)
  np.testing.assert_array_equal(label, np.vectorize(TRAIN_ID_OF_ID.get)(stored))
  # The masks of the test split are blank: nothing to evaluate with.
  assert not make(str(tmp_path), 'test', name=name).has_labels
  assert not make(str(tmp_path), 'test[:50%]', name=name).has_labels
  message = refusal('tfds:cityscapes/stereo', str(tmp_path))
  assert "Prepared are ['cityscapes/semantic_segmentation/1.0.0']" in message


def own_example(number):
  photo = np.full([40, 48 + number, 3], number, np.uint8)
  labels = tfds_files.mask(number, [0, 1, 2, 255])
  return {
    'pair': {'photo': photo, 'classes': labels, 'depth': labels},
    'painted_mask': np.repeat(labels, 3, axis=2),
    'id': number,
  }


@pytest.fixture(scope='module')
def own(tmp_path_factory):
  """A data set of somebody's own, of nested features and many images."""
  folder = tmp_path_factory.mktemp('own')
  features = {
    'pair': _F.FeaturesDict(
      {
        'photo': _F.Image(),
        'classes': _F.LabeledImage(labels=['sky', 'sea', 'land']),
        'depth': _F.Image(shape=(None, None, 1)),
      }
    ),
    'painted_mask': _F.Image(),
    'id': _F.Scalar(np.int64),
  }
  examples = [own_example(number) for number in range(2)]
  tfds_files.prepare(folder, 'own', features, {'train': examples})
  return str(folder)


def test_names_of_a_labeled_image(own):
  dataset = make(own, name='tfds:own,label=pair/classes')
  assert dataset.info.class_names == ['sky', 'sea', 'land']
  # There is no name: TFDS calls a record so.
  assert names(dataset) == [
    f'own-train.tfrecord-00000-of-00001__{number}' for number in range(2)
  ]
  label = next(iter(dataset.as_dataset()))['label'].numpy()[0, :40, :48]
  np.testing.assert_array_equal(label, tfds_files.mask(0, [0, 1, 2, 255]))


def test_classes_that_the_user_counts(own):
  painted = 'tfds:own,image=pair/photo,label=painted_mask'
  dataset = make(own, name=f'{painted},num_classes=3')
  assert dataset.info.class_names == ['class_0', 'class_1', 'class_2']
  assert set(np.unique(next(dataset.iterate())['label'])) == {0, 1, 2, 255}
  assert f'{painted},num_classes=N' in refusal(painted, own)
  few = f'{painted},num_classes=2'
  with pytest.raises(InputError) as caught:
    next(make(own, name=few).iterate())
  assert 'holds 2. Expected the classes 0..1' in str(caught.value)
  assert f'num_classes in --dataset={few}' in str(caught.value)
  message = refusal('tfds:own,label=pair/classes,num_classes=4', own)
  assert 'num_classes=4, but it has 3' in message


def test_features_that_do_not_fit(own, pets):
  message = refusal('tfds:own', own)
  assert (
    "['painted_mask', 'pair/classes', 'pair/depth'] of its features may be the "
    'label' in message
  )
  assert "'id': 'Scalar'" in message
  assert '--dataset=tfds:own,label=FEATURE' in message
  for label in ('id', 'nothing'):
    assert f'no label {label!r}' in refusal(f'tfds:own,label={label}', own)
  assert "no image 'x'" in refusal(f'{_PETS},image=x', pets)


@pytest.mark.parametrize(
  ('feature', 'pixels'),
  [
    (_F.Image(shape=(None, None, 1), dtype=np.uint16), np.uint16([[[7]]])),
    (_F.Image(shape=(None, None, 1), dtype=np.float32), np.float32([[[7]]])),
    (_F.Scalar(np.int64), 7),
  ],
)
def test_data_without_a_mask(tmp_path, feature, pixels):
  features = {'image': _F.Image(), 'mask': feature}
  example = {'image': np.zeros([1, 1, 3], np.uint8), 'mask': pixels}
  tfds_files.prepare(tmp_path, 'depths', features, {'train': [example]})
  message = refusal('tfds:depths', str(tmp_path))
  assert 'none of its features may be the label' in message
  assert "images of 8 bits are ['image']" in message


@pytest.mark.parametrize(
  'name',
  [
    'tfds:',
    'tfds:a b',
    'tfds:a/b/c',
    'tfds:../a',
    'tfds:a,',
    'tfds:a,label',
    'tfds:a,label=',
    'tfds:a,label=x,label=y',
    'tfds:a,masks=x',
    'tfds:a,num_classes=0',
    'tfds:a,num_classes=257',
    'tfds:a,num_classes=two',
  ],
)
def test_names_of_another_form(tmp_path, name):
  message = refusal(name, str(tmp_path))
  assert message.startswith(f'--dataset={name} is not of the form tfds:NAME')


def test_names_that_promise_too_much(tmp_path):
  assert 'build_voc2012_data.py' in refusal('tfds:voc/2012', str(tmp_path))
  assert 'build_ade20k_data.py' in refusal('tfds:scene_parse150', str(tmp_path))


def test_what_is_not_prepared(tmp_path, pets):
  message = refusal(_PETS, str(tmp_path))
  assert 'Prepared are no data sets' in message
  command = f'tfds build oxford_iiit_pet --data_dir={tmp_path}'
  assert command in message and '--download' in message
  message = refusal('tfds:dogs', pets)
  assert "Prepared are ['oxford_iiit_pet/4.0.0']" in message
  assert "Prepared are ['oxford_iiit_pet/4.0.0']" in refusal(
    f'{_PETS}:3.0.0', pets
  )


def test_other_formats_are_refused(tmp_path):
  tfds_files.prepare_pets(tmp_path, file_format='array_record')
  message = refusal(_PETS, str(tmp_path))
  assert 'array_record' in message and 'build_tfds_data.py' in message


def test_a_folder_of_tfds_is_known_as_such(pets):
  folder = os.path.join(pets, 'oxford_iiit_pet', '4.0.0')
  with pytest.raises(InputError, match='by TFDS: give --dataset=tfds:'):
    make(folder, name=None)


def test_illegal_values_are_named(tmp_path):
  bad = tfds_files.pet(1, segmentation_mask=tfds_files.mask(1, [0, 1, 7]))
  splits = {'train': [tfds_files.pet(0), bad]}
  features = tfds_files.PET_FEATURES
  tfds_files.prepare(tmp_path, 'oxford_iiit_pet', features, splits)
  with pytest.raises(InputError) as caught:
    list(make(str(tmp_path)).iterate())
  message = str(caught.value)
  assert '"pet_1.jpg" holds 0, 7. Expected one of [1, 2, 3]' in message


def gif():
  with io.BytesIO() as output:
    Image.new('RGB', (48, 40)).save(output, 'GIF')
    return output.getvalue()


@pytest.mark.parametrize(
  ('image', 'words'),
  [
    (gif(), ['"x"', 'neither JPEG nor PNG']),
    (tfds_files.jpeg(0)[:99], ['record 1', '"x"', 'damaged']),
    (tfds_files.jpeg(3), ['"x"', '40x51', '40x48']),
  ],
  ids=['gif', 'truncated', 'size'],
)
def test_bad_images_are_named(tmp_path, image, words):
  bad = tfds_files.pet(0, image=io.BytesIO(image), file_name='x')
  splits = {'train': [tfds_files.pet(1), bad, tfds_files.pet(2)]}
  features = tfds_files.PET_FEATURES
  tfds_files.prepare(tmp_path, 'oxford_iiit_pet', features, splits)
  for split in ('train', 'train[1:]'):
    with pytest.raises(InputError) as caught:
      list(make(str(tmp_path), split).iterate())
    assert all(word in str(caught.value) for word in words)


@pytest.fixture
def damaged(tmp_path):
  """A folder of pets, and its path of a file with a change of its bytes."""

  def damage(name, change):
    tfds_files.prepare_pets(tmp_path)
    path = tmp_path / 'oxford_iiit_pet' / '4.0.0' / name
    content = change(path.read_bytes())
    path.unlink()
    if content is not None:
      path.write_bytes(content)
    return str(tmp_path)

  return damage


_SHARD = 'oxford_iiit_pet-train.tfrecord-00000-of-00001'


@pytest.mark.parametrize(
  ('name', 'change', 'words'),
  [
    (_SHARD, lambda _: None, 'cannot be read'),
    (_SHARD, lambda content: content[:-3], 'record 8 .* is cut off'),
    (_SHARD, lambda _: b'', 'has 0 records, but TFDS wrote 9'),
    ('dataset_info.json', lambda content: content[:-9], 'TFDS cannot read it'),
    ('features.json', lambda content: content[:-9], 'TFDS cannot read it'),
    ('features.json', lambda _: b'{}', 'TFDS cannot read it'),
    ('features.json', lambda _: None, 'has not prepared it'),
  ],
)
def test_files_that_are_damaged(damaged, name, change, words):
  message = refusal(_PETS, damaged(name, change))
  assert re.search(words, message)


def run(repository, script, *arguments):
  done = subprocess.run(
    [sys.executable, str(repository / f'{script}.py'), *arguments],
    capture_output=True,
    text=True,
    env=os.environ | {'TF_CPP_MIN_LOG_LEVEL': '3'},
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done


def test_training_and_evaluation(repository, pets, tmp_path):
  data = [f'--dataset={_PETS}', f'--dataset_dir={pets}']
  run(
    repository,
    'train',
    *data,
    '--train_split=train[:7]',
    f'--train_logdir={tmp_path}/train',
    '--train_crop_size=33,33',
    '--train_batch_size=2',
    '--depth_multiplier=0.1',
    '--training_number_of_steps=3',
  )
  info = dataset_info.load(f'{tmp_path}/train')
  assert dataclasses.asdict(info) == dataclasses.asdict(
    tfds_data.open_data(_PETS, pets).info
  )
  run(
    repository,
    'eval',
    *data,
    f'--checkpoint_dir={tmp_path}/train',
    '--eval_split=test',
    '--eval_crop_size=65,65',
    f'--eval_logdir={tmp_path}/eval',
    '--max_number_of_evaluations=1',
  )
  values = json.loads((tmp_path / 'eval' / 'miou_3.json').read_text())
  assert 0 < values['miou'] < 1

"""Conversion of what TFDS has prepared."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tfds_files

from deeplab.common import InputError
from deeplab.datasets import (
  build_tfds_data,
  dataset_info,
  records,
  shard_files,
  tfds_data,
)

_PETS = 'tfds:oxford_iiit_pet'


def _examples(split):
  """Image, label and name of all records of a records.Split."""
  return [
    [
      value.numpy()
      for value in records.parse_example(
        serialized, split.has_labels, split.record_format, record_id
      )
    ]
    for record_id, serialized in shard_files.read_all(split.shards)
  ]


@pytest.mark.parametrize('file_format', ['tfrecord', 'array_record'])
def test_the_same_images_and_labels(tmp_path, file_format):
  tfds_files.prepare_pets(tmp_path / 'tfds', 5, 1, file_format=file_format)
  tfds_files.prepare_pets(tmp_path / 'plain', 5, 1)
  output = str(tmp_path / 'out')
  info = build_tfds_data.convert(
    _PETS,
    output,
    str(tmp_path / 'tfds'),
    ['train=train[:3]', 'val=train[3:]+test'],
    num_shards=2,
  )
  assert info.splits == {'train': 3, 'val': 3}
  assert dataset_info.load(output) == info
  assert sorted(os.listdir(output)) == [
    'dataset_info.json',
    'train-00000-of-00002.tfrecord',
    'train-00001-of-00002.tfrecord',
    'val-00000-of-00002.tfrecord',
    'val-00001-of-00002.tfrecord',
  ]
  plain = tfds_data.open_data(_PETS, str(tmp_path / 'plain'))
  for split, part in (('train', 'train[:3]'), ('val', 'train[3:]+test')):
    converted = _examples(records.find_split(output, split))
    for one, other in zip(converted, _examples(plain.split(part)), strict=True):
      np.testing.assert_array_equal(one[0], other[0])
      np.testing.assert_array_equal(one[1], other[1])
      assert one[2] + b'.jpg' == other[2]


def test_images_keep_their_bytes_and_splits_their_names(tmp_path):
  tfds_files.prepare_pets(tmp_path / 'tfds', 2, 1)
  output = tmp_path / 'out'
  build_tfds_data.convert(_PETS, str(output), str(tmp_path / 'tfds'))
  (shard,) = output.glob('test-00000-of-*')
  assert tfds_files.jpeg(2) in shard.read_bytes()
  assert dataset_info.load(str(output)).splits == {'train': 2, 'test': 1}


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'segmentation_mask': tfds_files.mask(1, [9])}, '"bad" holds 9'),
    ({'image': io.BytesIO(tfds_files.jpeg(1)[:99])}, '"bad" .*damaged'),
    ({'image': io.BytesIO(b'nothing')}, '"bad" is neither JPEG nor PNG'),
  ],
)
def test_a_bad_record_leaves_nothing_behind(tmp_path, changes, words):
  bad = tfds_files.pet(1, file_name='bad', **changes)
  splits = {'train': [tfds_files.pet(0), bad]}
  features = tfds_files.PET_FEATURES
  tfds_files.prepare(tmp_path / 'tfds', 'oxford_iiit_pet', features, splits)
  with pytest.raises(InputError, match=words):
    build_tfds_data.convert(
      _PETS, str(tmp_path / 'out'), str(tmp_path / 'tfds')
    )
  assert not (tmp_path / 'out').exists()


def test_a_corrupt_file_is_named(tmp_path):
  tfds_files.prepare_pets(tmp_path / 'tfds', 2, 1)
  (path,) = (tmp_path / 'tfds').rglob('*-train.*')
  content = bytearray(path.read_bytes())
  content[-30] ^= 1
  path.write_bytes(content)
  with pytest.raises(InputError, match="of the split 'train' cannot be read"):
    build_tfds_data.convert(
      _PETS, str(tmp_path / 'out'), str(tmp_path / 'tfds')
    )
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('splits', 'words'),
  [
    (['train[:90%]'], r"'train\[:90%\]' is not a new name"),
    (['train', 'train=test'], "'train=test' is not a new name"),
    (['val='], "'val=' is not a new name"),
    (['val'], "no split 'val'"),
    (['val=train[2:1]'], r"'train\[2:1\]' is empty"),
  ],
)
def test_splits_that_are_none(tmp_path, splits, words):
  tfds_files.prepare_pets(tmp_path / 'tfds', 3, 1)
  with pytest.raises(InputError, match=words):
    build_tfds_data.convert(
      _PETS, str(tmp_path / 'out'), str(tmp_path / 'tfds'), splits
    )


class ToyPets(tfds.core.GeneratorBasedBuilder):
  """What TFDS can prepare without a network."""

  VERSION = tfds.core.Version('1.0.0')
  fails = False

  def _info(self):
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(tfds_files.PET_FEATURES)
    )

  def _split_generators(self, _):
    if self.fails:
      raise AssertionError('Download it\nby hand.')
    return {'train': [(0, tfds_files.pet(0))]}

  def _generate_examples(self):
    raise NotImplementedError


def test_download(tmp_path, monkeypatch):
  tfds.disable_progress_bar()
  name, folder = 'tfds:toy_pets,num_classes=4', str(tmp_path / 'tfds')
  monkeypatch.setattr(ToyPets, 'fails', True)
  with pytest.raises(InputError, match='AssertionError: Download it by hand'):
    build_tfds_data.download(name, folder)
  monkeypatch.setattr(ToyPets, 'fails', False)
  build_tfds_data.download(name, folder)
  info = build_tfds_data.convert(name, str(tmp_path / 'out'), folder)
  assert info.name == 'toy_pets' and info.splits == {'train': 1}
  with pytest.raises(InputError, match=r'cannot prepare it: .*nobody_knows'):
    build_tfds_data.download('tfds:nobody_knows', folder)
  with pytest.raises(InputError, match='not of the form tfds:NAME'):
    build_tfds_data.download('toy_pets', folder)


def test_the_script(repository, tmp_path):
  tfds_files.prepare_pets(tmp_path / 'tfds', 2, 1)

  def run(*arguments):
    return subprocess.run(
      [
        sys.executable,
        str(repository / 'datasets' / 'build_tfds_data.py'),
        f'--dataset={_PETS}',
        f'--dataset_dir={tmp_path}/tfds',
        f'--output_dir={tmp_path}/out',
        *arguments,
      ],
      capture_output=True,
      text=True,
      env=os.environ | {'TF_CPP_MIN_LOG_LEVEL': '3'},
      check=False,
    )

  done = run('--num_shards=0')
  assert done.returncode == 1
  assert '--num_shards=0' in done.stderr.splitlines()[-1]
  done = run('--splits=train,val=test', '--num_shards=1')
  assert done.returncode == 0, done.stderr
  assert "oxford_iiit_pet: {'train': 2, 'val': 1} in" in done.stdout
  assert (tmp_path / 'out' / 'val-00000-of-00001.tfrecord').exists()

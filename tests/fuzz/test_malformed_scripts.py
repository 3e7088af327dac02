"""The scripts themselves on damaged inputs: one line of error, no traceback."""

import os
import subprocess
import sys

import numpy as np
import pytest
import small_checkpoint
import small_records
from conftest import ROOT
from converter_files import write_image, write_mask

# Minutes, where a process hangs.
_LIMIT_SECS = 300


def _run(folder, script, *arguments):
  return subprocess.run(
    [sys.executable, str(ROOT / script), *arguments],
    cwd=folder,
    capture_output=True,
    text=True,
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'},
    timeout=_LIMIT_SECS,
    check=False,
  )


def _refused(done, *words):
  """Checks how a script ended, and what its last line says."""
  assert done.returncode == 1, done.stderr
  assert 'Traceback' not in done.stderr
  last = done.stderr.strip().splitlines()[-1]
  assert last.startswith('error: ')
  assert all(word in last for word in words), last


def _listing(folder):
  return sorted(str(path.relative_to(folder)) for path in folder.rglob('*'))


@pytest.fixture
def data(tmp_path):
  """A folder `data` of a shard of four records."""
  (tmp_path / 'data').mkdir()
  small_records.write(tmp_path / 'data', [4])
  return tmp_path


@pytest.fixture
def shard(data):
  """Its shard."""
  return data / 'data' / 'train-00000-of-00001.tfrecord'


def _flip(path, place):
  content = bytearray(path.read_bytes())
  content[place] ^= 1
  path.write_bytes(content)


_TRAIN = (
  'train.py',
  '--train_logdir=logs',
  '--dataset=data',
  '--train_crop_size=33,33',
  '--depth_multiplier=0.1',
  '--train_batch_size=2',
  '--training_number_of_steps=1',
)
_VIS = ('vis.py', '--checkpoint_dir=logs', '--vis_logdir=vis')


@pytest.mark.slow
def test_train_on_a_broken_image(data, shard):
  """The checksum of the record is wrong; nothing is begun."""
  _flip(shard, shard.stat().st_size - 300)
  _refused(_run(data, *_TRAIN), shard.name, 'record 3')
  assert not (data / 'logs').exists()


@pytest.mark.slow
def test_train_on_labels_that_are_no_class(data):
  small_records.write(data / 'data', [4], bad=(1,))
  _refused(_run(data, *_TRAIN), 'data, split', '"1" holds 7')
  assert not (data / 'logs').exists()


@pytest.mark.slow
def test_vis_on_half_a_shard(data, shard):
  small_checkpoint.write(data / 'logs', crop_size=[65, 65])
  shard.write_bytes(shard.read_bytes()[:-5])
  done = _run(
    data, *_VIS, '--dataset=data', '--vis_split=train', '--vis_crop_size=65,65'
  )
  _refused(done, shard.name, 'cut off')
  assert not (data / 'vis').exists()


@pytest.mark.slow
def test_vis_on_photographs(tmp_path):
  """Good ones are drawn; the others are named."""
  small_checkpoint.write(tmp_path / 'logs', crop_size=[65, 65])
  write_image(tmp_path / 'in/good.jpg', (24, 32))
  (tmp_path / 'in/pipe.jpg').symlink_to('/dev/zero')
  (tmp_path / 'in/half.jpg').write_bytes(
    (tmp_path / 'in/good.jpg').read_bytes()[:400]
  )
  _refused(_run(tmp_path, *_VIS, '--image_glob=in'), 'in/half.jpg', '1 of 2')
  assert (tmp_path / 'vis/index.html').is_file()
  assert not list((tmp_path / 'vis').rglob('*tmp*'))


@pytest.mark.slow
def test_check_dataset_on_a_broken_image(data, shard):
  """Its status is that of errors in the data; the page is written."""
  _flip(shard, shard.stat().st_size - 300)
  done = _run(data, 'datasets/check_dataset.py', '--dataset=data')
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert f'{shard.name}: record 3' in done.stdout
  assert (data / 'check.html').is_file()


@pytest.mark.slow
def test_check_dataset_without_a_data_set(data):
  (data / 'data/dataset_info.json').write_text('{"name": ')
  done = _run(data, 'datasets/check_dataset.py', '--dataset=data')
  _refused(done, 'data/dataset_info.json', 'is not JSON')
  assert _listing(data) == [
    'data',
    'data/dataset_info.json',
    'data/train-00000-of-00001.tfrecord',
  ]


@pytest.mark.slow
@pytest.mark.parametrize(
  ('script', 'arguments', 'damaged'),
  [
    (
      'build_image_folder_data.py',
      ['--image_folder=images', '--label_folder=masks'],
      'images/b.jpg',
    ),
    (
      'build_voc2012_data.py',
      [
        '--image_folder=images',
        '--semantic_segmentation_folder=masks',
        '--list_folder=lists',
      ],
      'masks/b.png',
    ),
    (
      'build_ade20k_data.py',
      ['--train_image_folder=images', '--train_image_label_folder=masks'],
      'images/b.jpg',
    ),
  ],
)
def test_converters(tmp_path, script, arguments, damaged):
  for name in 'abc':
    write_image(tmp_path / f'images/{name}.jpg')
    write_mask(tmp_path / f'masks/{name}.png', np.eye(6, 8))
  (tmp_path / 'lists').mkdir()
  (tmp_path / 'lists/train.txt').write_text('a\nb\nc\n')
  path = tmp_path / damaged
  path.write_bytes(path.read_bytes()[:-20])
  before = _listing(tmp_path)
  done = _run(tmp_path, f'datasets/{script}', *arguments, '--output_dir=out')
  _refused(done, damaged)
  assert _listing(tmp_path) == before

"""What is looked at before a training begins."""

import logging

import numpy as np
import pytest
import small_records
import tensorflow as tf

from deeplab import common
from deeplab.common import InputError
from deeplab.datasets.checks import quick_check
from deeplab.training import config as config_lib
from deeplab.training import data_checks, loop


def _write(folder, *labels):
  """One shard with these labels; None for a random one."""
  folder.mkdir(exist_ok=True)
  small_records.write(folder, [1])
  path = folder / 'train-00000-of-00001.tfrecord'
  with tf.io.TFRecordWriter(str(path)) as writer:
    for number, label in enumerate(labels):
      writer.write(small_records.example(number, label))
  return str(folder)


def _check(folder, crop_size=(33, 33)):
  dataset = small_records.make(folder, 2, crop_size)
  quick_check.quick_check(dataset, crop_size, 16)


@pytest.fixture
def logged(caplog, monkeypatch):
  """The texts that were logged, with their levels."""
  monkeypatch.setattr(logging.getLogger('absl'), 'propagate', True)
  caplog.set_level(logging.INFO, logger='absl')
  return lambda level: [
    r.getMessage() for r in caplog.records if r.levelname == level
  ]


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch):
  monkeypatch.setattr(quick_check, '_MOST_SECS', float('inf'))


def _full(value):
  return np.full([40, 48, 1], value, np.uint8)


def test_good_data_raise_no_warning(tmp_path, logged):
  _check(small_records.write(tmp_path, [2, 0, 3]))
  assert not logged('WARNING')


def test_the_first_record_of_every_shard_is_looked_at(tmp_path):
  folder = small_records.write(tmp_path, [20, 20, 1], bad=[40])
  with pytest.raises(InputError, match=r'label of "40" holds 7\. .*0\.\.2'):
    _check(folder)


def test_no_more_than_32_images_are_looked_at(tmp_path):
  _check(small_records.write(tmp_path, [40], bad=[32]))
  (tmp_path / 'more').mkdir()
  folder = small_records.write(tmp_path / 'more', [40], bad=[31])
  with pytest.raises(InputError, match='label of "31" holds 7'):
    _check(folder)


def test_record_that_cannot_be_decoded(tmp_path):
  folder = _write(tmp_path, None, np.zeros([39, 48, 1], np.uint8))
  with pytest.raises(InputError, match='"1" has 40x48 pixels'):
    _check(folder)


def test_everything_ignored(tmp_path):
  folder = _write(tmp_path, _full(255), _full(255))
  with pytest.raises(InputError, match=r'2 labels .*ignored.*check_dataset'):
    _check(folder)
  _check(_write(tmp_path / 'one', _full(255), None))


def test_strange_labels_are_warned_of(tmp_path, logged):
  label = _full(0)
  label[:3] = 255
  _check(_write(tmp_path, label))
  assert any('black-and-white' in text for text in logged('WARNING'))
  assert any('never occur: class_1, class_2' in t for t in logged('INFO'))


def test_crops_that_do_not_suit(tmp_path, logged):
  folder = small_records.write(tmp_path, [2])
  _check(folder, (40, 40))
  assert any('=49,49 rather than 40,40' in text for text in logged('INFO'))
  assert not logged('WARNING')
  _check(folder, (513, 513))
  assert any('99 % of a crop' in text for text in logged('WARNING'))


@pytest.mark.parametrize(
  ('changes', 'is_chief', 'has_begun', 'is_looked_at'),
  [
    ({}, True, False, True),
    ({'check_dataset': False}, True, False, False),
    ({}, False, False, False),
    ({}, True, True, False),
  ],
)
def test_when_a_training_looks(
  tmp_path, monkeypatch, changes, is_chief, has_begun, is_looked_at
):
  folder = small_records.write(tmp_path, [2], bad=[1])
  options = common.ModelOptions({'semantic': 3}, [33, 33], output_stride=16)
  config = config_lib.TrainConfig(
    options, str(tmp_path / 'log'), folder, **changes
  )
  if has_begun:
    monkeypatch.setattr(data_checks.checkpoints, 'latest', lambda _: 'model')
  dataset = small_records.make(folder, 2)
  if not is_looked_at:
    data_checks.check(config, dataset, is_chief)
    return
  with pytest.raises(InputError, match='"1" holds 7'):
    data_checks.check(config, dataset, is_chief)


def test_a_training_ends_before_anything_is_built(tmp_path, monkeypatch):
  folder = small_records.write(tmp_path, [2], bad=[1])
  options = common.ModelOptions({'semantic': 3}, [33, 33], output_stride=16)
  config = config_lib.TrainConfig(options, str(tmp_path / 'log'), folder)
  monkeypatch.setattr(loop.train_step, 'TrainStep', None)
  with pytest.raises(InputError, match=r'"1" holds 7.*check_dataset\.py'):
    loop.train(config)
  assert not (tmp_path / 'log').exists()

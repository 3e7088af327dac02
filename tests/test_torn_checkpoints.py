"""Checkpoints that a crash left torn, and the whole ones before them."""

import logging
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from deeplab import checkpoint_files, checkpoints
from deeplab.common import InputError
from deeplab.evaluation import prediction

_DATA = '.data-00000-of-00001'


def _values(step):
  return {'net/weights': np.full([50], step, np.float32)}


@pytest.fixture
def run(tmp_path):
  """A training run with checkpoints at steps 10, 20 and 30."""
  for step in (10, 20, 30):
    checkpoints.save(str(tmp_path), step, _values(step))
  return tmp_path


def _cut(path, share):
  content = path.read_bytes()
  path.write_bytes(content[: int(len(content) * share)])


def _fill(path, byte):
  path.write_bytes(byte * len(path.read_bytes()))


def _flip(path, at):
  content = bytearray(path.read_bytes())
  content[at] ^= 0x55
  path.write_bytes(bytes(content))


_INDEX_OR_SIZE = {
  'no data': (_DATA, pathlib.Path.unlink),
  'short data': (_DATA, lambda path: _cut(path, 0.9)),
  'empty data': (_DATA, lambda path: _cut(path, 0)),
  'empty index': ('.index', lambda path: _cut(path, 0)),
  'short index': ('.index', lambda path: _cut(path, 0.6)),
  'index of zeros': ('.index', lambda path: _fill(path, b'\0')),
  'garbage index': ('.index', lambda path: _fill(path, b'x')),
  'a bit of the index': ('.index', lambda path: _flip(path, 30)),
}


@pytest.mark.parametrize('fault', _INDEX_OR_SIZE)
def test_the_newest_is_torn(run, fault, caplog):
  suffix, damage = _INDEX_OR_SIZE[fault]
  torn = run / f'model.ckpt-30{suffix}'
  assert checkpoints.latest(str(run)) == str(run / 'model.ckpt-30')
  damage(torn)
  with caplog.at_level(logging.WARNING):
    assert checkpoints.latest(str(run)) == str(run / 'model.ckpt-20')
    assert checkpoints.find(run) == str(run / 'model.ckpt-20')
  # Once, with the name of the file.
  assert caplog.text.count('is damaged and is left out') == 1
  assert str(torn) in caplog.text


def test_several_are_torn(run):
  _cut(run / f'model.ckpt-30{_DATA}', 0.5)
  _cut(run / 'model.ckpt-20.index', 0.5)
  assert checkpoints.latest(str(run)) == str(run / 'model.ckpt-10')
  (run / f'model.ckpt-10{_DATA}').unlink()
  assert checkpoints.latest(str(run)) is None
  for call in (
    checkpoints.find,
    lambda folder: checkpoints.restore_latest({}, str(folder)),
    lambda folder: list(prediction.checkpoint_paths(str(folder), 1)),
  ):
    with pytest.raises(InputError, match=r'none of its 3 .*ckpt-30: .*bytes'):
      call(run)


@pytest.mark.parametrize(
  'content', [b'', b'\0' * 80, b'\xff\xfe', b'model_checkpoint_path: "mod']
)
def test_a_torn_state_file(run, content):
  (run / 'checkpoint').write_bytes(content)
  assert checkpoints.latest(str(run)) == str(run / 'model.ckpt-30')
  _cut(run / f'model.ckpt-30{_DATA}', 0.5)
  assert checkpoints.latest(str(run)) == str(run / 'model.ckpt-20')
  newer = checkpoints.save(str(run), 40, _values(40))
  assert checkpoints.latest(str(run)) == newer


def test_the_files_of_a_sharded_checkpoint(tmp_path):
  parts = [str(tmp_path / f'part{i}') for i in range(2)]
  for i, part in enumerate(parts):
    tf.raw_ops.SaveV2(
      prefix=part,
      tensor_names=[f'v{i}', f'text{i}'],
      shape_and_slices=['', ''],
      tensors=[np.ones([9], np.int64), tf.constant(['a long text', ''])],
    )
  prefix = str(tmp_path / 'model.ckpt-3')
  tf.raw_ops.MergeV2Checkpoints(
    checkpoint_prefixes=parts, destination_prefix=prefix
  )
  assert checkpoints.find_fault(prefix) is None
  os.remove(f'{prefix}.data-00001-of-00002')
  assert '1 of the 2 files' in checkpoints.find_fault(prefix)


def test_the_original_has_no_fault(testdata):
  prefix = testdata / 'original' / 'ckpt_mobilenet_v2_dm05_os16'
  assert checkpoints.find_fault(str(prefix)) is None


def test_only_the_newest_is_looked_at(run, monkeypatch):
  opened = []
  load = tf.compat.v1.train.NewCheckpointReader
  monkeypatch.setattr(
    tf.compat.v1.train,
    'NewCheckpointReader',
    lambda path: opened.append(path) or load(path),
  )
  newest = checkpoints.latest(str(run))
  assert opened == [newest]
  assert checkpoint_files.latest(str(run), known=newest) == newest
  assert opened == [newest]


def test_a_save_that_was_killed_before_the_state_file(run):
  state = (run / 'checkpoint').read_bytes()
  times = os.stat(run / 'checkpoint')
  newer = checkpoints.save(str(run), 40, _values(40))
  (run / 'checkpoint').write_bytes(state)
  os.utime(run / 'checkpoint', ns=(times.st_atime_ns, times.st_mtime_ns))
  assert checkpoints.latest(str(run)) == newer
  # The next save goes on from there.
  checkpoints.save(str(run), 50, _values(50))
  assert checkpoints.latest(str(run)) == str(run / 'model.ckpt-50')


def test_a_state_file_that_was_set_back_by_hand_counts(run):
  (run / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt-20"\n')
  os.utime(run / 'model.ckpt-30.index', (0, 0))
  assert checkpoints.latest(str(run)) == str(run / 'model.ckpt-20')


def test_no_rights_are_no_damage(run, monkeypatch):
  """Training must not go on from an older one because of a network's whim."""
  index = str(run / 'model.ckpt-30.index')

  class Denied:
    def __init__(self, path, mode):
      assert path == index
      raise tf.errors.PermissionDeniedError(None, None, 'denied')

  _cut(pathlib.Path(index), 0.5)
  monkeypatch.setattr(tf.io.gfile, 'GFile', Denied)
  with pytest.raises(InputError, match=r'30\.index cannot be read: denied'):
    checkpoints.latest(str(run))


def test_restoring_falls_back_where_a_checksum_is_wrong(run, caplog):
  _flip(run / f'model.ckpt-30{_DATA}', 40)
  newest = str(run / 'model.ckpt-30')
  assert checkpoints.latest(str(run)) == newest  # Of the right size.
  weights = tf.Variable(np.zeros([50], np.float32))
  seen = []
  with caplog.at_level(logging.WARNING):
    report = checkpoints.restore_latest(
      {'net/weights': weights}, str(run), check=seen.append
    )
  assert report.checkpoint == str(run / 'model.ckpt-20')
  assert seen == [newest, report.checkpoint]
  np.testing.assert_array_equal(weights.numpy(), np.full([50], 20))
  assert newest in caplog.text and 'the file is damaged' in caplog.text
  for step in (10, 20):
    _flip(run / f'model.ckpt-{step}{_DATA}', 40)
  with pytest.raises(InputError, match='none of its checkpoints is whole'):
    checkpoints.restore_latest({'net/weights': weights}, str(run))


def test_nothing_to_restore(tmp_path):
  assert checkpoints.restore_latest({}, str(tmp_path)) is None
  assert checkpoints.restore_latest({}, str(tmp_path / 'none')) is None


def test_other_errors_do_not_fall_back(run):
  def refuse(prefix):
    raise InputError(f'{prefix} has no slots')

  with pytest.raises(InputError, match='ckpt-30 has no slots'):
    checkpoints.restore_latest({}, str(run), check=refuse)
  other = {'net/weights': tf.Variable([1] * 50)}
  with pytest.raises(InputError, match=r'ckpt-30: variable .* is of the type'):
    checkpoints.restore_latest(other, str(run))


def test_following_a_run_leaves_torn_checkpoints_out(run):
  seen = []
  for prefix in prediction.checkpoint_paths(str(run), 0, 0, 0.5):
    seen.append(os.path.basename(prefix))
    if len(seen) == 1:
      checkpoints.save(str(run), 40, _values(40))
      checkpoints.save(str(run), 50, _values(50))
      _cut(run / f'model.ckpt-50{_DATA}', 0.5)
  assert seen == ['model.ckpt-30', 'model.ckpt-40']

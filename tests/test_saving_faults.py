"""Saving checkpoints on a full disk and where nothing may be written."""

import contextlib
import os
import resource
import subprocess
import sys

import faults
import numpy as np
import pytest
import tensorflow as tf

from deeplab import checkpoints
from deeplab.common import InputError

# Four times the limits of the tests below.
_LARGE = {'net/weights': np.ones([1 << 18], np.float32)}
_SMALL = {'net/weights': np.ones([1 << 4], np.float32)}


def _snapshot(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextlib.contextmanager
def _largest_file(size):
  """No file may grow beyond `size` bytes, as if the disk were full."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _check_failing_save(folder, values=_LARGE):
  before = _snapshot(folder)
  with pytest.raises(InputError, match='Earlier checkpoints are intact'):
    checkpoints.save(str(folder), 8, values)
  assert _snapshot(folder) == before
  weights = tf.Variable(np.zeros([1 << 4], np.float32))
  report = checkpoints.restore_latest({'net/weights': weights}, str(folder))
  assert report.checkpoint == str(folder / 'model.ckpt-7')
  assert weights.numpy().all()


def test_a_file_that_cannot_grow(tmp_path):
  checkpoints.save(str(tmp_path), 7, _SMALL)
  with _largest_file(1 << 18):
    _check_failing_save(tmp_path)


@pytest.fixture
def mounted(tmp_path):
  """Mounts a small file system: mounted('size=256k')."""
  folder = tmp_path / 'mounted'
  folder.mkdir()

  def mount(options):
    done = subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(folder)],
      capture_output=True,
      check=False,
    )
    if done.returncode:
      pytest.skip('this account may not mount a file system.')
    return folder

  yield mount
  subprocess.run(['umount', str(folder)], capture_output=True, check=False)


@pytest.mark.skipif(
  sys.platform != 'linux' or os.geteuid() != 0, reason='mounting needs root'
)
def test_a_full_disk(mounted):
  folder = mounted('size=256k')
  checkpoints.save(str(folder), 7, _SMALL)
  _check_failing_save(folder)
  # With room again it goes on.
  checkpoints.save(str(folder), 8, _SMALL)
  assert checkpoints.latest(str(folder)) == str(folder / 'model.ckpt-8')


@pytest.mark.skipif(
  sys.platform != 'linux' or os.geteuid() != 0, reason='mounting needs root'
)
def test_a_read_only_disk(mounted):
  folder = mounted('size=256k')
  checkpoints.save(str(folder), 7, _SMALL)
  mounted('remount,ro')
  _check_failing_save(folder, _SMALL)


def test_a_read_only_folder(tmp_path):
  if os.geteuid() == 0:
    pytest.skip('root may write everywhere; see test_a_read_only_disk.')
  checkpoints.save(str(tmp_path), 7, _SMALL)
  tmp_path.chmod(0o500)
  try:
    _check_failing_save(tmp_path, _SMALL)
  finally:
    tmp_path.chmod(0o700)


def test_a_file_in_the_place_of_the_folder(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(InputError, match=r'file/model\.ckpt-8.*be written'):
    checkpoints.save(str(tmp_path / 'file'), 8, _SMALL)


def test_a_state_file_that_cannot_be_written(tmp_path):
  """The checkpoint itself is there, and counts."""
  (tmp_path / 'checkpoint').mkdir()
  with pytest.raises(InputError, match='Earlier checkpoints are intact'):
    checkpoints.save(str(tmp_path), 8, _SMALL)
  assert checkpoints.latest(str(tmp_path)) == str(tmp_path / 'model.ckpt-8')
  assert not list(tmp_path.glob('.tmp*'))


def test_an_index_never_meets_other_data(tmp_path, monkeypatch):
  """A step is saved again and the run is killed at some moment."""
  for moment in range(10):
    folder = tmp_path / str(moment)
    checkpoints.save(str(folder), 7, _SMALL)
    checkpoints.save(str(folder), 8, _SMALL)
    with monkeypatch.context() as patch:
      killed = faults.kill_at(patch, moment)
      with contextlib.suppress(faults.Killed):
        checkpoints.save(
          str(folder), 8, {'net/weights': np.full([1 << 4], 2, np.float32)}
        )
    weights = tf.Variable(np.zeros([1 << 4], np.float32))
    report = checkpoints.restore_latest({'net/weights': weights}, str(folder))
    assert not report.initialized
    checkpoints.remove_unfinished(str(folder))
    assert not list(folder.glob('.tmp*'))
  assert not killed.happened


def test_unfinished_files_are_removed(tmp_path):
  checkpoints.save(str(tmp_path), 7, _SMALL)
  before = _snapshot(tmp_path)
  (tmp_path / '.tmp-1.index').touch()
  checkpoints.remove_unfinished(str(tmp_path))
  assert _snapshot(tmp_path) == before
  checkpoints.remove_unfinished(str(tmp_path / 'none'))

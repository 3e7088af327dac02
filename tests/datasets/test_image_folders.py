"""Which files belong together, and splits of them."""

import errno
import itertools
import os

import pytest

from deeplab.common import InputError
from deeplab.datasets import image_folders


def _touch(folder, *names):
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


def test_files_are_found_by_extension_and_suffix(tmp_path):
  names = ['a_L.png', 'street/b_L.PNG', 'b.png', '.c_L.png', '.x/c_L.png']
  _touch(tmp_path, *names, 'notes.txt', 'out/d_L.png')
  found = image_folders.find_files(
    str(tmp_path), ['png'], '_L', leave_out=str(tmp_path / 'out')
  )
  assert found == {
    'a': str(tmp_path / 'a_L.png'),
    'street/b': str(tmp_path / 'street/b_L.PNG'),
  }


def test_two_files_of_one_name(tmp_path):
  _touch(tmp_path, 'a.png', 'a.JPG')
  with pytest.raises(InputError, match=r"the same name 'a'"):
    image_folders.find_files(str(tmp_path), ['png', 'jpg'])
  with pytest.raises(InputError, match='no folder'):
    image_folders.find_files(str(tmp_path / 'none'), ['png'])


def test_both_halves_must_be_there():
  images, labels = dict.fromkeys('abc', 'x'), dict.fromkeys('ab', 'y')
  assert image_folders.pair(images, labels, True) == ['a', 'b']
  with pytest.raises(InputError, match='images without a label are 1: c'):
    image_folders.pair(images, labels, False)
  for skips in (True, False):
    with pytest.raises(InputError, match='labels without an image are 1: c'):
      image_folders.pair(labels, images, skips)


def test_the_suffix_of_labels_is_guessed():
  images = dict.fromkeys(['a', 'ab'], 'x')
  with pytest.raises(InputError, match=r'Give --label_suffix=_L\.'):
    image_folders.pair(images, dict.fromkeys(['a_L', 'ab_L'], 'y'), False)
  with pytest.raises(InputError, match='subfolders included'):
    image_folders.pair(images, dict.fromkeys(['a_L', 'c_L'], 'y'), False)
  with pytest.raises(InputError, match='stand in the JSON file of the labels'):
    image_folders.pair(images, {'a_L': 'y'}, False, is_indexed=True)


def test_links_to_folders(tmp_path):
  (tmp_path / 'far').mkdir()
  (tmp_path / 'far/b.png').touch()
  folder = tmp_path / 'photos'
  folder.mkdir()
  (folder / 'a.png').touch()
  # The same folder twice is no loop.
  for name in ('near', 'nearer'):
    (folder / name).symlink_to(tmp_path / 'far')
  found = image_folders.find_files(str(folder), ['png'])
  assert list(found) == ['a', 'near/b', 'nearer/b']
  (tmp_path / 'far/up').symlink_to(folder)
  with pytest.raises(InputError, match='near/up is a link to a folder around'):
    image_folders.find_files(str(folder), ['png'])


def test_folders_that_cannot_be_listed(tmp_path, monkeypatch):
  (tmp_path / 'secret').mkdir()
  listdir = os.listdir

  def refuse(path):
    if os.path.basename(path) == 'secret':
      raise PermissionError(errno.EACCES, 'Permission denied', path)
    return listdir(path)

  # The superuser may list everything.
  monkeypatch.setattr(os, 'listdir', refuse)
  with pytest.raises(
    InputError, match='secret cannot be listed: Permission denied'
  ):
    image_folders.find_files(str(tmp_path), ['png'])


def _split(names, seed=1, **fractions):
  return image_folders.split_by_fraction(names, fractions, seed)


def test_random_splits():
  names = [f'n{i}' for i in range(1000)]
  splits = _split(names, val=0.2, test=0.1)
  assert sorted(itertools.chain(*splits.values())) == sorted(names)
  assert 160 < len(splits['val']) < 240 and 70 < len(splits['test']) < 130
  assert splits == _split(names, val=0.2, test=0.1)
  assert splits != _split(names, seed=2, val=0.2, test=0.1)
  assert set(_split(names, val=0.0)) == {'train'}


def test_later_files_do_not_move_others():
  names = [f'n{i}' for i in range(300)]
  before, after = _split(names[::2], val=0.3), _split(names, val=0.3)
  for split, members in before.items():
    assert set(members) <= set(after[split])


@pytest.mark.parametrize('seed', range(20))
def test_no_split_stays_empty(seed):
  splits = _split(['a', 'b', 'c'], seed, val=0.01, test=0.98)
  assert sorted(map(len, splits.values())) == [1, 1, 1]


@pytest.mark.parametrize(
  'names, fractions, message',
  [
    ('a', {'val': 0.5}, '1 images are too few'),
    ('abc', {'val': 0.5, 'test': 0.5}, 'must leave something for train'),
  ],
)
def test_splits_that_cannot_be(names, fractions, message):
  with pytest.raises(InputError, match=message):
    _split(names, **fractions)


def test_lists(tmp_path):
  images, labels = dict.fromkeys(['s/a', 'b', 'c'], 'x'), {'s/a': 'y'}
  (tmp_path / 'train.txt').write_text('s/a.jpg\n')
  (tmp_path / 'test.txt').write_text('c\n')
  splits = image_folders.split_by_lists(str(tmp_path), images, labels)
  assert splits == {'train': ['s/a'], 'test': ['c']}
  (tmp_path / 'val.txt').write_text('\nb\n')
  with pytest.raises(InputError, match=r"val\.txt, line 2: .*no label 'b'"):
    image_folders.split_by_lists(str(tmp_path), images, labels)
  (tmp_path / 'val.txt').write_text('a\n')
  with pytest.raises(InputError, match=r"no image 'a'.*s/a"):
    image_folders.split_by_lists(str(tmp_path), images, labels)


def test_lists_of_the_same_images(tmp_path):
  files = dict.fromkeys('abcd', 'x')
  for split, names in (('train', 'abc'), ('val', 'd'), ('trainval', 'abcd')):
    (tmp_path / f'{split}.txt').write_text('\n'.join(names))
  splits = image_folders.split_by_lists(str(tmp_path), files, files)
  assert splits['trainval'] == list('abcd')
  (tmp_path / 'test.txt').write_text('d')
  image_folders.split_by_lists(str(tmp_path), files, files)
  for split in ('val', 'test'):
    (tmp_path / f'{split}.txt').write_text('c\nb')
    with pytest.raises(
      InputError, match=rf'train\.txt and .*{split}\.txt both name 2: b, c'
    ):
      image_folders.split_by_lists(str(tmp_path), files, files)
    (tmp_path / f'{split}.txt').write_text('d')


def test_faults_can_be_collected(tmp_path):
  faults, images = [], dict.fromkeys('abc', 'x')
  names = image_folders.pair(
    images, dict.fromkeys('bcd', 'y'), False, faults.append
  )
  assert names == ['b', 'c'] and len(faults) == 2
  (tmp_path / 'train.txt').write_text('a\nb\nz')
  splits = image_folders.split_by_lists(
    str(tmp_path), images, {'b': 'y'}, faults.append
  )
  assert splits == {'train': ['b']}
  assert "no image 'z'" in faults[2] and "no label 'a'" in faults[3]

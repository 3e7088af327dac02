"""ADE20K: folders from flags or a root, names, and the ignored class 0."""

import converter_files
import numpy as np
import pytest
from converter_files import write_image, write_mask
from PIL import Image

from deeplab.common import InputError
from deeplab.datasets import build_ade20k_data

_MASK = np.full([6, 8], 150, np.uint8)
_MASK[0] = [0, 0, 1, 2, 3, 149, 150, 150]


def _write(root, folder, count):
  for index in range(1, count + 1):
    name = f'ADE_{folder[:5]}_{index:08d}'
    write_image(root / f'images/{folder}/{name}.jpg')
    write_mask(root / f'annotations/{folder}/{name}.png', _MASK)


@pytest.fixture
def root(tmp_path):
  """A small data set in the official layout."""
  root = tmp_path / 'ADE20K/ADEChallengeData2016'
  _write(root, 'training', 12)
  _write(root, 'validation', 2)
  # Not an image.
  (root / 'images/training/Thumbs.db').write_text('')
  return root


def _run(*arguments):
  return converter_files.run('build_ade20k_data.py', *arguments)


def test_root(root, tmp_path):
  out = tmp_path / 'out'
  result = _run(f'--ade20k_root={root}', f'--output_dir={out}')
  assert result.returncode == 0, result.stderr
  assert "ade20k: {'train': 12, 'val': 2}" in result.stdout
  records = converter_files.read_records(out, 'train')
  wanted = [f'ADE_train_{index:08d}' for index in range(1, 13)]
  # Neighbouring files show the same scene; neighbouring records do not.
  assert converter_files.names(records) != wanted
  assert sorted(converter_files.names(records)) == wanted
  records = converter_files.read_records(out, 'val')
  assert converter_files.names(records) == [
    'ADE_valid_00000001',
    'ADE_valid_00000002',
  ]
  assert records[0]['format'] == b'jpeg'
  np.testing.assert_array_equal(converter_files.labels(records[0]), _MASK)
  assert len(list(out.glob('val-?????-of-00004.tfrecord'))) == 4
  assert converter_files.check_readable(out, 'ade20k', 'val') == {
    *(0, 1, 2, 3, 149, 150)
  }


def test_official_flags(root, tmp_path):
  """The four folders, as the original takes them."""
  out = tmp_path / 'out'
  result = _run(
    f'--train_image_folder={root}/images/training/',
    f'--train_image_label_folder={root}/annotations/training/',
    f'--val_image_folder={root}/images/validation/',
    f'--val_image_label_folder={root}/annotations/validation/',
    f'--output_dir={out}',
  )
  assert result.returncode == 0, result.stderr
  assert "{'train': 12, 'val': 2}" in result.stdout


@pytest.fixture
def folders(parse):
  """Makes folders of flags, as the script does."""

  def folders_of(*arguments):
    parse(build_ade20k_data, build_ade20k_data._define_flags, arguments)
    return build_ade20k_data._folders_of_flags()

  return folders_of


def test_flags_of_folders_win(root, tmp_path, folders):
  _write(tmp_path / 'mine', 'validation', 1)
  mine = f'{tmp_path}/mine/images/validation'
  assert folders(f'--ade20k_root={root}', f'--val_image_folder={mine}') == {
    'train': (f'{root}/images/training', f'{root}/annotations/training'),
    'val': (mine, f'{root}/annotations/validation'),
  }


def test_split_that_is_missing(root, tmp_path, folders):
  """It is left out, unless a flag asks for it."""
  (root / 'images/training').rename(tmp_path / 'images')
  (root / 'annotations/training').rename(tmp_path / 'annotations')
  assert list(folders(f'--ade20k_root={root}')) == ['val']
  wanted = folders(f'--ade20k_root={root}', '--train_image_folder=nowhere')
  assert list(wanted) == ['train', 'val']
  with pytest.raises(InputError, match='there is no folder nowhere'):
    build_ade20k_data.convert(wanted, str(tmp_path / 'out'))


def test_no_data(tmp_path, folders, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError, match=r'no images in here.*--ade20k_root'):
    folders('--ade20k_root=here')
  with pytest.raises(InputError, match=r'in \./ADE20K/ADEChallengeData2016'):
    folders()


def _convert_val(root, out):
  pair = str(root / 'images/validation'), str(root / 'annotations/validation')
  return build_ade20k_data.convert({'val': pair}, str(out))


def test_bad_files(root, tmp_path):
  mask = root / 'annotations/validation/ADE_valid_00000002.png'
  Image.fromarray(_MASK + 1).save(mask)
  with pytest.raises(InputError, match=r'00000002\.png holds.*no class: 151 '):
    _convert_val(root, tmp_path / 'out')
  mask.unlink()
  with pytest.raises(InputError, match=r'no .*_00000002\.png, the label of'):
    _convert_val(root, tmp_path / 'out')
  for path in (root / 'images/validation').iterdir():
    path.unlink()
  with pytest.raises(InputError, match='has no images'):
    _convert_val(root, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()


def test_real_ade20k(real_data, tmp_path):
  root = real_data('ADEChallengeData2016')
  info = _convert_val(root, tmp_path / 'out')
  assert info.splits == {'val': 50}
  for record in converter_files.read_records(tmp_path / 'out', 'val'):
    name = record['filename'].decode()
    original = Image.open(root / f'annotations/validation/{name}.png')
    np.testing.assert_array_equal(converter_files.labels(record), original)

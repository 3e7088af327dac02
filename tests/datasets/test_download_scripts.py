"""The shell scripts, with a curl that takes small archives from a folder."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile

import converter_files
import numpy as np
import pytest
from conftest import ROOT
from converter_files import write_image, write_mask

import coco_files
from deeplab.datasets import dataset_info

_SCRIPTS = sorted((ROOT / 'datasets').glob('*.sh'))

# Serves files by their names: the real curl, on local files.
_CURL = """#!/usr/bin/env bash
for argument in "$@"; do
  case "$argument" in
    http*://*) arguments+=("file://$SERVED/${argument##*/}") ;;
    *) arguments+=("$argument") ;;
  esac
done
echo "${arguments[*]}" >> "$SERVED/log"
exec "$CURL" "${arguments[@]}"
"""

# Runs anything but converters, whose flags it prints.
_PYTHON = """#!/usr/bin/env bash
case "$1" in
  */build_*.py) echo "$@" ;;
  *) exec "$REAL_PYTHON" "$@" ;;
esac
"""

pytestmark = pytest.mark.skipif(
  not all(map(shutil.which, ('bash', 'curl', 'unzip', 'tar'))),
  reason='bash, curl, unzip and tar are needed.',
)


def _archive(root, path, *members):
  """Makes a .zip, .tar or .tgz of members of a folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.zip':
    with zipfile.ZipFile(path, 'w') as archive:
      for member in members:
        for file in sorted((root / member).rglob('*')):
          archive.write(file, file.relative_to(root))
  else:
    mode = '-czf' if path.suffix == '.tgz' else '-cf'
    subprocess.run(['tar', mode, path, '-C', root, *members], check=True)


class _Place:
  """Scripts, archives that are served, and the user's folder."""

  def __init__(self, root):
    self.raw = root / 'raw'
    self.served = root / 'served'
    self.user = root / 'user folder'
    self.datasets = root / 'repository/datasets'
    for folder in (self.raw, self.served, self.user, self.datasets):
      folder.mkdir(parents=True)
    bin_folder = root / 'bin'
    bin_folder.mkdir()
    (bin_folder / 'curl').write_text(_CURL)
    (bin_folder / 'curl').chmod(stat.S_IRWXU)
    converters = sorted((ROOT / 'datasets').glob('build_*.py'))
    for path in _SCRIPTS + converters:
      shutil.copy(path, self.datasets)
    self.bin = bin_folder
    self.environment = {
      **os.environ,
      'PATH': f'{bin_folder}{os.pathsep}{os.environ["PATH"]}',
      'PYTHON': sys.executable,
      'SERVED': str(self.served),
      'CURL': shutil.which('curl'),
    }

  def run(self, script, *arguments):
    return subprocess.run(
      ['bash', str(self.datasets / script), *arguments],
      cwd=self.user,
      env=self.environment,
      capture_output=True,
      text=True,
      check=False,
    )

  def skip_conversion(self):
    """Where the download is what matters: converters take seconds."""
    (self.bin / 'python').write_text(_PYTHON)
    (self.bin / 'python').chmod(stat.S_IRWXU)
    self.environment['REAL_PYTHON'] = self.environment.pop('PYTHON')

  def expect(self, script, name, kind):
    """Writes the checksum of a served archive in place of the published one."""
    path = self.datasets / script
    digest = hashlib.new(kind, (self.served / name).read_bytes()).hexdigest()
    text, count = re.subn(
      rf'(/{re.escape(name)}"?\s\\\n\s*{kind}:)[0-9a-f]+',
      rf'\g<1>{digest}',
      path.read_text(),
    )
    assert count == 1, f'{script} has no {kind} of {name}.'
    path.write_text(text)

  def downloads(self):
    """Names of what was asked for."""
    log = self.served / 'log'
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.rpartition('/')[2] for line in lines]


@pytest.fixture
def place(tmp_path):
  """A copy of the scripts, and nothing that is served yet."""
  return _Place(tmp_path)


def _voc(place):
  """VOC with the images a (train) and v (val)."""
  root = place.raw / 'VOCdevkit/VOC2012'
  lists = root / 'ImageSets/Segmentation'
  lists.mkdir(parents=True)
  for name, split in (('a', 'train'), ('v', 'val')):
    write_image(root / f'JPEGImages/{name}.jpg')
    write_mask(root / f'SegmentationClass/{name}.png', np.full([6, 8], 20))
    (lists / f'{split}.txt').write_text(f'{name}\n')
  name = 'VOCtrainval_11-May-2012.tar'
  _archive(place.raw, place.served / name, 'VOCdevkit')
  place.expect('download_and_convert_voc2012.sh', name, 'md5')
  return place.served / name


@pytest.mark.parametrize('script', _SCRIPTS, ids=lambda path: path.name)
def test_syntax(script):
  subprocess.run(['bash', '-n', script], check=True)
  assert max(map(len, script.read_text().splitlines())) <= 80


@pytest.mark.parametrize(
  'script',
  [path.name for path in _SCRIPTS if 'convert' in path.name],
)
def test_help_and_bad_options(place, script):
  result = place.run(script, '--help')
  assert result.returncode == 0
  assert f'bash datasets/{script} [options]' in result.stdout
  assert '--work_dir=FOLDER' in result.stdout
  assert 'set -euo' not in result.stdout
  for option in ('--foo', '--work_dir=', 'work'):
    result = place.run(script, option)
    assert result.returncode == 1
    assert f'error: unknown option {option}' in result.stderr
  assert not list(place.user.iterdir())


def test_published_checksums():
  """As PASCAL VOC's and SBD's users know them."""
  text = (ROOT / 'datasets/download_and_convert_voc2012.sh').read_text()
  assert 'md5:6cd6e144f989b92b3379bac3b3de84fd' in text
  assert 'md5:82b4d87ceb2ed10f6038a1cba92111cb' in text


def test_voc2012(place):
  archive = _voc(place)
  script = 'download_and_convert_voc2012.sh'
  result = place.run(script)
  assert result.returncode == 0, result.stderr
  out = place.user / 'pascal_voc_seg/tfrecord'
  assert dataset_info.load(str(out)).splits == {'train': 1, 'val': 1}
  place.skip_conversion()
  # What is there is neither downloaded nor unpacked again, not even if the
  # archive is gone.
  (place.user / 'pascal_voc_seg' / archive.name).unlink()
  result = place.run(script)
  assert result.returncode == 0, result.stderr
  assert 'Unpacking' not in result.stdout
  assert place.downloads() == [archive.name]
  # Unless what was unpacked is gone too.
  shutil.rmtree(place.user / 'pascal_voc_seg/VOCdevkit')
  assert place.run(script).returncode == 0
  assert place.downloads() == [archive.name] * 2


def test_voc2012_with_sbd(place):
  _voc(place)
  root = place.raw / 'benchmark_RELEASE/dataset'
  (root / 'cls').mkdir(parents=True)
  (root / 'train.txt').write_text('a\n')
  (root / 'val.txt').write_text('v\n')
  name = 'benchmark.tgz'
  _archive(place.raw, place.served / name, 'benchmark_RELEASE')
  script = 'download_and_convert_voc2012.sh'
  place.expect(script, name, 'md5')
  result = place.run(script, '--with_sbd', '--work_dir=my voc')
  assert result.returncode == 0, result.stderr
  info = dataset_info.load(str(place.user / 'my voc/tfrecord'))
  assert info.splits == {'train': 1, 'train_aug': 1, 'val': 1}


def test_download_goes_on(place):
  """From half a file, from one that only lacks its name."""
  archive = _voc(place)
  data = archive.read_bytes()
  folder = place.user / 'pascal_voc_seg'
  place.skip_conversion()
  part = folder / f'{archive.name}.part'
  for size in (len(data) // 2, len(data)):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    part.write_bytes(data[:size])
    result = place.run('download_and_convert_voc2012.sh')
    assert result.returncode == 0, result.stderr
    assert not part.exists()
    assert (folder / archive.name).read_bytes() == data


def test_damaged_download(place):
  """It is removed, since going on would not mend it."""
  archive = _voc(place)
  folder = place.user / 'pascal_voc_seg'
  folder.mkdir()
  (folder / f'{archive.name}.part').write_bytes(b'other bytes')
  script = 'download_and_convert_voc2012.sh'
  result = place.run(script)
  assert result.returncode == 1
  assert 'error: http://' in result.stderr
  assert 'is not the file that was expected (md5:' in result.stderr
  assert not list(folder.iterdir())
  (folder / archive.name).write_bytes(b'other bytes')
  result = place.run(script)
  assert f'{archive.name} is damaged, or another file' in result.stderr
  assert (folder / archive.name).read_bytes() == b'other bytes'


def test_server_without_the_file(place):
  result = place.run('download_and_convert_ade20k.sh')
  assert result.returncode == 1
  message = r'error: http:\S*2016\.zip cannot be downloaded.*put the file at'
  assert re.search(message, result.stderr)


def test_python_without_this_package(place):
  place.environment['PYTHON'] = 'no_such_python'
  result = place.run('download_and_convert_ade20k.sh')
  assert 'error: no_such_python is missing' in result.stderr
  place.environment['PYTHON'] = 'false'
  result = place.run('download_and_convert_ade20k.sh')
  assert "error: false does not know this package. Run 'source" in result.stderr
  assert not place.downloads()


def test_ade20k(place):
  for folder in ('training', 'validation'):
    root = place.raw / 'ADEChallengeData2016'
    write_image(root / f'images/{folder}/ADE_{folder}_1.jpg')
    write_mask(root / f'annotations/{folder}/ADE_{folder}_1.png', np.eye(6, 8))
  name = 'ADEChallengeData2016.zip'
  _archive(place.raw, place.served / name, 'ADEChallengeData2016')
  script = 'download_and_convert_ade20k.sh'
  place.expect(script, name, 'sha1')
  result = place.run(script)
  assert result.returncode == 0, result.stderr
  out = place.user / 'ADE20K/tfrecord'
  assert dataset_info.load(str(out)).splits == {'train': 1, 'val': 1}


def _coco_images(place):
  for split in ('train2017', 'val2017'):
    write_image(place.raw / split / '000000000009.jpg')
    _archive(place.raw, place.served / f'{split}.zip', split)
    place.expect('download_and_convert_coco.sh', f'{split}.zip', 'sha256')


def test_coco_stuff(place):
  _coco_images(place)
  for split in ('train2017', 'val2017'):
    write_mask(place.raw / f'maps/{split}/000000000009.png', np.eye(6, 8))
  name = 'stuffthingmaps_trainval2017.zip'
  _archive(place.raw / 'maps', place.served / name, 'train2017', 'val2017')
  result = place.run('download_and_convert_coco.sh')
  assert result.returncode == 0, result.stderr
  info = dataset_info.load(str(place.user / 'coco/tfrecord_stuff'))
  assert (info.name, info.splits) == ('coco_stuff', {'train': 1, 'val': 1})


def test_coco_panoptic(place):
  _coco_images(place)
  image = '000000000009', np.eye(6, 8, dtype=int), [{'id': 1, 'category_id': 2}]
  for split in ('train2017', 'val2017'):
    coco_files.write(
      place.raw / 'annotations',
      f'panoptic_{split}',
      [image],
      categories=coco_files.CATEGORIES,
    )
    folder = place.raw / 'annotations' / f'panoptic_{split}'
    _archive(folder.parent, folder.with_suffix('.zip'), folder.name)
    shutil.rmtree(folder)
  name = 'panoptic_annotations_trainval2017.zip'
  _archive(place.raw, place.served / name, 'annotations')
  place.expect('download_and_convert_coco.sh', name, 'sha256')
  result = place.run('download_and_convert_coco.sh', '--labels=panoptic')
  assert result.returncode == 0, result.stderr
  out = place.user / 'coco/tfrecord_panoptic'
  (record,) = converter_files.read_records(out, 'val')
  assert converter_files.labels(record)[0].tolist() == [1] + [255] * 7


def _cityscapes(place, folder, coarse):
  """Writes the archives that a user downloads; of train_extra, if coarse."""
  parts = ('train_extra',) if coarse else ('train', 'val', 'test')
  name = 'gtCoarse' if coarse else 'gtFine'
  for part in parts:
    stem = f'{part}/a/a_000000_00001{len(part)}'
    write_image(place.raw / f'leftImg8bit/{stem}_leftImg8bit.png')
    write_mask(place.raw / f'{name}/{stem}_{name}_labelIds.png', np.eye(6, 8))
  if coarse:
    for part in ('train', 'val'):
      stem = f'{part}/a/a_000000_00001{len(part)}'
      write_mask(place.raw / f'{name}/{stem}_{name}_labelIds.png', np.eye(6, 8))
  labels, images = (
    ('gtCoarse', 'leftImg8bit_trainextra')
    if coarse
    else ('gtFine_trainvaltest', 'leftImg8bit_trainvaltest')
  )
  _archive(place.raw, folder / f'{labels}.zip', name)
  _archive(place.raw, folder / f'{images}.zip', 'leftImg8bit')
  shutil.rmtree(place.raw / 'leftImg8bit')


def test_cityscapes(place):
  script = 'convert_cityscapes.sh'
  result = place.run(script)
  assert result.returncode == 1
  assert (
    'no gtFine_trainvaltest.zip leftImg8bit_trainvaltest.zip. Register'
    in (result.stderr)
  )
  downloads = place.user / 'downloads'
  _cityscapes(place, downloads, coarse=False)
  result = place.run(script, '--zip_dir=downloads')
  assert result.returncode == 0, result.stderr
  out = str(place.user / 'cityscapes/tfrecord')
  fine = {'train_fine': 1, 'val_fine': 1, 'trainval_fine': 2, 'test_fine': 1}
  assert dataset_info.load(out).splits == fine
  # The archives are needed no longer; those of coarse annotations are.
  place.skip_conversion()
  shutil.rmtree(downloads)
  assert place.run(script).returncode == 0
  result = place.run(script, '--coarse', '--zip_dir=downloads')
  names = 'gtCoarse.zip leftImg8bit_trainextra.zip'
  assert f'=downloads has no {names}. Register' in result.stderr
  _cityscapes(place, downloads, coarse=True)
  result = place.run(script, '--coarse', '--zip_dir=downloads')
  assert result.returncode == 0, result.stderr
  assert ',test_fine,train_coarse,trainval_coarse ' in result.stdout
  for part in ('gtCoarse/train', 'leftImg8bit/train_extra', 'gtFine/val'):
    assert (place.user / 'cityscapes' / part / 'a').is_dir()


def test_archives_that_are_not(place):
  folder = place.user / 'cityscapes'
  _cityscapes(place, folder, coarse=False)
  archive = folder / 'gtFine_trainvaltest.zip'
  data = archive.read_bytes()
  archive.write_bytes(data[: len(data) // 2])
  result = place.run('convert_cityscapes.sh')
  assert result.returncode == 1
  assert 'gtFine_trainvaltest.zip cannot be unpacked into' in result.stderr
  shutil.copy(folder / 'leftImg8bit_trainvaltest.zip', archive)
  result = place.run('convert_cityscapes.sh')
  assert 'gtFine_trainvaltest.zip has no gtFine in it' in result.stderr

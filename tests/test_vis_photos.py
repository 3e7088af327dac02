"""vis.py on image files, as a user runs it."""

import os
import pathlib
import subprocess
import sys

import browser
import numpy as np
import pytest
import small_checkpoint
from PIL import Image

from deeplab.segmenter import Segmenter

_ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def train(tmp_path_factory):
  """The folder of a training."""
  folder = tmp_path_factory.mktemp('train')
  small_checkpoint.write(folder)
  return folder


def _save(path, height, width):
  noise = np.random.default_rng(height).integers(0, 256, (5, 5, 3), np.uint8)
  rows, columns = np.arange(height) * 5 // height, np.arange(width) * 5 // width
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(noise[rows][:, columns]).save(path)


def _run(folder, *arguments):
  return subprocess.run(
    [sys.executable, str(_ROOT / 'vis.py'), '--vis_logdir=vis', *arguments],
    cwd=folder,
    capture_output=True,
    text=True,
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'},
    check=False,
  )


def _error(done):
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  return done.stderr.strip().splitlines()[-1]


def test_a_folder_of_photographs(train, tmp_path):
  """Of any size, one in tiles, one broken; named after the files."""
  _save(tmp_path / 'photos' / '2 %#ü.png', 40, 50)
  _save(tmp_path / 'photos' / '10.bmp', 70, 200)
  _save(tmp_path / 'photos' / 'deep' / '10.png', 33, 33)
  (tmp_path / 'photos' / '3.jpg').write_bytes(b'no image')
  done = _run(
    tmp_path,
    f'--checkpoint_dir={train}',
    '--image_glob=photos/**',
    '--max_tile_size=97',
    '--also_save_raw_predictions',
  )
  error = _error(done)
  assert '1 of 4 images were left out: photos/3.jpg is not an image' in error
  names = {'2 %#ü': (40, 50), '10': (70, 200), 'deep_10': (33, 33)}
  pictures = tmp_path / 'vis' / 'segmentation_results'
  raw = tmp_path / 'vis' / 'raw_segmentation_results'
  assert sorted(os.listdir(pictures)) == sorted(
    f'{name}_{kind}'
    for name in names
    for kind in ('image.jpg', 'overlay.png', 'prediction.png')
  )
  assert sorted(os.listdir(raw)) == sorted(f'{name}.png' for name in names)
  colors = np.array(small_checkpoint.INFO.colors)
  for name, size in names.items():
    labels = np.asarray(Image.open(raw / f'{name}.png'))
    assert labels.shape == size
    picture = np.asarray(Image.open(pictures / f'{name}_prediction.png'))
    np.testing.assert_array_equal(picture, colors[labels])
  # The library does the same.
  image = np.asarray(Image.open(tmp_path / 'photos' / '10.bmp'))
  labels = Segmenter(str(train), max_tile_size=97)(image)
  np.testing.assert_array_equal(labels, Image.open(raw / '10.png'))
  _check_page(tmp_path / 'vis' / 'index.html', names)


def _check_page(path, names):
  """All pictures are found, whatever the files are called."""
  with browser.open_page(path.as_uri()) as page:
    text = page.inner_text('body')
    assert all(name in text for name in names) and 'disc' in text
    page.wait_for_function(
      '[...document.images].length > 2 && '
      '[...document.images].every((i) => i.complete && i.naturalWidth > 0)'
    )


def test_results_within_the_folder_of_photographs(train, tmp_path):
  """The second time they are not labelled as well."""
  name = 'x' * 240
  _save(tmp_path / 'vis' / f'{name}.png', 33, 33)
  for _ in range(2):
    done = _run(tmp_path, f'--checkpoint_dir={train}', '--image_glob=vis/**')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith('1 images: ')


@pytest.mark.slow
def test_scales_mirror_images_and_crf(train, tmp_path):
  _save(tmp_path / 'p' / '1.png', 40, 50)
  _save(tmp_path / 'p' / '2.png', 40, 50)
  settings = ['--eval_scales=0.75,1', '--add_flipped_images', '--crf']
  done = _run(
    tmp_path,
    f'--checkpoint_dir={train}',
    '--image_glob=p',
    '--vis_batch_size=2',
    '--max_resize_value=33',
    '--also_save_raw_predictions',
    *settings,
  )
  assert done.returncode == 0, done.stderr
  assert 'Dense CRF' in done.stdout
  labels = Image.open(tmp_path / 'vis' / 'raw_segmentation_results' / '1.png')
  assert labels.size == (50, 40)

"""The scripts eval.py and vis.py as a user runs them."""

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys

import browser
import numpy as np
import pytest
import small_checkpoint
from absl import flags as absl_flags
from PIL import Image

from deeplab import flags

# Official flags and defaults; those of the model are the same in all scripts.
_FOLLOWING = {
  'checkpoint_dir': None,
  'dataset': 'pascal_voc_seg',
  'dataset_dir': None,
  'eval_interval_secs': 300,
  'eval_scales': [1.0],
  'add_flipped_images': False,
  'master': '',
  'output_stride': 16,
  'atrous_rates': None,
  'quantize_delay_step': -1,
}
_OFFICIAL = {
  'eval': {
    'eval_batch_size': 1,
    'eval_crop_size': [513, 513],
    'eval_logdir': None,
    'eval_split': 'val',
    'max_number_of_evaluations': 0,
  },
  'vis': {
    'also_save_raw_predictions': False,
    'colormap_type': 'pascal',
    'max_number_of_iterations': 0,
    'vis_batch_size': 1,
    'vis_crop_size': [513, 513],
    'vis_logdir': None,
    'vis_split': 'val',
  },
}


@pytest.mark.parametrize('script', ['eval', 'vis'])
def test_official_flags_and_defaults(script, repository, monkeypatch):
  # Both scripts define the same flags: each gets a set of its own.
  own = absl_flags.FlagValues()
  for kind in ('string', 'integer', 'float', 'boolean', 'enum', 'flag'):
    define = getattr(absl_flags, f'DEFINE_{kind}')
    monkeypatch.setattr(
      absl_flags, f'DEFINE_{kind}', functools.partial(define, flag_values=own)
    )
  monkeypatch.setattr(flags, 'require', lambda *unused: None)
  spec = importlib.util.spec_from_file_location(
    f'{script}_script', repository / f'{script}.py'
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  module._define_flags()
  for name, default in {**_FOLLOWING, **_OFFICIAL[script]}.items():
    assert own[name].default == default, name


def _run(repository, script, *arguments):
  return subprocess.run(
    [sys.executable, str(repository / f'{script}.py'), *arguments],
    capture_output=True,
    text=True,
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'},
    check=False,
  )


@pytest.mark.parametrize('script', ['eval', 'vis'])
def test_a_missing_checkpoint_is_one_line_and_status_1(
  script, repository, testdata, tmp_path
):
  done = _run(
    repository,
    script,
    f'--checkpoint_dir={tmp_path}/model.ckpt-5',
    f'--{script}_logdir={tmp_path}/logs',
    f'--dataset_dir={testdata}/voc_tfrecord',
  )
  assert done.returncode == 1
  assert 'Traceback' not in done.stderr
  error = done.stderr.strip().splitlines()[-1]
  assert error.startswith('error: ') and 'model.ckpt-5' in error


@pytest.fixture
def run_on_voc(repository, published_checkpoint, real_data, tmp_path):
  """Function that runs a script on the VOC images with published weights.

  It takes the script's name and flags, and returns the finished process. What
  the script writes is in tmp_path / 'logs'.
  """
  folder = real_data('VOCdevkit/VOC2012')
  checkpoint = published_checkpoint('deeplabv3_mnv2_pascal_trainval')
  subprocess.run(
    [
      sys.executable,
      str(repository / 'datasets' / 'build_voc2012_data.py'),
      f'--image_folder={folder}/JPEGImages',
      f'--semantic_segmentation_folder={folder}/SegmentationClass',
      f'--list_folder={folder}/ImageSets/Segmentation',
      '--image_format=jpg',
      f'--output_dir={tmp_path}/tfrecord',
    ],
    check=True,
    capture_output=True,
  )

  def run(script, *flags):
    done = _run(
      repository,
      script,
      f'--checkpoint_dir={checkpoint}',
      f'--{script}_logdir={tmp_path}/logs',
      f'--dataset_dir={tmp_path}/tfrecord',
      *flags,
    )
    assert done.returncode == 0, done.stderr
    return done

  return run


@pytest.mark.slow
@pytest.mark.parametrize(
  ('config', 'arguments'),
  [
    ('os16', ['--output_stride=16', '--eval_batch_size=4']),
    ('os8', ['--output_stride=8']),
    (
      'os8msf',
      [
        '--output_stride=8',
        '--eval_scales=0.5,...,1.75',
        '--add_flipped_images',
      ],
    ),
  ],
)
def test_published_checkpoint_on_real_images(
  config, arguments, run_on_voc, testdata, tmp_path
):
  """The original's figures: mIoU within 0.0002, each class within 0.001."""
  run_on_voc('eval', *arguments)
  golden = json.loads((testdata / 'voc_val30_miou.json').read_text())[config]
  values = json.loads((tmp_path / 'logs' / 'miou_30000.json').read_text())
  assert values['miou'] == pytest.approx(golden['overall'], abs=2e-4)
  for index in range(21):
    expected = golden[f'class_{index}']
    value = values['scalars'][f'eval/{values["tag"]}_class_{index}']
    if expected is None:
      assert value is None
    else:
      assert value == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--trimap_boundary=void'], 'no effect without --trimap_widths'),
    (['--trimap_widths=5,2'], 'must be ascending widths'),
  ],
)
def test_trimap_flags_are_checked_first(
  arguments, message, repository, testdata, tmp_path
):
  done = _run(
    repository,
    'eval',
    f'--checkpoint_dir={tmp_path}/model.ckpt-5',
    f'--eval_logdir={tmp_path}/logs',
    f'--dataset_dir={testdata}/voc_tfrecord',
    *arguments,
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert message in done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_bfloat16_on_real_images(run_on_voc, testdata, tmp_path):
  """Less than 0.2 points of mIoU are lost."""
  run_on_voc('eval', '--inference_dtype=bfloat16')
  golden = json.loads((testdata / 'voc_val30_miou.json').read_text())['os16']
  values = json.loads((tmp_path / 'logs' / 'miou_30000.json').read_text())
  assert values['miou'] > golden['overall'] - 2e-3
  # It is not float32, which gives the very numbers.
  assert values['miou'] != pytest.approx(golden['overall'], abs=1e-6)


@pytest.mark.parametrize(
  ('script', 'limit', 'written'),
  [
    ('eval', 'max_number_of_evaluations', 'miou_7.json'),
    ('vis', 'max_number_of_iterations', 'index.html'),
  ],
)
def test_bfloat16(script, limit, written, repository, testdata, tmp_path):
  small_checkpoint.write(tmp_path / 'train', num_classes=21)
  done = _run(
    repository,
    script,
    f'--checkpoint_dir={tmp_path}/train',
    f'--{script}_logdir={tmp_path}/logs',
    f'--dataset_dir={testdata}/voc_tfrecord',
    f'--{script}_crop_size=65,65',
    '--max_resize_value=65',
    '--inference_dtype=bfloat16',
    f'--{limit}=1',
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'logs' / written).exists()


def test_bfloat16_is_for_one_device(repository, testdata, tmp_path):
  small_checkpoint.write(tmp_path / 'train', num_classes=21)
  done = _run(
    repository,
    'eval',
    f'--checkpoint_dir={tmp_path}/train',
    f'--eval_logdir={tmp_path}/logs',
    f'--dataset_dir={testdata}/voc_tfrecord',
    '--eval_batch_size=2',
    '--inference_dtype=bfloat16',
    '--clone_on_cpu',
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  error = done.stderr.strip().splitlines()[-1]
  assert '--inference_dtype=bfloat16' in error and '--num_clones' in error


@pytest.mark.slow
def test_trimap_on_real_images(run_on_voc, real_data, tmp_path):
  """The papers' bands, dilated here as their published code does it."""
  ndimage = pytest.importorskip('scipy.ndimage')
  run_on_voc('eval', '--trimap_widths=1,10,40', '--trimap_boundary=void')
  folder = real_data('VOCdevkit/VOC2012')
  names = folder / 'ImageSets' / 'Segmentation' / 'val.txt'
  void = []
  for name in names.read_text().split():
    path = folder / 'SegmentationClass' / f'{name}.png'
    void.append(np.array(Image.open(path)) == 255)
  values = json.loads((tmp_path / 'logs' / 'trimap_30000.json').read_text())
  miou = {1: 0.4238, 10: 0.6454, 40: 0.7583}
  for row in values['trimap']['bands']:
    size = 2 * row['width'] + 1
    assert row['num_pixels'] == sum(
      (ndimage.maximum_filter(item, size, mode='constant') & ~item).sum()
      for item in void
    )
    assert row['miou'] == pytest.approx(miou[row['width']], abs=2e-4)


@pytest.mark.slow
def test_the_page_of_pictures_on_real_images(run_on_voc, testdata, tmp_path):
  """It shows all pictures, and the original's mIoU."""
  done = run_on_voc('vis')
  path = tmp_path / 'logs' / 'index.html'
  assert f'30 images: {path}' in done.stdout
  found = re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)
  values = json.loads(found[1])
  assert values['title'] == 'pascal_voc_seg val, step 30000'
  golden = json.loads((testdata / 'voc_val30_miou.json').read_text())['os16']
  assert values['miou'] == pytest.approx(golden['overall'], abs=2e-4)
  for image in values['images']:
    assert list(image['layers']) == [
      *('image', 'prediction', 'overlay', 'label', 'error'),
    ]
    for name in image['layers'].values():
      with Image.open(tmp_path / 'logs' / name) as picture:
        assert picture.size == (image['width'], image['height'])
  with browser.open_page(f'file://{path}') as page:
    assert page.locator('.card').count() == 30
    page.locator('.card img').last.scroll_into_view_if_needed()
    page.wait_for_function(
      '[...document.querySelectorAll(".card:last-child img")]'
      '.every((one) => one.naturalWidth > 0)'
    )

"""A folder like the one in which a reader types the commands of the pages.

It looks like a checkout, with the files that the pages speak of, all of them
small. A command runs as it stands, but for the sizes of `_SMALL`.
"""

import os
import re
import shutil
import subprocess
import sys

import numpy as np
from conftest import ROOT
from PIL import Image

import recipe

# Flags that are set so on all commands of a script: less of the same.
_SMALL = {
  'train.py': {
    'training_number_of_steps': '2',
    'train_batch_size': '2',
    'train_crop_size': '65,65',
    'fine_tune_batch_norm': 'false',
    # From random weights the rates of the pages diverge.
    'base_learning_rate': '1e-9',
  },
  'eval.py': {'eval_crop_size': '97,129', 'max_number_of_evaluations': '1'},
  'vis.py': {'max_number_of_iterations': '1'},
  'export_model.py': {'crop_size': '97,129'},
}

# The published checkpoint of the pages, and the network that it is of.
_PUBLISHED = 'deeplabv3_mnv2_pascal_trainval'

_ALSO_PUBLISHED = (
  'zoo/mobilenetv2_coco_voc_trainaug',
  'zoo/mobilenetv2_coco_voc_trainval',
)

_TOP = (
  *('train.py', 'eval.py', 'vis.py', 'export_model.py', 'datasets'),
  *('recipes', 'setup.py', 'pyproject.toml'),
)


def _save(folder, name, array, palette=None):
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  image = Image.fromarray(array)
  if palette:
    image.putpalette(palette)
  image.save(path)


def _make_voc(folder):
  """A tiny VOC2012, in its own layout."""
  from deeplab.datasets import class_tables

  noise = np.random.default_rng(0)
  palette = [v for color in class_tables.pascal_colormap() for v in color]
  names = [f'2007_{i:06d}' for i in range(8)]
  for name in names:
    labels = np.zeros([96, 128], np.uint8)
    labels[20:60, 30:100] = noise.integers(1, 21)
    labels[20, 30:100] = 255
    image = labels[..., None] * np.uint8(10) + noise.integers(
      0, 40, [96, 128, 3], np.uint8
    )
    _save(folder, f'JPEGImages/{name}.jpg', image)
    _save(folder, f'SegmentationClass/{name}.png', labels, palette)
  lists = folder / 'ImageSets' / 'Segmentation'
  lists.mkdir(parents=True)
  for split, chosen in (
    ('train', names[:4]),
    ('train_aug', names[:4]),
    ('val', names[4:]),
    ('trainval', names),
  ):
    (lists / f'{split}.txt').write_text('\n'.join(chosen) + '\n')


def _pair(folder, image, label, labels):
  """Writes an image and its mask."""
  pixels = np.repeat(labels[..., None], 3, axis=2) % 7 * np.uint8(30)
  _save(folder, image, pixels)
  _save(folder, label, labels)


def _make_masks(folder):
  """masks/ and classes.csv, for photos/, as docs/own_data.md has them."""
  page = (ROOT / 'docs' / 'own_data.md').read_text()
  table = re.search(r'^```csv\n(.*?)^```', page, re.MULTILINE | re.DOTALL)[1]
  (folder / 'classes.csv').write_text(table)
  colors = [line.split(',')[1:] for line in table.splitlines()[1:]]
  colors = np.array(colors, np.uint8)
  for path in (folder / 'photos').iterdir():
    labels = np.arange(128) * len(colors) // 128
    mask = np.broadcast_to(colors[labels], [96, 128, 3])
    _save(folder, f'masks/{path.stem}.png', np.ascontiguousarray(mask))


def _make_cityscapes(folder):
  labels = np.full([64, 128], 7, np.uint8)
  for split in ('train', 'val'):
    name = f'{split}/aachen/aachen_000000_000019'
    image = f'leftImg8bit/{name}_leftImg8bit.png'
    _pair(folder, image, f'gtFine/{name}_gtFine_labelIds.png', labels)


def _make_ade20k(folder):
  labels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 151
  for split in ('training', 'validation'):
    _pair(
      folder,
      f'images/{split}/ADE_{split}_1.jpg',
      f'annotations/{split}/ADE_{split}_1.png',
      labels.astype(np.uint8),
    )


def _make_camvid(folder):
  labels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 12
  for split in ('train', 'val'):
    _pair(
      folder,
      f'{split}/1.png',
      f'{split}annot/1.png',
      labels.astype(np.uint8),
    )
    (folder / f'{split}.txt').write_text('1.png\n')


def _make_checkpoint(folder):
  """A checkpoint of the published one's network, with one class everywhere.

  A network of random weights decides by its last digits, which are others in
  each format of an export.
  """
  from deeplab import checkpoints, common, model

  options = common.ModelOptions(
    outputs_to_num_classes={'semantic': 21}, crop_size=[97, 129]
  )
  variables = checkpoints.named_variables(model.build_model(options))
  recipe.assign(variables)
  kernel = variables['logits/semantic/weights']
  kernel.assign(np.zeros(kernel.shape))
  checkpoints.save(str(folder), 30000, variables)


def make(folder):
  """Makes the folder.

  Args:
    folder: a pathlib.Path that is not there yet.
  """
  from deeplab.datasets import build_voc2012_data

  folder.mkdir()
  for name in _TOP:
    (folder / name).symlink_to(ROOT / name)
  voc = folder / 'VOCdevkit' / 'VOC2012'
  _make_voc(voc)
  build_voc2012_data.convert(
    str(voc / 'JPEGImages'),
    str(voc / 'SegmentationClass'),
    str(voc / 'ImageSets' / 'Segmentation'),
    str(folder / 'tfrecord'),
  )
  # Where the scripts that download put it.
  shutil.copytree(folder / 'tfrecord', folder / 'pascal_voc_seg' / 'tfrecord')
  shutil.copytree(voc / 'JPEGImages', folder / 'photos')
  _make_masks(folder)
  _make_cityscapes(folder / 'cityscapes')
  _make_ade20k(folder / 'ADEChallengeData2016')
  _make_camvid(folder / 'CamVid')
  _make_checkpoint(folder / _PUBLISHED)
  for name in _ALSO_PUBLISHED:
    shutil.copytree(folder / _PUBLISHED, folder / name)
  for path in (folder / _PUBLISHED).glob('model.ckpt-30000.*'):
    shutil.copy(path, folder)
  small = [f'--{name}={value}' for name, value in _SMALL['train.py'].items()]
  run(
    folder,
    'python train.py --train_logdir=train --dataset=tfrecord '
    f'--tf_initial_checkpoint={_PUBLISHED} {" ".join(small)}',
  )


def text_of(command):
  """The text of a docs_commands.Command as it is run here."""
  text = re.sub(r'\s#.*', '', command.text)
  for name, value in _SMALL.get(command.script, {}).items():
    text = re.sub(rf'\s--{name}=\S+', '', text) + f' --{name}={value}'
  if str(command.script).startswith('recipes/'):
    # tests/recipes runs them.
    text += ' --dry_run'
  # There are no weights of ImageNet here.
  return re.sub(
    r'\s--tf_initial_checkpoint=\S+\.ckpt(\s--initialize_last_layer=false)?',
    '',
    text,
  )


def run(folder, text, timeout=1800):
  """Runs a command in the folder; if it fails, an error has its output.

  A training begins anew.
  """
  logdir = re.search(r'--train_logdir=(\S+)', text)
  if logdir:
    shutil.rmtree(folder / logdir[1], ignore_errors=True)
  done = subprocess.run(
    ['bash', '-c', text],
    cwd=folder,
    env={
      **os.environ,
      'PATH': f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}',
      'TF_CPP_MIN_LOG_LEVEL': '3',
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=timeout,
  )
  assert done.returncode == 0, f'{text}\n{done.stdout}'

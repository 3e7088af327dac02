"""What reads data sets after their conversion: checks, training, pictures.

Networks are built once, for all cases.
"""

import functools
import glob
import json
import os
import pathlib
import tempfile
from unittest import mock

import numpy as np
import small_checkpoint
from converter_files import write_image, write_mask
from fuzz.targets import OUTPUT, Target
from PIL import Image

from deeplab import atomic_files, checkpoints, common
from deeplab.common import InputError
from deeplab.datasets import (
  build_data,
  data_generator,
  dataset_info,
  folder_examples,
)
from deeplab.datasets.checks import check_page, check_report, dataset_checks
from deeplab.evaluation import (
  any_size,
  contact_sheet,
  photos,
  prediction,
  visualizer,
)
from deeplab.training import config as config_lib
from deeplab.training import loop, train_step

_CROP = (33, 33)
_SHAPE = (24, 32)

_INFO = small_checkpoint.INFO


# Inputs.


def _write_shards(root):
  """A data set of two splits with two shards each."""
  splits = {}
  with tempfile.TemporaryDirectory() as folder:
    for seed, name in enumerate(['a', 'b/c', 'd', 'e']):
      image, mask = (f'{folder}/{seed}.{end}' for end in ('jpg', 'png'))
      pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
      blocks = pixels.repeat(8, axis=0).repeat(8, axis=1)
      Image.fromarray(blocks).save(image if seed % 2 else mask)
      if seed % 2 == 0:
        os.rename(mask, image)
      labels = np.resize([0, 1, 2, 255], _SHAPE).astype(np.uint8)
      Image.fromarray(labels).save(mask)
      split = 'train' if seed < 2 else 'val'
      splits.setdefault(split, []).append(build_data.Example(name, image, mask))
    build_data.convert(splits, str(root / 'data'), _INFO, num_shards=2)
  path = root / 'data' / dataset_info.FILE_NAME
  path.write_text(json.dumps(json.loads(path.read_text()), indent=1))


_SHARDS = {'records': 'data/train-*', 'JSON': f'data/{dataset_info.FILE_NAME}'}


def _write_files(root):
  for seed, name in enumerate('abc'):
    write_image(root / f'images/{name}.jpg', _SHAPE, seed=seed)
    write_mask(root / f'masks/{name}.png', np.full(_SHAPE, seed, np.uint8))
  for split, names in (('train', 'ab'), ('val', 'c')):
    path = root / f'lists/{split}.txt'
    path.parent.mkdir(exist_ok=True)
    path.write_text(''.join(f'{name}\n' for name in names))
  info = {'name': 'mine', 'num_classes': 3, 'class_names': ['x', 'y', 'z']}
  (root / 'info.json').write_text(json.dumps(info, indent=1))


def _write_photos(root):
  for seed, name in enumerate(['a.jpg', 'b.png', 'c/d.webp', 'e.tif']):
    write_image(root / 'photos' / name, _SHAPE, seed=seed)


# check_dataset.py.


def _report(root, report):
  """What the script does with a report; errors are a refusal."""
  text = check_report.to_text(report)
  text.encode()
  folder = str(root / OUTPUT)
  pages = {
    'check.html': check_page.make(report),
    'check.json': check_report.to_json(report),
  }
  for name, content in pages.items():
    atomic_files.write(os.path.join(folder, name), content)
  if report.num_errors:
    _check_written(root)
    raise InputError(text)


def _check_shards(root):
  data = str(root / 'data')
  _report(root, dataset_checks.check_shards(None, data, num_samples=2))


def _check_files(root):
  options = folder_examples.Options(
    class_table=str(root / 'info.json'), list_folder=str(root / 'lists')
  )
  report = dataset_checks.check_folders(
    str(root / 'images'), str(root / 'masks'), options, num_samples=2
  )
  _report(root, report)


def _check_written(root):
  report = json.loads((root / OUTPUT / 'check.json').read_text())
  assert report['splits']
  assert '</html>' in (root / OUTPUT / 'check.html').read_text()
  assert len(list((root / OUTPUT).iterdir())) == 2


# train.py.


class _StepOnce(train_step.TrainStep):
  """A step that is built and compiled once, and begins anew each time."""

  def __init__(self, *arguments):
    super().__init__(*arguments)
    self._start = {name: v.numpy() for name, v in self.state().items()}
    self._function = None

  def begin(self):
    """Brings everything back to where it was."""
    for name, variable in self.state().items():
      variable.assign(self._start[name])

  def compile(self, element_spec):
    if self._function is None:
      self._function = super().compile(element_spec)
    return self._function


_STEPS = {}


def _step(config, strategy, ignore_label):
  """The step of a number of classes and an ignore label."""
  (num_classes,) = config.model_options.outputs_to_num_classes.values()
  key = num_classes, ignore_label
  if key not in _STEPS:
    _STEPS[key] = _StepOnce(config, strategy, ignore_label)
  _STEPS[key].begin()
  return _STEPS[key]


def _config(data, logdir, num_classes):
  options = common.ModelOptions(
    outputs_to_num_classes={'semantic': num_classes},
    crop_size=list(_CROP),
    output_stride=16,
    depth_multiplier=0.1,
    divisible_by=8,
  )
  return config_lib.TrainConfig(
    model_options=options,
    train_logdir=logdir,
    dataset_dir=data,
    train_batch_size=2,
    training_number_of_steps=1,
    save_retry_secs=0,
    max_read_retries=0,
  )


def _train(root):
  """The whole of the first and last step, with the network of other cases."""
  data = str(root / 'data')
  num_classes = dataset_info.resolve(None, data).num_classes
  config = _config(data, str(root / OUTPUT), num_classes)
  with mock.patch.object(train_step, 'TrainStep', _step):
    loop.train(config)


def _check_training(root):
  assert checkpoints.latest(str(root / OUTPUT)) is not None
  _check_whole(root)


def _check_whole(root):
  """Nothing is left that was begun."""
  for path in (root / OUTPUT).rglob('*'):
    assert 'tmp' not in path.name
    if path.suffix == '.json':
      json.loads(path.read_text())
    if path.suffix in ('.png', '.jpg'):
      Image.open(path).load()


# vis.py.


@functools.cache
def _network(num_classes, make):
  """A predictor with the weights of a checkpoint."""
  with tempfile.TemporaryDirectory() as folder:
    options = small_checkpoint.write(
      pathlib.Path(folder), num_classes=num_classes
    )
    predict = make(options)
    predict.restore(checkpoints.latest(folder))
  return predict


class _Job:
  """A prediction.Job of one checkpoint, whose network is there."""

  def __init__(self, predict, dataset):
    self._run = prediction.Run(predict, dataset)

  def runs(self):
    yield self._run


def _fixed(options):
  return prediction.Predictor(options.replace(crop_size=list(_CROP)), _CROP)


def _any(options):
  return any_size.AnySizePredictor(options, max_tile_size=1025)


def _vis_records(root):
  dataset = data_generator.Dataset(
    None, 'train', str(root / 'data'), 1, list(_CROP)
  )
  predict = _network(dataset.num_of_classes, _fixed)
  visualizer.run(_Job(predict, dataset), str(root / OUTPUT), also_save_raw=True)


def _vis_photos(root):
  pattern = os.path.join(glob.escape(str(root)), 'photos', '**')
  dataset = photos.Photos([pattern], _INFO)
  predict = _network(_INFO.num_classes, _any)
  visualizer.run(_Job(predict, dataset), str(root / OUTPUT), also_save_raw=True)
  dataset.check()


def _check_pictures(root):
  assert (root / OUTPUT / contact_sheet.FILE_NAME).is_file()
  _check_whole(root)


TARGETS = (
  Target(
    'check_dataset: shards',
    _SHARDS,
    _write_shards,
    _check_shards,
    _check_written,
    is_atomic=False,
  ),
  Target(
    'check_dataset: folders',
    {
      'image': 'images/*.jpg',
      'mask': 'masks/*.png',
      'list': 'lists/*.txt',
      'JSON': 'info.json',
    },
    _write_files,
    _check_files,
    _check_written,
    is_atomic=False,
  ),
  Target(
    'train',
    _SHARDS,
    _write_shards,
    _train,
    _check_training,
    is_atomic=False,
    # An earlier training would be at its end already.
    has_earlier=False,
    # Of a checkpoint the path may hold no brackets.
    folder='a \u00e9',
  ),
  Target(
    'vis: records',
    _SHARDS,
    _write_shards,
    _vis_records,
    _check_pictures,
    is_atomic=False,
  ),
  Target(
    'vis: photographs',
    {'image': 'photos/**/*.*'},
    _write_photos,
    _vis_photos,
    _check_pictures,
    is_atomic=False,
  ),
)

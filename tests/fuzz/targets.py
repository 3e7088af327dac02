"""What is fed with damaged files: whole small inputs, and how they are read."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping

import numpy as np
import scipy.io
import tensorflow as tf
from converter_files import write_image, write_mask
from fuzz import (
  file_mutations,
  image_mutations,
  record_mutations,
  text_mutations,
)
from PIL import Image

import coco_files
from deeplab.datasets import (
  build_ade20k_data,
  build_cityscapes_data,
  build_coco_data,
  build_image_folder_data,
  build_voc2012_data,
  dataset_info,
  records,
)

# The folder of a case that results go into.
OUTPUT = 'out'

_ANY = (*file_mutations.FILES, *file_mutations.BYTES)

# {kind of an input: what may happen to it}.
MUTATIONS = {
  'image': (*_ANY, *image_mutations.IMAGES),
  'mask': (*_ANY, *image_mutations.IMAGES),
  'list': (*_ANY, *text_mutations.LINES),
  'table': (*_ANY, *text_mutations.TABLE),
  'JSON': (*_ANY, *text_mutations.JSON),
  'MATLAB': _ANY,
  'records': (*_ANY, *record_mutations.RECORDS),
}


@dataclasses.dataclass(frozen=True)
class Target:
  """Code that reads files of users.

  Attributes:
    name: of the target.
    inputs: {kind in MUTATIONS: pattern of the files of that kind}.
    write: write(root) writes whole inputs.
    run: run(root) reads them, and writes to `root / OUTPUT`.
    check: check(root) raises AssertionError unless what `run` wrote, when it
      came to its end, is whole.
    is_atomic: whether a refusal leaves OUTPUT as it was; else its files are
      whole, each for itself.
    has_earlier: whether every second case finds the results of an earlier run.
    folder: name of the folder of a case.
  """

  name: str
  inputs: Mapping[str, str]
  write: Callable[[pathlib.Path], None]
  run: Callable[[pathlib.Path], None]
  check: Callable[[pathlib.Path], None]
  is_atomic: bool = True
  has_earlier: bool = True
  folder: str = 'a [b] \u00e9'


# Converters.

_SHAPE = (24, 32)


def _labels(seed, values):
  """A mask of blocks, with all of the values."""
  blocks = np.resize(np.roll(values, seed), (6, 8)).astype(np.uint8)
  return blocks.repeat(4, axis=0).repeat(4, axis=1)


def _pairs(root, images, masks, names, values, extension='jpg'):
  """Images and masks; {} in the paths is the name."""
  for seed, name in enumerate(names):
    write_image(root / images / f'{name}.{extension}', _SHAPE, seed=seed)
    write_mask(root / masks / f'{name}.png', _labels(seed, values))


def _lines(path, lines):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(f'{line}\n' for line in lines))


@functools.cache
def _parse(with_label):
  return tf.function(
    functools.partial(records.parse_example, with_label=with_label),
    input_signature=[tf.TensorSpec([], tf.string)],
  )


def check_shards(root):
  """Every record that a converter wrote can be read, and is legal."""
  folder = root / OUTPUT
  info = dataset_info.load(str(folder))
  names = {dataset_info.FILE_NAME}
  for split, count in info.splits.items():
    shards = records.scan(str(folder), split)
    names |= {pathlib.Path(shard.path).name for shard in shards}
    assert sum(shard.num_records for shard in shards) == count
    has_labels = records.find_split(str(folder), split).has_labels
    # Many are empty, and each takes its time.
    full = [shard.path for shard in shards if shard.num_records]
    for serialized in tf.data.TFRecordDataset(full):
      _, label, _ = _parse(has_labels)(serialized)
      if has_labels:
        values = set(np.unique(label).tolist())
        assert values <= {*range(info.num_classes), info.ignore_label}
  assert {path.name for path in folder.iterdir()} == names


def _converter(name, inputs, write, run):
  return Target(name, inputs, write, run, check_shards)


_TABLE = ('road,128,64,128', 'car,64,0,128', 'void,0,0,0')
_COLORS = np.array([[128, 64, 128], [64, 0, 128], [0, 0, 0]], np.uint8)
_NAMES = ('a1', 'a2', 'b/a3', 'b/a4')


def _convert_folder(labels, **options):
  """`run` of build_image_folder_data; options that end in / are paths."""

  def run(root):
    paths = {
      key: str(root / value) if key in ('class_table', 'list_folder') else value
      for key, value in options.items()
    }
    result = build_image_folder_data.convert(
      str(root / 'photos'),
      str(root / labels),
      str(root / OUTPUT),
      'mine',
      build_image_folder_data.Options(**paths),
    )
    build_image_folder_data.summary(*result).encode()

  return run


def _write_colors(root):
  _pairs(root, 'photos', 'masks', _NAMES, [0])
  for seed, name in enumerate(_NAMES):
    pixels = _COLORS[_labels(seed, [0, 1, 2])]
    Image.fromarray(pixels).save(root / f'masks/{name}.png')
  _lines(root / 'classes.csv', _TABLE)
  _lines(root / 'lists/train.txt', _NAMES[:3])
  _lines(root / 'lists/val.txt', _NAMES[3:])


def _write_palettes(root):
  _pairs(root, 'photos', 'masks', _NAMES, [0, 1, 2, 255], 'png')
  for name in _NAMES[:2]:
    path = root / f'masks/{name}.png'
    image = Image.open(path).convert('P')
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(path)


def _write_labelme(root):
  _pairs(root, 'photos', 'masks', _NAMES, [0])
  shapes = [
    {'label': 'car', 'points': [[1, 1], [20.5, 2], [9, 18]]},
    {'label': 'road', 'points': [[0, 0], [9, 9]], 'shape_type': 'rectangle'},
    {'label': 'car', 'points': [[5, 5], [9, 5]], 'shape_type': 'circle'},
    {'label': 'pole', 'points': [[3, 0], [3, 20]], 'shape_type': 'line'},
  ]
  for name in _NAMES:
    content = {'imageHeight': 24, 'imageWidth': 32, 'shapes': shapes}
    path = root / f'json/{name}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))
  table = {'road': [1, 2, 3], 'car': [4, 5, 6], 'pole': [7, 8, 9]}
  (root / 'classes.json').write_text(json.dumps(table, indent=1))


def _write_instances(root):
  _pairs(root, 'photos', 'masks', _NAMES, [0])
  images = [
    {'id': i, 'file_name': f'{name}.jpg', 'height': 24, 'width': 32}
    for i, name in enumerate(_NAMES)
  ]
  shapes = [
    [[1, 1, 20, 2, 9.5, 18]],
    {'size': [24, 32], 'counts': [100, 50, 618]},
    {'size': [24, 32], 'counts': 'T3b1Zc0'},
  ]
  annotations = [
    {
      'image_id': i,
      'category_id': 3 + k % 2,
      'segmentation': shape,
      'iscrowd': k // 2,
    }
    for i in range(4)
    for k, shape in enumerate(shapes)
  ]
  content = {
    'images': images,
    'annotations': annotations,
    'categories': [{'id': 3, 'name': 'car'}, {'id': 4, 'name': 'road'}],
  }
  (root / 'instances.json').write_text(json.dumps(content, indent=1))


def _write_panoptic(root, folder, name, images):
  """COCO's panoptic annotations of images, which are written too."""
  ids = _labels(0, [0, 7, 44, 255]).astype(int) * 300
  infos = [
    {'id': 300 * value, 'category_id': category, 'iscrowd': 0}
    for value, category in ((7, 1), (44, 2), (255, 3))
  ]
  path = coco_files.write(
    folder,
    name,
    [(image, ids, infos) for image in images],
    categories=[
      {**category, 'color': [i, 2, 3]}
      for i, category in enumerate(coco_files.CATEGORIES)
    ],
  )
  path.write_text(json.dumps(json.loads(path.read_text()), indent=1))


def _write_folder_panoptic(root):
  _pairs(root, 'photos', 'masks', ('a1', 'a2', 'a3'), [0])
  _write_panoptic(root, root, 'panoptic', ('a1', 'a2', 'a3'))


_FOLDERS = (
  _converter(
    'own folder: colours',
    {
      'image': 'photos/**/*.jpg',
      'mask': 'masks/**/*.png',
      'table': 'classes.csv',
      'list': 'lists/*.txt',
    },
    _write_colors,
    _convert_folder('masks', class_table='classes.csv', list_folder='lists'),
  ),
  _converter(
    'own folder: indices',
    {'image': 'photos/**/*.png', 'mask': 'masks/**/*.png'},
    _write_palettes,
    _convert_folder('masks'),
  ),
  _converter(
    'own folder: LabelMe',
    {'image': 'photos/**/*.jpg', 'JSON': '**/*.json'},
    _write_labelme,
    _convert_folder(
      'json', line_width=2.0, class_table='classes.json', unknown='ignore'
    ),
  ),
  _converter(
    'own folder: instances',
    {'JSON': 'instances.json'},
    _write_instances,
    _convert_folder('instances.json', apply_exif_rotation=True),
  ),
  _converter(
    'own folder: panoptic',
    {'JSON': 'panoptic.json', 'mask': 'panoptic/*.png'},
    _write_folder_panoptic,
    _convert_folder('panoptic.json', label_format='coco_panoptic', split='all'),
  ),
)


def _write_voc(root):
  _pairs(root, 'images', 'masks', ('a', 'b', 'c'), [0, 1, 2, 255])
  _lines(root / 'lists/train.txt', 'ab')
  _lines(root / 'lists/val.txt', 'c')
  info = {'name': 'mine', 'num_classes': 3, 'class_names': ['x', 'y', 'z']}
  (root / 'info.json').write_text(json.dumps(info, indent=1))


def _convert_voc(root):
  build_voc2012_data.convert(
    str(root / 'images'),
    str(root / 'masks'),
    str(root / 'lists'),
    str(root / OUTPUT),
    info=dataset_info.load(str(root / 'info.json')),
  )


def _write_sbd(root):
  _write_voc(root)
  _pairs(root, 'sbd/img', 'sbd/masks', ('a', 'd', 'e'), [0, 1, 20])
  for seed, name in enumerate('ade'):
    path = root / f'sbd/cls/{name}.mat'
    path.parent.mkdir(exist_ok=True)
    content = {'GTcls': {'Segmentation': _labels(seed, [0, 1, 20])}}
    scipy.io.savemat(path, content, do_compression=name != 'd')
  _lines(root / 'sbd/train.txt', 'ad')
  _lines(root / 'sbd/val.txt', 'e')


def _convert_sbd(root):
  build_voc2012_data.convert(
    str(root / 'images'),
    str(root / 'masks'),
    str(root / 'lists'),
    str(root / OUTPUT),
    sbd_root=str(root / 'sbd'),
  )


def _write_cityscapes(root):
  for folder, names in (('train', 'ab'), ('val', 'c')):
    for name in names:
      images, masks = f'leftImg8bit/{folder}/x', f'gtFine/{folder}/x'
      write_image(root / images / f'{name}_leftImg8bit.png', _SHAPE)
      kind = 'labelIds' if name == 'a' else 'labelTrainIds'
      write_mask(
        root / masks / f'{name}_gtFine_{kind}.png', _labels(0, [7, 8, 11])
      )


def _convert_cityscapes(root):
  build_cityscapes_data.convert(
    str(root), str(root / OUTPUT), ['train_fine', 'val_fine']
  )


def _write_ade20k(root):
  _pairs(root, 'images', 'masks', ('a', 'b', 'c'), [0, 1, 150])


def _convert_ade20k(root):
  build_ade20k_data.convert(
    {'train': (str(root / 'images'), str(root / 'masks'))}, str(root / OUTPUT)
  )


def _write_stuff(root):
  _pairs(
    root, 'val2017', 'stuffthingmaps/val2017', ('a', 'b'), [0, 1, 181, 255]
  )


def _write_coco_panoptic(root):
  _pairs(root, 'val2017', 'unused', ('a', 'b'), [0])
  _write_panoptic(root, root / 'annotations', 'panoptic_val2017', ('a', 'b'))


def _convert_coco(labels):
  return lambda root: build_coco_data.convert(
    str(root), labels, str(root / OUTPUT)
  )


_PUBLISHED = (
  _converter(
    'VOC',
    {
      'image': 'images/*.jpg',
      'mask': 'masks/*.png',
      'list': 'lists/*.txt',
      'JSON': 'info.json',
    },
    _write_voc,
    _convert_voc,
  ),
  _converter(
    'SBD',
    {'image': 'sbd/img/*.jpg', 'MATLAB': 'sbd/cls/*.mat', 'list': 'sbd/*.txt'},
    _write_sbd,
    _convert_sbd,
  ),
  _converter(
    'Cityscapes',
    {'image': 'leftImg8bit/**/*.png', 'mask': 'gtFine/**/*.png'},
    _write_cityscapes,
    _convert_cityscapes,
  ),
  _converter(
    'ADE20K',
    {'image': 'images/*.jpg', 'mask': 'masks/*.png'},
    _write_ade20k,
    _convert_ade20k,
  ),
  _converter(
    'COCO-Stuff',
    {'image': 'val2017/*.jpg', 'mask': 'stuffthingmaps/**/*.png'},
    _write_stuff,
    _convert_coco('stuff'),
  ),
  _converter(
    'COCO panoptic',
    {
      'image': 'val2017/*.jpg',
      'mask': 'annotations/**/*.png',
      'JSON': 'annotations/*.json',
    },
    _write_coco_panoptic,
    _convert_coco('panoptic'),
  ),
)

CONVERTERS = (*_FOLDERS, *_PUBLISHED)

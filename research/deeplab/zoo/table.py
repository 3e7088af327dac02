"""Every published checkpoint of the original, as a table.

Names, archives, accuracies and multiply-adds are those of the original's model
zoo (g3doc/model_zoo.md and g3doc/quantize.md) and, for the classification
checkpoints it refers to, of slim's pages. No official checksums exist.
"""

import difflib
import functools

from deeplab.common import InputError
from deeplab.core import dense_prediction_cell
from deeplab.zoo.entry import BACKBONE, Entry, Evaluation

_HOST = 'http://download.tensorflow.org/models/'
_MOBILENET_V2_HOST = 'https://storage.googleapis.com/mobilenet_v2/checkpoints/'
_EDGETPU_HOST = 'https://storage.googleapis.com/mobilenet_edgetpu/checkpoints/'

# What multi-scale tests average over.
_SCALES_175 = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
_SCALES_125 = (0.75, 1.0, 1.25)
_SCALES_200 = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


# Networks.


def _mobilenet_v2(depth=1.0, **fields):
  options = {'model_variant': 'mobilenet_v2', 'output_stride': 16}
  if depth != 1.0:
    options['depth_multiplier'] = depth
  return {**options, **fields}


def _xception(variant='xception_65'):
  return {
    'model_variant': variant,
    'output_stride': 16,
    'atrous_rates': [6, 12, 18],
    'decoder_output_stride': [4],
  }


def _xception_71_dpc():
  return {
    'model_variant': 'xception_71',
    'output_stride': 16,
    'decoder_output_stride': [4],
    'dense_prediction_cell_config': dense_prediction_cell.read_config(
      dense_prediction_cell.PUBLISHED_CELL
    ),
  }


def _mobilenet_v3(variant):
  return {
    'model_variant': variant,
    'output_stride': 32,
    'image_pooling_crop_size': [769, 769],
    'image_pooling_stride': [4, 5],
    'aspp_convs_filters': 128,
    'aspp_with_concat_projection': False,
    'aspp_with_squeeze_and_excitation': True,
    'image_se_uses_qsigmoid': True,
    'decoder_output_stride': [8],
    'decoder_use_sum_merge': True,
    'decoder_filters': 19,
    'decoder_output_is_logits': True,
  }


def _edgetpu(**fields):
  return {'model_variant': 'mobilenet_edgetpu', 'output_stride': 16, **fields}


# Entries.


def _voc(name, archive, fields, evaluations, size_mb, trainval, **more):
  own = 'VOC 2012 train_aug' + (' + trainval' if trainval else '')
  return Entry(
    name=name,
    url=f'{_HOST}{archive}.tar.gz',
    pretraining=('ImageNet', 'MS-COCO', own),
    fields=fields,
    dataset='pascal_voc_seg',
    evaluations=evaluations,
    size_mb=size_mb,
    **more,
  )


def _cityscapes(name, archive, fields, evaluations, pretraining, size_mb=None):
  return Entry(
    name=name,
    url=f'{_HOST}{archive}.tar.gz',
    pretraining=pretraining,
    fields=fields,
    dataset='cityscapes',
    crop_size=(1025, 2049),
    evaluations=evaluations,
    size_mb=size_mb,
  )


def _ade20k(name, archive, fields, evaluation, side, size_mb):
  return Entry(
    name=name,
    url=f'{_HOST}{archive}.tar.gz',
    pretraining=('ImageNet', 'ADE20K train'),
    fields=fields,
    dataset='ade20k',
    crop_size=(side, side),
    longest_side=side,
    evaluations=(evaluation,),
    size_mb=size_mb,
  )


def _backbone(name, url, fields, size_mb=None, top_1=None, coco=False):
  return Entry(
    name=name,
    url=url,
    pretraining=('ImageNet', 'MS-COCO') if coco else ('ImageNet',),
    fields=fields,
    kind=BACKBONE,
    size_mb=size_mb,
    top_1=top_1,
  )


_VOC = (
  _voc(
    'mobilenetv2_dm05_coco_voc_trainaug',
    'deeplabv3_mnv2_dm05_pascal_trainaug_2018_10_01',
    _mobilenet_v2(0.5),
    (Evaluation(16, 70.19, multiply_adds=0.88),),
    7.6,
    trainval=False,
  ),
  _voc(
    'mobilenetv2_dm05_coco_voc_trainval',
    'deeplabv3_mnv2_dm05_pascal_trainval_2018_10_01',
    _mobilenet_v2(0.5),
    (Evaluation(8, 71.83, 'test', multiply_adds=2.84),),
    7.6,
    trainval=True,
  ),
  _voc(
    'mobilenetv2_coco_voc_trainaug',
    'deeplabv3_mnv2_pascal_train_aug_2018_01_29',
    _mobilenet_v2(),
    (
      Evaluation(16, 75.32, multiply_adds=2.75),
      Evaluation(8, 77.33, 'val', _SCALES_175, True, 152.59),
    ),
    23,
    trainval=False,
  ),
  _voc(
    'mobilenetv2_coco_voc_trainval',
    'deeplabv3_mnv2_pascal_trainval_2018_01_29',
    _mobilenet_v2(),
    (Evaluation(8, 80.25, 'test', _SCALES_175, True, 152.59),),
    23,
    trainval=True,
  ),
  _voc(
    'xception65_coco_voc_trainaug',
    'deeplabv3_pascal_train_aug_2018_01_04',
    _xception(),
    (
      Evaluation(16, 82.20, multiply_adds=54.17),
      Evaluation(8, 83.58, 'val', _SCALES_175, True, 3055.35),
    ),
    439,
    trainval=False,
  ),
  _voc(
    'xception65_coco_voc_trainval',
    'deeplabv3_pascal_trainval_2018_01_04',
    _xception(),
    (Evaluation(8, 87.80, 'test', _SCALES_175, True, 3055.35),),
    439,
    trainval=True,
  ),
  _voc(
    'mobilenetv2_dm05_coco_voc_trainaug_8bit',
    'deeplabv3_mnv2_dm05_pascal_train_aug_8bit_2019_04_26',
    _mobilenet_v2(0.5),
    (Evaluation(16, 69.65, multiply_adds=0.88),),
    8.2,
    trainval=False,
    quantized=True,
  ),
  _voc(
    'mobilenetv2_coco_voc_trainaug_8bit',
    'deeplabv3_mnv2_pascal_train_aug_8bit_2019_04_26',
    _mobilenet_v2(),
    (Evaluation(16, 74.26, multiply_adds=2.75),),
    24,
    trainval=False,
    quantized=True,
  ),
)

_CITYSCAPES = (
  _cityscapes(
    'mobilenetv2_coco_cityscapes_trainfine',
    'deeplabv3_mnv2_cityscapes_train_2018_02_05',
    _mobilenet_v2(),
    (
      Evaluation(16, 70.71, multiply_adds=21.27),
      Evaluation(8, 73.57, 'val', _SCALES_125, True, 433.24),
    ),
    ('ImageNet', 'MS-COCO', 'Cityscapes train_fine'),
    23,
  ),
  _cityscapes(
    'mobilenetv3_large_cityscapes_trainfine',
    'deeplab_mnv3_large_cityscapes_trainfine_2019_11_15',
    _mobilenet_v3('mobilenet_v3_large_seg'),
    (Evaluation(32, 72.41, multiply_adds=15.95),),
    ('Cityscapes train_fine',),
    17,
  ),
  _cityscapes(
    'mobilenetv3_small_cityscapes_trainfine',
    'deeplab_mnv3_small_cityscapes_trainfine_2019_11_15',
    _mobilenet_v3('mobilenet_v3_small_seg'),
    (Evaluation(32, 68.99, multiply_adds=4.63),),
    ('Cityscapes train_fine',),
    5,
  ),
  _cityscapes(
    'xception65_cityscapes_trainfine',
    'deeplabv3_cityscapes_train_2018_02_06',
    _xception(),
    (
      Evaluation(16, 78.79, multiply_adds=418.64),
      Evaluation(8, 80.42, 'val', _SCALES_125, True, 8677.92),
    ),
    ('ImageNet', 'Cityscapes train_fine'),
    439,
  ),
  _cityscapes(
    'xception71_dpc_cityscapes_trainfine',
    'deeplab_cityscapes_xception71_trainfine_2018_09_08',
    _xception_71_dpc(),
    (Evaluation(16, 80.31, multiply_adds=502.07),),
    ('ImageNet', 'MS-COCO', 'Cityscapes train_fine'),
    445,
  ),
  _cityscapes(
    'xception71_dpc_cityscapes_trainval',
    'deeplab_cityscapes_xception71_trainvalfine_2018_09_08',
    _xception_71_dpc(),
    (Evaluation(8, 82.66, 'test', _SCALES_200, True),),
    ('ImageNet', 'MS-COCO', 'Cityscapes trainval_fine + coarse'),
    446,
  ),
  _cityscapes(
    'EdgeTPU-DeepLab',
    'edgetpu-deeplab_2020_03_09',
    _edgetpu(),
    (
      Evaluation(32, 70.6, multiply_adds=5.6),
      Evaluation(16, 74.1, multiply_adds=7.1),
    ),
    ('ImageNet', 'Cityscapes train_fine'),
  ),
  _cityscapes(
    'EdgeTPU-DeepLab-slim',
    'edgetpu-deeplab-slim_2020_03_09',
    _edgetpu(depth_multiplier=0.75, aspp_convs_filters=128),
    (
      Evaluation(32, 70.0, multiply_adds=3.5),
      Evaluation(16, 73.2, multiply_adds=4.3),
    ),
    ('ImageNet', 'Cityscapes train_fine'),
  ),
)

_ADE20K = (
  _ade20k(
    'mobilenetv2_ade20k_train',
    'deeplabv3_mnv2_ade20k_train_2018_12_03',
    _mobilenet_v2(decoder_output_stride=[4]),
    Evaluation(16, 32.04, pixel_accuracy=75.41),
    257,
    24.8,
  ),
  _ade20k(
    'xception65_ade20k_train',
    'deeplabv3_xception_ade20k_train_2018_05_29',
    _xception(),
    Evaluation(8, 45.65, 'val', _SCALES_175, True, pixel_accuracy=82.52),
    513,
    439,
  ),
)

# Image classification networks without their head, to train from.
_BACKBONES = (
  *(
    _backbone(name, f'{_HOST}{archive}.tar.gz', {'model_variant': variant}, mb)
    for name, archive, variant, mb in (
      ('xception_41_imagenet', 'xception_41_2018_05_09', 'xception_41', 288),
      (
        'xception_65_imagenet',
        'deeplabv3_xception_2018_01_04',
        'xception_65',
        447,
      ),
      ('xception_71_imagenet', 'xception_71_2018_05_09', 'xception_71', 474),
      (
        'resnet_v1_50_beta_imagenet',
        'resnet_v1_50_2018_05_04',
        'resnet_v1_50_beta',
        274,
      ),
      (
        'resnet_v1_101_beta_imagenet',
        'resnet_v1_101_2018_05_04',
        'resnet_v1_101_beta',
        477,
      ),
    )
  ),
  _backbone(
    'xception_65_imagenet_coco',
    f'{_HOST}xception_65_coco_pretrained_2018_10_02.tar.gz',
    {'model_variant': 'xception_65'},
    292,
    coco=True,
  ),
  *(
    _backbone(
      f'{variant}_imagenet',
      f'{_HOST}{variant}_2016_08_28.tar.gz',
      {'model_variant': variant},
      top_1=top_1,
    )
    for variant, top_1 in (('resnet_v1_50', 75.2), ('resnet_v1_101', 76.4))
  ),
  *(
    _backbone(
      f'mobilenet_v2_{depth}_224_imagenet',
      f'{_MOBILENET_V2_HOST}mobilenet_v2_{depth}_224.tgz',
      # These round channels to multiples of 8 at every depth.
      {
        'model_variant': 'mobilenet_v2',
        'depth_multiplier': depth,
        **({} if depth == 1.0 else {'divisible_by': 8}),
      },
      top_1=top_1,
    )
    for depth, top_1 in (
      (1.4, 75.0),
      (1.3, 74.4),
      (1.0, 71.8),
      (0.75, 69.8),
      (0.5, 65.4),
      (0.35, 60.3),
    )
  ),
  *(
    _backbone(
      f'mobilenet_edgetpu_{depth}_224_imagenet',
      f'{_EDGETPU_HOST}mobilenet_edgetpu_224_{depth}.tgz',
      {'model_variant': 'mobilenet_edgetpu', 'depth_multiplier': depth},
      top_1=top_1,
    )
    for depth, top_1 in ((1.0, 75.6), (0.75, 73.5))
  ),
)

ENTRIES = {
  entry.name: entry for entry in (*_VOC, *_CITYSCAPES, *_ADE20K, *_BACKBONES)
}


@functools.cache
def _by_any_name():
  """Entries by lower-case name and by the archive's name without endings."""
  names = {}
  for entry in ENTRIES.values():
    names[entry.archive.split('.tar')[0].removesuffix('.tgz').lower()] = entry
    names[entry.name.lower()] = entry
  return names


def _closest(name):
  """' Did you mean ...?' where some name is similar."""
  names = _by_any_name()
  found = difflib.get_close_matches(name.lower(), names, cutoff=0.5)
  closest = dict.fromkeys(names[each].name for each in found)
  return f' Did you mean {" or ".join(closest)}?' if closest else ''


def get(name):
  """The entry of a name, or of the name of its archive.

  Args:
    name: for example 'mobilenetv2_coco_voc_trainaug', or
      'deeplabv3_mnv2_pascal_train_aug_2018_01_29'; case does not matter.

  Raises:
    InputError: there is none.
  """
  entry = _by_any_name().get(name.lower())
  if entry is None:
    raise InputError(
      f'no published checkpoint is called {name!r}.{_closest(name)} '
      '`python -m deeplab.model_zoo list` lists all.'
    )
  return entry

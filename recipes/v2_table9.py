"""DeepLab v2, table 9: Cityscapes val; and the network of table 8.

  python recipes/v2_table9.py --output_dir=out --data_dir=CITYSCAPES_TFRECORD \
    --initial_checkpoint=vgg_16_imagenet=vgg_16.ckpt \
    --initial_checkpoint=resnet_v1_101_imagenet=zoo/resnet_v1_101_imagenet

Needs: the official TFRecord files of Cityscapes (train_fine, val_fine,
test_fine), and the ImageNet checkpoints. The same at small scale is
v2_table4.py, and v2_table3.py for VGG-16. Row aspp_test writes label images
for the test server.
Time: not measured.

mIoU on val (arXiv:1606.00915, table 9; full: not halved images):

  VGG-16 LargeFOV                62.97
  VGG-16 LargeFOV, CRF           64.18
  VGG-16 LargeFOV full           64.89
  VGG-16 LargeFOV full, CRF      65.94
  ResNet-101 full                66.6
  ResNet-101 full, LargeFOV      69.2
  ResNet-101 full, ASPP          70.4
  ResNet-101 full, ASPP, Aug     71.0
  ResNet-101 full, ASPP, Aug, CRF 71.4

and on test 70.4 for the last (table 8; 63.1 and 64.8 there are of the
pre-release of the data set). The paper does not give the size of the crops (321
here, as on VOC), and it evaluates overlapping regions, where this evaluates
whole images.
"""

from experiment import runner, settings, v1_rows, v2_rows
from experiment.plan import FULL, Recipe, Row
from experiment.v2_rows import ASPP, AUG, LARGEFOV

_HALF = {'min_resize_value': 512, 'max_resize_value': 1024}


def _vgg(name, paper, train, **fields):
  return v1_rows.row(
    'largefov',
    name=name,
    paper=paper,
    checkpoint='vgg_16_imagenet',
    train={**v1_rows.VGG, **train},
    **fields,
  )


_VGG_HALF = _vgg(
  'vgg_half', 62.97, _HALF, eval={**_HALF, 'eval_crop_size': [513, 1025]}
)
_VGG_FULL = _vgg('vgg', 64.89, {})
_ASPP = v2_rows.row('aspp_aug', 71.0, AUG, ASPP)
_CITYSCAPES = {'dataset': 'cityscapes'}

RECIPE = Recipe(
  name='v2_table9',
  table='DeepLab v2 (arXiv:1606.00915), table 9',
  rows=[
    _VGG_HALF,
    settings.with_crf(_VGG_HALF, 64.18),
    _VGG_FULL,
    settings.with_crf(_VGG_FULL, 65.94),
    v2_rows.row('resnet', 66.6),
    v2_rows.row('largefov', 69.2, LARGEFOV),
    v2_rows.row('aspp', 70.4, ASPP),
    _ASPP,
    settings.with_crf(_ASPP, 71.4),
    Row(
      'aspp_test',
      paper=70.4,
      weights='aspp_aug',
      eval={**settings.CITYSCAPES_TEST, **settings.CRF},
      script='vis',
    ),
  ],
  settings={
    FULL: settings.VOC_V2_RESNET.change(
      text='Cityscapes',
      data='cityscapes',
      train={**_CITYSCAPES, 'train_split': 'train_fine'},
      eval={
        **_CITYSCAPES,
        'eval_split': 'val_fine',
        'eval_crop_size': [1025, 2049],
      },
    )
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

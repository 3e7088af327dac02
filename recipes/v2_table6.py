"""DeepLab v2, table 6: PASCAL-Context.

  python recipes/v2_table6.py --output_dir=out --data_dir=CONTEXT_TFRECORD \
    --data_dir=coco=COCO_TFRECORD \
    --initial_checkpoint=vgg_16_imagenet=vgg_16.ckpt \
    --initial_checkpoint=resnet_v1_101_imagenet=zoo/resnet_v1_101_imagenet

Needs: PASCAL-Context's train and val (4998 and 5105 images, 59 classes and
background) as TFRecord files with a dataset_info.json (build_voc2012_data.py
--dataset_info), MS-COCO in the classes of VOC for the rows with it, and the
ImageNet checkpoints. The same at small scale is v2_table4.py.
Time: not measured.

mIoU on val (arXiv:1606.00915, table 6):

  VGG-16 LargeFOV                             37.6
  VGG-16 LargeFOV, CRF                        39.6
  ResNet-101                                  39.6
  ResNet-101 MSC                              41.4
  ResNet-101 MSC, COCO                        42.9
  ResNet-101 MSC, COCO, Aug, LargeFOV         43.5
  ResNet-101 MSC, COCO, Aug, ASPP             44.7
  ResNet-101 MSC, COCO, Aug, ASPP, CRF        45.7

Not confirmed: that the last three have Aug.
"""

from experiment import runner, settings, v1_rows, v2_rows
from experiment.plan import FULL, Recipe
from experiment.v2_rows import ASPP, AUG, LARGEFOV, MSC

_VGG = v1_rows.row(
  'largefov',
  name='vgg_largefov',
  paper=37.6,
  checkpoint='vgg_16_imagenet',
  train=v1_rows.VGG,
)
_ASPP = v2_rows.row('aspp', 44.7, MSC, AUG, ASPP, coco=True)

RECIPE = Recipe(
  name='v2_table6',
  table='DeepLab v2 (arXiv:1606.00915), table 6',
  rows=[
    v2_rows.COCO_STAGE,
    _VGG,
    settings.with_crf(_VGG, 39.6),
    v2_rows.row('resnet', 39.6),
    v2_rows.row('msc', 41.4, MSC),
    v2_rows.row('msc_coco', 42.9, MSC, coco=True),
    v2_rows.row('largefov', 43.5, MSC, AUG, LARGEFOV, coco=True),
    _ASPP,
    settings.with_crf(_ASPP, 45.7),
  ],
  settings={
    FULL: settings.VOC_V2_RESNET.change(
      text='PASCAL-Context',
      data='pascal_context',
      train={'train_split': 'train'},
    )
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

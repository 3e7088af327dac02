"""DeepLab v2, table 7: PASCAL-Person-Part.

  python recipes/v2_table7.py --output_dir=out --data_dir=PARTS_TFRECORD \
    --data_dir=coco=COCO_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_101_imagenet

Needs: PASCAL-Person-Part's train and val (1716 and 1817 images, six parts and
background) as TFRecord files with a dataset_info.json (build_voc2012_data.py
--dataset_info), MS-COCO in the classes of VOC for the rows with it, and the
ImageNet checkpoint. The same at small scale is v2_table4.py.
Time: not measured.

mIoU on val, ResNet-101 (arXiv:1606.00915, table 7):

  ResNet-101            58.90
  MSC                   63.10
  MSC, COCO             64.40
  MSC, COCO, CRF        64.94
  MSC, COCO, LargeFOV   62.18
  MSC, COCO, ASPP       62.76

Not confirmed: which rows have Aug; here those with COCO.
"""

from experiment import runner, settings, v2_rows
from experiment.plan import FULL, Recipe
from experiment.v2_rows import ASPP, AUG, LARGEFOV, MSC

_COCO = v2_rows.row('msc_coco', 64.40, MSC, AUG, coco=True)

RECIPE = Recipe(
  name='v2_table7',
  table='DeepLab v2 (arXiv:1606.00915), table 7',
  rows=[
    v2_rows.COCO_STAGE,
    v2_rows.row('resnet', 58.90),
    v2_rows.row('msc', 63.10, MSC),
    _COCO,
    settings.with_crf(_COCO, 64.94),
    v2_rows.row('largefov', 62.18, MSC, AUG, LARGEFOV, coco=True),
    v2_rows.row('aspp', 62.76, MSC, AUG, ASPP, coco=True),
  ],
  settings={
    FULL: settings.VOC_V2_RESNET.change(
      text='PASCAL-Person-Part',
      data='pascal_person_part',
      train={'train_split': 'train'},
    )
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

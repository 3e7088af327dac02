"""DeepLab v2, table 4: ResNet-101 with MSC, COCO, Aug, LargeFOV, ASPP and CRF.

  python recipes/v2_table4.py --output_dir=out --data_dir=VOC_TFRECORD \
    --data_dir=coco=COCO_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_101_imagenet
  python recipes/v2_table4.py --scale=small --output_dir=out

Needs: PASCAL VOC with train_aug, MS-COCO's train split in the 21 classes of
VOC (all others are background) for the rows with COCO, which are left out
without it, and the ImageNet checkpoint; small: nothing (ResNet-18 from scratch
on generated shapes, without COCO).
Time: not measured.

mIoU on val (arXiv:1606.00915, table 4):

  ResNet-101                   68.72
  MSC                          71.27
  MSC, COCO                    73.28
  MSC, COCO, Aug               74.87
  MSC, COCO, Aug, LargeFOV     75.54
  MSC, COCO, Aug, ASPP         76.35
  MSC, COCO, Aug, ASPP, CRF    77.69

The paper gives neither the learning rate of ResNet-101 (that of the released
models is taken) nor the training on COCO (it is as long as that on VOC here,
one network for all rows, with new logits).
"""

from experiment import runner, settings, v2_rows
from experiment.plan import FULL, SMALL, Recipe
from experiment.v2_rows import ASPP, AUG, LARGEFOV, MSC

_ASPP = v2_rows.row('aspp', 76.35, MSC, AUG, ASPP, coco=True)

RECIPE = Recipe(
  name='v2_table4',
  table='DeepLab v2 (arXiv:1606.00915), table 4',
  rows=[
    v2_rows.COCO_STAGE,
    v2_rows.row('resnet', 68.72),
    v2_rows.row('msc', 71.27, MSC),
    v2_rows.row('msc_coco', 73.28, MSC, coco=True, scales=[FULL]),
    v2_rows.row('aug', 74.87, MSC, AUG, coco=True),
    v2_rows.row('largefov', 75.54, MSC, AUG, LARGEFOV, coco=True),
    _ASPP,
    settings.with_crf(_ASPP, 77.69),
  ],
  settings={FULL: settings.VOC_V2_RESNET, SMALL: settings.SHAPES_V2_RESNET},
)

if __name__ == '__main__':
  runner.main(RECIPE)

"""DeepLab v3, table 6: inference with ASPP; ResNet-101.

  python recipes/v3_table6.py --output_dir=out --data_dir=VOC_TFRECORD \
    --data_dir=coco=COCO_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_101_beta_imagenet
  python recipes/v3_table6.py --scale=small --output_dir=out \
    --camvid_root=CamVid --initial_checkpoint=deeplabv3_mnv2_pascal_trainval

Needs: PASCAL VOC with train_aug, and the ImageNet checkpoint of the model zoo;
for the last row MS-COCO in the 21 classes of VOC (some 60k images of trainval
minus minival, with regions of 1000 pixels or more; other classes are
background), without which it is left out; small: CamVid and the published
MobileNetV2 checkpoint, without COCO, MS are three scales.
Time: not measured.

mIoU on val (arXiv:1706.05587, table 6):

  output stride 16                 77.21
  output stride 8                  78.51
  output stride 8, MS              79.45
  output stride 8, MS, flip        79.77
  output stride 8, MS, flip, COCO  82.70

After COCO the learning rate is 0.0001 (section 4.3). The training on COCO is as
long as that on VOC here; the paper does not say.
"""

from experiment import runner, settings, v3_rows
from experiment.plan import FULL, SMALL, Recipe, Row
from experiment.settings import FLIPS, MULTI_SCALE
from experiment.v3_rows import evaluate

RECIPE = Recipe(
  name='v3_table6',
  table='DeepLab v3 (arXiv:1706.05587), table 6',
  rows=[
    Row('aspp', paper=77.21),
    evaluate('aspp', 'eval8', 78.51, 8),
    evaluate('aspp', 'eval8_ms', 79.45, 8, MULTI_SCALE),
    evaluate('aspp', 'eval8_ms_flip', 79.77, 8, MULTI_SCALE, FLIPS),
    v3_rows.COCO_STAGE,
    Row(
      'aspp_coco',
      paper=82.70,
      train={'base_learning_rate': 0.0001},
      eval={'output_stride': 8, **MULTI_SCALE, **FLIPS},
      start='coco',
      scales=[FULL],
    ),
  ],
  settings={
    FULL: settings.voc(settings.RESNET_101),
    SMALL: settings.CAMVID,
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

"""DeepLab v3, table 7: the test set of PASCAL VOC 2012; ResNet-101.

  python recipes/v3_table7.py --output_dir=out --data_dir=VOC_TFRECORD \
    --data_dir=coco=COCO_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_101_beta_imagenet

Needs: as v3_table6.py, and the splits trainval and test. The labels of the test
set are not public: the recipe writes
deeplabv3/vis/raw_segmentation_results/*.png for the test server.
Time: not measured.

mIoU on test (arXiv:1706.05587, table 7): DeepLabv3 85.7; DeepLabv3-JFT 86.9.

Three stages (sections 4.1 and 4.3): MS-COCO, train_aug at output stride 16,
trainval at 8 with frozen batch norm. For 85.7 the images with the classes
bicycle, chair, table, potted plant and sofa stood twice in the list of the last
stage: to have that, write trainval from such a list. 86.9 starts from a ResNet
trained on JFT-300M, which is not public: that row is not here.
"""

from experiment import runner, settings, v3_rows
from experiment.plan import FULL, Recipe, Row
from experiment.settings import FLIPS, MULTI_SCALE

RECIPE = Recipe(
  name='v3_table7',
  table='DeepLab v3 (arXiv:1706.05587), table 7',
  rows=[
    v3_rows.COCO_STAGE,
    Row(
      'train_aug',
      train={'base_learning_rate': 0.0001},
      eval=None,
      start='coco',
    ),
    Row(
      'deeplabv3',
      paper=85.7,
      train={**settings.STAGE_2, 'atrous_rates': [12, 24, 36]},
      eval={**settings.VOC_TEST, **MULTI_SCALE, **FLIPS},
      start='train_aug',
      script='vis',
    ),
  ],
  settings={FULL: settings.voc(settings.RESNET_101)},
)

if __name__ == '__main__':
  runner.main(RECIPE)

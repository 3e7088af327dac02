"""DeepLab v3+, table 6: the test set of PASCAL VOC 2012; Xception-65.

  python recipes/v3plus_table6.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=zoo/xception_65_imagenet_coco

Needs: PASCAL VOC with train_aug, trainval and test, and the checkpoint of the
model zoo. The labels of the test set are not public: the recipe writes
deeplabv3plus/vis/raw_segmentation_results/*.png for the test server.
Time: not measured.

mIoU on test (arXiv:1802.02611, table 6): DeepLabv3+ (Xception) 87.8;
DeepLabv3+ (Xception-JFT) 89.0, whose checkpoint is not public: that row is not
here. The network of 87.8 is also published: xception65_coco_voc_trainval of the
model zoo.
"""

from experiment import runner, settings
from experiment.plan import FULL, Recipe, Row
from experiment.settings import FLIPS, MULTI_SCALE

RECIPE = Recipe(
  name='v3plus_table6',
  table='DeepLab v3+ (arXiv:1802.02611), table 6',
  rows=[
    Row('train_aug', eval=None),
    Row(
      'deeplabv3plus',
      paper=87.8,
      train={**settings.STAGE_2, 'atrous_rates': [12, 24, 36]},
      eval={**settings.VOC_TEST, **MULTI_SCALE, **FLIPS},
      start='train_aug',
      script='vis',
    ),
  ],
  settings={
    FULL: settings.voc(
      settings.XCEPTION_65,
      aspp_with_separable_conv=True,
      decoder_output_stride=[4],
    ).change(checkpoint='xception_65_imagenet_coco')
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

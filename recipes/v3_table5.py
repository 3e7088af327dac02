"""DeepLab v3, table 5: ASPP with multi-grid and the image-level feature.

  python recipes/v3_table5.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_101_beta_imagenet
  python recipes/v3_table5.py --scale=small --output_dir=out \
    --camvid_root=CamVid --initial_checkpoint=deeplabv3_mnv2_pascal_trainval

Needs: PASCAL VOC with train_aug, and the ImageNet checkpoint; small: CamVid and
the published MobileNetV2 checkpoint. MobileNetV2 takes no multi-grid, so that
only the last three rows are left; rates are a third, as the features are.
Time: full, not measured; small: 5 minutes of training a row on two CPU cores.

mIoU on val at output stride 16 (arXiv:1706.05587, table 5):

  multi-grid  rates       image pooling  mIoU
  1,1,1       6,12,18     no             75.36
  1,2,1       6,12,18     no             75.93
  1,2,4       6,12,18     no             76.58
  1,2,4       6,12,18,24  no             76.46
  1,2,4       6,12,18     yes            77.21
"""

from experiment import runner, settings
from experiment.plan import FULL, SMALL, Recipe, Row

_NO_POOLING = {'add_image_level_feature': False}
_SMALL_RATES = {'atrous_rates': [2, 4, 6]}

RECIPE = Recipe(
  name='v3_table5',
  table='DeepLab v3 (arXiv:1706.05587), table 5',
  rows=[
    Row(
      'multi_grid_1_1_1',
      paper=75.36,
      train={'multi_grid': [1, 1, 1], **_NO_POOLING},
      scales=[FULL],
    ),
    Row(
      'multi_grid_1_2_1',
      paper=75.93,
      train={'multi_grid': [1, 2, 1], **_NO_POOLING},
      scales=[FULL],
    ),
    Row(
      'without_pooling',
      paper=76.58,
      train=_NO_POOLING,
      small_train=_SMALL_RATES,
    ),
    Row(
      'fourth_rate',
      paper=76.46,
      train={'atrous_rates': [6, 12, 18, 24], **_NO_POOLING},
      small_train={'atrous_rates': [2, 4, 6, 8]},
    ),
    Row('image_pooling', paper=77.21, small_train=_SMALL_RATES),
  ],
  settings={
    FULL: settings.voc(settings.RESNET_101),
    SMALL: settings.CAMVID,
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

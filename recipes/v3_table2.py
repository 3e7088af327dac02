"""DeepLab v3, table 2: more blocks in cascade, ResNet-50 and ResNet-101.

  python recipes/v3_table2.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=resnet_v1_50_beta_imagenet=zoo/... \
    --initial_checkpoint=resnet_v1_101_beta_imagenet=zoo/...
  python recipes/v3_table2.py --scale=small --output_dir=out

Needs: PASCAL VOC with train_aug, and the two ImageNet checkpoints of the model
zoo; small: nothing (ResNet-18 from scratch on generated shapes).
Time: full, not measured; small, on two CPU cores: 2.5 minutes of training for
block4 to 6 for block7.

mIoU on val at output stride 16 (arXiv:1706.05587, table 2):

  network     block4  block5  block6  block7
  ResNet-50    64.81   72.14   74.29   73.88
  ResNet-101   68.39   73.21   75.34   75.76
"""

from experiment import runner, settings
from experiment.plan import FULL, SCALES, SMALL, Recipe, Row

_PAPER = {
  50: [64.81, 72.14, 74.29, 73.88],
  101: [68.39, 73.21, 75.34, 75.76],
}

RECIPE = Recipe(
  name='v3_table2',
  table='DeepLab v3 (arXiv:1706.05587), table 2',
  rows=[
    Row(
      f'resnet{layers}_block{blocks}',
      paper=paper,
      train={
        'model_variant': f'resnet_v1_{layers}_beta',
        'resnet_num_blocks': blocks,
      },
      checkpoint=f'resnet_v1_{layers}_beta_imagenet',
      small_train={'model_variant': 'resnet_v1_18_beta'},
      scales=SCALES if layers == 50 else [FULL],
    )
    for layers, numbers in _PAPER.items()
    for blocks, paper in enumerate(numbers, 4)
  ],
  settings={
    FULL: settings.voc(settings.CASCADE),
    SMALL: settings.SHAPES_RESNET,
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

"""DeepLab v3, table 3: multi-grid in the cascade; ResNet-101.

  python recipes/v3_table3.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_101_beta_imagenet
  python recipes/v3_table3.py --scale=small --output_dir=out

Needs: PASCAL VOC with train_aug, and the ImageNet checkpoint of the model zoo;
small: nothing (ResNet-18 from scratch on generated shapes). ResNet-18 has two
units in a block: it takes the first two values, of (1,1,1), (1,2,4), (2,2,2).
Time: not measured.

mIoU on val at output stride 16 (arXiv:1706.05587, table 3):

  multi-grid  block4  block5  block6  block7
  1,1,1        68.39   73.21   75.34   75.76
  1,2,1        70.23   75.67   76.09   76.66
  1,2,3        73.14   75.78   75.96   76.11
  1,2,4        73.45   75.74   75.85   76.02
  2,2,2        71.45   74.30   74.70   74.62
"""

from experiment import runner, settings
from experiment.plan import FULL, SCALES, SMALL, Recipe, Row

_PAPER = {
  (1, 1, 1): [68.39, 73.21, 75.34, 75.76],
  (1, 2, 1): [70.23, 75.67, 76.09, 76.66],
  (1, 2, 3): [73.14, 75.78, 75.96, 76.11],
  (1, 2, 4): [73.45, 75.74, 75.85, 76.02],
  (2, 2, 2): [71.45, 74.30, 74.70, 74.62],
}
_FULL_ONLY = [(1, 2, 1), (1, 2, 3)]

RECIPE = Recipe(
  name='v3_table3',
  table='DeepLab v3 (arXiv:1706.05587), table 3',
  rows=[
    Row(
      f'multi_grid_{"_".join(map(str, rates))}_block{blocks}',
      paper=paper,
      train={'multi_grid': rates, 'resnet_num_blocks': blocks},
      small_train={'multi_grid': rates[:2]},
      scales=[FULL] if rates in _FULL_ONLY else SCALES,
    )
    for rates, numbers in _PAPER.items()
    for blocks, paper in enumerate(numbers, 4)
  ],
  settings={
    FULL: settings.voc(settings.CASCADE),
    SMALL: settings.SHAPES_RESNET,
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

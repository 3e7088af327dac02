"""DeepLab v3, table 4: inference with the cascade; ResNet-101 with block7.

  python recipes/v3_table4.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_101_beta_imagenet
  python recipes/v3_table4.py --scale=small --output_dir=out

Needs: PASCAL VOC with train_aug, and the ImageNet checkpoint of the model zoo;
small: nothing (ResNet-18 from scratch on generated shapes, MS are three
scales).
Time: not measured.

mIoU on val, block7 with multi-grid (1,2,1) (arXiv:1706.05587, table 4):

  output stride 16           76.66
  output stride 8            78.05
  output stride 8, MS        78.93
  output stride 8, MS, flip  79.35
"""

from experiment import runner, settings
from experiment.plan import FULL, SMALL, Recipe, Row
from experiment.settings import FLIPS, MULTI_SCALE
from experiment.v3_rows import evaluate

RECIPE = Recipe(
  name='v3_table4',
  table='DeepLab v3 (arXiv:1706.05587), table 4',
  rows=[
    Row(
      'block7',
      paper=76.66,
      train={'resnet_num_blocks': 7, 'multi_grid': [1, 2, 1]},
      small_train={'multi_grid': [1, 2]},
    ),
    evaluate('block7', 'eval8', 78.05, 8),
    evaluate('block7', 'eval8_ms', 78.93, 8, MULTI_SCALE),
    evaluate('block7', 'eval8_ms_flip', 79.35, 8, MULTI_SCALE, FLIPS),
  ],
  settings={
    FULL: settings.voc(settings.CASCADE),
    SMALL: settings.SHAPES_RESNET,
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

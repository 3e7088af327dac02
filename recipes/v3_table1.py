"""DeepLab v3, table 1: output strides of the cascade; ResNet-50 with block7.

  python recipes/v3_table1.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_50_beta_imagenet
  python recipes/v3_table1.py --scale=small --output_dir=out

Needs: PASCAL VOC with train_aug, and the ImageNet checkpoint of the model zoo;
small: nothing (ResNet-18 from scratch on generated shapes).
Time: not measured.

mIoU on val (arXiv:1706.05587, table 1):

  output stride  8      16     32     64     128    256
  mIoU           75.18  73.88  70.06  59.99  42.34  20.29

The text says that the batch had to be smaller at output stride 8 (6, for table
10); it is 16 here for all.
"""

from experiment import runner, settings
from experiment.plan import FULL, SMALL, Recipe, Row

_PAPER = {8: 75.18, 16: 73.88, 32: 70.06, 64: 59.99, 128: 42.34, 256: 20.29}

RECIPE = Recipe(
  name='v3_table1',
  table='DeepLab v3 (arXiv:1706.05587), table 1',
  rows=[
    Row(
      f'output_stride_{stride}',
      paper=paper,
      train={'output_stride': stride, 'resnet_num_blocks': 7},
    )
    for stride, paper in _PAPER.items()
  ],
  settings={
    FULL: settings.voc(settings.CASCADE, model_variant='resnet_v1_50_beta'),
    SMALL: settings.SHAPES_RESNET,
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

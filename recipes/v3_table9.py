"""DeepLab v3, table 9: the batch size of training with batch norm.

  python recipes/v3_table9.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_101_beta_imagenet
  python recipes/v3_table9.py --scale=small --output_dir=out \
    --camvid_root=CamVid --initial_checkpoint=deeplabv3_mnv2_pascal_trainval

Needs: PASCAL VOC with train_aug, and the ImageNet checkpoint of the model zoo;
small: CamVid and the published MobileNetV2 checkpoint, batches half as large.
Time: not measured.

mIoU on val at output stride 16 (arXiv:1706.05587, table 9):

  batch  4      8      12     16
  mIoU   64.43  75.76  76.49  77.21
"""

from experiment import runner, settings
from experiment.plan import FULL, SMALL, Recipe, Row

_PAPER = {4: 64.43, 8: 75.76, 12: 76.49, 16: 77.21}

RECIPE = Recipe(
  name='v3_table9',
  table='DeepLab v3 (arXiv:1706.05587), table 9',
  rows=[
    Row(
      f'batch_{size}',
      paper=paper,
      train={'train_batch_size': size},
      small_train={'train_batch_size': size // 2},
    )
    for size, paper in _PAPER.items()
  ],
  settings={
    FULL: settings.voc(settings.RESNET_101),
    SMALL: settings.CAMVID,
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

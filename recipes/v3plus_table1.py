"""DeepLab v3+, table 1: channels of the low-level features; ResNet-101.

  python recipes/v3plus_table1.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_101_beta_imagenet
  python recipes/v3plus_table1.py --scale=small --output_dir=out \
    --camvid_root=CamVid --initial_checkpoint=deeplabv3_mnv2_pascal_trainval

Needs: PASCAL VOC with train_aug, and the ImageNet checkpoint of the model zoo;
small: CamVid and the published MobileNetV2 checkpoint.
Time: not measured.

mIoU on val, one [3x3, 256] convolution, Conv2 (arXiv:1802.02611, table 1):

  channels  8      16     32     48     64
  mIoU      77.61  77.92  78.16  78.21  77.94
"""

from experiment import runner, settings
from experiment.plan import FULL, SMALL, Recipe, Row

_PAPER = {8: 77.61, 16: 77.92, 32: 78.16, 48: 78.21, 64: 77.94}

RECIPE = Recipe(
  name='v3plus_table1',
  table='DeepLab v3+ (arXiv:1802.02611), table 1',
  rows=[
    Row(
      f'channels_{channels}',
      paper=paper,
      train={
        **settings.DECODER,
        'decoder_projection_filters': channels,
        'decoder_num_convs': 1,
      },
    )
    for channels, paper in _PAPER.items()
  ],
  settings={
    FULL: settings.voc(settings.RESNET_101),
    SMALL: settings.CAMVID,
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

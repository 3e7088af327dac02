"""DeepLab v3+, table 2: the structure of the decoder; ResNet-101.

  python recipes/v3plus_table2.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_101_beta_imagenet
  python recipes/v3plus_table2.py --scale=small --output_dir=out \
    --camvid_root=CamVid --initial_checkpoint=deeplabv3_mnv2_pascal_trainval

Needs: PASCAL VOC with train_aug, and the ImageNet checkpoint of the model zoo;
small: CamVid and the published MobileNetV2 checkpoint.
Time: not measured.

mIoU on val (arXiv:1802.02611, table 2):

  Conv2, [3x3, 256]         78.21
  Conv2, [3x3, 256] x 2     78.85
  Conv2, [3x3, 256] x 3     78.02
  Conv2, [3x3, 128]         77.25
  Conv2, [1x1, 256]         78.07
  Conv3, Conv2, [3x3, 256]  78.61
"""

from experiment import runner, settings
from experiment.plan import FULL, SMALL, Recipe, Row


def _row(name, paper, num_convs=1, **train):
  return Row(
    name,
    paper=paper,
    train={**settings.DECODER, 'decoder_num_convs': num_convs, **train},
  )


RECIPE = Recipe(
  name='v3plus_table2',
  table='DeepLab v3+ (arXiv:1802.02611), table 2',
  rows=[
    _row('one', 78.21),
    _row('two', 78.85, 2),
    _row('three', 78.02, 3),
    _row('filters_128', 77.25, decoder_filters=128),
    _row('kernel_1x1', 78.07, decoder_kernel_size=1),
    _row('conv3_conv2', 78.61, decoder_output_stride=[8, 4]),
  ],
  settings={
    FULL: settings.voc(settings.RESNET_101),
    SMALL: settings.CAMVID,
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

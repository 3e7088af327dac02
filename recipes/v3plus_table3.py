"""DeepLab v3+, table 3: output strides, decoder, scales and flips; ResNet-101.

  python recipes/v3plus_table3.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_101_beta_imagenet
  python recipes/v3plus_table3.py --scale=small --output_dir=out \
    --camvid_root=CamVid --initial_checkpoint=deeplabv3_mnv2_pascal_trainval

Needs: PASCAL VOC with train_aug, and the ImageNet checkpoint of the model zoo;
small: CamVid and the published MobileNetV2 checkpoint. At small scale MS are
three scales, and there are rows that the paper does not have: evaluation at
output stride 32, flips alone, and the dense CRF.
Time: full, not measured; small, on two CPU cores: 6 minutes of training a row,
2.5 of evaluation with the CRF.

mIoU on val (arXiv:1802.02611, table 3); columns are output strides:

  train eval  plain  MS     MS+flip  decoder  MS     MS+flip
  16    16    77.21                  78.85    80.09  80.22
  16    8     78.51  79.45  79.77    79.35    80.43  80.57
  32    32    75.43                  77.37
  32    16                           77.80
  32    8                            77.92

The paper does not give the rates of ASPP at output stride 32; they are half of
those at 16 here.
"""

from experiment import runner, settings
from experiment.plan import FULL, SMALL, Recipe, Row
from experiment.settings import CRF, FLIPS, MULTI_SCALE
from experiment.v3_rows import evaluate

_TRAIN_32 = {'output_stride': 32, 'atrous_rates': [3, 6, 9]}
_SMALL_32 = {'atrous_rates': None}


def _beyond(weights, name, output_stride, flags):
  """A row that the paper does not have."""
  return evaluate(weights, name, None, output_stride, flags, scales=[SMALL])


RECIPE = Recipe(
  name='v3plus_table3',
  table='DeepLab v3+ (arXiv:1802.02611), table 3',
  rows=[
    Row('plain', paper=77.21),
    _beyond('plain', 'eval32', 32, {}),
    evaluate('plain', 'eval8', 78.51, 8),
    evaluate('plain', 'eval8_ms', 79.45, 8, MULTI_SCALE),
    evaluate('plain', 'eval8_ms_flip', 79.77, 8, MULTI_SCALE, FLIPS),
    _beyond('plain', 'crf', 16, CRF),
    Row('decoder', paper=78.85, train=settings.DECODER),
    _beyond('decoder', 'eval32', 32, {}),
    _beyond('decoder', 'flip', 16, FLIPS),
    evaluate('decoder', 'ms', 80.09, 16, MULTI_SCALE),
    evaluate('decoder', 'ms_flip', 80.22, 16, MULTI_SCALE, FLIPS),
    evaluate('decoder', 'eval8', 79.35, 8),
    evaluate('decoder', 'eval8_ms', 80.43, 8, MULTI_SCALE),
    evaluate('decoder', 'eval8_ms_flip', 80.57, 8, MULTI_SCALE, FLIPS),
    _beyond('decoder', 'crf', 16, CRF),
    Row('train32', paper=75.43, train=_TRAIN_32, small_train=_SMALL_32),
    Row(
      'train32_decoder',
      paper=77.37,
      train={**_TRAIN_32, **settings.DECODER},
      small_train=_SMALL_32,
    ),
    evaluate('train32_decoder', 'eval16', 77.80, 16),
    evaluate('train32_decoder', 'eval8', 77.92, 8),
  ],
  settings={
    FULL: settings.voc(settings.RESNET_101),
    SMALL: settings.CAMVID,
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

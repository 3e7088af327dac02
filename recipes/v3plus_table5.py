"""DeepLab v3+, table 5: Xception-65; decoder, separable convolutions, COCO.

  python recipes/v3plus_table5.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=xception_65_imagenet=zoo/xception_65_imagenet \
    --initial_checkpoint=xception_65_imagenet_coco=zoo/xception_65_imagenet_coco
  python recipes/v3plus_table5.py --scale=small --output_dir=out \
    --camvid_root=CamVid --initial_checkpoint=deeplabv3_mnv2_pascal_trainval

Needs: PASCAL VOC with train_aug, and the two checkpoints of the model zoo (rows
with COCO are left out without the second); small: CamVid and the published
MobileNetV2 checkpoint, without COCO, MS are three scales.
Time: not measured.

mIoU on val, trained at output stride 16 (arXiv:1802.02611, table 5):

                       output stride 16      output stride 8
                       one    MS     MS+flip one    MS     MS+flip
  plain                79.17  80.57  80.79   79.64  81.15  81.34
  decoder              79.93  81.38  81.44   80.22  81.60  81.63
  decoder, SC          79.79         81.21   80.02         81.39
  decoder, SC, COCO    82.20         83.34   82.45         83.58
  decoder, SC, JFT     83.03         84.22   83.39         84.56

SC: depthwise separable convolutions in ASPP and decoder. The row with JFT
starts from a network trained on JFT-300M, which is not public: it is not here.
"""

from experiment import runner, settings
from experiment.plan import FULL, SCALES, SMALL, Recipe, Row
from experiment.settings import FLIPS, MULTI_SCALE
from experiment.v3_rows import evaluate

_SEPARABLE = {
  **settings.DECODER,
  'aspp_with_separable_conv': True,
  'decoder_use_separable_conv': True,
}
_PARTS = {'ms': [MULTI_SCALE], 'ms_flip': [MULTI_SCALE, FLIPS]}


def _rows(name, train, eval16, eval8, **fields):
  """A training, and evaluations: {parts: mIoU} for each output stride."""
  scales = fields.get('scales', SCALES)
  rows = [Row(name, paper=eval16.pop(''), train=train, **fields)]
  for stride, papers in (16, eval16), (8, eval8):
    for parts, paper in papers.items():
      label = f'eval{stride}_{parts}'.rstrip('_')
      rows.append(
        evaluate(
          name, label, paper, stride, *_PARTS.get(parts, []), scales=scales
        )
      )
  return rows


RECIPE = Recipe(
  name='v3plus_table5',
  table='DeepLab v3+ (arXiv:1802.02611), table 5',
  rows=[
    *_rows(
      'plain',
      {},
      {'': 79.17, 'ms': 80.57, 'ms_flip': 80.79},
      {'': 79.64, 'ms': 81.15, 'ms_flip': 81.34},
    ),
    *_rows(
      'decoder',
      settings.DECODER,
      {'': 79.93, 'ms': 81.38, 'ms_flip': 81.44},
      {'': 80.22, 'ms': 81.60, 'ms_flip': 81.63},
    ),
    *_rows(
      'separable',
      _SEPARABLE,
      {'': 79.79, 'ms_flip': 81.21},
      {'': 80.02, 'ms_flip': 81.39},
    ),
    *_rows(
      'coco',
      _SEPARABLE,
      {'': 82.20, 'ms_flip': 83.34},
      {'': 82.45, 'ms_flip': 83.58},
      checkpoint='xception_65_imagenet_coco',
      scales=[FULL],
    ),
  ],
  settings={
    FULL: settings.voc(settings.XCEPTION_65),
    SMALL: settings.CAMVID.change(
      train={'atrous_rates': [2, 4, 6], 'aspp_with_separable_conv': False}
    ),
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

"""DeepLab v3, table 10: output strides of training and of evaluation.

  python recipes/v3_table10.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_101_beta_imagenet
  python recipes/v3_table10.py --scale=small --output_dir=out \
    --camvid_root=CamVid --initial_checkpoint=deeplabv3_mnv2_pascal_trainval

Needs: PASCAL VOC with train_aug, and the ImageNet checkpoint of the model zoo;
small: CamVid and the published MobileNetV2 checkpoint, batches of 3, 8 and 12.
Time: not measured.

mIoU on val (arXiv:1706.05587, table 10):

  train  batch  eval 16  eval 8
  8       6     74.45    75.62
  16     16     77.21    78.51
  32     24     75.90    75.75

The rates of ASPP are those of output stride 16, (6,12,18), twice as large at 8
and half as large at 32.
"""

from experiment import runner, settings
from experiment.plan import FULL, SMALL, Recipe, Row
from experiment.v3_rows import evaluate

# Training output stride: batch, batch at small scale, rates.
_TRAIN = {
  8: (6, 3, [12, 24, 36]),
  16: (16, 8, [6, 12, 18]),
  32: (24, 12, [3, 6, 9]),
}
_PAPER = {8: (74.45, 75.62), 16: (77.21, 78.51), 32: (75.90, 75.75)}


def _rows(stride, batch_size, small_batch_size, rates):
  eval16, eval8 = _PAPER[stride]
  train = f'train{stride}'
  return [
    Row(
      train,
      train={
        'output_stride': stride,
        'train_batch_size': batch_size,
        'atrous_rates': rates,
      },
      eval=None,
      small_train={'train_batch_size': small_batch_size, 'atrous_rates': None},
    ),
    evaluate(train, 'eval16', eval16, 16),
    evaluate(train, 'eval8', eval8, 8),
  ]


RECIPE = Recipe(
  name='v3_table10',
  table='DeepLab v3 (arXiv:1706.05587), table 10',
  rows=[
    row for stride, values in _TRAIN.items() for row in _rows(stride, *values)
  ],
  settings={
    FULL: settings.voc(settings.RESNET_101),
    SMALL: settings.CAMVID,
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

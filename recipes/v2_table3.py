"""DeepLab v2, table 3: ASPP on VGG-16.

  python recipes/v2_table3.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=vgg_16.ckpt
  python recipes/v2_table3.py --scale=small --output_dir=out

Needs: PASCAL VOC with train_aug, and slim's ImageNet checkpoint of VGG-16;
small: nothing (VGG-16 on generated shapes).
Time: not measured.

mIoU on val (arXiv:1606.00915, table 3):

            rates       without CRF  with CRF
  LargeFOV  12          65.76        69.84
  ASPP-S    2,4,8,12    66.98        69.73
  ASPP-L    6,12,18,24  68.96        71.57
"""

from experiment import runner, settings, v1_rows
from experiment.plan import FULL, SMALL, Recipe


def _rows(name, rates, small_rates, paper, paper_crf):
  network = v1_rows.row(
    'largefov',
    name=name,
    paper=paper,
    train={'atrous_rates': rates},
    small_train={'atrous_rates': small_rates},
  )
  return [network, settings.with_crf(network, paper_crf)]


RECIPE = Recipe(
  name='v2_table3',
  table='DeepLab v2 (arXiv:1606.00915), table 3',
  rows=[
    v1_rows.PRETRAINED,
    *_rows('largefov', [12], [3], 65.76, 69.84),
    *_rows('aspp_s', [2, 4, 8, 12], [1, 2, 3, 4], 66.98, 69.73),
    *_rows('aspp_l', [6, 12, 18, 24], [2, 3, 5, 6], 68.96, 71.57),
  ],
  settings={FULL: settings.VOC_V2_VGG, SMALL: settings.SHAPES_VGG},
)

if __name__ == '__main__':
  runner.main(RECIPE)

"""DeepLab v1, table 2: the field of view of fc6.

  python recipes/v1_table2.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=vgg_16.ckpt
  python recipes/v1_table2.py --scale=small --output_dir=out

Needs: PASCAL VOC with train_aug, and slim's ImageNet checkpoint of VGG-16
(download.tensorflow.org/models/vgg_16_2016_08_28.tar.gz); small: nothing
(VGG-16 on generated shapes, trained with MSc first in the place of ImageNet;
fc6 and fc7 have an eighth of the filters, and rates are a quarter of the
paper's, as the features are).
Time: not measured.

mIoU on val (arXiv:1412.7062, table 2, and table 1a without CRF):

  fc6  rate  filters  parameters  without CRF  with CRF
  7x7   4    4096     134.3M      64.38        67.64
  4x4   4    4096      65.1M      59.80        63.74
  4x4   8    4096      65.1M      63.41        67.14
  3x3  12    1024      20.5M      62.25        67.64

63.41 is in table 1 of v2 only (arXiv:1606.00915), which is otherwise this one.
The parameters of the CRF were searched on 100 images of val, for each variant;
the paper does not say what was found: see --search_crf.
"""

from experiment import runner, settings, v1_rows
from experiment.plan import FULL, SMALL, Recipe

# name: without CRF, with CRF.
_PAPER = {
  'deeplab_7x7': (64.38, 67.64),
  'deeplab': (59.80, 63.74),
  'deeplab_4x4': (63.41, 67.14),
  'largefov': (62.25, 67.64),
}


def _rows(name, paper, paper_crf):
  network = v1_rows.row(name, paper=paper)
  return [network, settings.with_crf(network, paper_crf)]


RECIPE = Recipe(
  name='v1_table2',
  table='DeepLab v1 (arXiv:1412.7062), table 2',
  rows=[
    v1_rows.PRETRAINED,
    *(row for name, paper in _PAPER.items() for row in _rows(name, *paper)),
  ],
  settings={FULL: settings.VOC_V1, SMALL: settings.SHAPES_VGG},
)

if __name__ == '__main__':
  runner.main(RECIPE)

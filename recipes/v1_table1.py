"""DeepLab v1, table 1a: field of view, multi-scale prediction and CRF on val.

  python recipes/v1_table1.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=vgg_16.ckpt
  python recipes/v1_table1.py --scale=small --output_dir=out

Needs: PASCAL VOC with train_aug, and slim's ImageNet checkpoint of VGG-16
(download.tensorflow.org/models/vgg_16_2016_08_28.tar.gz); small: nothing
(VGG-16 on generated shapes).
Time: not measured.

mIoU (arXiv:1412.7062, table 1a):

                         without CRF  with CRF
  DeepLab                59.80        63.74
  DeepLab-MSc            61.30        65.21
  DeepLab-7x7            64.38        67.64
  DeepLab-LargeFOV       62.25        67.64
  DeepLab-MSc-LargeFOV   64.21        68.70

The parameters of the CRF were searched on 100 images of val, for each variant;
the paper does not say what was found: see --search_crf. Its schedule for the
layers of MSc is not known either; it is that of the network here.
"""

from experiment import runner, settings, v1_rows
from experiment.plan import FULL, SMALL, Recipe


def _rows(name, paper, paper_crf, *args):
  network = v1_rows.row(*args, name=name, paper=paper)
  return [network, settings.with_crf(network, paper_crf)]


RECIPE = Recipe(
  name='v1_table1',
  table='DeepLab v1 (arXiv:1412.7062), table 1a',
  rows=[
    v1_rows.PRETRAINED,
    *_rows('deeplab', 59.80, 63.74, 'deeplab'),
    *_rows('msc', 61.30, 65.21, 'deeplab', 'deeplab'),
    *_rows('deeplab_7x7', 64.38, 67.64, 'deeplab_7x7'),
    *_rows('largefov', 62.25, 67.64, 'largefov'),
    *_rows('msc_largefov', 64.21, 68.70, 'largefov', 'largefov'),
  ],
  settings={FULL: settings.VOC_V1, SMALL: settings.SHAPES_VGG},
)

if __name__ == '__main__':
  runner.main(RECIPE)

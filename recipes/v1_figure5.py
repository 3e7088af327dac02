"""DeepLab v1, figure 5: mIoU along object boundaries.

  python recipes/v1_figure5.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=vgg_16.ckpt
  python recipes/v1_figure5.py --scale=small --output_dir=out

Needs: as v1_table1.py.
Time: not measured.

The figure (arXiv:1412.7062, figure 5c) has curves and no numbers: mIoU within
bands of 0 to 40 pixels around the void label, which MSc and the CRF each
improve. Every row writes eval/trimap_<step>.json and .png; results.md has the
bands. Both papers use this measure of val, v2 with ResNet-101 as well.
"""

from experiment import runner, settings, v1_rows
from experiment.plan import FULL, SMALL, Recipe

_NETWORK = v1_rows.row('deeplab', eval=settings.TRIMAP)
_MSC = v1_rows.row('deeplab', 'deeplab', name='msc', eval=settings.TRIMAP)

RECIPE = Recipe(
  name='v1_figure5',
  table='DeepLab v1 (arXiv:1412.7062), figure 5',
  rows=[
    v1_rows.PRETRAINED,
    _NETWORK,
    settings.with_crf(_NETWORK),
    _MSC,
    settings.with_crf(_MSC),
  ],
  settings={FULL: settings.VOC_V1, SMALL: settings.SHAPES_VGG},
)

if __name__ == '__main__':
  runner.main(RECIPE)

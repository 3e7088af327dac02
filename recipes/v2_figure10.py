"""DeepLab v2, figure 10: mIoU along object boundaries, VGG-16 and ResNet-101.

  python recipes/v2_figure10.py --output_dir=out --data_dir=VOC_TFRECORD \
    --data_dir=coco=COCO_TFRECORD \
    --initial_checkpoint=vgg_16_imagenet=vgg_16.ckpt \
    --initial_checkpoint=resnet_v1_101_imagenet=zoo/resnet_v1_101_imagenet

Needs: as v2_table4.py, and slim's ImageNet checkpoint of VGG-16. The same at
small scale is v1_figure5.py.
Time: not measured.

The figure (arXiv:1606.00915, figure 10b) has curves and no numbers: mIoU within
bands of 0 to 40 pixels around the void label. ResNet-101 without CRF is about
as good as VGG-16 with it, and better with it. Which variants these are is not
said; ASPP-L and the best one here.
"""

from experiment import runner, settings, v1_rows, v2_rows
from experiment.plan import FULL, Recipe
from experiment.v2_rows import ASPP, AUG, MSC

_VGG = v1_rows.row(
  'largefov',
  name='vgg',
  checkpoint='vgg_16_imagenet',
  train={**v1_rows.VGG, 'atrous_rates': [6, 12, 18, 24]},
  eval=settings.TRIMAP,
)
_RESNET = v2_rows.row(
  'resnet', None, MSC, AUG, ASPP, coco=True, eval=settings.TRIMAP
)

RECIPE = Recipe(
  name='v2_figure10',
  table='DeepLab v2 (arXiv:1606.00915), figure 10',
  rows=[
    v2_rows.COCO_STAGE,
    _VGG,
    settings.with_crf(_VGG),
    _RESNET,
    settings.with_crf(_RESNET),
  ],
  settings={FULL: settings.VOC_V2_RESNET},
)

if __name__ == '__main__':
  runner.main(RECIPE)

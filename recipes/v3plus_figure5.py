"""DeepLab v3+, figure 5: mIoU along object boundaries, with a decoder or not.

  python recipes/v3plus_figure5.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=resnet_v1_101_beta_imagenet=zoo/... \
    --initial_checkpoint=xception_65_imagenet=zoo/xception_65_imagenet
  python recipes/v3plus_figure5.py --scale=small --output_dir=out \
    --camvid_root=CamVid --initial_checkpoint=deeplabv3_mnv2_pascal_trainval

Needs: PASCAL VOC with train_aug, and the ImageNet checkpoints of the model zoo;
small: CamVid and the published MobileNetV2 checkpoint, boundaries of classes as
well as void.
Time: not measured.

The figure (arXiv:1802.02611, figure 5a) has curves: mIoU within bands of up to
40 pixels around the void label, output stride 16. In words (section 4.4): the
decoder gives 4.8 more for ResNet-101 and 5.4 for Xception in the narrowest one.
"""

from experiment import runner, settings
from experiment.plan import FULL, SCALES, SMALL, Recipe, Row

_NETWORKS = {
  'resnet': (settings.RESNET_101, 'resnet_v1_101_beta_imagenet'),
  'xception': (
    {**settings.XCEPTION_65, 'multi_grid': None},
    'xception_65_imagenet',
  ),
}


def _row(name, decoder):
  network, checkpoint = _NETWORKS[name]
  return Row(
    f'{name}_{"decoder" if decoder else "plain"}',
    train={**network, **decoder},
    eval=settings.TRIMAP,
    checkpoint=checkpoint,
    small_train={
      'model_variant': 'mobilenet_v2',
      'multi_grid': None,
      'atrous_rates': None,
      'weight_decay': None,
    },
    small_eval={'trimap_boundary': 'any'},
    scales=SCALES if name == 'resnet' else [FULL],
  )


RECIPE = Recipe(
  name='v3plus_figure5',
  table='DeepLab v3+ (arXiv:1802.02611), figure 5',
  rows=[
    _row(name, decoder)
    for name in _NETWORKS
    for decoder in ({}, settings.DECODER)
  ],
  settings={
    FULL: settings.voc(settings.RESNET_101),
    SMALL: settings.CAMVID,
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

"""DeepLab v3, table 8: crop size, upsampled logits and batch norm.

  python recipes/v3_table8.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_101_beta_imagenet
  python recipes/v3_table8.py --scale=small --output_dir=out \
    --camvid_root=CamVid --initial_checkpoint=deeplabv3_mnv2_pascal_trainval

Needs: PASCAL VOC with train_aug, and the ImageNet checkpoint of the model zoo;
small: CamVid and the published MobileNetV2 checkpoint; the crops are 193x257
and 113x161.
Time: not measured.

mIoU on val at output stride 16 (arXiv:1706.05587, table 8):

  crop  upsampled logits  batch norm trained  mIoU
  513   yes               yes                 77.21
  513   yes               no                  75.95
  513   no                yes                 76.01
  321   yes               yes                 67.22
"""

from experiment import runner, settings
from experiment.plan import FULL, SMALL, Recipe, Row

RECIPE = Recipe(
  name='v3_table8',
  table='DeepLab v3 (arXiv:1706.05587), table 8',
  rows=[
    Row('all', paper=77.21),
    Row(
      'frozen_batch_norm', paper=75.95, train={'fine_tune_batch_norm': False}
    ),
    Row('downsampled_labels', paper=76.01, train={'upsample_logits': False}),
    Row(
      'small_crops',
      paper=67.22,
      train={'train_crop_size': [321, 321]},
      small_train={'train_crop_size': [113, 161]},
    ),
  ],
  settings={
    FULL: settings.voc(settings.RESNET_101),
    SMALL: settings.CAMVID,
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

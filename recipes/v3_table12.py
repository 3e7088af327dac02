"""DeepLab v3, tables 12 and 13: Cityscapes; ResNet-101.

  python recipes/v3_table12.py --output_dir=out --data_dir=CITYSCAPES_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_101_beta_imagenet
  python recipes/v3_table12.py --scale=small --output_dir=out \
    --camvid_root=CamVid --initial_checkpoint=deeplabv3_mnv2_pascal_trainval

Needs: the official TFRecord files of Cityscapes (train_fine, val_fine; for the
row test also trainval_coarse and test_fine), and the ImageNet checkpoint of the
model zoo; small: CamVid and the published MobileNetV2 checkpoint. The row test
writes label images for the test server.
Time: not measured.

mIoU on val, trained on train_fine (arXiv:1706.05587, table 12):

  output stride 16           77.23
  output stride 8            77.82
  output stride 8, MS        79.06
  output stride 8, MS, flip  79.30

MS are the scales 0.75, 1 and 1.25. On test (table 13) 81.3, trained further on
trainval_coarse (length and learning rate are not in the paper; those of the
second stage on VOC here), with scales 0.75 to 2 and output stride 4.
"""

from experiment import runner, settings
from experiment.plan import FULL, SMALL, Recipe, Row
from experiment.settings import FLIPS
from experiment.v3_rows import evaluate

_SCALES = {'eval_scales': [0.75, 1.0, 1.25]}

RECIPE = Recipe(
  name='v3_table12',
  table='DeepLab v3 (arXiv:1706.05587), tables 12 and 13',
  rows=[
    Row('aspp', paper=77.23),
    evaluate('aspp', 'eval8', 77.82, 8),
    evaluate('aspp', 'eval8_ms', 79.06, 8, _SCALES),
    evaluate('aspp', 'eval8_ms_flip', 79.30, 8, _SCALES, FLIPS),
    Row(
      'test',
      paper=81.3,
      train={
        'train_split': 'trainval_coarse',
        'fine_tune_batch_norm': False,
        'base_learning_rate': 0.001,
      },
      eval={
        **settings.CITYSCAPES_TEST,
        **FLIPS,
        'eval_scales': [0.75, 1.0, 1.25, 1.5, 1.75, 2.0],
        'output_stride': 4,
      },
      start='aspp',
      scales=[FULL],
      script='vis',
    ),
  ],
  settings={
    FULL: settings.cityscapes(settings.RESNET_101),
    SMALL: settings.CAMVID,
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

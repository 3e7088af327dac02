"""DeepLab v3+, table 7: Cityscapes; Xception-65 and Xception-71.

  python recipes/v3plus_table7.py --output_dir=out \
    --data_dir=CITYSCAPES_TFRECORD \
    --initial_checkpoint=xception_65_imagenet=zoo/xception_65_imagenet \
    --initial_checkpoint=xception_71_imagenet=zoo/xception_71_imagenet
  python recipes/v3plus_table7.py --scale=small --output_dir=out \
    --camvid_root=CamVid --initial_checkpoint=deeplabv3_mnv2_pascal_trainval

Needs: the official TFRecord files of Cityscapes (train_fine, val_fine; for the
row test also trainval_coarse and test_fine), and the ImageNet checkpoints of
the model zoo; small: CamVid and the published MobileNetV2 checkpoint. The row
test writes label images for the test server.
Time: not measured.

mIoU on val at output stride 16, trained on train_fine (arXiv:1802.02611, table
7a):

  backbone  decoder  image-level feature  mIoU
  X-65      no       yes                  77.33
  X-65      yes      yes                  78.79
  X-65      yes      no                   79.14
  X-71      yes      no                   79.55

On test (table 7b) 82.1 for X-71, trained further on coarse annotations; how is
not said. Here it is the second stage on trainval_coarse, as v3_table12.py has
it, and the test of the model zoo: output stride 8, six scales, flips.
"""

from experiment import runner, settings
from experiment.plan import FULL, SMALL, Recipe, Row
from experiment.settings import FLIPS, MULTI_SCALE

_DECODER = {'decoder_output_stride': [4]}
_NO_POOLING = {**_DECODER, 'add_image_level_feature': False}
_XCEPTION_71 = {**_NO_POOLING, 'model_variant': 'xception_71'}

RECIPE = Recipe(
  name='v3plus_table7',
  table='DeepLab v3+ (arXiv:1802.02611), table 7',
  rows=[
    Row('plain', paper=77.33),
    Row('decoder', paper=78.79, train=_DECODER),
    Row('without_pooling', paper=79.14, train=_NO_POOLING),
    Row(
      'xception_71',
      paper=79.55,
      train=_XCEPTION_71,
      checkpoint='xception_71_imagenet',
      scales=[FULL],
    ),
    Row(
      'test',
      paper=82.1,
      train={
        **_XCEPTION_71,
        'train_split': 'trainval_coarse',
        'fine_tune_batch_norm': False,
        'base_learning_rate': 0.001,
      },
      eval={
        **settings.CITYSCAPES_TEST,
        **MULTI_SCALE,
        **FLIPS,
        'output_stride': 8,
      },
      start='xception_71',
      scales=[FULL],
      script='vis',
    ),
  ],
  settings={
    FULL: settings.cityscapes(
      settings.XCEPTION_65, aspp_with_separable_conv=True
    ),
    SMALL: settings.CAMVID,
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

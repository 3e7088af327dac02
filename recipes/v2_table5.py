"""DeepLab v2, table 5: the test set of PASCAL VOC 2012.

  python recipes/v2_table5.py --output_dir=out --data_dir=VOC_TFRECORD \
    --data_dir=coco=COCO_TFRECORD \
    --initial_checkpoint=zoo/resnet_v1_101_imagenet

Needs: as v2_table4.py, and the splits trainval_aug and test. The labels of the
test set are not public: the recipe writes
<row>/vis/raw_segmentation_results/*.png for the test server.
Time: not measured.

mIoU on test (arXiv:1606.00915, table 5): DeepLab-CRF (ResNet-101) 79.7. Before
(section 4.1) it has 65.1 for LargeFOV (VGG-16) with the step policy and 67.7
with poly, and 72.6 for ASPP-L with CRF.
"""

from experiment import runner, settings, v2_rows
from experiment.plan import FULL, Recipe
from experiment.v2_rows import ASPP, AUG, MSC

RECIPE = Recipe(
  name='v2_table5',
  table='DeepLab v2 (arXiv:1606.00915), table 5',
  rows=[
    v2_rows.COCO_STAGE,
    v2_rows.row(
      'aspp_crf',
      79.7,
      MSC,
      AUG,
      ASPP,
      coco=True,
      eval=settings.CRF,
      script='vis',
    ),
  ],
  settings={
    FULL: settings.VOC_V2_RESNET.change(
      train={'train_split': 'trainval_aug'}, eval=settings.VOC_TEST
    )
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

"""DeepLab v1, table 3: the test set of PASCAL VOC 2012.

  python recipes/v1_table3.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=vgg_16.ckpt

Needs: PASCAL VOC with the splits trainval_aug (trainval and the extra
annotations, as train_aug has them for train) and test, and slim's ImageNet
checkpoint of VGG-16. The labels of the test set are not public: the recipe
writes <row>/vis/raw_segmentation_results/*.png for the test server
(host.robots.ox.ac.uk:8080).
Time: not measured.

mIoU on test (arXiv:1412.7062, table 3):

  DeepLab-CRF               66.4
  DeepLab-MSc-CRF           67.1
  DeepLab-CRF-7x7           70.3
  DeepLab-CRF-LargeFOV      70.3
  DeepLab-MSc-CRF-LargeFOV  71.6
"""

from experiment import runner, settings, v1_rows
from experiment.plan import FULL, Recipe


def _row(name, paper, *args):
  return v1_rows.row(
    *args, name=name, paper=paper, eval=settings.CRF, script='vis'
  )


RECIPE = Recipe(
  name='v1_table3',
  table='DeepLab v1 (arXiv:1412.7062), table 3',
  rows=[
    _row('deeplab', 66.4, 'deeplab'),
    _row('msc', 67.1, 'deeplab', 'deeplab'),
    _row('deeplab_7x7', 70.3, 'deeplab_7x7'),
    _row('largefov', 70.3, 'largefov'),
    _row('msc_largefov', 71.6, 'largefov', 'largefov'),
  ],
  settings={
    FULL: settings.VOC_V1.change(
      train={'train_split': 'trainval_aug'}, eval=settings.VOC_TEST
    )
  },
)

if __name__ == '__main__':
  runner.main(RECIPE)

"""DeepLab v2, table 2: the learning rate policy.

  python recipes/v2_table2.py --output_dir=out --data_dir=VOC_TFRECORD \
    --initial_checkpoint=vgg_16.ckpt
  python recipes/v2_table2.py --scale=small --output_dir=out

Needs: PASCAL VOC with train_aug, and slim's ImageNet checkpoint of VGG-16;
small: nothing (VGG-16 on generated shapes; batches are 12 and 4 there, and
steps a twentieth).
Time: not measured.

mIoU on val without CRF, LargeFOV (arXiv:1606.00915, table 2):

  policy  batch  steps  mIoU
  step    30      6k    62.25
  poly    30      6k    63.42
  poly    30     10k    64.90
  poly    10     10k    64.71
  poly    10     20k    65.88

The text of both papers has batches of 20 where the table has 30.
"""

from experiment import runner, settings, v1_rows
from experiment.plan import FULL, SMALL, Recipe

_SMALL_BATCH = {30: 12, 10: 4}


def _row(policy, batch_size, steps, paper):
  schedule = {
    'learning_policy': policy,
    'train_batch_size': batch_size,
    'training_number_of_steps': steps,
  }
  small = {
    'train_batch_size': _SMALL_BATCH[batch_size],
    'training_number_of_steps': steps // 20,
  }
  if policy == 'step':
    schedule['learning_rate_decay_step'] = 2000
    small['learning_rate_decay_step'] = 100
  return v1_rows.row(
    'largefov',
    name=f'{policy}_batch{batch_size}_{steps // 1000}k',
    paper=paper,
    train=schedule,
    small_train=small,
  )


RECIPE = Recipe(
  name='v2_table2',
  table='DeepLab v2 (arXiv:1606.00915), table 2',
  rows=[
    v1_rows.PRETRAINED,
    _row('step', 30, 6000, 62.25),
    _row('poly', 30, 6000, 63.42),
    _row('poly', 30, 10000, 64.90),
    _row('poly', 10, 10000, 64.71),
    _row('poly', 10, 20000, 65.88),
  ],
  settings={FULL: settings.VOC_V2_VGG, SMALL: settings.SHAPES_VGG},
)

if __name__ == '__main__':
  runner.main(RECIPE)

"""Rows that the tables of DeepLab v3 and v3+ have in common."""

from experiment import settings
from experiment.plan import FULL, Row

# A training on MS-COCO in the classes of VOC.
COCO_STAGE = Row(
  'coco',
  train={'train_split': 'train'},
  eval=None,
  data='coco',
  scales=[FULL],
)


def evaluate(weights, name, paper, output_stride, *parts, **fields):
  """A row that evaluates the weights of another.

  Args:
    weights: name of the other row.
    name: of this one, behind the other's.
    paper: mIoU in percent, or None.
    output_stride: of the evaluation.
    *parts: further flags of eval.py; six scales become three at small scale.
    **fields: of the Row.

  Returns:
    A Row.
  """
  flags = {key: value for part in parts for key, value in part.items()}
  small = {'eval_scales': settings.SMALL_SCALES}
  return Row(
    f'{weights}_{name}',
    paper=paper,
    weights=weights,
    eval={'output_stride': output_stride, **flags},
    small_eval=small if 'eval_scales' in flags else {},
    **fields,
  )

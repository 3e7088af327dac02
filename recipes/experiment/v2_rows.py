"""Parts of DeepLab v2 on ResNet-101, as rows of its tables."""

from experiment.plan import FULL, Row

# Several sizes of the input, scores merged by their maximum (section 4.1.2).
MSC = {'image_pyramid': [0.5, 0.75, 1.0]}
AUG = {'min_scale_factor': 0.5, 'max_scale_factor': 1.5}
LARGEFOV = {'logits_kernel_size': 3, 'atrous_rates': [12]}
ASPP = {'logits_kernel_size': 3, 'atrous_rates': [6, 12, 18, 24]}

# At small scale, as the features are smaller.
_SMALL_RATES = {12: [3], 6: [2, 3, 5, 6]}


def row(name, paper, *parts, coco=False, **fields):
  """A row with some of the parts.

  Args:
    name: of the row.
    paper: mIoU in percent.
    *parts: of the dictionaries above.
    coco: start from the row 'coco', at full scale.
    **fields: of the Row.

  Returns:
    A Row.
  """
  train = {key: value for part in parts for key, value in part.items()}
  rates = train.get('atrous_rates')
  if coco:
    # Other heads and classes than those of COCO_STAGE.
    train['initialize_last_layer'] = False
  return Row(
    name,
    paper=paper,
    train={**train, **fields.pop('train', {})},
    eval={**(MSC if MSC in parts else {}), **fields.pop('eval', {})},
    start='coco' if coco else None,
    small_train={'atrous_rates': _SMALL_RATES[rates[0]]} if rates else {},
    **fields,
  )


# A training on MS-COCO in the classes of VOC. The paper does not give its
# length; it is that of a training on VOC here.
COCO_STAGE = Row(
  'coco',
  train={**MSC, 'train_split': 'train'},
  eval=None,
  data='coco',
  scales=[FULL],
)

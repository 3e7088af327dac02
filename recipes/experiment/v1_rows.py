"""The networks of DeepLab v1, as rows of its tables."""

from experiment.plan import SMALL, Row

# In the place of ImageNet at small scale. From nothing, VGG-16 learns in a few
# minutes only with the side branches, which lead past its many layers.
PRETRAINED = Row(
  'pretrained',
  train={
    'vgg_side_branches': True,
    'vgg_fc6_kernel_size': 7,
    'vgg_fc_filters': 512,
    'base_learning_rate': 0.01,
    'training_number_of_steps': 300,
  },
  eval=None,
  scales=[SMALL],
)

# VGG-16 in a setting for ResNet-101.
VGG = {
  'model_variant': 'vgg_16',
  'base_learning_rate': 0.001,
  'fine_tune_batch_norm': None,
}

# Kernel of fc6, its rate, and filters (v1, table 2).
VARIANTS = {
  'deeplab_7x7': (7, 4, 4096),
  'deeplab': (4, 4, 4096),
  'deeplab_4x4': (4, 8, 4096),
  'largefov': (3, 12, 1024),
}

# What multi-scale prediction adds is trained alone, behind the trained network
# (v1, section 4.3).
_SIDE_BRANCHES = {
  'vgg_side_branches': True,
  'trainable_scopes': ['vgg_16/data', 'vgg_16/pool', 'logits'],
  'initialize_last_layer': False,
}


def row(variant, side_branches_of=None, name=None, **fields):
  """A row that trains one of the networks.

  At small scale rates are a quarter of the paper's, as the features are, and
  filters an eighth.

  Args:
    variant: one of VARIANTS.
    side_branches_of: name of the row without side branches, for a row with
      them.
    name: of the row; the variant's by default.
    **fields: of the Row.

  Returns:
    A Row.
  """
  kernel_size, rate, filters = VARIANTS[variant]
  train = {
    'vgg_fc6_kernel_size': kernel_size,
    'atrous_rates': [rate],
    'vgg_fc_filters': filters,
    **(_SIDE_BRANCHES if side_branches_of else {}),
    **fields.pop('train', {}),
  }
  return Row(
    name or variant,
    train=train,
    start=side_branches_of,
    small_start=side_branches_of or PRETRAINED.name,
    small_train={
      'atrous_rates': [rate // 4],
      'vgg_fc_filters': filters // 8,
      'initialize_last_layer': False,
      **fields.pop('small_train', {}),
    },
    **fields,
  )

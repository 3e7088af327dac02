"""The last convolution of the network, or the sum of several."""

from deeplab import slim
from deeplab.common import InputError

LOGITS_SCOPE_NAME = 'logits'


def get_branch_logits(
  features,
  num_classes,
  atrous_rates=None,
  aspp_with_batch_norm=False,
  kernel_size=1,
  weight_decay=0.0001,
  scope_suffix='',
):
  """The last convolution; for DeepLab v2 one for each rate, summed.

  Args:
    features: [batch, height, width, channels]; or a list of such, one for
      each branch.
    num_classes: number of classes.
    atrous_rates: rates of the v2 branches, where all take the same features;
      unused with batch norm, where ASPP is part of the features.
    aspp_with_batch_norm: whether that is so.
    kernel_size: of the branches; 1 unless this is the v2 head.
    weight_decay: of the kernels.
    scope_suffix: name of the output.

  Returns:
    [batch, height, width, num_classes].

  Raises:
    InputError: a kernel size other than 1 without the v2 head.
  """
  if aspp_with_batch_norm or not atrous_rates:
    if kernel_size != 1:
      raise InputError(
        'logits_kernel_size must be 1 without atrous_rates or when '
        f'aspp_with_batch_norm is set. Received: {kernel_size}.'
      )
    atrous_rates = [1]
  inputs = [(features, rate) for rate in atrous_rates]
  if isinstance(features, list):
    inputs = [(branch, 1) for branch in features]
  with (
    slim.arg_scope(
      [slim.conv2d],
      weights_regularizer=slim.l2_regularizer(weight_decay),
      weights_initializer=slim.truncated_normal_initializer(0.01),
    ),
    slim.variable_scope(LOGITS_SCOPE_NAME),
    slim.compute_dtype(None),
  ):
    branches = [
      slim.conv2d(
        branch,
        num_classes,
        kernel_size,
        rate=rate,
        activation_fn=None,
        normalizer_fn=None,
        scope=f'{scope_suffix}_{i}' if i else scope_suffix,
      )
      for i, (branch, rate) in enumerate(inputs)
    ]
    return sum(branches[1:], branches[0])

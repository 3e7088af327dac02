"""The slim vocabulary on Keras 3.

Networks are written as with tf.contrib.slim and build a functional Keras
graph:

  with slim.arg_scope([slim.conv2d], normalizer_fn=slim.batch_norm):
    net = slim.conv2d(images, 64, 3, stride=2, scope='conv1_1')
"""

from deeplab.slim.folding import folded, is_folded
from deeplab.slim.initializers import (
  ones_initializer,
  truncated_normal_initializer,
  variance_scaling_initializer,
  xavier_initializer,
  zeros_initializer,
)
from deeplab.slim.layers import (
  as_float32,
  avg_pool2d,
  batch_norm,
  conv2d,
  dropout,
  function,
  l2_regularizer,
  max_pool2d,
  repeat,
  separable_conv2d,
)
from deeplab.slim.order import after
from deeplab.slim.quantization import (
  declare_range,
  hard_gate,
  is_quantized,
  quantize,
  quantized,
)
from deeplab.slim.scopes import (
  LayerStore,
  add_arg_scope,
  arg_scope,
  collect_end_points,
  collect_named_output,
  compute_dtype,
  layer_store,
  nested_arg_scope,
  official_name,
  train_step_context,
  variable_scope,
)

__all__ = [
  'LayerStore',
  'add_arg_scope',
  'after',
  'arg_scope',
  'as_float32',
  'avg_pool2d',
  'batch_norm',
  'collect_end_points',
  'collect_named_output',
  'compute_dtype',
  'conv2d',
  'declare_range',
  'dropout',
  'folded',
  'function',
  'hard_gate',
  'is_folded',
  'is_quantized',
  'l2_regularizer',
  'layer_store',
  'max_pool2d',
  'nested_arg_scope',
  'official_name',
  'ones_initializer',
  'quantize',
  'quantized',
  'repeat',
  'separable_conv2d',
  'train_step_context',
  'truncated_normal_initializer',
  'variable_scope',
  'variance_scaling_initializer',
  'xavier_initializer',
  'zeros_initializer',
]

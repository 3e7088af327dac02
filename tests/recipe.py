"""The weights that the golden outputs were computed with.

The value of a variable is a function of its TensorFlow 1 name and its shape,
so that no weights need to be stored.
"""

import hashlib
import math
import re

import numpy as np

# gamma of the batch norm that closes a residual branch is smaller, so that
# activations keep their size through the depth of a network.
_GAMMA = {
  r'/bottleneck_v1/conv3/BatchNorm/gamma$': 0.375,
  r'/lite_bottleneck_v1/conv2/BatchNorm/gamma$': 0.5,
  r'/xception_module/separable_conv3_pointwise/BatchNorm/gamma$': 0.5,
  r'^MobilenetEdgeTPU/.*/project/BatchNorm/gamma$': 0.7,
}


def make_value(name, shape):
  """The float32 value of a variable.

  Args:
    name: TensorFlow 1 name without ':0'.
    shape: its shape.

  Returns:
    float32 array.
  """
  digest = hashlib.sha256(name.encode()).digest()
  generator = np.random.PCG64(int.from_bytes(digest[:8], 'little'))
  z = np.random.Generator(generator).standard_normal(tuple(shape))
  leaf = name.rsplit('/', 1)[-1]
  if leaf == 'depthwise_weights':
    value = z / math.sqrt(shape[0] * shape[1])
  elif leaf in ('weights', 'pointwise_weights'):
    value = z * math.sqrt(2.0 / math.prod(shape[:-1]))
    if tuple(shape[:3]) == (7, 7, 3):
      # The stem of the ResNets whose input is not scaled to [-1, 1].
      value = value / 64.0
  elif leaf == 'gamma':
    scales = [s for pattern, s in _GAMMA.items() if re.search(pattern, name)]
    value = (1.0 + 0.1 * z) * (scales[0] if scales else 1.0)
  elif leaf in ('beta', 'biases', 'moving_mean'):
    value = 0.1 * z
  elif leaf == 'moving_variance':
    value = np.exp(0.2 * z)
  else:
    raise ValueError(f'no recipe for {name}')
  return value.astype(np.float32)


def assign(variables):
  """Gives {name: variable} the values of the recipe."""
  for name, variable in variables.items():
    variable.assign(make_value(name, variable.shape))


def weights_sha256(variables):
  """A digest over the values of {name: variable}, in order."""
  digest = hashlib.sha256()
  for name, variable in variables.items():
    digest.update(name.encode())
    digest.update(np.ascontiguousarray(np.asarray(variable)).tobytes())
  return digest.hexdigest()

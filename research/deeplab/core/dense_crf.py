"""Fully connected conditional random field, as post-processing.

Every pixel is joined to every other one by two Gaussian kernels, one in
position and colour and one in position alone; pixels that they join strongly
should have the same label (Potts). Mean field inference is a series of Gaussian
filters, in time linear in the pixels.

Source: Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with
Gaussian Edge Potentials", NIPS 2011; the names are those of DeepLab v1 and v2.
"""

import concurrent.futures
import dataclasses
import functools
import math
import os

import numpy as np

from deeplab import common
from deeplab.common import InputError
from deeplab.core import permutohedral

# How the bilateral kernel is summed over all pixels.
AUTO = 'auto'
EXACT = 'exact'
LATTICE = 'lattice'
METHODS = (AUTO, EXACT, LATTICE)

# Up to so many pixels AUTO sums exactly: 64 x 64. Each kernel is a matrix of
# 128 MB then.
MAX_AUTO_EXACT_PIXELS = 4096
# Of 2 GB.
MAX_EXACT_PIXELS = 16384

# Far from the centre, in standard deviations, where a Gaussian is cut off.
_CUTOFF = 5.0
_BLOCK = 64

# A class sends no messages while they would change its marginals by less than
# about this (and the others' by no more).
_SILENT = 1e-7
# Pixels that stay in the cache of a processor.
_SOFTMAX_PIXELS = 8192
# Fewer channels than this are not worth a thread.
_THREAD_CHANNELS = 4

_WEIGHT = common.Range(0, 1e4)
_DEVIATION = common.Range(0.01, 1e4)
RANGES = {
  'w1': _WEIGHT,
  'sigma_alpha': _DEVIATION,
  'sigma_beta': _DEVIATION,
  'w2': _WEIGHT,
  'sigma_gamma': _DEVIATION,
  'iterations': common.COUNT,
}


@dataclasses.dataclass(frozen=True)
class Parameters:
  """The kernels of the CRF and the length of inference.

  For two pixels with positions p and colours I the kernels are (v2, equation 3)

      w1 exp(-|p_i - p_j|^2 / (2 sigma_alpha^2)
             - |I_i - I_j|^2 / (2 sigma_beta^2))
      w2 exp(-|p_i - p_j|^2 / (2 sigma_gamma^2))

  before they are normalised; see `dense_crf`.

  Attributes:
    w1: weight of the bilateral kernel, at least 0.
    sigma_alpha: its standard deviation in position, in pixels.
    sigma_beta: its standard deviation in colour, in levels of 0..255.
    w2: weight of the spatial kernel, at least 0.
    sigma_gamma: its standard deviation in position, in pixels.
    iterations: of mean field inference.
  """

  w1: float = 4.0
  sigma_alpha: float = 67.0
  sigma_beta: float = 3.0
  w2: float = 3.0
  sigma_gamma: float = 3.0
  iterations: int = 10

  def __post_init__(self):
    for name, value in vars(self).items():
      if value not in RANGES[name]:
        raise InputError(
          f'{name} must be {RANGES[name]}. Received: {name}={value!r}.'
        )

  def __str__(self):
    return ', '.join(f'{name}={value:g}' for name, value in vars(self).items())


def dense_crf(image, probabilities, parameters=None, method=AUTO, margin=0):
  """Refines the probabilities of an image's pixels.

  Each kernel K is normalised to D^-1/2 K D^-1/2 with the row sums D, and keeps
  its diagonal, as in the authors' released code (and pydensecrf).

  Args:
    image: uint8 [height, width, 3].
    probabilities: floating point [height, width, classes], not negative, and
      not all zero at any pixel; they need not sum to one.
    parameters: Parameters; None for the defaults.
    method: how to sum the bilateral kernel: 'lattice' on the permutohedral
      lattice (the published way, some percent from the Gaussian), 'exact' over
      all pairs of pixels, or 'auto': exact up to 4096 pixels.
    margin: of the lattice; see `permutohedral.Lattice`.

  Returns:
    float32 [height, width, classes], summing to one: the marginals after
    `parameters.iterations` mean field updates.

  Raises:
    InputError: an array has the wrong type, rank or size, or values that are
      no probabilities; or there are too many pixels for 'exact'.
  """
  parameters = Parameters() if parameters is None else parameters
  if not isinstance(parameters, Parameters):
    raise InputError(
      f'parameters must be Parameters. Received: parameters={parameters!r}.'
    )
  _check_image(image)
  _check_probabilities(probabilities)
  if image.shape[:2] != probabilities.shape[:2]:
    raise InputError(
      'image and probabilities must have the same height and width. Received: '
      f'image of {list(image.shape[:2])} and probabilities of '
      f'{list(probabilities.shape[:2])}. Resize the probabilities to the image.'
    )
  kernels = Kernels(image, parameters, method, margin)
  marginals = mean_field(
    probabilities, kernels, parameters.w1, parameters.w2, parameters.iterations
  )
  return marginals.astype(np.float32)


# Validation.


def _check_method(method, margin):
  if not isinstance(method, str) or method not in METHODS:
    raise InputError(
      f'method must be one of {list(METHODS)}. Received: method={method!r}.'
    )
  if margin not in permutohedral.MARGIN:
    raise InputError(
      f'margin must be {permutohedral.MARGIN}. Received: margin={margin!r}.'
    )


def _is_array(values):
  """Whether it is a NumPy array without masked items."""
  return isinstance(values, np.ndarray) and not np.ma.isMaskedArray(values)


def _check_image(image):
  shape = getattr(image, 'shape', None)
  if not _is_array(image) or image.dtype != np.uint8:
    kind = getattr(image, 'dtype', type(image).__name__)
    raise InputError(
      'image must be a NumPy array of uint8, the levels 0..255 that sigma_beta '
      f'is counted in. Received: image of {kind}.'
    )
  if len(shape) != 3 or shape[2] != 3 or 0 in shape:
    raise InputError(
      'image must be [height, width, 3], and not empty. Received: image of '
      f'shape {list(shape)}.'
    )


def _check_probabilities(probabilities):
  if not _is_array(probabilities) or not np.issubdtype(
    probabilities.dtype, np.floating
  ):
    kind = getattr(probabilities, 'dtype', type(probabilities).__name__)
    raise InputError(
      'probabilities must be a NumPy array of floating point numbers. '
      f'Received: probabilities of {kind}.'
    )
  if probabilities.ndim != 3 or 0 in probabilities.shape:
    raise InputError(
      'probabilities must be [height, width, classes], and not empty. '
      f'Received: probabilities of shape {list(probabilities.shape)}.'
    )
  low, high = probabilities.min(), probabilities.max()
  if not (low >= 0 and high < math.inf):
    raise InputError(
      'probabilities must be finite and not negative. Received: probabilities '
      f'from {low} to {high}. Logits need a softmax first.'
    )
  if not probabilities.any(axis=2).all():
    y, x = np.argwhere(~probabilities.any(axis=2))[0]
    raise InputError(
      'probabilities must not be zero for all classes. Received: zeros at row '
      f'{y}, column {x}.'
    )


# Mean field inference.


def mean_field(probabilities, kernels, w1, w2, iterations):
  """Mean field inference with kernels that may serve several times.

  Args:
    probabilities: floating point [height, width, classes], not negative.
    kernels: Kernels of the image.
    w1: weight of the bilateral kernel.
    w2: weight of the spatial kernel.
    iterations: number of updates.

  Returns:
    [height, width, classes] of kernels.dtype, summing to one.
  """
  # Their scale does not matter, and may not fit into a float32.
  probabilities = probabilities / probabilities.max(axis=2, keepdims=True)
  # What is zero counts as the smallest float32.
  floor = np.finfo(np.float32).tiny
  scores = np.log(np.maximum(probabilities, floor, dtype=kernels.dtype))
  scores = scores.reshape(-1, probabilities.shape[2])
  marginals = scores.copy()
  # A kernel without weight is not even made.
  weighted = []
  if w1:
    weighted.append((w1, kernels.bilateral))
  if w2:
    weighted.append((w2, kernels.spatial))
  with concurrent.futures.ThreadPoolExecutor(_num_threads()) as pool:
    _softmax(marginals, pool)
    for _ in range(iterations):
      _update(marginals, scores, weighted, pool)
  return marginals.reshape(probabilities.shape)


def _softmax(scores, pool):
  """Softmax over the classes of [pixels, classes], in place."""

  def normalize(start):
    block = scores[start : start + _SOFTMAX_PIXELS]
    block -= block.max(axis=1, keepdims=True)
    np.exp(block, out=block)
    block /= block.sum(axis=1, keepdims=True)

  list(pool.map(normalize, range(0, len(scores), _SOFTMAX_PIXELS)))


def _update(marginals, scores, weighted, pool):
  """One mean field update, in place, of all pixels and classes at once.

  Args:
    marginals: [pixels, classes].
    scores: [pixels, classes], logarithms of the network's probabilities.
    weighted: [(weight, kernel)].
    pool: threads.
  """
  # The logarithm of a small marginal changes by its messages.
  strength = sum(weight for weight, _ in weighted)
  is_active = marginals.max(axis=0) ** 2 * strength > _SILENT
  active, silent = np.flatnonzero(is_active), np.flatnonzero(~is_active)

  def update(classes):
    # Potts: the other labels' messages count against a label, which is, up to
    # a constant, its own counting for it.
    values = marginals[:, classes]
    total = scores[:, classes]
    for weight, kernel in weighted:
      messages = kernel(values)
      messages *= weight
      total += messages
    marginals[:, classes] = total

  parts = min(_num_threads(), max(1, len(active) // _THREAD_CHANNELS))
  list(pool.map(update, np.array_split(active, parts)))
  marginals[:, silent] = scores[:, silent]
  _softmax(marginals, pool)


def _num_threads():
  """Processors that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


# Kernels.


class Kernels:
  """The two normalised kernels of an image, made when first used.

  Attributes:
    dtype: of the values: float64 if exact, else float32.
  """

  def __init__(self, image, parameters, method=AUTO, margin=0):
    """Notes what to make.

    Args:
      image: uint8 [height, width, 3].
      parameters: Parameters, of which the standard deviations count.
      method: see `dense_crf`.
      margin: see `dense_crf`.

    Raises:
      InputError: the method is none, or there are too many pixels for it.
    """
    _check_method(method, margin)
    self._image = image
    self._parameters = parameters
    self._margin = margin
    self._num_pixels = image.shape[0] * image.shape[1]
    if method == AUTO:
      small = self._num_pixels <= MAX_AUTO_EXACT_PIXELS
      method = EXACT if small else LATTICE
    self._is_exact = method == EXACT
    if self._is_exact and self._num_pixels > MAX_EXACT_PIXELS:
      raise InputError(
        f"method='exact' takes images of up to {MAX_EXACT_PIXELS} pixels. "
        f"Received: {self._num_pixels} pixels. Use 'lattice'."
      )
    self.dtype = np.float64 if self._is_exact else np.float32

  @functools.cached_property
  def bilateral(self):
    """Maps values [pixels, channels] to the same shape."""
    height, width = self._image.shape[:2]
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    # The order of pydensecrf; the lattice is not the same in all directions.
    features = np.column_stack([x, y, self._image.reshape(-1, 3)]).astype(float)
    features[:, :2] /= self._parameters.sigma_alpha
    features[:, 2:] /= self._parameters.sigma_beta
    if self._is_exact:
      return _pairs(features)
    lattice = permutohedral.Lattice(features, self._margin)
    lattice.normalize()
    return lattice.filter

  @functools.cached_property
  def spatial(self):
    """Maps values [pixels, channels] to the same shape."""
    height, width = self._image.shape[:2]
    sigma = self._parameters.sigma_gamma
    if self._is_exact:
      y, x = np.mgrid[:height, :width].reshape(2, -1)
      return _pairs(np.column_stack([x, y]) / sigma)
    return _SpatialGaussian(height, width, sigma).filter


def _pairs(features):
  """The normalised Gaussian of all pairs of points, as a filter."""
  # -|a - b|^2 / 2 = ab - a^2 / 2 - b^2 / 2, in place.
  features = features - features.mean(axis=0)
  matrix = features @ features.T
  halves = matrix.diagonal() / 2
  matrix -= halves
  matrix -= halves[:, None]
  np.exp(matrix, out=matrix)
  scale = matrix.sum(axis=1) ** -0.5
  matrix *= scale
  matrix *= scale[:, None]
  return lambda values: matrix @ values


class _SpatialGaussian:
  """The normalised Gaussian in position as a filter along rows and columns.

  It is cut off at five standard deviations, where 1e-6 of it is left.
  """

  def __init__(self, height, width, sigma):
    self._shape = (height, width)
    self._rows = _band_blocks(height, sigma)
    self._columns = _band_blocks(width, sigma)

  def filter(self, values):
    """Filters float32 [height * width, channels]."""
    height, width = self._shape
    values = values.reshape(height, width, -1).transpose(1, 0, 2)
    values = _apply_band(self._rows, values).transpose(1, 0, 2)
    values = _apply_band(self._columns, values)
    return values.reshape(height * width, -1)


def _apply_band(blocks, values):
  """Multiplies the middle axis of three by a matrix of `_band_blocks`.

  Products of this size are made by one thread, the caller's.
  """
  result = np.empty_like(values)
  for outputs, inputs, band in blocks:
    result[:, outputs] = band @ values[:, inputs]
  return result


def _band_blocks(size, sigma):
  """The normalised Gaussian along one axis as a band matrix, in blocks of rows.

  The sums of a Gaussian over rectangles are products, so that normalising the
  axes normalises the whole.

  Returns:
    [(slice of the outputs, slice of the inputs, float32 matrix)].
  """
  reach = math.ceil(_CUTOFF * sigma)
  # Not more than the axis holds, however wide the Gaussian.
  offsets = np.arange(-min(reach, size - 1), min(reach, size - 1) + 1)
  kernel = np.exp(-((offsets / sigma) ** 2) / 2)
  sums = np.convolve(np.ones(size), kernel)
  scale = sums[len(kernel) // 2 :][:size] ** -0.5
  blocks = []
  for start in range(0, size, _BLOCK):
    outputs = np.arange(start, min(start + _BLOCK, size))
    inputs = np.arange(
      max(start - reach, 0), min(outputs[-1] + reach + 1, size)
    )
    distance = np.subtract.outer(outputs, inputs)
    band = np.exp(-((distance / sigma) ** 2) / 2)
    band[abs(distance) > reach] = 0
    band *= np.multiply.outer(scale[outputs], scale[inputs])
    blocks.append(
      (
        slice(outputs[0], outputs[-1] + 1),
        slice(inputs[0], inputs[-1] + 1),
        band.astype(np.float32),
      )
    )
  return blocks

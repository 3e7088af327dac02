"""Gaussian filtering in many dimensions on the permutohedral lattice.

Every point is splatted on the d + 1 vertices of the simplex that it lies in,
the vertices are blurred along the d + 1 axes of the lattice, and the points
read the result off: three products with sparse matrices, whose sizes are linear
in the number of points.

Source: Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the
Permutohedral Lattice", Eurographics 2010.
"""

import numpy as np
import scipy.sparse

from deeplab import common
from deeplab.common import InputError

# What a vertex takes from its two neighbours along an axis, and 1 from itself.
_BLUR_NEIGHBOUR = 0.5

# Coordinates beyond this are not exact in float64 after scaling.
_MAX_FEATURE = 1e9

# Each ring of vertices takes several times the memory.
MARGIN = common.Range(0, 3, whole=True)


class Lattice:
  """A lattice around a set of points, to filter any number of signals with.

  The filter approximates sums over all points j of

      exp(-|features_i - features_j|^2 / 2) values_j

  up to one factor for all points, and by some percent: the kernel of the
  lattice is a piecewise polynomial near the Gaussian, and vertices that no
  point touches carry nothing on (`margin`).

  Attributes:
    num_vertices: number of vertices of the lattice.
  """

  def __init__(self, features, margin=0):
    """Finds the vertices and the weights of all points.

    Args:
      features: [points, dimensions], in units of the standard deviation.
      margin: rings of vertices added around those that the points touch, for
        the blur to pass over: 0 is the published filter, 1 takes away most of
        what the gaps cost, for some six times the vertices.

    Raises:
      InputError: the features are not a matrix of finite numbers of moderate
        size, or there are none.
    """
    features = np.asarray(features)
    _check_features(features)
    if margin not in MARGIN:
      raise InputError(f'margin must be {MARGIN}. Received: margin={margin!r}.')
    size = features.shape[1] + 1
    remainder_0, rank, weights = _simplices(features)
    multipliers = _multipliers(remainder_0, 2 + margin)
    codes = _vertex_codes(remainder_0, rank, multipliers)
    # A step along an axis adds 1 to all coordinates but one, and -d to that.
    steps = multipliers.sum() - size * multipliers
    vertices, index = np.unique(codes, return_inverse=True)
    if margin:
      touched = vertices
      vertices = _widen(vertices, steps, margin)
      index = np.searchsorted(vertices, touched)[index]
    self.num_vertices = len(vertices)
    starts = np.arange(0, codes.size + 1, size, dtype=np.int32)
    slicing = scipy.sparse.csr_matrix(
      (
        weights.astype(np.float32).ravel(),
        index.astype(np.int32).ravel(),
        starts,
      ),
      shape=(len(features), len(vertices)),
    )
    blurs = [_blur_matrix(vertices, step) for step in steps]
    self._factors = _merge([slicing.T.tocsr(), *blurs, slicing])

  def normalize(self):
    """Divides the filter by the roots of its row sums, on both sides."""
    num_points = self._factors[0].shape[1]
    sums = self.filter(np.ones((num_points, 1), np.float32))[:, 0]
    scale = sums**-0.5
    first, last = self._factors[0], self._factors[-1]
    first.data *= scale[first.indices]
    last.data *= np.repeat(scale, np.diff(last.indptr))

  def filter(self, values):
    """Filters signals.

    Args:
      values: float32 [points, channels].

    Returns:
      float32 [points, channels].
    """
    for factor in self._factors:
      values = factor @ values
    return values


def _check_features(features):
  if features.ndim != 2 or 0 in features.shape:
    raise InputError(
      'features must be [points, dimensions], at least one of each. Received: '
      f'features of shape {list(features.shape)}.'
    )
  if features.dtype.kind not in 'fiub':
    raise InputError(
      f'features must be real numbers. Received: features of {features.dtype}.'
    )
  # NaN is not less than anything either.
  if not (np.abs(features) < _MAX_FEATURE).all():
    raise InputError(
      'features must be finite and below 1e9 standard deviations. Received: '
      f'features from {features.min()} to {features.max()}. Use a larger '
      'standard deviation.'
    )


def _embed(features):
  """Coordinates [dimensions + 1, points] in the plane of the lattice.

  The features are turned into the plane whose coordinates sum to zero, and
  scaled: splat, blur and slice together have the variance 2/3 (d + 1)^2.
  """
  dimensions = features.shape[1]
  basis = np.zeros((dimensions + 1, dimensions))
  for column in range(dimensions):
    basis[: column + 1, column] = 1
    basis[column + 1, column] = -(column + 1)
  basis /= np.sqrt((basis**2).sum(axis=0))
  scale = (dimensions + 1) * np.sqrt(2 / 3)
  return (scale * basis) @ features.T.astype(np.float64)


def _simplices(features):
  """The simplex that each point lies in.

  Returns:
    remainder_0: integers [d + 1, points], the vertex whose coordinates are
      multiples of d + 1.
    rank: integers [d + 1, points], the place of each coordinate of the point
      minus that vertex, from the largest (0) to the smallest (d).
    weights: float64 [points, d + 1], barycentric, for the vertices 0 to d.
  """
  elevated = _embed(features)
  size = len(elevated)
  remainder_0 = np.rint(elevated / size)
  excess = remainder_0.sum(axis=0).astype(np.int64)
  remainder_0 *= size
  offset = elevated - remainder_0
  rank = np.repeat(excess[None], size, axis=0)
  for i in range(size):
    for j in range(i):
      j_first = offset[j] >= offset[i]
      rank[i] += j_first
      rank[j] += ~j_first
  # Where rounding has left the plane, the coordinates that were rounded
  # farthest are rounded the other way.
  turn = size * ((rank < 0).astype(np.int64) - (rank >= size))
  rank += turn
  remainder_0 += turn
  descending = np.empty_like(elevated)
  np.put_along_axis(descending, rank, (elevated - remainder_0) / size, axis=0)
  weights = np.empty((features.shape[0], size))
  weights[:, 1:] = (descending[-2::-1] - descending[:0:-1]).T
  weights[:, 0] = 1 + descending[-1] - descending[0]
  return remainder_0.astype(np.int64), rank, weights


def _multipliers(remainder_0, reach):
  """Numbers whose products with the coordinates sum to a vertex's code.

  The last coordinate follows from the others: its number is 0.

  Args:
    remainder_0: integers [d + 1, points].
    reach: how many steps from them a vertex may lie.
  """
  size = len(remainder_0)
  spans = np.ptp(remainder_0[:-1], axis=1) + 2 * reach * size + 1
  if np.prod(spans.astype(np.float64)) < 2.0**62:
    numbers = np.cumprod([1, *spans[:-1].tolist()])
  else:
    # Modulo 2^64, two of 10^6 vertices share a code with a probability of
    # 3e-8.
    generator = np.random.default_rng(0)
    numbers = generator.integers(2**62, size=size - 1) * 2 + 1
  return np.append(numbers, 0).astype(np.int64)


def _vertex_codes(remainder_0, rank, multipliers):
  """Codes [points, d + 1] of the vertices of the simplices."""
  size = len(remainder_0)
  # From each vertex to the next one is a step along the axis of the
  # coordinate that is the smallest of those left.
  by_rank = np.empty_like(remainder_0)
  np.put_along_axis(
    by_rank, rank, np.broadcast_to(multipliers[:, None], rank.shape), axis=0
  )
  codes = np.empty((remainder_0.shape[1], size), np.int64)
  codes[:, 0] = multipliers @ remainder_0
  for k in range(1, size):
    codes[:, k] = codes[:, k - 1] + multipliers.sum() - size * by_rank[-k]
  return codes


def _widen(vertices, steps, margin):
  """The vertices and their neighbours, `margin` times."""
  for _ in range(margin):
    moved = [vertices + sign * step for step in steps for sign in (1, -1)]
    vertices = np.unique(np.concatenate([vertices, *moved]))
  return vertices


def _blur_matrix(vertices, step):
  """The blur of sorted vertices along one axis, a sparse matrix."""
  count = len(vertices)
  after = np.searchsorted(vertices, vertices + step)
  after[after == count] = 0
  first = np.flatnonzero(vertices[after] == vertices + step)
  second = after[first]
  # Entries of a row: the vertex before, if there is one, itself, the one after.
  entries = np.ones(count, np.int32)
  entries[first] += 1
  entries[second] += 1
  starts = np.zeros(count + 1, np.int32)
  np.cumsum(entries, out=starts[1:])
  itself = starts[:-1].copy()
  itself[second] += 1
  columns = np.empty(starts[-1], np.int32)
  columns[itself] = np.arange(count)
  columns[itself[first] + 1] = second
  columns[itself[second] - 1] = first
  weights = np.full(len(columns), _BLUR_NEIGHBOUR, np.float32)
  weights[itself] = 1
  return scipy.sparse.csr_matrix(
    (weights, columns, starts), shape=(count, count)
  )


def _merge(factors):
  """Multiplies successive matrices where one product is less work than two.

  Where points are few and far between, most vertices have no neighbours, and
  the product of all matrices has hardly more entries than each.

  Args:
    factors: sparse matrices, the first one to be applied first.

  Returns:
    Fewer matrices, or as many, with the same product.
  """
  merged = factors[:1]
  for factor in factors[1:]:
    last = merged[-1]
    # Each entry is read once; each row between is cleared, written and read.
    work = factor.nnz + last.nnz + 2 * last.shape[0]
    terms = np.diff(last.indptr)[factor.indices].sum()
    product = factor @ last if terms <= 2 * work else None
    if product is not None and product.nnz <= work:
      merged[-1] = product
    else:
      merged.append(factor)
  return merged

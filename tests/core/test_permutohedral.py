"""The lattice against the published algorithm, vertex by vertex, and a sum."""

import numpy as np
import pytest

from deeplab.common import InputError
from deeplab.core import permutohedral


def _enclosing_simplex(elevated):
  """{vertex: weight} of a point of the plane, by the paper's definitions."""
  size = len(elevated)
  # The vertex of remainder 0 that is nearest: round down or up to multiples of
  # d + 1, with the sum 0.
  down = np.floor(elevated / size) * size
  ups = round(-down.sum() / size)
  order = np.argsort(-(elevated - down), kind='stable')
  base = down.copy()
  base[order[:ups]] += size
  offset = elevated - base
  rank = np.argsort(-offset, kind='stable')
  offsets = offset[rank]
  result = {}
  for k in range(size):
    vertex = base.copy()
    vertex[rank[: size - k]] += k
    vertex[rank[size - k :]] += k - size
    if k:
      weight = (offsets[size - 1 - k] - offsets[size - k]) / size
    else:
      weight = 1 - (offsets[0] - offsets[-1]) / size
    result[tuple(vertex.astype(int))] = weight
  return result


def _reference(features, values):
  """Splat, blur and slice with a dictionary of vertices."""
  count, dimensions = features.shape
  size = dimensions + 1
  elevated = np.zeros((count, size))
  for i in range(dimensions):
    # Adams, Baek and Davis, section 3.1: an orthogonal basis of the plane.
    column = np.array([1.0] * (i + 1) + [-(i + 1)] + [0] * (dimensions - i - 1))
    column *= size * np.sqrt(2 / 3) / np.linalg.norm(column)
    elevated += features[:, i : i + 1] * column
  simplices = [_enclosing_simplex(point) for point in elevated]
  vertices = {}
  for simplex, value in zip(simplices, values, strict=True):
    assert min(simplex.values()) > -1e-9
    assert sum(simplex.values()) == pytest.approx(1)
    for vertex, weight in simplex.items():
      assert sum(vertex) == 0 and len({c % size for c in vertex}) == 1
      vertices[vertex] = vertices.get(vertex, 0) + weight * value
  for axis in range(size):
    blurred = {}
    for vertex, value in vertices.items():
      step = np.ones(size, int)
      step[axis] = -dimensions
      after = vertices.get(tuple(np.add(vertex, step)), 0)
      before = vertices.get(tuple(np.subtract(vertex, step)), 0)
      blurred[vertex] = value + (before + after) / 2
    vertices = blurred
  filtered = [
    sum(weight * vertices[vertex] for vertex, weight in simplex.items())
    for simplex in simplices
  ]
  return np.array(filtered), len(vertices)


@pytest.mark.parametrize('dimensions', [1, 2, 3, 5])
@pytest.mark.parametrize('spread', [0.3, 2.0, 50.0])
def test_equals_the_published_algorithm(dimensions, spread):
  generator = np.random.default_rng(dimensions)
  features = generator.normal(scale=spread, size=(60, dimensions))
  values = generator.normal(size=(60, 3)).astype(np.float32)
  lattice = permutohedral.Lattice(features)
  expected, num_vertices = _reference(features, values)
  assert lattice.num_vertices == num_vertices
  np.testing.assert_allclose(lattice.filter(values), expected, atol=2e-4)


def _gaussian(features):
  difference = features[:, None] - features[None]
  return np.exp(-(difference**2).sum(axis=2) / 2)


def _error(lattice, kernel):
  """Mean error of normalised sums of noise, in parts of their size."""
  count = len(kernel)
  values = np.random.default_rng(1).uniform(size=(count, 4)).astype(np.float32)
  found = lattice.filter(values) / lattice.filter(np.ones_like(values))
  expected = kernel @ values / kernel.sum(axis=1, keepdims=True)
  return np.abs(found - expected).mean() / expected.std()


@pytest.mark.parametrize('dimensions', [2, 3, 5])
def test_approximates_the_gaussian(dimensions):
  """Dense points; and sparse ones, where a margin carries over the gaps."""
  generator = np.random.default_rng(0)
  points = generator.uniform(size=(400, dimensions))
  dense, sparse = 2 * points, 6 * points
  assert _error(permutohedral.Lattice(dense), _gaussian(dense)) < 0.2
  errors = [
    _error(permutohedral.Lattice(sparse, margin), _gaussian(sparse))
    for margin in (0, 1)
  ]
  assert errors[1] < 0.2 and errors[1] <= errors[0]


def test_normalize():
  generator = np.random.default_rng(0)
  features = generator.normal(size=(50, 5)) * 2
  values = generator.uniform(size=(50, 2)).astype(np.float32)
  lattice = permutohedral.Lattice(features)
  sums = lattice.filter(np.ones((50, 1), np.float32))
  expected = lattice.filter(values / np.sqrt(sums)) / np.sqrt(sums)
  lattice.normalize()
  np.testing.assert_allclose(lattice.filter(values), expected, rtol=1e-4)


@pytest.mark.parametrize('distance', [100.0, 1e8])
def test_points_far_apart_keep_their_values(distance):
  """At the larger distance, coordinates exceed what 64 bits number."""
  features = np.random.default_rng(0).permutation(np.eye(5)) * distance
  values = np.arange(10, dtype=np.float32).reshape(5, 2)
  lattice = permutohedral.Lattice(features)
  assert lattice.num_vertices == 5 * 6
  lattice.normalize()
  np.testing.assert_allclose(lattice.filter(values), values, rtol=1e-5)


def test_equal_points_share_their_values():
  features = np.repeat([[0.0] * 5, [1e3] * 5], 4, axis=0)
  values = np.arange(8, dtype=np.float32)[:, None]
  lattice = permutohedral.Lattice(features)
  lattice.normalize()
  expected = np.repeat([[1.5], [5.5]], 4, axis=0)
  np.testing.assert_allclose(lattice.filter(values), expected, rtol=1e-5)


def test_no_more_vertices_than_corners():
  """The work is linear in the points, whatever they are."""
  generator = np.random.default_rng(0)
  for count in (100, 200):
    features = generator.uniform(size=(count, 5)) * 1000
    lattice = permutohedral.Lattice(features)
    assert lattice.num_vertices <= 6 * count


@pytest.mark.parametrize(
  ('features', 'message'),
  [
    (np.zeros((0, 5)), r'shape \[0, 5\]'),
    (np.zeros((3, 0)), r'shape \[3, 0\]'),
    (np.zeros(3), r'shape \[3\]'),
    (np.full((3, 2), np.nan), 'from nan to nan'),
    (np.full((3, 2), -np.inf), 'from -inf'),
    (np.full((3, 2), 1e12), 'larger standard deviation'),
    (np.array([['a', 'b']]), 'must be real numbers'),
  ],
)
def test_bad_features(features, message):
  with pytest.raises(InputError, match=message):
    permutohedral.Lattice(features)


@pytest.mark.parametrize('margin', [-1, 4, 0.5, '1', None])
def test_bad_margin(margin):
  with pytest.raises(InputError, match=r'margin must be .* at most 3'):
    permutohedral.Lattice(np.zeros((3, 2)), margin)

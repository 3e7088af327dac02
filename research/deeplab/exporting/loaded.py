"""An exported model, ready to run, whatever its format."""

import types
import typing
from collections.abc import Callable, Mapping

import numpy as np


class Loaded(typing.NamedTuple):
  """What `Format.load` returns.

  Attributes:
    run: function from a uint8 image [1, height, width, 3] to {output: array};
      where the format takes batches, from a batch.
    inputs: {name: type and shape as text}.
    outputs: likewise.
    operations: {name: how often it occurs}, where the format shows it.
    signatures: {name: function like `run`} of further ways to run the model.
  """

  run: Callable[[np.ndarray], Mapping[str, np.ndarray]]
  inputs: Mapping[str, str]
  outputs: Mapping[str, str]
  operations: Mapping[str, int] | None = None
  signatures: Mapping[str, Callable] = types.MappingProxyType({})


def describe(dtype, shape):
  """For example 'uint8 [?, ?, ?, 3]', ? for what is not fixed."""
  sides = (str(s) if isinstance(s, int) and s >= 0 else '?' for s in shape)
  return f'{dtype} [{", ".join(sides)}]'

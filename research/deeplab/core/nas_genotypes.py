"""The cells and backbones that architecture search found.

A cell has five blocks. Each applies an operation to each of two states and
adds the results; the sum is a new state. States 0 and 1 are the outputs of the
last cell and of the one before, 2 to 6 those of the blocks. The cell's output
is the concatenation of the blocks' outputs.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Genotype:
  """A cell.

  Attributes:
    blocks: for each block the left and the right (operation, state). The
      operations are 'separable_<kernel>x<kernel>_<layers>',
      'atrous_<kernel>x<kernel>', 'max_pool_<kernel>x<kernel>' and 'none', the
      identity.
  """

  blocks: tuple[tuple[tuple[str, int], tuple[str, int]], ...]


# Liu et al., Progressive Neural Architecture Search, figure 1
# (arXiv:1712.00559).
PNASNET = Genotype(
  blocks=(
    (('separable_5x5_2', 1), ('max_pool_3x3', 1)),
    (('separable_7x7_2', 0), ('max_pool_3x3', 0)),
    (('separable_5x5_2', 0), ('separable_3x3_2', 0)),
    (('separable_3x3_2', 4), ('max_pool_3x3', 0)),
    (('separable_3x3_2', 1), ('none', 0)),
  )
)

# Liu et al., Auto-DeepLab, figure 3 (arXiv:1901.02985).
HNASNET = Genotype(
  blocks=(
    (('atrous_5x5', 1), ('separable_3x3_2', 0)),
    (('separable_3x3_2', 1), ('atrous_3x3', 0)),
    (('separable_3x3_2', 3), ('separable_3x3_2', 1)),
    (('separable_5x5_2', 4), ('separable_5x5_2', 2)),
    (('separable_5x5_2', 3), ('atrous_5x5', 5)),
  )
)

# The level of each cell: 0 is output stride 4, 1 is 8, 2 is 16, 3 is 32.
PNASNET_LEVELS = {
  8: (1,) * 12,
  16: (1,) * 4 + (2,) * 8,
  32: (1,) * 4 + (2,) * 4 + (3,) * 4,
}
HNASNET_LEVELS = (0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1)

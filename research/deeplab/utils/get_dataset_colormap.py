"""Colours of labels: the colour maps of the common data sets.

The names are those of the official `get_dataset_colormap`. A data set of one's
own brings its colours in dataset_info.json; `colormap_from_info` turns them
into the same kind of array.
"""

import numpy as np

_ADE20K_NAME = 'ade20k'
_CITYSCAPES_NAME = 'cityscapes'
_MAPILLARY_VISTAS_NAME = 'mapillary_vistas'
_PASCAL_NAME = 'pascal'

# Number of entries of each colour map: one more than the largest label that it
# can colour.
DATASET_MAX_ENTRIES = {
  _ADE20K_NAME: 151,
  _CITYSCAPES_NAME: 256,
  _MAPILLARY_VISTAS_NAME: 66,
  _PASCAL_NAME: 512,
}

# Red, green and blue of one label after the other, two hexadecimal digits each.
_CITYSCAPES = """
  804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4
  dc143c ff0000 00008e 000046 003c64 005064 0000e6 770b20
"""

_ADE20K = """
  000000 787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07
  e005ff ebff07 96053d 787846 08ff33 ff0652 8fff8c ccff04 ff3307 cc4603 0066c8
  3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff 08ffd6 07ffe0
  ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829
  ff0599 0633ff eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000
  99ff00 0000ff ff4700 00ebff 00adff 1f00ff 0bc8c8 ff5200 00fff5 003dff 00ff70
  00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29 00ffad 0a00ff
  adff00 00ff99 ff5c00 ff00ff ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d
  0047ff ff00cc 00ffc2 00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900
  00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00 08b8aa 8500ff 00ff5c b800ff ff001f
  00b8ff 00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3
  ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 0abed4 d6ff00 00ccff
  1400ff ffff00 0099ff 0029ff 00ffcc 2900ff 29ff00 ad00ff 00f5ff 4700ff 7a00ff
  00ffb8 005cff b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff
"""

_MAPILLARY_VISTAS = """
  a52a2a 00c000 c4c4c4 be9999 b4a5b4 66669c 66669c 8040ff 8c8cc8 aaaaaa faaaa0
  606060 e6968c 804080 6e6e6e f423e8 966464 464646 96785a dc143c ff0000 ff0000
  ff0000 c88080 ffffff 40aa40 804040 4682b4 ffffff 98fb98 6b8e23 00aa1e ffff80
  fa001e 000000 dcdcdc aaaaaa de2828 64aa1e 282828 212121 aaaaaa 00008e aaaaaa
  d2aa64 999999 808080 00008e faaa1e c0c0c0 dcdc00 b4a5b4 770b20 00008e 003c64
  00008e 00005a 0000e6 005064 804040 00006e 000046 0000c0 202020 000000 000000
"""


def _from_hex(table, entries):
  """The colours of a table above, black after its end: uint8 [entries, 3]."""
  colors = np.frombuffer(bytes.fromhex(table), np.uint8).reshape(-1, 3)
  colormap = np.zeros((entries, 3), np.uint8)
  colormap[: len(colors)] = colors
  return colormap


def bit_get(val, idx):
  """Bit number `idx` (0 is the lowest) of `val`, an integer or an array."""
  return (val >> idx) & 1


def create_ade20k_label_colormap():
  """The colours of ADE20K, label 0 (no class) included: uint8 [151, 3]."""
  return _from_hex(_ADE20K, DATASET_MAX_ENTRIES[_ADE20K_NAME])


def create_cityscapes_label_colormap():
  """The colours of Cityscapes' 19 train ids, then black: uint8 [256, 3]."""
  return _from_hex(_CITYSCAPES, DATASET_MAX_ENTRIES[_CITYSCAPES_NAME])


def create_mapillary_vistas_label_colormap():
  """The colours of Mapillary Vistas: uint8 [66, 3]."""
  return _from_hex(
    _MAPILLARY_VISTAS, DATASET_MAX_ENTRIES[_MAPILLARY_VISTAS_NAME]
  )


def create_pascal_label_colormap():
  """The colours of PASCAL VOC: uint8 [512, 3].

  The bits of the label are dealt out to red, green and blue in turn; the first
  that a colour gets becomes its highest bit.
  """
  labels = np.arange(DATASET_MAX_ENTRIES[_PASCAL_NAME])
  colormap = np.zeros((len(labels), 3), np.uint8)
  for bit in range(int(labels[-1]).bit_length()):
    place, channel = divmod(bit, 3)
    colormap[:, channel] |= (bit_get(labels, bit) << (7 - place)).astype(
      np.uint8
    )
  return colormap


def get_ade20k_name():
  return _ADE20K_NAME


def get_cityscapes_name():
  return _CITYSCAPES_NAME


def get_mapillary_vistas_name():
  return _MAPILLARY_VISTAS_NAME


def get_pascal_name():
  return _PASCAL_NAME


_CREATORS = {
  _ADE20K_NAME: create_ade20k_label_colormap,
  _CITYSCAPES_NAME: create_cityscapes_label_colormap,
  _MAPILLARY_VISTAS_NAME: create_mapillary_vistas_label_colormap,
  _PASCAL_NAME: create_pascal_label_colormap,
}


def create_label_colormap(dataset=_PASCAL_NAME):
  """The colour map of a data set.

  Args:
    dataset: one of 'ade20k', 'cityscapes', 'mapillary_vistas', 'pascal'.

  Returns:
    uint8 array [entries, 3], red, green and blue of each label.

  Raises:
    ValueError: there is no colour map of that name.
  """
  if dataset not in _CREATORS:
    raise ValueError(
      f'No colour map is called {dataset!r}. There are: {sorted(_CREATORS)}.'
    )
  return _CREATORS[dataset]()


def colormap_from_info(info):
  """The colour map of a data set that describes itself.

  Args:
    info: a DatasetInfo, whose `colors` holds [red, green, blue] of each class.

  Returns:
    uint8 array [256, 3], black after the last class, so that the ignore label
    has a colour too.
  """
  colormap = np.zeros((256, 3), np.uint8)
  colormap[: info.num_classes] = info.colors
  return colormap


def label_to_color_image(label, dataset=_PASCAL_NAME):
  """Colours a label map.

  Args:
    label: integer array [height, width].
    dataset: name of a colour map (see `create_label_colormap`), or a colour
      map itself, an array [entries, 3].

  Returns:
    Array [height, width, 3] of the colour map's type (uint8).

  Raises:
    ValueError: `label` is not two-dimensional, not integer, or holds a value
      that the colour map has no colour for.
  """
  label = np.asarray(label)
  if label.ndim != 2 or not np.issubdtype(label.dtype, np.integer):
    raise ValueError(
      'A label map must be an integer array [height, width]. Received: '
      f'{label.dtype} {list(label.shape)}.'
    )
  colormap = (
    create_label_colormap(dataset)
    if isinstance(dataset, str)
    else np.asarray(dataset)
  )
  if label.size and (label.min() < 0 or label.max() >= len(colormap)):
    raise ValueError(
      f'The colour map has colours for labels 0..{len(colormap) - 1}. '
      f'Received labels {label.min()}..{label.max()}.'
    )
  return colormap[label]

"""The registry of backbones (being written)."""

_MEAN_RGB = (123.15, 115.90, 103.06)


def mean_pixel(model_variant=None):
  """Grey level that preprocessing maps to zero, [red, green, blue]."""
  if model_variant in (None, 'resnet_v1_18', 'resnet_v1_50', 'resnet_v1_101'):
    return list(_MEAN_RGB)
  return [127.5, 127.5, 127.5]

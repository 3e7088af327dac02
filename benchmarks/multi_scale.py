"""Evaluation at several scales, as `evaluation.prediction` runs it.

Settings: `size` of the image, `scales`, `flips`; `checkpoint` and `image`, a
prefix and a file, in place of random weights and a made picture.
"""

import numpy as np

from benchmarks.case import Task, make_images


def _predictors(context, sizes_and_scales, flips):
  """Predictors that share one set of weights, and an image for each."""
  import tensorflow as tf

  from deeplab import stored_options
  from deeplab.evaluation import prediction
  from deeplab.slim import scopes

  folder = context.artifacts['checkpoint']
  options = stored_options.load(folder)
  prefix = context.settings.get('checkpoint', f'{folder}/model.ckpt-0')
  store = scopes.LayerStore()
  for size, scales in sizes_and_scales:
    predict = prediction.Predictor(
      options.replace(crop_size=[size, size]),
      [size, size],
      scales,
      flips,
      store=store,
    )
    predict.restore(prefix)
    yield predict, tf.constant(_image(context, size), tf.float32)


def _image(context, size):
  """[1, size, size, 3] in 0..255."""
  path = context.settings.get('image')
  if path is None:
    return make_images(1, size, size)
  from PIL import Image

  with Image.open(path) as image:
    return np.asarray(image.convert('RGB').resize((size, size)))[np.newaxis]


def several_scales(context):
  """One predictor of all scales, with mirror images if `flips`."""
  settings = context.settings
  sizes = [(settings['size'], settings['scales'])]
  ((predict, image),) = _predictors(context, sizes, settings['flips'])
  return Task(lambda: predict(image))


def single_passes(context):
  """For each scale a predictor of images of that size, run by itself.

  With `flips` twice, as often as the mirror image would be.
  """
  size = context.settings['size']
  sizes = [
    (int((size - 1) * scale + 1), [1.0]) for scale in context.settings['scales']
  ]
  predictors = list(_predictors(context, sizes, flips=False))
  passes = 2 if context.settings['flips'] else 1

  def call():
    for predict, image in predictors:
      for _ in range(passes):
        predict(image)

  return Task(call)

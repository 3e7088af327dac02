"""Evaluation at several scales, as `evaluation.prediction` runs it.

Settings: those of `case.images_of`; `scales`, `flips`.
"""

from benchmarks.case import Task, images_of


def _predictors(context, sizes_and_scales, flips):
  """Predictors that share one set of weights, and an image for each."""
  import tensorflow as tf

  from deeplab import stored_options
  from deeplab.evaluation import prediction
  from deeplab.slim import scopes

  folder = context.artifacts['checkpoint']
  options = stored_options.load(folder)
  store = scopes.LayerStore()
  for size, scales in sizes_and_scales:
    predict = prediction.Predictor(
      options.replace(crop_size=[size, size]),
      [size, size],
      scales,
      flips,
      store=store,
    )
    predict.restore(f'{folder}/model.ckpt-0')
    images = images_of({**context.settings, 'size': size})
    yield predict, tf.constant(images, tf.float32)


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

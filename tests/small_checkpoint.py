"""A checkpoint of a small network, as a training leaves it."""

import recipe
from deeplab import checkpoints, common, model, stored_options
from deeplab.datasets import dataset_info

INFO = dataset_info.DatasetInfo(
  'shapes',
  3,
  class_names=['ground', 'disc', 'square'],
  colors=[[0, 0, 0], [250, 40, 40], [40, 90, 250]],
)


def write(folder, described=True, num_classes=3, **options):
  """Writes a checkpoint with the recipe's weights.

  Args:
    folder: a pathlib.Path.
    described: whether model_options.json and dataset_info.json lie beside it.
    num_classes: number of classes.
    **options: changes of the ModelOptions.

  Returns:
    The ModelOptions.
  """
  options = common.ModelOptions(
    **{
      'outputs_to_num_classes': {'semantic': num_classes},
      'crop_size': [65, 65],
      'output_stride': 16,
      'depth_multiplier': 0.1,
      'divisible_by': 8,
      **options,
    }
  )
  variables = checkpoints.named_variables(model.build_model(options))
  recipe.assign(variables)
  checkpoints.save(str(folder), 7, variables)
  if described:
    stored_options.save(str(folder), options)
    INFO.save(str(folder))
  return options

"""Whether the data suit the training, before anything is built."""

from deeplab import checkpoints
from deeplab.common import InputError
from deeplab.datasets.checks import quick_check


def check(config, dataset, is_chief):
  """Compares the model with the data set, and looks at some of its images.

  A run that goes on has looked at them before.

  Args:
    config: TrainConfig.
    dataset: data_generator.Dataset.
    is_chief: whether this host is the one that looks.

  Raises:
    InputError: the model has another number of classes, or `quick_check` found
      something.
  """
  options = config.model_options
  for output, classes in options.outputs_to_num_classes.items():
    if classes != dataset.num_of_classes:
      raise InputError(
        f'the model has {classes} classes in output {output!r}, the data set '
        f'{dataset.info.name!r} has {dataset.num_of_classes}.'
      )
  is_new = checkpoints.latest(config.train_logdir) is None
  if config.check_dataset and is_chief and is_new:
    quick_check.quick_check(
      dataset,
      options.crop_size,
      options.output_stride,
      resizes=config.min_resize_value is not None,
    )

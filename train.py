"""Trains a DeepLab network.

  python train.py --train_logdir=logs/train --dataset_dir=data/tfrecord \
    --model_variant=mobilenet_v2 --train_crop_size=513,513

Writes checkpoints in the official format, model_options.json,
train_log.jsonl and TensorBoard summaries to --train_logdir. The same command
goes on exactly where a run stopped. Several GPUs: --num_clones; a TPU: --tpu.
"""

from absl import flags as absl_flags

from deeplab import checkpoints, flags, model_flags, stored_options
from deeplab.common import InputError
from deeplab.datasets import dataset_info
from deeplab.training import config, loop

FLAGS = flags.FLAGS

# Official flags for training on several hosts, with the value that means one
# host.
_ONE_HOST = {
  'num_replicas': 1,
  'num_ps_tasks': 0,
  'task': 0,
  'startup_delay_steps': 15,
}

# Fields of TrainConfig that come from flags of the same name.
_CONFIG_FLAGS = (
  'train_logdir',
  'dataset_dir',
  'train_split',
  'image_pyramid',
  'train_batch_size',
  'training_number_of_steps',
  'min_resize_value',
  'max_resize_value',
  'resize_factor',
  'keep_aspect_ratio',
  'min_scale_factor',
  'max_scale_factor',
  'scale_factor_step_size',
  'optimizer',
  'momentum',
  'adam_learning_rate',
  'adam_epsilon',
  'learning_policy',
  'base_learning_rate',
  'learning_rate_decay_step',
  'learning_rate_decay_factor',
  'learning_power',
  'decay_steps',
  'end_learning_rate',
  'slow_start_step',
  'slow_start_learning_rate',
  'last_layer_gradient_multiplier',
  'last_layers_contain_logits_only',
  'trainable_scopes',
  'weight_decay',
  'fine_tune_batch_norm',
  'upsample_logits',
  'hard_example_mining_step',
  'top_k_percent_pixels',
  'drop_path_keep_prob',
  'tf_initial_checkpoint',
  'initialize_last_layer',
  'log_steps',
  'save_interval_secs',
  'save_interval_steps',
  'keep_checkpoint_max',
  'save_summaries_secs',
  'save_summaries_images',
  'profile_logdir',
  'num_clones',
  'clone_on_cpu',
  'tpu',
  'seed',
)


def _define_flags():
  model_flags.define_model_flags()
  _define_data_flags()
  _define_schedule_flags()
  _define_loss_flags()
  _define_output_flags()
  _define_device_flags()
  flags.require('train_logdir', 'dataset_dir')


def _define_data_flags():
  string, real = absl_flags.DEFINE_string, absl_flags.DEFINE_float
  string('dataset', 'pascal_voc_seg', 'Name of the data set.')
  string('train_split', 'train', 'Split to train on.')
  string('dataset_dir', None, 'Folder of the TFRecord files.')
  flags.define_list(
    'train_crop_size', [513, 513], 'Size [height, width] of the crops.'
  )
  absl_flags.DEFINE_integer(
    'train_batch_size', 8, 'Images a step, over all clones.'
  )
  real('min_scale_factor', 0.5, 'Smallest random scale.')
  real('max_scale_factor', 2.0, 'Largest random scale.')
  real('scale_factor_step_size', 0.25, 'Distance of scales; 0: any between.')
  absl_flags.DEFINE_integer(
    'seed', 0, 'Of initial values, data order, augmentation and dropout.'
  )


def _define_schedule_flags():
  integer, real = absl_flags.DEFINE_integer, absl_flags.DEFINE_float
  absl_flags.DEFINE_enum(
    'optimizer', 'momentum', config.OPTIMIZERS, 'Which optimizer to use.'
  )
  real('momentum', 0.9, 'Of the momentum optimizer.')
  real('adam_learning_rate', 0.001, 'Constant rate of Adam.')
  real('adam_epsilon', 1e-8, 'Of Adam.')
  absl_flags.DEFINE_enum(
    'learning_policy', 'poly', ['poly', 'step'], 'Learning rate policy.'
  )
  real('base_learning_rate', 0.0001, 'Learning rate to start from.')
  integer('learning_rate_decay_step', 2000, 'Steps between drops of step.')
  real('learning_rate_decay_factor', 0.1, 'Factor of each drop of step.')
  real('learning_power', 0.9, 'Exponent of poly.')
  real('decay_steps', 0.0, 'Length of poly; 0: the whole training.')
  real('end_learning_rate', 0.0, 'Learning rate at the end of poly.')
  integer('training_number_of_steps', 30000, 'Step to stop at.')
  integer('slow_start_step', 0, 'Number of slow steps.')
  real('slow_start_learning_rate', 0.0001, 'Learning rate of slow steps.')


def _define_loss_flags():
  boolean, real = absl_flags.DEFINE_boolean, absl_flags.DEFINE_float
  flags.define_list(
    'trainable_scopes',
    None,
    'Only variables whose names begin with one of these train; unset: all.',
    str,
  )
  real('weight_decay', 0.00004, 'Use 0.0001 for ResNet.')
  boolean(
    'fine_tune_batch_norm',
    True,
    'Use and gather batch statistics; wants 12 images a batch or more.',
  )
  boolean('upsample_logits', True, 'Loss at the size of the labels.')
  absl_flags.DEFINE_integer(
    'hard_example_mining_step',
    0,
    'Steps in which the share of pixels falls to top_k_percent_pixels.',
  )
  real('top_k_percent_pixels', 1.0, 'Share of the pixels that count, 0..1.')
  real('last_layer_gradient_multiplier', 1.0, 'For the last layers.')
  boolean(
    'last_layers_contain_logits_only',
    False,
    'The last layers are the logits, without ASPP and decoder.',
  )
  boolean(
    'initialize_last_layer', True, 'Take them from the initial checkpoint too.'
  )
  absl_flags.DEFINE_string(
    'tf_initial_checkpoint',
    None,
    'Checkpoint to start from, unless --train_logdir has one.',
  )
  real('drop_path_keep_prob', 1.0, 'Share of paths that nas_* keep.')


def _define_output_flags():
  integer = absl_flags.DEFINE_integer
  absl_flags.DEFINE_string(
    'train_logdir', None, 'Folder for checkpoints and logs.'
  )
  integer('log_steps', 10, 'Steps between log lines.')
  integer('save_interval_secs', 1200, 'Seconds between checkpoints.')
  integer('save_interval_steps', None, 'Also save at multiples of this step.')
  integer('keep_checkpoint_max', 5, 'Checkpoints to keep; 0: all.')
  integer('save_summaries_secs', 600, 'Seconds between TensorBoard summaries.')
  absl_flags.DEFINE_boolean(
    'save_summaries_images', False, 'Also images, labels and predictions.'
  )
  absl_flags.DEFINE_string(
    'profile_logdir', None, 'Folder for a TensorBoard profile of some steps.'
  )


def _define_device_flags():
  integer, string = absl_flags.DEFINE_integer, absl_flags.DEFINE_string
  integer('num_clones', 1, 'Number of GPUs of this host to use.')
  absl_flags.DEFINE_boolean(
    'clone_on_cpu', False, 'Use (virtual) CPU devices instead of GPUs.'
  )
  string('tpu', None, "Name or address of a TPU; 'local' on its own host.")
  integer('num_replicas', 1, 'Several hosts: not supported yet.')
  integer('startup_delay_steps', 15, 'Several hosts: not supported yet.')
  integer('num_ps_tasks', 0, 'Several hosts: not supported yet.')
  integer('task', 0, 'Several hosts: not supported yet.')


def _model_options():
  """From the flags; when training goes on, from what lies there as well."""
  info = dataset_info.resolve(
    FLAGS.dataset if flags.is_given('dataset') else None, FLAGS.dataset_dir
  )
  last = checkpoints.latest(FLAGS.train_logdir)
  options = model_flags.model_options(
    info.num_classes, FLAGS.train_crop_size, last
  )
  initial = FLAGS.tf_initial_checkpoint
  if last is None and initial and FLAGS.resnet_root_convs == 'auto':
    convs = stored_options.resnet_root_convs(initial)
    options = options.replace(
      resnet_root_convs=convs or options.resnet_root_convs
    )
  return options


def main():
  for name, value in _ONE_HOST.items():
    if FLAGS[name].value != value:
      raise InputError(
        f'--{name}={FLAGS[name].value}: training on several hosts is not '
        'supported yet. Several GPUs of one host: --num_clones.'
      )
  loop.train(
    config.TrainConfig(
      model_options=_model_options(),
      dataset_name=FLAGS.dataset if flags.is_given('dataset') else None,
      **{name: FLAGS[name].value for name in _CONFIG_FLAGS},
    )
  )


if __name__ == '__main__':
  _define_flags()
  flags.run(main)

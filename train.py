"""Trains a DeepLab network.

  python train.py --train_logdir=logs/train --dataset_dir=data/tfrecord \
    --model_variant=mobilenet_v2 --train_crop_size=513,513

Writes checkpoints in the official format, model_options.json,
train_log.jsonl and TensorBoard summaries to --train_logdir. The same command
goes on exactly where a run stopped; where it was told to stop (SIGTERM, Ctrl-C)
the exit status is 75. Several GPUs: --num_clones; several hosts:
--worker_hosts; a TPU: --tpu.
"""

import os

from absl import flags as absl_flags

from deeplab import (
  checkpoints,
  common,
  dataset_flags,
  flags,
  model,
  model_flags,
  rematerialization,
  stored_options,
)
from deeplab.common import InputError
from deeplab.datasets import dataset_info
from deeplab.training import (
  config,
  interruption,
  loop,
  strategies,
  supervision,
)

FLAGS = flags.FLAGS

# Official flags of asynchronous training, and why they have no other value.
_ASYNCHRONOUS = {
  'num_ps_tasks': 'there are no parameter servers: all replicas take each step '
  'together, on variables of their own. Several hosts: --worker_hosts',
  'startup_delay_steps': 'all replicas take each step together, so that none '
  'starts later',
}

# Fields of TrainConfig that come from flags of the same name.
_CONFIG_FLAGS = (
  'train_logdir',
  'train_split',
  'check_dataset',
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
  'save_retry_secs',
  'profile_logdir',
  'profile_steps',
  'num_clones',
  'clone_on_cpu',
  'tpu',
  'seed',
  'sync_batch_norm',
  'gradient_accumulation_steps',
  'mixed_precision',
  'jit_compile',
  'recompute_grad',
  'moving_average_decay',
  'max_nan_steps',
  'max_read_retries',
  'shard_by',
  'data_service',
  'eval_interval_steps',
  'eval_split',
  'eval_crop_size',
  'keep_best_by',
  'early_stopping_evals',
)


def _define_flags():
  model_flags.define_model_flags()
  _define_data_flags()
  _define_schedule_flags()
  _define_loss_flags()
  _define_output_flags()
  _define_evaluation_flags()
  _define_step_flags()
  _define_device_flags()
  flags.require('train_logdir')


def _define_data_flags():
  string, real = absl_flags.DEFINE_string, absl_flags.DEFINE_float
  dataset_flags.define_dataset_flags()
  string('train_split', 'train', 'Split to train on.')
  absl_flags.DEFINE_boolean(
    'check_dataset', True, 'Look at some images before a run begins.'
  )
  flags.define_list(
    'train_crop_size', [513, 513], 'Size [height, width] of the crops.'
  )
  absl_flags.DEFINE_integer(
    'train_batch_size', 8, 'Images a step, over all clones of all hosts.'
  )
  real('min_scale_factor', 0.5, 'Smallest random scale.')
  real('max_scale_factor', 2.0, 'Largest random scale.')
  real('scale_factor_step_size', 0.25, 'Distance of scales; 0: any between.')
  absl_flags.DEFINE_integer(
    'seed', 0, 'Of initial values, data order, augmentation and dropout.'
  )
  absl_flags.DEFINE_boolean(
    'deterministic',
    None,
    'Take only kernels that repeat a run bit for bit, on GPUs too; unset: if '
    '--seed is given.',
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
  flags.define_list(
    'profile_steps', None, 'First and last step of the profile, as in 10,20.'
  )
  absl_flags.DEFINE_float(
    'save_retry_secs',
    300,
    'Go on trying so long where a checkpoint cannot be written.',
  )


def _define_evaluation_flags():
  integer, enum = absl_flags.DEFINE_integer, absl_flags.DEFINE_enum
  integer(
    'eval_interval_steps', None, 'Save and evaluate at multiples of this step.'
  )
  absl_flags.DEFINE_string('eval_split', 'val', 'Split to evaluate on.')
  flags.define_list(
    'eval_crop_size',
    None,
    'Size [height, width] that its images are padded to; unset: of training.',
  )
  enum(
    'keep_best_by',
    None,
    config.KEEP_BEST_BY,
    'Keep the checkpoint that is best by this, in --train_logdir/best.',
  )
  integer(
    'early_stopping_evals',
    0,
    'End after so many evaluations without a better one; 0: never.',
  )


def _define_step_flags():
  integer, boolean = absl_flags.DEFINE_integer, absl_flags.DEFINE_boolean
  boolean(
    'sync_batch_norm',
    False,
    'Statistics of batch norm, and the mean of the loss, over all clones.',
  )
  integer(
    'gradient_accumulation_steps', 1, 'Parts that a clone takes its batch in.'
  )
  absl_flags.DEFINE_enum(
    'mixed_precision',
    None,
    model.MIXED_PRECISIONS,
    'Type of activations and gradients; unset: float32.',
  )
  boolean('jit_compile', False, 'Compile the step with XLA.')
  absl_flags.DEFINE_enum(
    'recompute_grad',
    None,
    rematerialization.WAYS,
    'What to compute again rather than keep; unset: free_activations where '
    'there is no GPU, TPU or --jit_compile, else nothing.',
  )
  absl_flags.DEFINE_float(
    'moving_average_decay', 0.0, 'Of averages of the variables; 0: none.'
  )
  integer('max_nan_steps', 0, 'Steps with a loss that is not finite to skip.')
  integer('max_read_retries', 3, 'Times to read again what cannot be read.')


def _define_device_flags():
  integer, string = absl_flags.DEFINE_integer, absl_flags.DEFINE_string
  integer('num_clones', 1, 'Number of GPUs of each host to use.')
  absl_flags.DEFINE_boolean(
    'clone_on_cpu', False, 'Use (virtual) CPU devices instead of GPUs.'
  )
  string('tpu', None, "Name or address of a TPU; 'local' on its own host.")
  integer('num_replicas', 1, 'Number of hosts.')
  integer('task', 0, 'Which of --worker_hosts this one is, from 0.')
  flags.define_list(
    'worker_hosts',
    [],
    'name:port of each host, the same on all of them; or set TF_CONFIG.',
    str,
  )
  absl_flags.DEFINE_enum(
    'shard_by',
    None,
    ['files', 'records'],
    'What several hosts share of the input; unset: what suits the files.',
  )
  string('data_service', None, 'Address of a tf.data service for the input.')
  integer(
    'max_restarts',
    10,
    'Several hosts: new starts in a row without a new checkpoint.',
  )
  integer('num_ps_tasks', 0, 'Parameter servers: there are none.')
  integer('startup_delay_steps', 15, 'Of asynchronous training: no effect.')


def _model_options(num_classes):
  """From the flags; when training goes on, from what lies there as well."""
  last = checkpoints.latest(FLAGS.train_logdir)
  options = model_flags.model_options(num_classes, FLAGS.train_crop_size, last)
  initial = FLAGS.tf_initial_checkpoint
  if last is None and initial and FLAGS.resnet_root_convs == 'auto':
    convs = stored_options.resnet_root_convs(initial)
    options = options.replace(
      resnet_root_convs=convs or options.resnet_root_convs
    )
  return options


def _check_idle_flags():
  """Refuses flags that nothing else gives a meaning to."""
  for needed, is_there, names in (
    (
      '--eval_interval_steps',
      FLAGS.eval_interval_steps is not None,
      ('eval_split', 'eval_crop_size', 'keep_best_by', 'early_stopping_evals'),
    ),
    (
      '--worker_hosts (or TF_CONFIG)',
      FLAGS.worker_hosts or 'TF_CONFIG' in os.environ,
      ('max_restarts', 'shard_by'),
    ),
  ):
    for name in names:
      if flags.is_given(name) and not is_there:
        raise InputError(
          f'--{name}={FLAGS[name].value} has no effect without {needed}. Give '
          'that as well, or leave it out.'
        )
  common.check_ranges(
    {'--max_restarts': FLAGS.max_restarts},
    {'--max_restarts': common.Range(0, whole=True)},
  )


def _is_deterministic():
  """Who gives a seed wants the same run again."""
  if FLAGS.deterministic is None:
    return flags.is_given('seed') and FLAGS.data_service is None
  return FLAGS.deterministic


def main():
  for name, reason in _ASYNCHRONOUS.items():
    if FLAGS[name].value != FLAGS[name].default:
      raise InputError(f'--{name}={FLAGS[name].value}: {reason}.')
  _check_idle_flags()
  cluster = strategies.find_cluster(
    *(
      FLAGS[name].value if flags.is_given(name) else None
      for name in ('num_replicas', 'task')
    ),
    FLAGS.worker_hosts,
  )
  if cluster is not None and not supervision.is_supervised():
    supervision.supervise(
      lambda: checkpoints.latest(FLAGS.train_logdir),
      FLAGS.max_restarts,
      FLAGS.train_logdir,
      cluster.index,
    )
    return
  dataset_name, dataset_dir = dataset_flags.find()
  info = dataset_info.resolve(dataset_name, dataset_dir)
  loop.train(
    config.TrainConfig(
      model_options=_model_options(info.num_classes),
      dataset_name=dataset_name,
      dataset_dir=dataset_dir,
      cluster=cluster,
      deterministic=_is_deterministic(),
      **{name: FLAGS[name].value for name in _CONFIG_FLAGS},
    )
  )


if __name__ == '__main__':
  _define_flags()
  flags.run(main, terminated_status=interruption.RESUMABLE_STATUS)

"""Every option of a training run, in one place."""

import dataclasses
from collections.abc import Sequence

from deeplab import common, model, rematerialization
from deeplab.common import InputError, ModelOptions
from deeplab.training import schedules
from deeplab.training.strategies import Cluster

OPTIMIZERS = ('momentum', 'adam')

# Metrics of an evaluation that choose the best checkpoint.
KEEP_BEST_BY = ('miou', 'pixel_accuracy', 'mean_accuracy')

# What the numbers may be; those of the schedule are in `schedules`, those of
# resizing and scaling in `input_preprocess`.
_RANGES = {
  'train_batch_size': common.COUNT,
  'training_number_of_steps': common.COUNT,
  'log_steps': common.COUNT,
  'num_clones': common.COUNT,
  'save_interval_steps': common.COUNT,
  'save_interval_secs': common.NOT_NEGATIVE,
  'save_summaries_secs': common.NOT_NEGATIVE,
  'keep_checkpoint_max': common.NOT_NEGATIVE,
  'hard_example_mining_step': common.NOT_NEGATIVE,
  'top_k_percent_pixels': common.Range(0, 1, above=True),
  'drop_path_keep_prob': common.Range(0, 1, above=True),
  'image_pyramid': common.POSITIVE,
  'momentum': common.SHARE,
  'adam_learning_rate': common.NOT_NEGATIVE,
  'adam_epsilon': common.POSITIVE,
  'last_layer_gradient_multiplier': common.NOT_NEGATIVE,
  'weight_decay': common.NOT_NEGATIVE,
  'seed': common.Range(0, 2**31 - 1, whole=True),
  'gradient_accumulation_steps': common.COUNT,
  'moving_average_decay': common.SHARE,
  'max_nan_steps': common.Range(0, whole=True),
  'max_read_retries': common.Range(0, whole=True),
  'eval_interval_steps': common.COUNT,
  'eval_crop_size': common.COUNT,
  'early_stopping_evals': common.Range(0, whole=True),
  'save_retry_secs': common.NOT_NEGATIVE,
  'profile_steps': common.COUNT,
}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Options of `loop.train`; names and defaults are the official flags'.

  Attributes:
    model_options: the network; `crop_size` is the size of the training crops,
      `label_weights` those of the loss.
    train_logdir: folder for checkpoints and logs.
    dataset_dir: folder of the TFRecord files; None for a data set of TFDS in
      its own default folder.
    dataset_name: name of the data set, None for what dataset_info.json in
      dataset_dir says; 'tfds:NAME' for what TFDS has prepared.
    train_split: split to train on.
    check_dataset: look at some images before a run begins, see
      `quick_check`.
    image_pyramid: input scales, each with a loss of its own; None for 1.
    train_batch_size: images a step, over all replicas.
    training_number_of_steps: step to stop at.
    min_resize_value: smaller image side before augmentation, None for none.
    max_resize_value: bound of the larger side.
    resize_factor: resized sides are a multiple of it plus one.
    keep_aspect_ratio: False resizes to squares.
    min_scale_factor: smallest random scale.
    max_scale_factor: largest random scale.
    scale_factor_step_size: distance of these scales, 0 for any between.
    optimizer: 'momentum' or 'adam'.
    momentum: of the momentum optimiser.
    adam_learning_rate: constant rate of Adam, which ignores the schedule.
    adam_epsilon: of Adam.
    learning_policy: see `schedules.LearningRate`, as for the next nine.
    base_learning_rate: rate to start from.
    learning_rate_decay_step: steps between drops of the 'step' policy.
    learning_rate_decay_factor: factor of each drop.
    learning_power: exponent of the 'poly' policy.
    decay_steps: length of 'poly', 0 for the whole training.
    end_learning_rate: rate at the end of 'poly'.
    slow_start_step: number of slow steps.
    slow_start_learning_rate: rate of the slow steps.
    last_layer_gradient_multiplier: factor of the last layers' gradients.
    last_layers_contain_logits_only: the last layers are the logits alone, not
      ASPP and decoder as well.
    trainable_scopes: beginnings of the names of the variables that train; None
      for all. The others keep their values and have no weight decay; batch
      norm gathers its statistics as `fine_tune_batch_norm` says.
    weight_decay: of the convolution kernels.
    fine_tune_batch_norm: batch norm uses and gathers batch statistics.
    upsample_logits: the loss is computed at the labels' size.
    hard_example_mining_step: length of the ramp of hard pixel mining.
    top_k_percent_pixels: share of the pixels, in 0..1, that count.
    drop_path_keep_prob: of the nas_ variants: share of the paths that the last
      cell keeps at the end of the training; 1 for all.
    tf_initial_checkpoint: checkpoint to start from, unless train_logdir has
      one already.
    initialize_last_layer: take the last layers from it too.
    log_steps: steps between log lines.
    save_interval_secs: seconds between checkpoints.
    save_interval_steps: also save at multiples of this step; None for never.
    keep_checkpoint_max: checkpoints to keep, 0 for all.
    save_summaries_secs: seconds between TensorBoard summaries.
    save_summaries_images: also images, labels and predictions.
    save_retry_secs: how long to go on trying where a checkpoint cannot be
      written, before the run ends with an error.
    profile_logdir: folder for a TensorBoard profile of some steps.
    profile_steps: [first, last] of these steps; None for five early ones if
      there is a profile_logdir. The folder is train_logdir/profile by default.
    num_clones: number of GPUs of a host, or of CPU devices.
    clone_on_cpu: use CPU devices although there are GPUs.
    tpu: name or address of a TPU, 'local' on its own host.
    cluster: strategies.Cluster of several hosts, None for one. train_logdir is
      a folder that all of them share.
    sync_batch_norm: statistics of batch norm, and the mean of the loss, over
      all replicas.
    gradient_accumulation_steps: parts that a replica takes its batch in.
    mixed_precision: 'bfloat16' or 'float16' for activations and gradients,
      None for float32.
    jit_compile: compile the step with XLA; on a TPU that is always so.
    recompute_grad: what the backward pass computes again rather than keep, one
      of `rematerialization.WAYS`. None for its `default_way`.
    moving_average_decay: of moving averages of the variables, which the
      checkpoints hold too; 0 for none.
    max_nan_steps: steps with a loss or gradient that is not finite that a run
      may skip.
    max_read_retries: reading errors in a row that pass for transient.
    shard_by: what several hosts share of the input: 'files', 'records' (the
      same batches as one host) or None for what suits the number of files.
    data_service: address of a tf.data service that prepares the batches.
    eval_interval_steps: evaluate, and save, at multiples of this step; None for
      never.
    eval_split: split to evaluate on.
    eval_crop_size: [height, width] that its images are padded to; None for the
      training's crop_size.
    keep_best_by: one of KEEP_BEST_BY: also keep the checkpoint that is best by
      it, in train_logdir/best; None for none.
    early_stopping_evals: end after so many evaluations without a better one;
      0 for never.
    seed: what initial values, data order, augmentation and dropout are a
      function of.
    deterministic: take only kernels that compute the same, bit for bit, each
      time; those of CPUs do so anyway.
  """

  model_options: ModelOptions
  train_logdir: str
  dataset_dir: str | None
  dataset_name: str | None = None
  train_split: str = 'train'
  check_dataset: bool = True
  image_pyramid: Sequence[float] | None = None
  train_batch_size: int = 8
  training_number_of_steps: int = 30000

  min_resize_value: int | None = None
  max_resize_value: int | None = None
  resize_factor: int | None = None
  keep_aspect_ratio: bool = True
  min_scale_factor: float = 0.5
  max_scale_factor: float = 2.0
  scale_factor_step_size: float = 0.25

  optimizer: str = 'momentum'
  momentum: float = 0.9
  adam_learning_rate: float = 0.001
  adam_epsilon: float = 1e-8
  learning_policy: str = 'poly'
  base_learning_rate: float = 0.0001
  learning_rate_decay_step: int = 2000
  learning_rate_decay_factor: float = 0.1
  learning_power: float = 0.9
  decay_steps: float = 0.0
  end_learning_rate: float = 0.0
  slow_start_step: int = 0
  slow_start_learning_rate: float = 0.0001
  last_layer_gradient_multiplier: float = 1.0
  last_layers_contain_logits_only: bool = False
  trainable_scopes: Sequence[str] | None = None
  weight_decay: float = 0.00004
  fine_tune_batch_norm: bool = True
  upsample_logits: bool = True
  hard_example_mining_step: int = 0
  top_k_percent_pixels: float = 1.0
  drop_path_keep_prob: float = 1.0

  tf_initial_checkpoint: str | None = None
  initialize_last_layer: bool = True

  log_steps: int = 10
  save_interval_secs: float = 1200
  save_interval_steps: int | None = None
  keep_checkpoint_max: int = 5
  save_summaries_secs: float = 600
  save_summaries_images: bool = False
  save_retry_secs: float = 300
  profile_logdir: str | None = None
  profile_steps: Sequence[int] | None = None

  num_clones: int = 1
  clone_on_cpu: bool = False
  tpu: str | None = None
  cluster: Cluster | None = None
  seed: int = 0
  deterministic: bool = False

  sync_batch_norm: bool = False
  gradient_accumulation_steps: int = 1
  mixed_precision: str | None = None
  jit_compile: bool = False
  recompute_grad: str | None = None
  moving_average_decay: float = 0.0
  max_nan_steps: int = 0
  max_read_retries: int = 3
  shard_by: str | None = None
  data_service: str | None = None

  eval_interval_steps: int | None = None
  eval_split: str = 'val'
  eval_crop_size: Sequence[int] | None = None
  keep_best_by: str | None = None
  early_stopping_evals: int = 0

  def __post_init__(self):
    common.check_ranges(vars(self), _RANGES)
    if self.optimizer not in OPTIMIZERS:
      raise InputError(
        f'optimizer must be one of {OPTIMIZERS}. Received: {self.optimizer!r}.'
      )
    for name, values in (
      ('mixed_precision', model.MIXED_PRECISIONS),
      ('keep_best_by', KEEP_BEST_BY),
      ('recompute_grad', rematerialization.WAYS),
    ):
      value = getattr(self, name)
      if value is not None and value not in values:
        raise InputError(
          f'{name} must be one of {", ".join(values)}. Received: {value!r}.'
        )
    self._check_evaluation()
    self._check_profile()
    if self.model_options.crop_size is None:
      raise InputError('training needs a crop_size (--train_crop_size).')
    scopes = self.trainable_scopes
    if scopes is not None and (
      isinstance(scopes, str)
      or not scopes
      or not all(scope and isinstance(scope, str) for scope in scopes)
    ):
      raise InputError(
        'trainable_scopes (--trainable_scopes) must name one scope or more, '
        f'such as vgg_16/fc6,logits. Received: trainable_scopes={scopes!r}.'
      )
    if self.deterministic and self.data_service is not None:
      raise InputError(
        f'data_service={self.data_service} gives its batches in no certain '
        'order: nothing is deterministic with it. Leave out one of '
        '--data_service and --deterministic.'
      )
    if not self.train_logdir:
      raise InputError('train_logdir (--train_logdir) must name a folder.')
    self._check_drop_path()
    # Its own checks, before anything is built.
    self.learning_rate()

  def _check_evaluation(self):
    """What chooses among evaluations has some."""
    size = self.eval_crop_size
    if size is not None and len(size) != 2:
      raise InputError(
        'eval_crop_size must be two integers, height and width. Received: '
        f'{list(size)}.'
      )
    if self.early_stopping_evals and not self.keep_best_by:
      raise InputError(
        'early_stopping_evals needs to know what is better. Give '
        '--keep_best_by as well. Received: early_stopping_evals='
        f'{self.early_stopping_evals}.'
      )
    if self.eval_interval_steps is not None:
      return
    for name in ('keep_best_by', 'early_stopping_evals'):
      if getattr(self, name):
        raise InputError(
          f'{name} needs evaluations. Give --eval_interval_steps as well. '
          f'Received: {name}={getattr(self, name)}.'
        )

  def _check_profile(self):
    steps = self.profile_steps
    if steps is not None and (len(steps) != 2 or steps[0] > steps[1]):
      raise InputError(
        'profile_steps must be the first and the last step of the profile, '
        f'such as 10,20. Received: {list(steps)}.'
      )

  def _check_drop_path(self):
    """It is not asked for where it would be ignored."""
    if self.drop_path_keep_prob == 1.0:
      return
    variant = self.model_options.model_variant
    received = f'Received: drop_path_keep_prob={self.drop_path_keep_prob}.'
    if not variant.startswith('nas_'):
      raise InputError(
        f'drop_path_keep_prob has no effect on model_variant={variant}; leave '
        f'it out. {received}'
      )
    if not self.fine_tune_batch_norm:
      raise InputError(
        'drop_path_keep_prob has no effect with fine_tune_batch_norm=False: '
        'the network then runs as in inference, as in the original. Leave one '
        f'of the two out. {received}'
      )

  def nas_training_hyper_parameters(self):
    """What drop path depends on, None where there is none."""
    if self.drop_path_keep_prob == 1.0:
      return None
    return {
      'drop_path_keep_prob': self.drop_path_keep_prob,
      'total_training_steps': self.training_number_of_steps,
    }

  def learning_rate(self) -> schedules.LearningRate:
    """The schedule."""
    names = {
      field.name for field in dataclasses.fields(schedules.LearningRate)
    } & {field.name for field in dataclasses.fields(self)}
    return schedules.LearningRate(
      **{name: getattr(self, name) for name in names}
    )

  def replace(self, **changes) -> 'TrainConfig':
    """A copy with some fields changed."""
    return dataclasses.replace(self, **changes)

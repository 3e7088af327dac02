"""The flags that eval.py, vis.py and the search of the CRF share.

Only scripts use this module; everything below them takes plain arguments.
"""

import functools

from absl import flags as absl_flags

from deeplab import common, dataset_flags, flags, model_flags, stored_info
from deeplab.common import InputError
from deeplab.core import dense_crf
from deeplab.datasets import data_generator
from deeplab.evaluation import any_size, photos, prediction, tiling
from deeplab.training import strategies

FLAGS = flags.FLAGS

# Fields of dense_crf.Parameters that come from flags with this prefix.
_CRF_PREFIX = 'crf_'
_CRF_HELP = {
  'iterations': 'Updates of mean field inference.',
  'w1': 'Weight of the kernel in position and colour.',
  'sigma_alpha': 'Its standard deviation in position, in pixels.',
  'sigma_beta': 'Its standard deviation in colour, in levels of 0..255.',
  'w2': 'Weight of the kernel in position alone.',
  'sigma_gamma': 'Its standard deviation, in pixels.',
}


def define_data_flags(prefix):
  """Flags of the network, its checkpoint and the data to run it on.

  Args:
    prefix: 'eval' or 'vis', of the names of some of them.
  """
  model_flags.define_model_flags()
  model_flags.define_scale_flags()
  model_flags.define_moving_average_flag()
  model_flags.define_inference_dtype_flag()
  absl_flags.DEFINE_string(
    'checkpoint_dir',
    None,
    'Directory of a training run, prefix of a checkpoint, or one of its files.',
  )
  absl_flags.DEFINE_integer(f'{prefix}_batch_size', 1, 'Images a batch.')
  flags.define_list(
    f'{prefix}_crop_size',
    [513, 513],
    'Size [height, width] that images are padded to; none may be larger.',
  )
  dataset_flags.define_dataset_flags()
  absl_flags.DEFINE_string(f'{prefix}_split', 'val', 'Split to run on.')
  flags.require('checkpoint_dir')


def define_following_flags(limit):
  """Flags of a script that follows a training run.

  Args:
    limit: name of the flag with the greatest number of checkpoints.
  """
  absl_flags.DEFINE_integer(
    'eval_interval_secs', 300, 'Least seconds between two checkpoints.'
  )
  absl_flags.DEFINE_integer(
    limit, 0, 'Stop after so many checkpoints; 0: never.'
  )
  absl_flags.DEFINE_float(
    'timeout_secs', None, 'Stop when no checkpoint appears for so long.'
  )


def define_device_flags():
  """--num_clones and --clone_on_cpu, as of train.py."""
  absl_flags.DEFINE_integer(
    'num_clones', 1, 'Number of GPUs of this host that share each batch.'
  )
  absl_flags.DEFINE_boolean(
    'clone_on_cpu', False, 'Use (virtual) CPU devices instead of GPUs.'
  )


def make_strategy(batch_size_flag):
  """The tf.distribute strategy of the flags of `define_device_flags`.

  To be called before TensorFlow is used.

  Args:
    batch_size_flag: name of the flag with the number of images a batch.

  Returns:
    The strategy; None where the flags ask for nothing special.

  Raises:
    InputError: there are not that many devices, or fewer images in a batch.
  """
  number, batch_size = FLAGS.num_clones, FLAGS[batch_size_flag].value
  common.check_ranges({'--num_clones': number}, {'--num_clones': common.COUNT})
  if number == 1 and not FLAGS.clone_on_cpu:
    return None
  if batch_size < number:
    raise InputError(
      f'--{batch_size_flag}={batch_size} is less than --num_clones={number}: '
      'devices would have nothing to do. Give at least as many images.'
    )
  return strategies.make_strategy(number, FLAGS.clone_on_cpu)


def define_crf_flags():
  """--crf and the parameters of the CRF."""
  absl_flags.DEFINE_boolean(
    'crf', False, 'Refine the probabilities with a dense CRF.'
  )
  defaults = dense_crf.Parameters()
  for name, text in _CRF_HELP.items():
    default = getattr(defaults, name)
    is_whole = isinstance(default, int)
    define = absl_flags.DEFINE_integer if is_whole else absl_flags.DEFINE_float
    define(_CRF_PREFIX + name, default, text)


def crf_parameters():
  """dense_crf.Parameters from the flags; None without --crf.

  Raises:
    InputError: a parameter is out of range, or given without --crf.
  """
  names = [_CRF_PREFIX + name for name in _CRF_HELP]
  if not FLAGS.crf:
    given = [f'--{name}={FLAGS[name].value}' for name in names]
    given = [
      text
      for name, text in zip(names, given, strict=True)
      if flags.is_given(name)
    ]
    if given:
      raise InputError(f'{", ".join(given)} without --crf. Give --crf as well.')
    return None
  values = {name: FLAGS[_CRF_PREFIX + name].value for name in _CRF_HELP}
  common.check_ranges(
    {f'--{_CRF_PREFIX}{name}': value for name, value in values.items()},
    {f'--{_CRF_PREFIX}{name}': dense_crf.RANGES[name] for name in values},
  )
  return dense_crf.Parameters(**values)


def define_photo_flags():
  """--image_glob and how large images are cut into tiles."""
  flags.define_list(
    'image_glob',
    None,
    "Images in place of TFRecord files: a pattern such as 'photos/*.jpg' (** "
    'for any folders), a folder, a file, or several of these.',
    str,
  )
  absl_flags.DEFINE_integer(
    'max_tile_size',
    tiling.DEFAULT_MAX_SIZE,
    'Images of more pixels than a square of this side are cut into tiles.',
  )
  absl_flags.DEFINE_float(
    'tile_overlap',
    tiling.DEFAULT_OVERLAP,
    'Share of a tile that the next one repeats.',
  )


def make_job(
  prefix,
  limit=1,
  interval_secs=300,
  timeout_secs=None,
  crf=None,
  strategy=None,
):
  """The prediction.Job that the flags describe.

  Args:
    prefix: see `define_data_flags`.
    limit: greatest number of checkpoints; 0 for no end.
    interval_secs: least time between two checkpoints.
    timeout_secs: stop when no new checkpoint appeared for so long, or None.
    crf: dense_crf.Parameters or None.
    strategy: tf.distribute strategy or None.

  Raises:
    InputError: an argument is out of range.
  """
  crop_size = FLAGS[f'{prefix}_crop_size'].value
  dataset_name, dataset_dir = dataset_flags.find()

  def make_dataset(model_variant):
    return data_generator.Dataset(
      dataset_name=dataset_name,
      split_name=FLAGS[f'{prefix}_split'].value,
      dataset_dir=dataset_dir,
      batch_size=FLAGS[f'{prefix}_batch_size'].value,
      crop_size=crop_size,
      model_variant=model_variant,
      **_resizing(),
    )

  return _job(
    make_dataset,
    crop_size,
    crf=crf,
    strategy=strategy,
    limit=limit,
    interval_secs=interval_secs,
    timeout_secs=timeout_secs,
  )


def _resizing():
  """The flags of resizing, which every data set takes."""
  names = ('min_resize_value', 'max_resize_value', 'resize_factor')
  return {name: FLAGS[name].value for name in (*names, 'keep_aspect_ratio')}


def _job(make_dataset, crop_size, infer=False, **arguments):
  """A prediction.Job with what the flags say of checkpoint and network.

  Args:
    make_dataset: see `prediction.Job`.
    crop_size: see there.
    infer: whether the variables tell the network where model_options.json is
      missing, rather than the defaults of the flags.
    **arguments: of `prediction.Job`.
  """

  def make_options(num_classes, checkpoint):
    fallback = stored_info.options(checkpoint) if infer else None
    return model_flags.model_options(
      num_classes, crop_size, checkpoint, fallback
    )

  return prediction.Job(
    checkpoint_dir=FLAGS.checkpoint_dir,
    make_dataset=make_dataset,
    make_options=make_options,
    crop_size=crop_size,
    eval_scales=FLAGS.eval_scales,
    add_flipped_images=FLAGS.add_flipped_images,
    image_pyramid=FLAGS.image_pyramid,
    use_moving_averages=FLAGS.use_moving_averages,
    inference_dtype=FLAGS.inference_dtype,
    **arguments,
  )


def make_following_job(prefix, limit):
  """`make_job` with the flags of following, of the CRF and of devices.

  Args:
    prefix: see `define_data_flags`.
    limit: see `define_following_flags`.

  Raises:
    InputError: a value is out of range, a parameter of the CRF is given
      without --crf, or there are not as many devices.
  """
  return make_job(prefix, limit=FLAGS[limit].value, **_following(prefix))


def _following(prefix):
  """What the flags of following, of the CRF and of devices say."""
  return {
    'interval_secs': FLAGS.eval_interval_secs,
    'timeout_secs': FLAGS.timeout_secs,
    'crf': crf_parameters(),
    'strategy': make_strategy(f'{prefix}_batch_size'),
  }


def make_photo_job(prefix, limit, without=()):
  """The prediction.Job on the images of --image_glob.

  One checkpoint is taken, unless the flag `limit` says otherwise. Where nothing
  describes its network, the variables do.

  Args:
    prefix: see `define_data_flags`.
    limit: see `define_following_flags`.
    without: folders whose files are left out; see `photos.find`.

  Returns:
    (job, photos.Photos): the latter knows which files could not be read.

  Raises:
    InputError: see `make_following_job`; or there are no such images, or a
      flag has no effect on them.
  """
  check_photo_flags(prefix)
  crop_flag, batch_flag = f'{prefix}_crop_size', f'{prefix}_batch_size'
  check_crf_size = functools.partial(
    any_size.check_crf_size,
    cure='Shrink it, for example by --max_resize_value=2047',
  )
  dataset = photos.Photos(
    FLAGS.image_glob,
    stored_info.find(
      FLAGS.checkpoint_dir, FLAGS.dataset if flags.is_given('dataset') else None
    ),
    FLAGS[batch_flag].value,
    check=check_crf_size if FLAGS.crf else None,
    without=without,
    **_resizing(),
  )
  job = _job(
    lambda unused_variant: dataset,
    FLAGS[crop_flag].value if flags.is_given(crop_flag) else None,
    infer=True,
    make_predictor=functools.partial(
      any_size.AnySizePredictor,
      max_tile_size=FLAGS.max_tile_size,
      tile_overlap=FLAGS.tile_overlap,
      batch_size=FLAGS[batch_flag].value,
    ),
    limit=FLAGS[limit].value if flags.is_given(limit) else 1,
    **_following(prefix),
  )
  return job, dataset


def check_photo_flags(prefix):
  """Refuses flags that have no effect with, or without, --image_glob.

  Args:
    prefix: see `define_data_flags`.

  Raises:
    InputError: such a flag is given, or the size of batches or of tiles is out
      of range.
  """
  crop_flag = f'{prefix}_crop_size'
  if FLAGS.image_glob is None:
    reasons = dict.fromkeys(
      ('max_tile_size', 'tile_overlap'), 'without --image_glob'
    )
  else:
    reasons = dict.fromkeys(
      ('dataset_dir', f'{prefix}_split'),
      'with --image_glob, which takes images and no TFRecord files',
    )
    if flags.is_given(crop_flag):
      reasons['max_tile_size'] = f'with --{crop_flag}, the size of the tiles'
  for name, reason in reasons.items():
    if flags.is_given(name):
      raise InputError(
        f'--{name}={FLAGS[name].value} has no effect {reason}. Leave one out.'
      )
  batch_flag = f'{prefix}_batch_size'
  common.check_ranges(
    {f'--{batch_flag}': FLAGS[batch_flag].value},
    {f'--{batch_flag}': common.COUNT},
  )
  tiling.check_options(
    FLAGS.max_tile_size,
    FLAGS.tile_overlap,
    {name: f'--{name}' for name in ('max_tile_size', 'tile_overlap')},
  )

"""Command-line flags that the scripts share, and what they mean together.

Only the scripts at the top of the repository use this module; everything
below them takes plain arguments.
"""

import itertools
import signal
import sys

import tensorflow as tf
from absl import app, flags, logging

from deeplab import checkpoints, common
from deeplab.common import InputError

FLAGS = flags.FLAGS

# Official flags of parts that this port does not have yet, with the value
# that means "off".
_NOT_BUILT = {
  'dense_prediction_cell_json': '',
  'nas_remove_os32_stride': False,
  'nas_stem_output_num_conv_filters': 20,
  'nas_use_classification_head': False,
  'drop_path_keep_prob': 1.0,
  'quantize_delay_step': -1,
  'master': '',
}

# Fields of ModelOptions that can change without other weights. Every other
# field must be what the checkpoint was trained with.
_FREE_FIELDS = (
  'crop_size',
  'atrous_rates',
  'output_stride',
  'merge_method',
  'image_pooling_crop_size',
  'image_pooling_stride',
  'multi_grid',
  'prediction_with_upsampled_logits',
  'label_weights',
  'batch_norm_decay',
)

# Fields that come from flags of the same name.
_MODEL_FLAGS = (
  'atrous_rates',
  'output_stride',
  'merge_method',
  'add_image_level_feature',
  'image_pooling_crop_size',
  'image_pooling_stride',
  'aspp_with_batch_norm',
  'aspp_with_separable_conv',
  'multi_grid',
  'decoder_output_stride',
  'decoder_use_separable_conv',
  'logits_kernel_size',
  'model_variant',
  'depth_multiplier',
  'divisible_by',
  'prediction_with_upsampled_logits',
  'use_bounded_activation',
  'aspp_with_concat_projection',
  'aspp_with_squeeze_and_excitation',
  'aspp_convs_filters',
  'decoder_use_sum_merge',
  'decoder_filters',
  'decoder_output_is_logits',
  'image_se_uses_qsigmoid',
  'label_weights',
  'batch_norm_decay',
)


def run(main):
  """Runs a script: errors of the user are one line and exit status 1.

  A script that is interrupted or terminated cleans up as after an error.

  Args:
    main: function of no arguments.
  """

  def checked(argv):
    if len(argv) > 1:
      raise InputError(
        f'unexpected arguments {argv[1:]}: every option begins with --.'
      )
    for name, off in _NOT_BUILT.items():
      if name in FLAGS and FLAGS[name].value != off:
        raise InputError(
          f'--{name} is not supported by this version. '
          f'Received: --{name}={FLAGS[name].value}.'
        )
    main()

  def guarded(argv):
    try:
      checked(argv)
    except InputError as error:
      _fail(error)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
      first_line = (str(error) or 'out of memory').splitlines()[0]
      _fail(
        f'there is not enough memory: {first_line}. Smaller batches, crops or '
        'images need less.'
      )
    except KeyboardInterrupt:
      _fail('interrupted.', status=128 + signal.SIGINT)

  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  logging.set_verbosity(logging.INFO)
  logging.use_absl_handler()
  app.run(guarded)


def _fail(message, status=1):
  logging.flush()
  print(f'error: {message}', file=sys.stderr)
  sys.exit(status)


# List flags.


class _ListParser(flags.ArgumentParser):
  """Parses '6,12,18'; numbers may be elided, as in '0.5,...,1.75'."""

  def __init__(self, convert):
    self._convert = convert
    self.syntactic_help = 'comma separated, or the flag repeated'

  def parse(self, argument):
    if not isinstance(argument, str):
      return [self._convert(argument)]
    try:
      return self._parse_text(argument)
    except ValueError as error:
      kind = 'integers' if self._convert is int else 'numbers'
      raise ValueError(
        f'{error}. Expected {kind}, {self.syntactic_help}'
      ) from error

  def _parse_text(self, argument):
    items = [item.strip() for item in argument.split(',')]
    if '...' in items:
      return self._fill(items)
    return [self._convert(item) for item in items]

  def _fill(self, items):
    """An ellipsis goes on with the step of the two numbers before it."""
    at = items.index('...')
    if items.count('...') > 1 or at == 0 or at != len(items) - 2:
      raise ValueError(
        "'...' must stand between the first numbers and the last one"
      )
    values = [self._convert(item) for item in items[:at]]
    last = self._convert(items[-1])
    step = values[-1] - values[-2] if at > 1 else 0.25
    if step <= 0 or last <= values[-1]:
      raise ValueError("the numbers around '...' must increase")
    count = round((last - values[-1]) / step)
    if abs(values[-1] + count * step - last) > 1e-6:
      raise ValueError(f'{last:g} is not reached in steps of {step:g}')
    filled = [values[-1] + i * step for i in range(1, count)]
    return [*values, *(self._convert(round(v, 9)) for v in filled), last]


class _ListFlag(flags.MultiFlag):
  def _parse(self, arguments):
    return list(itertools.chain(*super()._parse(arguments)))

  def flag_type(self):
    return 'list'


def define_list(name, default, help_text, convert=int):
  """A list flag: `--name=6,12` or `--name=6 --name=12`."""
  flags.DEFINE_flag(
    _ListFlag(
      _ListParser(convert),
      flags.ListSerializer(','),
      name,
      default,
      help_text,
    )
  )


# Flags of the model and of resizing.


def define_model_flags(output_stride=16):
  """Official flags that set ModelOptions, and the resizing of images.

  Args:
    output_stride: default of --output_stride (official: export has 8).
  """
  flags.DEFINE_string('model_variant', 'mobilenet_v2', 'Backbone.')
  flags.DEFINE_integer(
    'output_stride',
    output_stride,
    'Ratio of input to backbone output resolution.',
  )
  define_list('atrous_rates', None, 'Atrous rates of ASPP.')
  define_list('multi_grid', None, 'Unit rates of the last block.')
  define_list('image_pyramid', None, 'Input scales, logits merged.', float)
  flags.DEFINE_enum(
    'merge_method', 'max', ['max', 'avg'], 'Merges the scales of a pyramid.'
  )
  flags.DEFINE_float('depth_multiplier', 1.0, 'Channels of MobileNet.')
  flags.DEFINE_integer('divisible_by', None, 'Rounds MobileNet channels.')
  flags.DEFINE_enum(
    'resnet_root_convs',
    'auto',
    ['auto', '2', '3'],
    '3x3 convolutions in the stem of a _beta ResNet. auto: as in the '
    'checkpoint (3 in all published ones), 2 when training from scratch.',
  )
  flags.DEFINE_boolean(
    'use_bounded_activation', False, 'ReLU6 and clipping in Xception.'
  )
  flags.DEFINE_float(
    'batch_norm_decay',
    None,
    'Decay of moving statistics. Unset: the official value of each network.',
  )
  define_list('label_weights', None, 'Loss weight of each class.', float)
  _define_head_flags()
  _define_resize_flags()
  _define_flags_not_built()


def _define_head_flags():
  flags.DEFINE_boolean('add_image_level_feature', True, 'Image pooling branch.')
  define_list(
    'image_pooling_crop_size', None, 'Crop size [height, width] for pooling.'
  )
  define_list('image_pooling_stride', [1, 1], 'Stride of image pooling.')
  flags.DEFINE_boolean('aspp_with_batch_norm', True, 'False: DeepLab v2 head.')
  flags.DEFINE_boolean('aspp_with_separable_conv', True, 'Separable ASPP.')
  flags.DEFINE_integer('aspp_convs_filters', 256, 'Channels of ASPP.')
  flags.DEFINE_boolean(
    'aspp_with_concat_projection', True, 'Projection after ASPP.'
  )
  flags.DEFINE_boolean(
    'aspp_with_squeeze_and_excitation', False, 'Image feature as a gate.'
  )
  flags.DEFINE_boolean(
    'image_se_uses_qsigmoid', False, 'Piecewise linear gate.'
  )
  define_list(
    'decoder_output_stride',
    None,
    'Output strides of the low-level features of the decoder, descending.',
  )
  flags.DEFINE_boolean('decoder_use_separable_conv', True, 'Separable decoder.')
  flags.DEFINE_boolean(
    'decoder_use_sum_merge', False, 'Sum instead of concatenation.'
  )
  flags.DEFINE_integer('decoder_filters', 256, 'Channels of the decoder.')
  flags.DEFINE_boolean(
    'decoder_output_is_logits', False, 'The decoder gives the logits.'
  )
  flags.DEFINE_integer('logits_kernel_size', 1, 'Kernel of the v2 logits.')
  flags.DEFINE_boolean(
    'prediction_with_upsampled_logits',
    True,
    'Argmax after upsampling the logits, rather than before.',
  )


def _define_resize_flags():
  flags.DEFINE_integer('min_resize_value', None, 'Smaller image side.')
  flags.DEFINE_integer('max_resize_value', None, 'Bound of the larger side.')
  flags.DEFINE_integer(
    'resize_factor', None, 'Sides become multiples of this plus one.'
  )
  flags.DEFINE_boolean(
    'keep_aspect_ratio', True, 'Keep the aspect ratio when resizing.'
  )


def _define_flags_not_built():
  flags.DEFINE_string('dense_prediction_cell_json', '', 'Not supported yet.')
  flags.DEFINE_boolean('nas_remove_os32_stride', False, 'Not supported yet.')
  flags.DEFINE_integer(
    'nas_stem_output_num_conv_filters', 20, 'Not supported yet.'
  )
  flags.DEFINE_boolean(
    'nas_use_classification_head', False, 'Not supported yet.'
  )
  flags.DEFINE_integer('quantize_delay_step', -1, 'Not supported yet.')
  flags.DEFINE_string('master', '', 'Not supported: sessions are no more.')


def define_scale_flags(scales_name='eval_scales'):
  """Scales and mirror images of multi-scale inference."""
  define_list(scales_name, [1.0], 'Scales, for example 0.5,...,1.75.', float)
  flags.DEFINE_boolean(
    'add_flipped_images', False, 'Also average over mirror images.'
  )


def require(*names):
  """Marks flags as required; an empty text is no value either."""
  flags.mark_flags_as_required(names)
  for name in names:
    flags.register_validator(
      name, lambda value: value != '', message='must not be empty.'
    )


def is_given(name):
  """Whether a flag stands on the command line."""
  return bool(FLAGS[name].present)


# Model options.


def model_options(num_classes, crop_size, checkpoint=None):
  """ModelOptions from the flags and from what lies beside a checkpoint.

  model_options.json, where there is one, gives every value that the command
  line does not. A flag that contradicts it is an error if the weights depend
  on it. Where only --output_stride is given anew, atrous rates grow as the
  stride shrinks, as in the papers.

  Args:
    num_classes: number of classes, or None to take the stored one.
    crop_size: [height, width] or None.
    checkpoint: directory, prefix or file; None when training from scratch.

  Returns:
    ModelOptions.

  Raises:
    InputError: a contradiction, or values that cannot be built.
  """
  stored = checkpoints.load_options(checkpoint) if checkpoint else None
  given = {
    name: FLAGS[name].value
    for name in _MODEL_FLAGS
    if stored is None or is_given(name)
  }
  if num_classes is not None:
    given['outputs_to_num_classes'] = {common.OUTPUT_TYPE: num_classes}
  if FLAGS.resnet_root_convs != 'auto':
    given['resnet_root_convs'] = int(FLAGS.resnet_root_convs)
  elif stored is None:
    given['resnet_root_convs'] = _auto_root_convs(checkpoint)
  if stored is None:
    return _checked(common.ModelOptions(crop_size=crop_size, **given))
  logging.info(
    'Model flags taken from %s of %s.', common.MODEL_OPTIONS_FILE, checkpoint
  )
  _check_stored(stored, given, checkpoint)
  _scale_rates(stored, given)
  return _checked(stored.replace(crop_size=crop_size, **given))


def _checked(options):
  """Refuses what would be accepted and then ignored."""
  variant = options.model_variant
  for name, applies in (
    ('depth_multiplier', 'mobilenet' in variant),
    ('divisible_by', 'mobilenet' in variant),
    ('resnet_root_convs', variant.endswith('_beta')),
  ):
    if is_given(name) and not applies:
      raise InputError(
        f'--{name}={FLAGS[name].value} has no effect on '
        f'--model_variant={variant}; leave it out.'
      )
  if (
    options.atrous_rates
    and not options.aspp_with_batch_norm
    and options.logits_kernel_size == 1
  ):
    raise InputError(
      f'--atrous_rates={list(options.atrous_rates)} without ASPP: with '
      '--aspp_with_batch_norm=false the rates are those of the logits '
      'convolutions, and a 1x1 convolution has none. Give '
      '--logits_kernel_size=3 (the DeepLab v2 head), or leave the rates out.'
    )
  return options


def _auto_root_convs(checkpoint):
  if checkpoint is None:
    return 2
  return checkpoints.resnet_root_convs(checkpoint) or 2


def _check_stored(stored, given, checkpoint):
  """No given value contradicts what the stored weights depend on."""
  for name, value in given.items():
    old = getattr(stored, name)
    same = _plain(value) == _plain(old)
    if name == 'atrous_rates':
      same = len(value or ()) == len(old or ())
    elif name in _FREE_FIELDS:
      same = True
    if not same:
      raise InputError(
        f'--{_flag_of(name)} contradicts the checkpoint {checkpoint}: its '
        f'{common.MODEL_OPTIONS_FILE} has {name}={_plain(old)}, received '
        f'{_plain(value)}. The weights depend on it; leave the flag out, or '
        'use another checkpoint.'
      )


def _flag_of(field):
  names = {'outputs_to_num_classes': 'dataset or --num_classes'}
  return names.get(field, field)


def _plain(value):
  if isinstance(value, dict):
    return dict(value)
  return list(value) if isinstance(value, (list, tuple)) else value


def _scale_rates(stored, given):
  """--output_stride=8 alone, after 16, doubles the rates, and says so."""
  stride = given.get('output_stride', stored.output_stride)
  rates = stored.atrous_rates
  if 'atrous_rates' in given or not rates or stride == stored.output_stride:
    return
  scaled = [rate * stored.output_stride / stride for rate in rates]
  if any(rate != int(rate) or rate < 1 for rate in scaled):
    raise InputError(
      f'--output_stride={stride} after training at {stored.output_stride} '
      f'makes the atrous rates {list(rates)} {scaled}; give --atrous_rates.'
    )
  given['atrous_rates'] = [int(rate) for rate in scaled]
  logging.info(
    'Trained at output stride %d with atrous rates %s; at output stride %d '
    'the rates are %s.',
    stored.output_stride,
    list(rates),
    stride,
    given['atrous_rates'],
  )

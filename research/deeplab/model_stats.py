"""Prints parameters, multiply-adds and activation memory of a network.

  python -m deeplab.model_stats --model_variant=xception_65 \
    --atrous_rates=6,12,18 --decoder_output_stride=4 --crop_size=513,513

Any flags of the model may be given; no weights are needed and nothing is
computed. --format=json gives everything, with one row for each operation.
"""

import json

from absl import flags as absl_flags
from absl import logging

from deeplab import (
  atomic_files,
  checkpoints,
  common,
  flags,
  model_flags,
  stored_options,
)
from deeplab.common import InputError
from deeplab.stats import COUNTS, PARTS, ModelStats, stats
from deeplab.utils import text_table

FLAGS = flags.FLAGS

__all__ = ['ModelStats', 'stats', 'to_json', 'to_text']

# Flags that the scripts share but that no count depends on.
_WITHOUT_EFFECT = (
  'min_resize_value',
  'max_resize_value',
  'resize_factor',
  'keep_aspect_ratio',
)

_MIB = 2**20


def to_json(result: ModelStats) -> str:
  """The text of --format=json."""
  return json.dumps(result.to_dict(), indent=2) + '\n'


def to_text(result: ModelStats, top=20) -> str:
  """The text of --format=text.

  Args:
    result: what `stats` returned.
    top: number of layers to list, those with the most multiply-adds first; 0
      lists every operation in the order in which they run.

  Returns:
    Lines, the last one ended too.
  """
  total = result.total()
  lines = [_title(result), '']
  rows = [('part', 'parameters', 'multiply-adds', 'activations MiB')]
  for part in PARTS:
    rows.append((part, *_cells(result.total(part))))
  rows.append(('total', *_cells(total)))
  lines += text_table.align(rows, left=1)
  lines += [
    '',
    f'parameters        {total["parameters"] / 1e6:.3f} million trainable, '
    f'{total["non_trainable_parameters"] / 1e6:.3f} million not; '
    f'{result.parameter_bytes / _MIB:.1f} MiB',
    f'multiply-adds     {total["multiply_adds"] / 1e9:.2f} billion; '
    f'{total["direct_multiply_adds"] / 1e9:.2f} billion without the padding '
    'of atrous convolutions',
    f'activations       {total["activation_bytes"] / _MIB:.1f} MiB in all, '
    f'{result.peak_activation_bytes / _MIB:.1f} MiB at most at once',
    '',
  ]
  layers = result.layers
  if top:
    layers = [row for row in layers if row.parameters or row.multiply_adds]
    layers = sorted(layers, key=lambda row: -row.multiply_adds)[:top]
  rows = [('layer', 'type', 'output', *rows[0][1:])]
  for row in layers:
    name = row.name if row.call == 1 else f'{row.name} (call {row.call})'
    shape = 'x'.join(map(str, row.output_shape))
    counts = {count: getattr(row, count) for count in COUNTS}
    rows.append((name, row.type, shape, *_cells(counts)))
  lines += text_table.align(rows, left=2)
  hidden = len(result.layers) - len(layers)
  if hidden:
    lines += ['', f'{hidden} operations more; --top=0 lists all.']
  return '\n'.join(lines) + '\n'


def _title(result):
  options = result.options
  height, width = options.crop_size
  classes = ', '.join(
    f'{count} classes of {output}'
    for output, count in options.outputs_to_num_classes.items()
  )
  words = [
    f'{options.model_variant}, {height}x{width}',
    f'output stride {options.output_stride}',
    classes,
  ]
  if tuple(result.eval_scales) != (1.0,):
    words.append(f'scales {_numbers(result.eval_scales)}')
  if result.add_flipped_images:
    words.append('with mirror images')
  if result.image_pyramid:
    words.append(f'image pyramid {_numbers(result.image_pyramid)}')
  return ', '.join(words)


def _numbers(values):
  return ' '.join(f'{value:g}' for value in values)


def _cells(counts):
  return (
    f'{counts["parameters"]:,}',
    f'{counts["multiply_adds"]:,}',
    f'{counts["activation_bytes"] / _MIB:.2f}',
  )


# The command.


def _define_flags():
  model_flags.define_model_flags()
  model_flags.define_scale_flags()
  flags.define_list(
    'crop_size', [513, 513], 'Size [height, width] of the images.'
  )
  absl_flags.DEFINE_integer(
    'num_classes',
    21,
    'Number of classes; unless given, that of model_options.json if any.',
  )
  absl_flags.DEFINE_string(
    'checkpoint_path',
    None,
    'Directory, prefix or file of a checkpoint to take the model flags from; '
    'its weights are not read.',
  )
  absl_flags.DEFINE_enum(
    'format', 'text', ['text', 'json'], 'Form of the output.'
  )
  absl_flags.DEFINE_string('output', None, 'File; standard output if unset.')
  absl_flags.DEFINE_integer(
    'top',
    20,
    'Layers in the text, those with the most multiply-adds first; 0 lists '
    'every operation in order.',
    lower_bound=0,
  )


def _model_options():
  for name in _WITHOUT_EFFECT:
    if flags.is_given(name):
      raise InputError(
        f'--{name}={FLAGS[name].value} has no effect on what is counted: '
        'images have the size --crop_size. Leave it out.'
      )
  if FLAGS.format == 'json' and flags.is_given('top'):
    raise InputError(
      f'--top={FLAGS.top} has no effect on --format=json, which holds every '
      'operation. Leave it out.'
    )
  common.check_ranges(
    {'num_classes': FLAGS.num_classes}, {'num_classes': common.COUNT}
  )
  checkpoint, num_classes = None, FLAGS.num_classes
  if FLAGS.checkpoint_path is not None:
    checkpoint = checkpoints.find(FLAGS.checkpoint_path)
    stored = stored_options.load(checkpoint) is not None
    if stored and not flags.is_given('num_classes'):
      num_classes = None
  return model_flags.model_options(num_classes, FLAGS.crop_size, checkpoint)


def main():
  result = stats(
    _model_options(),
    eval_scales=FLAGS.eval_scales,
    add_flipped_images=FLAGS.add_flipped_images,
    image_pyramid=FLAGS.image_pyramid,
  )
  if FLAGS.format == 'json':
    text = to_json(result)
  else:
    text = to_text(result, FLAGS.top)
  if FLAGS.output is None:
    print(text, end='')
  else:
    atomic_files.write(FLAGS.output, text)
    logging.info('Wrote %s', FLAGS.output)


if __name__ == '__main__':
  _define_flags()
  flags.run(main)

"""What network a checkpoint is of, from the names and shapes of its variables.

For checkpoints whose flags are lost, and for error messages that say which
flags would have fitted.
"""

import concurrent.futures
import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from deeplab import common, head_diagnosis, model, slim
from deeplab.common import InputError
from deeplab.core import dense_prediction_cell, feature_extractor

# What optimisers and moving averages add to a checkpoint; no part of a model.
_SLOT = re.compile(
  r'/(Momentum|Adam|Adam_1|ExponentialMovingAverage|biased|local_step)$'
  r'|^(beta1_power|beta2_power|global_step|fake_quantization_step'
  r'|number_of_moving_averages|loss_scale(/good_steps)?)$'
)

# Small, and at a stride and size that every backbone can be built with.
_SIZE = (65, 65)
_STRIDES = (16, 8, 32)


def is_slot(name):
  """Whether a variable belongs to the training, not to the network."""
  return bool(_SLOT.search(name))


def is_quantized(names):
  """Whether variables of these names are of quantisation-aware training."""
  return any(name.endswith('_quant/min') for name in names)


@dataclasses.dataclass(frozen=True)
class Diagnosis:
  """The network that fits a checkpoint best.

  Attributes:
    fields: ModelOptions fields that follow from the variables; {} where no
      network fits at all. Without outputs_to_num_classes there is no head.
    missing: names that this network has and the checkpoint has not.
    reshaped: names that both have, with different shapes.
    unused: names that only the checkpoint has, slots left out.
    total: number of variables of this network.
    renamed: scope that the variables of the backbone are under instead of the
      network's own; None where they have the right names.
    guessed: names of the fields that names and shapes only hint at.
  """

  fields: Mapping[str, Any]
  missing: Sequence[str] = ()
  reshaped: Sequence[str] = ()
  unused: Sequence[str] = ()
  total: int = 0
  renamed: str | None = None
  guessed: Sequence[str] = ()

  def __str__(self):
    if not self.fields:
      return (
        'It fits no network: the variants are '
        f'{", ".join(feature_extractor.BACKBONES)}.'
      )
    found = f'{flags(self.fields)}{_classes(self.fields)}'
    if self.renamed is not None:
      scope = _scope_of(self.fields)
      return (
        f'No variant has such names. Closest is {found}: '
        f'{self.total - len(self.missing)} of its {self.total} variables are '
        f'there under {self.renamed or "no scope"} instead of {scope}'
        f'{_listing("missing", self.missing)}.'
      )
    if self.missing or self.reshaped:
      return (
        f'No variant fits. Closest is {found}, with {self.total} variables'
        f'{_listing("missing", self.missing)}'
        f'{_listing("of another shape", self.reshaped)}.'
      )
    return f'Its variables are those of {found}.'


def _scope_of(fields):
  return feature_extractor.get_backbone(fields['model_variant']).name_scope


def _listing(what, names, most=4):
  if not names:
    return ''
  etc = ', ...' if len(names) > most else ''
  return f'; {len(names)} {what}: {", ".join(names[:most])}{etc}'


def _classes(fields):
  outputs = fields.get('outputs_to_num_classes')
  if not outputs:
    return ' (a backbone without a head)'
  counts = ' and '.join(str(count) for count in outputs.values())
  return f' ({counts} classes)'


def flags(fields):
  """ModelOptions fields as flags of the scripts.

  Args:
    fields: {field: value}; defaults of the scripts are left out, as are the
      classes, which come with the data set.

  Returns:
    Text such as '--model_variant=xception_65 --decoder_output_stride=4'.
  """
  defaults = {
    field.name: field.default
    for field in dataclasses.fields(common.ModelOptions)
  }
  defaults['output_stride'] = 16
  words = [f'--model_variant={fields["model_variant"]}']
  for name, value in fields.items():
    if name in ('model_variant', 'crop_size', 'outputs_to_num_classes'):
      continue
    if name == 'dense_prediction_cell_config':
      cell = dense_prediction_cell.PUBLISHED_CELL
      if list(value) != dense_prediction_cell.read_config(cell):
        cell = '<file>'
      words.append(f'--dense_prediction_cell_json={cell}')
    elif name == 'nas_architecture_options':
      words += [f'--{key}={_text(item)}' for key, item in value.items()]
    elif value != defaults[name]:
      words.append(f'--{name}={_text(value)}')
  return ' '.join(words)


def _text(value):
  if isinstance(value, (list, tuple)):
    return ','.join(str(item) for item in value)
  return str(value).lower() if isinstance(value, bool) else str(value)


# Names and shapes of networks.


def model_shapes(options):
  """{official name: shape} of the network of some ModelOptions."""
  return _shapes(lambda: model.build_model(options))[0]


def backbone_shapes(options):
  """{official name: shape} of its backbone alone.

  Args:
    options: ModelOptions; the crop size may be None.

  Returns:
    The shapes, and {output stride: channels of the decoder's skip features}.
  """
  backbone = feature_extractor.get_backbone(options.model_variant)

  def build():
    with slim.layer_store():
      images = keras.Input((*_SIZE, 3))
      features, end_points = feature_extractor.extract_features(images, options)
      skips = {}
      for stride in backbone.decoder_end_points:
        name = backbone.decoder_end_point(stride)
        if name in end_points:
          skips[stride] = end_points[name].shape[-1]
      outputs = [features, *end_points.values()]
      return keras.Model(images, outputs), skips

  return _shapes(build)


def _shapes(build):
  """Shapes without the time and memory of initial values.

  Args:
    build: returns a keras.Model, or a keras.Model and something else.

  Returns:
    {official name: shape} and the something else (None).
  """

  def run():
    with keras.StatelessScope(initialize_variables=False):
      built = build()
    network, other = built if isinstance(built, tuple) else (built, None)
    return {
      slim.official_name(variable): tuple(variable.shape)
      for layer in network.layers
      for variable in layer.variables
    }, other

  # Keras keeps a list, one for each thread, of variables without a value, and
  # would fill these in when the next layer is called. A thread of its own takes
  # its list away with it.
  with concurrent.futures.ThreadPoolExecutor(1) as thread:
    return thread.submit(run).result()


# From variables to options.


def diagnose(stored):
  """Finds the network that a checkpoint is of.

  Args:
    stored: {official name: shape} of the variables of a checkpoint.

  Returns:
    A Diagnosis.
  """
  stored = {
    name: tuple(shape) for name, shape in stored.items() if not is_slot(name)
  }
  trial, renamed = _closest_backbone(stored)
  if trial is None:
    return Diagnosis({}, unused=sorted(stored))
  if renamed is not None:
    missing = [name for name in trial.shapes if name not in trial.matched]
    return Diagnosis(
      trial.fields, missing, total=len(trial.shapes), renamed=renamed
    )
  fields, guessed = head_diagnosis.head_fields(stored, trial.skips)
  fields = {**trial.fields, **fields}
  if fields.get('outputs_to_num_classes') and is_quantized(stored):
    fields['quantize_delay_step'] = 0
  if 'atrous_rates' in fields and 'output_stride' in trial.fields:
    scale = 16 // trial.output_stride or 1
    fields['atrous_rates'] = [rate * scale for rate in fields['atrous_rates']]
  shapes = trial.shapes
  if 'outputs_to_num_classes' in fields:
    shapes = _head_shapes(fields, trial.output_stride) or shapes
  return Diagnosis(
    fields=fields,
    missing=[name for name in shapes if name not in stored],
    reshaped=[
      name for name in shapes if stored.get(name, shapes[name]) != shapes[name]
    ],
    unused=sorted(set(stored) - set(shapes)),
    total=len(shapes),
    guessed=guessed,
  )


def infer_options(stored):
  """The ModelOptions fields that a checkpoint's variables tell.

  Args:
    stored: {official name: shape}.

  Returns:
    {field: value}; what the weights do not depend on (output stride, crop
    size, multi-grid) is left out, and atrous rates are those of the papers at
    output stride 16; v1 and v2 on VGG are given output stride 8 and the rates
    there. {} if no network fits.
  """
  return dict(diagnose(stored).fields)


def describe(stored):
  """One or two sentences on what network the variables are of."""
  return str(diagnose(stored))


def _head_shapes(fields, output_stride):
  """The whole network's shapes; None if these fields go together in no way."""
  try:
    return model_shapes(
      common.ModelOptions(
        **{'output_stride': output_stride, **fields}, crop_size=_SIZE
      )
    )
  except InputError:
    return None


# The backbone.


@dataclasses.dataclass(frozen=True)
class _Trial:
  """A backbone that was built to compare it.

  Attributes:
    fields: ModelOptions fields.
    output_stride: that it was built with.
    shapes: {name: shape}.
    skips: {output stride: channels} of the decoder's features.
    matched: the names that the checkpoint has with the same shape.
  """

  fields: Mapping[str, Any]
  output_stride: int
  shapes: Mapping[str, Sequence[int]]
  skips: Mapping[int, int]
  matched: Sequence[str] = ()

  def match(self, stored):
    """This trial, compared with a checkpoint."""
    matched = [
      name for name in self.shapes if stored.get(name) == self.shapes[name]
    ]
    return dataclasses.replace(self, matched=matched)

  def is_complete(self):
    """Whether the checkpoint has all of it."""
    return len(self.matched) == len(self.shapes)

  def rank(self):
    """More in common is better, then less to spare, then simpler flags."""
    return (
      len(self.matched),
      -len(self.shapes),
      -len(self.fields),
    )


def _builds(fields):
  """A _Trial at the first output stride that such a backbone is built with.

  The channels of the nas_* networks depend on it: one for each there.
  """
  by_stride = fields['model_variant'].startswith('nas_')
  strides = _STRIDES
  if 'output_stride' in fields:
    strides = (fields['output_stride'],)
  for stride in strides:
    own = {**fields, 'output_stride': stride} if by_stride else fields
    try:
      options = common.ModelOptions(
        {common.OUTPUT_TYPE: 1}, **{'output_stride': stride, **own}
      )
      shapes, skips = backbone_shapes(options)
    except InputError:
      continue
    yield _Trial(own, stride, shapes, skips)
    if not by_stride:
      return


@functools.cache
def _every_backbone():
  """A _Trial of each variant without options; they take seconds to build."""
  return [
    trial
    for variant in feature_extractor.BACKBONES
    for trial in _builds({'model_variant': variant})
  ]


def _trials(fields, stored):
  """The same, compared with a checkpoint."""
  return [trial.match(stored) for trial in _builds(fields)]


def _closest_backbone(stored):
  """The best _Trial (None: nothing in common), and the scope if another."""
  scopes = {name.split('/')[0] for name in stored}
  variants = [
    variant
    for variant, backbone in feature_extractor.BACKBONES.items()
    if backbone.name_scope in scopes
  ]
  if variants:
    return _best(variants, stored), None
  # Other names: compare what follows the first part, scope by scope.
  found = []
  for scope in sorted({''} | scopes):
    if head_diagnosis.is_head_scope(scope):
      continue
    inner = {
      name.removeprefix(f'{scope}/'): shape
      for name, shape in stored.items()
      if not scope or name.startswith(f'{scope}/')
    }
    for trial in _every_backbone():
      own = f'{_scope_of(trial.fields)}/'
      nested = any(name.startswith(own) for name in inner)
      match = trial.match(
        {name if nested else own + name: inner[name] for name in inner}
      )
      if match.matched:
        found.append((match.rank(), scope, match))
  if not found:
    return None, None
  _, scope, trial = max(found, key=lambda item: item[0])
  return trial, scope


def _best(variants, stored):
  """The best _Trial of these variants with all widths that may be meant."""
  trials = []
  for variant in variants:
    fields = {'model_variant': variant, **_cascade(variant, stored)}
    plain = list(_trials(fields, stored))
    trials += plain
    if not plain or any(trial.is_complete() for trial in plain):
      continue
    for base in plain:
      for more in _widths(variant, base.shapes, stored):
        trials += _trials({**base.fields, **more}, stored)
        if trials[-1].is_complete():
          break
  return max(trials, key=_Trial.rank, default=None)


def _cascade(variant, stored):
  """{field: number} of the blocks of a ResNet that has more than four."""
  if not variant.startswith('resnet'):
    return {}
  blocks = (re.search(r'/block([5-7])/', name) for name in stored)
  last = max((int(block.group(1)) for block in blocks if block), default=4)
  return {'resnet_num_blocks': last} if last > 4 else {}


def _widths(variant, shapes, stored):
  """Fields that change channels and are worth a trial, likely ones first."""
  # Those that differ: stems have the same channels at every width.
  differing = [
    name
    for name in shapes
    if len(stored.get(name, ())) == len(shapes[name]) == 4
    and stored[name][-1] != shapes[name][-1]
  ]
  ratio = 1.0
  if differing:
    widest = max(differing, key=lambda name: shapes[name][-1])
    ratio = stored[widest][-1] / shapes[widest][-1]
  if variant.endswith('_beta'):
    yield {'resnet_root_convs': 2}
  elif 'mobilenet' in variant:
    for depth in dict.fromkeys((round(ratio, 2), round(ratio, 3), ratio)):
      for divisible_by in (None, 8):
        rounding = {'divisible_by': divisible_by} if divisible_by else {}
        yield {'depth_multiplier': depth, **rounding}
  elif variant.startswith('nas_'):
    stem, head = (
      'nas_stem_output_num_conv_filters',
      'nas_use_classification_head',
    )
    filters = max(1, round(common.NAS_ARCHITECTURE_DEFAULTS[stem] * ratio))
    yield {'nas_architecture_options': {stem: filters}}
    yield {'nas_architecture_options': {stem: filters, head: True}}

"""All cases."""

import dataclasses

from benchmarks.artifacts import (
  Checkpoint,
  Export,
  Network,
  OnnxLabels,
  Records,
  Stats,
)
from benchmarks.case import FIRST_PREDICTION, GROWTH, Case, Row

_HEAD = ('--atrous_rates=6,12,18', '--decoder_output_stride=4')


def _network(name, variant, output_stride=16, head=()):
  flags = (f'--model_variant={variant}', f'--output_stride={output_stride}')
  return Network(name, (*flags, *head))


MOBILENET = _network('mobilenet_v2_os16', 'mobilenet_v2')
MOBILENET_OS8 = _network('mobilenet_v2_os8', 'mobilenet_v2', 8)
# With the published stem, which the peers build.
RESNET = _network(
  'resnet_v1_50_beta',
  'resnet_v1_50_beta',
  head=('--resnet_root_convs=3', *_HEAD),
)
XCEPTION = _network('xception_65', 'xception_65', head=_HEAD)

# Names in `peers`, output strides, and encoders of
# segmentation_models.pytorch.
_PEERS = {
  MOBILENET: ('mobilenet_v2', 16, 'mobilenet_v2'),
  MOBILENET_OS8: ('mobilenet_v2', 8, None),
  RESNET: ('resnet_v1_50_beta', 16, 'resnet50'),
  XCEPTION: ('xception_65', 16, 'tu-xception65'),
}

_TENSORFLOW = ('tensorflow',)
_BFLOAT16 = ('--inference_dtype=bfloat16',)
_SCALES_MODULE = 'benchmarks.multi_scale'
_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

# Seconds of a training do not depend on the images, those of input do.
_VOC = Records()


def all_cases():
  """Every case, in the order in which they run."""
  return [
    *_matrix_products(),
    *(
      _inference(network, batch)
      for batch in (1, 8)
      for network in (MOBILENET, MOBILENET_OS8, RESNET, XCEPTION)
    ),
    _start_up(),
    _training(MOBILENET, 513),
    _training(RESNET.replace(crop=321), 321),
    _input_pipeline(),
    *(_multi_scale(network) for network in (MOBILENET, RESNET)),
    _dense_crf(),
    *_growth(),
  ]


# Cases.


def _matrix_products():
  """The limits of the arithmetic, which tables of networks refer to."""
  side = 3072
  rows = [
    Row(
      dtype,
      'benchmarks.kernels:matrix_product',
      {'side': side, 'dtype': dtype, 'multiply_adds': side**3},
      _TENSORFLOW,
      dtype=dtype,
    )
    for dtype in ('float32', 'bfloat16')
  ]
  title = f'Matrix product, {side} x {side}'
  return [Case('machine/matrix_product', title, rows, 'product')]


def _export_row(name, build, network, artifact, settings=(), **options):
  return Row(
    name,
    f'benchmarks.inference:{build}',
    {'size': network.crop, 'batch': 1, **dict(settings)},
    artifacts={'model': artifact},
    stats=Stats(network),
    same_network=True,
    **options,
  )


def exported_rows(network, batch):
  """The exports of this project, in the runtimes that take them."""
  settings = {'batch': batch}
  for name, build, file, more in (
    ('frozen_graph', 'frozen_graph', Export(network, 'frozen_graph'), {}),
    ('saved_model', 'saved_model', Export(network, 'saved_model'), {}),
    (
      'saved_model_bfloat16',
      'saved_model',
      Export(network, 'saved_model', _BFLOAT16),
      {'dtype': 'bfloat16'},
    ),
  ):
    yield _export_row(
      name, build, network, file, settings, packages=_TENSORFLOW, **more
    )
  labels = OnnxLabels(network)
  packages = ('onnxruntime',)
  yield _export_row(
    'onnx_runtime', 'onnx_runtime', network, labels, settings, packages=packages
  )
  for name, precision, dtype in (
    ('openvino', 'f32', 'float32'),
    ('openvino_bfloat16', 'bf16', 'bfloat16'),
  ):
    yield _export_row(
      name,
      'openvino',
      network,
      labels,
      {**settings, 'precision': precision},
      packages=('openvino',),
      dtype=dtype,
    )
  yield _export_row(
    'litert',
    'litert',
    network,
    Export(network, 'tflite_float'),
    settings,
    packages=('ai_edge_litert.interpreter',),
    note='images one by one' if batch > 1 else '',
  )


def _plain_rows(network, build, settings, **options):
  """The same network by Keras' own layers and in plain PyTorch."""
  name, output_stride, _ = _PEERS[network.replace(crop=513)]
  for peer, packages in (
    ('naive_keras', _TENSORFLOW),
    ('plain_torch', ('torch',)),
  ):
    yield Row(
      peer,
      build,
      {
        'size': network.crop,
        'classes': network.classes,
        'module': f'benchmarks.peers.{peer}',
        'name': name,
        'output_stride': output_stride,
        **settings,
      },
      packages,
      {'checkpoint': Checkpoint(network)},
      **options,
    )


def _nearest_rows(network, batch):
  """DeepLabV3+ of other libraries, which are other networks.

  They want sides that are multiples of the output stride.
  """
  size = network.crop - 1
  encoder = _PEERS[network][-1]
  rows = []
  if network == RESNET:
    rows.append(('keras_hub', 'ResNet-50', {}))
  if encoder is not None:
    rows.append(('segmentation_models_pytorch', encoder, {'encoder': encoder}))
  for name, backbone, more in rows:
    yield Row(
      name,
      f'benchmarks.inference:{name}',
      {'size': size, 'classes': network.classes, 'batch': batch, **more},
      (name,),
      other_python=name == 'segmentation_models_pytorch',
      note=f'another network: its DeepLabV3Plus, {backbone}, {size}x{size}',
    )


def _inference(network, batch):
  rows = [
    *exported_rows(network, batch),
    *_plain_rows(
      network,
      'benchmarks.inference:plain_peer',
      {'batch': batch},
      stats=Stats(network),
      same_network=True,
    ),
    *_nearest_rows(network, batch),
  ]
  return Case(
    f'inference/{network.name}_batch{batch}',
    f'Inference, {network.name}, {network.crop}x{network.crop}, batch {batch}',
    rows,
  )


def _start_up():
  return Case(
    'start_up/mobilenet_v2_os16',
    'Start-up until the first prediction, mobilenet_v2_os16',
    list(exported_rows(MOBILENET, 1)),
    'process',
    FIRST_PREDICTION,
  )


def _training(network, crop):
  """A step with batch norm that trains, then one with batch norm fixed."""
  ours = Row(
    'train_step',
    'benchmarks.training:train_step',
    {
      'batch': 4,
      'size': crop,
      'classes': network.classes,
      'fine_tune_batch_norm': True,
    },
    _TENSORFLOW,
    {'checkpoint': Checkpoint(network)},
  )
  fixed = dataclasses.replace(
    ours,
    name='train_step_fixed_batch_norm',
    settings={**ours.settings, 'fine_tune_batch_norm': False},
    note='--nofine_tune_batch_norm; the others train batch norm',
  )
  keras, torch = _plain_rows(
    network,
    'benchmarks.training:plain_peer',
    {'batch': 4, 'steps_per_call': 2},
  )
  return Case(
    f'training/{network.name}_crop{crop}',
    f'Training step, {network.name}, {crop}x{crop}, batch 4',
    # Against `fit`.
    [keras, ours, fixed, torch],
    'step',
  )


def _input_pipeline():
  settings = {'size': 513, 'batch': 4, 'batches_per_call': 8, 'steps': 10}
  rows = [
    Row(
      name,
      f'benchmarks.input_pipeline:{name}',
      settings,
      packages,
      {'data': _VOC},
      note=note,
    )
    for name, packages, note in (
      ('plain_tf_data', _TENSORFLOW, 'not the same random numbers'),
      ('dataset', _TENSORFLOW, ''),
      ('training', (), 'train.py with mobilenet_v2: images that it consumes'),
    )
  ]
  title = 'Input, JPEG records of 500x375 to crops of 513x513, batch 4'
  return Case('input/jpeg_records', title, rows)


def _multi_scale(network):
  rows = [
    Row(
      name,
      f'{_SCALES_MODULE}:{build}',
      {'size': network.crop, 'scales': scales, 'flips': flips},
      _TENSORFLOW,
      {'checkpoint': Checkpoint(network)},
      _scale_stats(network, scales, flips),
      note=note,
    )
    for name, build, scales, flips, note in (
      (
        'twelve_single_passes',
        'single_passes',
        _SCALES,
        True,
        'each at its own size',
      ),
      ('six_scales_and_flips', 'several_scales', _SCALES, True, ''),
      ('one_pass', 'several_scales', (1.0,), False, 'the single-scale rate'),
    )
  ]
  title = f'Six scales with mirror images, {network.name}'
  return Case(f'multi_scale/{network.name}', title, rows)


def _scale_stats(network, scales, flips):
  flags = (f'--eval_scales={",".join(map(str, scales))}',)
  return Stats(network, (*flags, f'--add_flipped_images={flips}'))


def _dense_crf():
  row = Row(
    'lattice',
    'benchmarks.kernels:dense_crf',
    {'height': 375, 'width': 500, 'classes': 21},
    ('deeplab.core.dense_crf',),
  )
  title = 'Dense CRF, 500x375, 21 classes, 10 iterations'
  return Case('dense_crf/500x375', title, [row])


# How cost grows. The first row is what the others are compared with.


def _growth():
  networks = {
    'crop_size': (
      'side of the image',
      [(c, MOBILENET.replace(crop=c)) for c in (513, 129, 257, 385, 769, 1025)],
    ),
    'output_stride': (
      'output stride',
      [
        (s, _network(f'mobilenet_v2_os{s}', 'mobilenet_v2', s))
        for s in (16, 8, 32)
      ],
    ),
    'classes': (
      'classes',
      [(c, MOBILENET.replace(classes=c)) for c in (21, 2, 151)],
    ),
  }
  for name, (label, points) in networks.items():
    yield _curve(name, label, [_point(x, network) for x, network in points])
  batches = [_point(n, MOBILENET, batch=n) for n in (1, 2, 4, 8)]
  yield _curve('batch', 'images in a batch', batches)
  yield _curve('scales', 'scales with mirror images', _scale_points())


def _point(x, network, **settings):
  row = _export_row(
    str(x),
    'saved_model',
    network,
    Export(network, 'saved_model'),
    settings,
    packages=_TENSORFLOW,
  )
  return dataclasses.replace(row, x=x, same_network=False)


def _scale_points():
  # The largest image, which memory has to hold, is the same in all.
  for scales in (_SCALES[-1:], (0.5, 1.0, 1.75), _SCALES):
    yield Row(
      str(len(scales)),
      f'{_SCALES_MODULE}:several_scales',
      {'size': MOBILENET.crop, 'scales': scales, 'flips': True},
      _TENSORFLOW,
      {'checkpoint': Checkpoint(MOBILENET)},
      _scale_stats(MOBILENET, scales, flips=True),
      len(scales),
    )


def _curve(name, label, rows):
  title = f'Growth with {label}, mobilenet_v2'
  return Case(f'growth/{name}', title, list(rows), kind=GROWTH, x_label=label)

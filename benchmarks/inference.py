"""uint8 images in, labels out, by each implementation.

Settings: those of `case.images_of`; `name` and `output_stride` for the
peers that build the network themselves.
"""

import contextlib
import importlib
import os

import numpy as np

from benchmarks.case import Task, images_of

_INPUT, _LABELS = 'ImageTensor', 'SemanticPredictions'


def _task(predict, images):
  """A Task of a function from images to labels.

  Args:
    predict: function from uint8 [batch, height, width, 3].
    images: uint8.
  """
  return Task(
    lambda: np.asarray(predict(images)),
    len(images),
    # ONNX and LiteRT keep the labels of one image without its axis.
    lambda labels: labels.reshape(images.shape[:3]),
  )


def _one_by_one(predict):
  """Of a function that takes one image at a time, one for a batch."""
  return lambda images: np.concatenate(
    [predict(image[np.newaxis]) for image in images]
  )


# Exports of this project.


def frozen_graph(context):
  """The plain graph in a session, as the original's users ran it."""
  import tensorflow as tf

  graph = tf.Graph()
  with graph.as_default():
    definition = tf.compat.v1.GraphDef()
    with open(context.artifacts['model'], 'rb') as file:
      definition.ParseFromString(file.read())
    tf.import_graph_def(definition, name='')
  session = tf.compat.v1.Session(graph=graph)
  run = session.make_callable(f'{_LABELS}:0', feed_list=[f'{_INPUT}:0'])
  return _task(_one_by_one(run), images_of(context.settings))


def saved_model(context):
  """The signature `labels`."""
  import tensorflow as tf

  saved = tf.saved_model.load(context.artifacts['model'])
  call = saved.signatures['labels']

  def predict(images, saved=saved):
    # The signature alone would not keep the variables of `saved`.
    del saved
    return call(**{_INPUT: tf.constant(images)})[_LABELS].numpy()

  return _task(predict, images_of(context.settings))


def onnx_runtime(context):
  """ONNX Runtime, told the size of the images as OpenVINO is."""
  import onnxruntime

  images = images_of(context.settings)
  options = onnxruntime.SessionOptions()
  if context.threads is not None:
    options.intra_op_num_threads = context.threads
  for name, side in zip(
    ('batch', 'height', 'width'), images.shape, strict=False
  ):
    options.add_free_dimension_override_by_name(name, side)
  session = onnxruntime.InferenceSession(
    context.artifacts['model'], options, providers=['CPUExecutionProvider']
  )
  return _task(lambda x: session.run([_LABELS], {_INPUT: x})[0], images)


def openvino(context):
  """OpenVINO; `precision` is f32 or bf16."""
  import openvino

  images = images_of(context.settings)
  core = openvino.Core()
  model = core.read_model(context.artifacts['model'])
  model.reshape(list(images.shape))
  config = {'INFERENCE_PRECISION_HINT': context.settings['precision']}
  if context.threads is not None:
    config['INFERENCE_NUM_THREADS'] = context.threads
  request = core.compile_model(model, 'CPU', config).create_infer_request()
  return _task(lambda x: request.infer({0: x})[0], images)


def litert(context):
  """LiteRT's interpreter with XNNPACK."""
  from ai_edge_litert import interpreter as litert_interpreter

  interpreter = litert_interpreter.Interpreter(
    context.artifacts['model'], num_threads=context.num_threads
  )
  runner = interpreter.get_signature_runner()
  return _task(
    _one_by_one(lambda image: runner(**{_INPUT: image})[_LABELS]),
    images_of(context.settings),
  )


# The same network by others.


def plain_peer(context):
  """One of the modules in `peers`, with the weights of the checkpoint."""
  peer, network = build_peer(context)
  path = os.path.join(context.artifacts['checkpoint'], 'weights.npz')
  with np.load(path) as values:
    peer.load(network, values)
  return _task(peer.predictor(network), images_of(context.settings))


def build_peer(context):
  """One of the modules in `peers`, and a network of it."""
  peer = importlib.import_module(context.settings['module'])
  limit_torch(context)
  sizes = ('name', 'size', 'output_stride', 'classes')
  return peer, peer.build(*(context.settings[key] for key in sizes))


def limit_torch(context):
  """For PyTorch, where it is there, which does not read the environment."""
  if context.threads is None:
    return
  with contextlib.suppress(ImportError):
    import torch

    torch.set_num_threads(context.threads)


# The nearest network of other libraries.


def keras_hub(context):
  """DeepLabV3Plus on ResNet-50 at output stride 16."""
  import keras
  import keras_hub
  import tensorflow as tf

  settings = context.settings
  side = settings['size']
  encoder = keras_hub.models.ResNetBackbone(
    input_conv_filters=[64],
    input_conv_kernel_sizes=[7],
    stackwise_num_filters=[64, 128, 256, 512],
    stackwise_num_blocks=[3, 4, 6, 3],
    stackwise_num_strides=[1, 2, 2, 1],
    block_type='bottleneck_block',
    image_shape=(side, side, 3),
  )
  backbone = keras_hub.models.DeepLabV3Backbone(
    image_encoder=encoder,
    low_level_feature_key='P2',
    spatial_pyramid_pooling_key='P5',
    upsampling_size=4,
    dilation_rates=[6, 12, 18],
    image_shape=(side, side, 3),
  )
  network = keras_hub.models.DeepLabV3ImageSegmenter(
    backbone, num_classes=settings['classes']
  )
  logits = keras.ops.image.resize(network.output, (side, side))
  labels = keras.Model(network.input, keras.ops.argmax(logits, axis=-1))

  @tf.function
  def predict(images):
    images = tf.cast(images, tf.float32) / 127.5 - 1.0
    return labels(images, training=False)

  return _task(
    lambda images: predict(images).numpy(), images_of(context.settings)
  )


def segmentation_models_pytorch(context):
  """DeepLabV3Plus at output stride 16."""
  import segmentation_models_pytorch as smp
  import torch

  limit_torch(context)
  network = smp.DeepLabV3Plus(
    encoder_name=context.settings['encoder'],
    encoder_weights=None,
    encoder_output_stride=16,
    classes=context.settings['classes'],
  )
  network = network.eval().to(memory_format=torch.channels_last)

  @torch.inference_mode()
  def predict(images):
    images = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return network(images / 127.5 - 1.0).argmax(1).numpy()

  return _task(predict, images_of(context.settings))

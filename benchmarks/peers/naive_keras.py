"""DeepLab out of Keras' own layers, trained by `fit`.

What one writes from the papers: `Conv2D(dilation_rate)`, `DepthwiseConv2D`,
`BatchNormalization`, a loss, `compile`, `fit`. Layers have the official names,
so that the weights of a checkpoint can be put in.
"""

import functools

import keras
import tensorflow as tf

from benchmarks.peers import networks


def build(name, crop_size, output_stride=16, num_classes=21):
  """Builds a network.

  Args:
    name: one of networks.NAMES.
    crop_size: side of the images, `output_stride * k + 1`.
    output_stride: 8 or 16.
    num_classes: number of classes.

  Returns:
    A keras.Model from float32 images [batch, side, side, 3] in 0..255 to
    logits of the same size.
  """
  return _Builder(name, output_stride).build(crop_size, num_classes)


def load(model, values):
  """Puts weights in.

  Args:
    model: of `build`.
    values: {official name: array}.
  """
  ends = {
    'kernel': 'weights',
    'bias': 'biases',
    'gamma': 'BatchNorm/gamma',
    'beta': 'BatchNorm/beta',
    'moving_mean': 'BatchNorm/moving_mean',
    'moving_variance': 'BatchNorm/moving_variance',
  }
  for layer in model.layers:
    scope = layer.name.removesuffix('.BatchNorm').replace('.', '/')
    for variable in layer.weights:
      end = ends[variable.name]
      if isinstance(layer, keras.layers.DepthwiseConv2D):
        end = 'depthwise_weights'
      variable.assign(values[f'{scope}/{end}'])


def predictor(model):
  """A function of uint8 images [batch, side, side, 3] that gives labels."""
  labels = keras.ops.argmax(model.output, axis=-1)
  return keras.Model(model.input, labels).predict_on_batch


def trainer(model, images, labels):
  """A training on one batch that is repeated.

  Args:
    model: of `build`.
    images: float32 [batch, side, side, 3] in 0..255.
    labels: int32 [batch, side, side], networks.IGNORE_LABEL for what does not
      count.

  Returns:
    A function of a number of steps that takes them and returns the last loss.
  """
  model.compile(
    keras.optimizers.SGD(networks.LEARNING_RATE, momentum=networks.MOMENTUM),
    keras.losses.SparseCategoricalCrossentropy(
      from_logits=True, ignore_class=networks.IGNORE_LABEL
    ),
  )
  batches = tf.data.Dataset.from_tensors((images, labels)).repeat()

  def train(num_steps):
    history = model.fit(batches, steps_per_epoch=num_steps, verbose=0)
    return history.history['loss'][-1]

  return train


class _Builder:
  """The layers of a network, in the order that they are called."""

  def __init__(self, name, output_stride):
    self._name = name
    self._output_stride = output_stride
    self._batch_norm = networks.BATCH_NORM[name]
    self._activation = 'relu6' if name == 'mobilenet_v2' else 'relu'
    self._skip = None

  def build(self, crop_size, num_classes):
    images = keras.Input((crop_size, crop_size, 3))
    net = keras.layers.Rescaling(2.0 / 255.0, -1.0)(images)
    backbone = {
      'mobilenet_v2': self._mobilenet_v2,
      'resnet_v1_50_beta': self._resnet_50,
      'xception_65': self._xception_65,
    }[self._name]
    net = backbone(net)
    self._batch_norm = networks.HEAD_BATCH_NORM
    self._activation = 'relu'
    net = self._head(net)
    if self._skip is not None:
      net = self._decoder(net)
    net = keras.layers.Conv2D(
      num_classes, 1, kernel_regularizer=_decay(), name='logits.semantic'
    )(net)
    return keras.Model(images, _resize(net, images.shape[1]))

  def _conv(self, net, filters, size=1, stride=1, rate=1, act=True, name=None):
    """Convolution, batch norm and activation."""
    net = keras.layers.Conv2D(
      filters,
      size,
      stride,
      padding='same',
      dilation_rate=rate,
      use_bias=False,
      kernel_regularizer=_decay(),
      name=name.replace('/', '.'),
    )(net)
    return self._normalize(net, act, name)

  def _depthwise(self, net, stride=1, rate=1, act=True, name=None):
    net = keras.layers.DepthwiseConv2D(
      3,
      stride,
      padding='same',
      dilation_rate=rate,
      use_bias=False,
      name=name.replace('/', '.'),
    )(net)
    return self._normalize(net, act, name)

  def _normalize(self, net, act, name):
    decay, epsilon = self._batch_norm
    net = keras.layers.BatchNormalization(
      momentum=decay,
      epsilon=epsilon,
      name=f'{name}/BatchNorm'.replace('/', '.'),
    )(net)
    return keras.layers.Activation(self._activation)(net) if act else net

  def _mobilenet_v2(self, net):
    net = self._conv(net, 32, 3, stride=2, name='MobilenetV2/Conv')
    for unit in networks.units(self._name, self._output_stride):
      inputs, depth = net, net.shape[-1]
      if unit.kind > 1:
        net = self._conv(net, depth * unit.kind, name=f'{unit.name}/expand')
      net = self._depthwise(
        net, unit.stride, unit.rate, name=f'{unit.name}/depthwise'
      )
      net = self._conv(
        net, unit.filters, act=False, name=f'{unit.name}/project'
      )
      if unit.stride == 1 and depth == unit.filters:
        net = keras.layers.Add()([net, inputs])
    return net

  def _resnet_50(self, net):
    for i, filters in enumerate((64, 64, 128), 1):
      stride = 2 if i == 1 else 1
      net = self._conv(net, filters, 3, stride, name=f'resnet_v1_50/conv1_{i}')
    net = keras.layers.MaxPooling2D(3, 2, padding='same')(net)
    for unit in networks.units(self._name, self._output_stride):
      conv = functools.partial(self._conv, act=False)
      shortcut = net
      if net.shape[-1] != unit.filters:
        name = f'{unit.name}/shortcut'
        shortcut = conv(net, unit.filters, stride=unit.stride, name=name)
      elif unit.stride > 1:
        shortcut = keras.layers.MaxPooling2D(1, unit.stride)(net)
      net = self._conv(net, unit.kind, name=f'{unit.name}/conv1')
      net = self._conv(
        net, unit.kind, 3, unit.stride, unit.rate, name=f'{unit.name}/conv2'
      )
      net = conv(net, unit.filters, name=f'{unit.name}/conv3')
      self._note(f'{unit.name}/conv3', net)
      net = keras.layers.Add()([shortcut, net])
      net = keras.layers.Activation('relu')(net)
    return net

  def _xception_65(self, net):
    scope = 'xception_65/entry_flow'
    net = self._conv(net, 32, 3, stride=2, name=f'{scope}/conv1_1')
    net = self._conv(net, 64, 3, name=f'{scope}/conv1_2')
    for unit in networks.units(self._name, self._output_stride):
      inputs, inside = net, unit.kind == 'none'
      for i, filters in enumerate(unit.filters, 1):
        if not inside:
          net = keras.layers.Activation('relu')(net)
        net = self._separable(
          net,
          filters,
          unit.stride if i == 3 else 1,
          unit.rate,
          inside,
          f'{unit.name}/separable_conv{i}',
        )
      if unit.kind == 'conv':
        inputs = self._conv(
          inputs,
          unit.filters[-1],
          stride=unit.stride,
          act=False,
          name=f'{unit.name}/shortcut',
        )
      if not inside:
        net = keras.layers.Add()([net, inputs])
    return net

  def _separable(self, net, filters, stride=1, rate=1, act=True, name=None):
    net = self._depthwise(net, stride, rate, act, f'{name}_depthwise')
    net = self._conv(net, filters, act=act, name=f'{name}_pointwise')
    self._note(f'{name}_pointwise', net)
    return net

  def _note(self, name, net):
    if networks.SKIP_LAYERS.get(self._name) == name:
      self._skip = net

  def _head(self, net):
    side, filters = net.shape[1], networks.ASPP_FILTERS
    pooled = keras.layers.GlobalAveragePooling2D(keepdims=True)(net)
    pooled = self._conv(pooled, filters, name='image_pooling')
    branches = [_resize(pooled, side), self._conv(net, filters, name='aspp0')]
    if self._skip is not None:
      rates = networks.atrous_rates(self._output_stride)
      branches += [
        self._separable(net, filters, rate=rate, name=f'aspp{i}')
        for i, rate in enumerate(rates, 1)
      ]
    net = keras.layers.Concatenate()(branches)
    net = self._conv(net, filters, name='concat_projection')
    return keras.layers.Dropout(networks.DROPOUT)(net)

  def _decoder(self, net):
    skip = self._conv(
      self._skip,
      networks.DECODER_PROJECTION,
      name='decoder/feature_projection0',
    )
    net = keras.layers.Concatenate()([_resize(net, skip.shape[1]), skip])
    for i in range(2):
      net = self._separable(
        net, networks.ASPP_FILTERS, name=f'decoder/decoder_conv{i}'
      )
    return net


def _decay():
  return keras.regularizers.L2(networks.WEIGHT_DECAY / 2)


def _resize(net, side):
  return keras.layers.Lambda(
    lambda x: tf.compat.v1.image.resize(x, [side, side], align_corners=True),
    output_shape=(side, side, net.shape[-1]),
  )(net)

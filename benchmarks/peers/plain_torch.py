"""DeepLab in plain PyTorch: modules, `F.cross_entropy`, `torch.optim.SGD`."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.peers import networks


def build(name, crop_size, output_stride=16, num_classes=21):
  """Builds a network.

  Args:
    name: one of networks.NAMES.
    crop_size: side of the images; unused, modules take any.
    output_stride: 8 or 16.
    num_classes: number of classes.

  Returns:
    A torch.nn.Module from float32 images [batch, 3, side, side] in 0..255 to
    logits of the same size.
  """
  del crop_size
  network = DeepLab(name, output_stride, num_classes)
  # The faster layout on CPUs.
  return network.to(memory_format=torch.channels_last)


def load(network, values):
  """Puts weights in.

  Args:
    network: of `build`.
    values: {official name: array}.
  """
  for module in network.modules():
    if isinstance(module, Conv):
      kernel = values[module.kernel_name]
      axes = (2, 3, 0, 1) if module.is_depthwise else (3, 2, 0, 1)
      pairs = [(module.conv.weight, np.transpose(kernel, axes))]
      pairs += [
        (tensor, values[f'{module.name}/BatchNorm/{end}'])
        for tensor, end in (
          (module.norm.weight, 'gamma'),
          (module.norm.bias, 'beta'),
          (module.norm.running_mean, 'moving_mean'),
          (module.norm.running_var, 'moving_variance'),
        )
      ]
      _copy(pairs)
  scope = 'logits/semantic'
  _copy(
    [
      (
        network.logits.weight,
        np.transpose(values[f'{scope}/weights'], (3, 2, 0, 1)),
      ),
      (network.logits.bias, values[f'{scope}/biases']),
    ]
  )


def _copy(pairs):
  with torch.no_grad():
    for tensor, value in pairs:
      tensor.copy_(torch.tensor(np.ascontiguousarray(value)))


def predictor(network):
  """A function of uint8 images [batch, side, side, 3] that gives labels."""
  network.eval()

  @torch.inference_mode()
  def predict(images):
    return network(_channels_last(images)).argmax(1).numpy()

  return predict


def trainer(network, images, labels):
  """A training on one batch that is repeated.

  Args:
    network: of `build`.
    images: float32 [batch, side, side, 3] in 0..255.
    labels: int32 [batch, side, side], networks.IGNORE_LABEL for what does not
      count.

  Returns:
    A function of a number of steps that takes them and returns the last loss.
  """
  network.train()
  kernels = [
    module.weight
    for module in network.modules()
    if isinstance(module, nn.Conv2d) and module.groups == 1
  ]
  decayed = {id(kernel) for kernel in kernels}
  others = [p for p in network.parameters() if id(p) not in decayed]
  optimizer = torch.optim.SGD(
    [
      {'params': kernels, 'weight_decay': networks.WEIGHT_DECAY},
      {'params': others},
    ],
    lr=networks.LEARNING_RATE,
    momentum=networks.MOMENTUM,
  )
  inputs = _channels_last(images)
  targets = torch.from_numpy(labels).long()

  def train(num_steps):
    for _ in range(num_steps):
      optimizer.zero_grad(set_to_none=True)
      loss = F.cross_entropy(
        network(inputs), targets, ignore_index=networks.IGNORE_LABEL
      )
      loss.backward()
      optimizer.step()
    return loss.item()

  return train


def _channels_last(images):
  """[batch, side, side, 3] as [batch, 3, side, side], in the same memory."""
  return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def _resize(net, size):
  return F.interpolate(net, size=size, mode='bilinear', align_corners=True)


class Conv(nn.Module):
  """Convolution, batch norm and activation.

  Attributes:
    name: official scope.
    kernel_name: official name of the kernel.
    is_depthwise: whether each channel has its own kernel.
  """

  def __init__(
    self,
    settings,
    name,
    inputs,
    filters=None,
    size=1,
    stride=1,
    rate=1,
    act=True,
  ):
    """Makes the layers.

    Args:
      settings: ((decay, epsilon) of batch norm, class of the activation).
      name: official scope.
      inputs: number of channels.
      filters: number of channels of the output, None for a depthwise
        convolution.
      size: of the kernel.
      stride: integer.
      rate: atrous rate.
      act: whether there is an activation.
    """
    super().__init__()
    (decay, epsilon), activation = settings
    self.name = name
    self.is_depthwise = filters is None
    ending = 'depthwise_weights' if self.is_depthwise else 'weights'
    self.kernel_name = f'{name}/{ending}'
    filters = filters or inputs
    self.conv = nn.Conv2d(
      inputs,
      filters,
      size,
      stride,
      padding=rate * (size // 2),
      dilation=rate,
      groups=inputs if self.is_depthwise else 1,
      bias=False,
    )
    self.norm = nn.BatchNorm2d(filters, eps=epsilon, momentum=1 - decay)
    self.act = activation(inplace=True) if act else nn.Identity()

  def forward(self, net):
    return self.act(self.norm(self.conv(net)))


def separable(settings, name, inputs, filters, stride=1, rate=1, act=True):
  """Depthwise and pointwise convolution."""
  return nn.Sequential(
    Conv(settings, f'{name}_depthwise', inputs, None, 3, stride, rate, act),
    Conv(settings, f'{name}_pointwise', inputs, filters, act=act),
  )


class InvertedResidual(nn.Module):
  """The block of MobileNet v2."""

  def __init__(self, settings, unit, inputs):
    super().__init__()
    self.adds = unit.stride == 1 and inputs == unit.filters
    inner = inputs * unit.kind
    layers = []
    if unit.kind > 1:
      layers.append(Conv(settings, f'{unit.name}/expand', inputs, inner))
    name = f'{unit.name}/depthwise'
    self.layers = nn.Sequential(
      *layers,
      Conv(settings, name, inner, None, 3, unit.stride, unit.rate),
      Conv(settings, f'{unit.name}/project', inner, unit.filters, act=False),
    )
    self.outputs = unit.filters

  def forward(self, net):
    return net + self.layers(net) if self.adds else self.layers(net)


class Bottleneck(nn.Module):
  """The block of ResNet; returns the branch before the addition as well."""

  def __init__(self, settings, unit, inputs):
    super().__init__()
    name, inner, outputs = unit.name, unit.kind, unit.filters
    self.shortcut = nn.Identity()
    if inputs != outputs:
      scope = f'{name}/shortcut'
      self.shortcut = Conv(
        settings, scope, inputs, outputs, stride=unit.stride, act=False
      )
    elif unit.stride > 1:
      self.shortcut = nn.MaxPool2d(1, unit.stride)
    self.layers = nn.Sequential(
      Conv(settings, f'{name}/conv1', inputs, inner),
      Conv(settings, f'{name}/conv2', inner, inner, 3, unit.stride, unit.rate),
      Conv(settings, f'{name}/conv3', inner, outputs, act=False),
    )
    self.outputs = outputs
    self.gives_skip = f'{name}/conv3' == networks.SKIP_LAYERS.get(
      'resnet_v1_50_beta'
    )

  def forward(self, net):
    branch = self.layers(net)
    net = F.relu(branch + self.shortcut(net))
    return (net, branch) if self.gives_skip else net


class XceptionModule(nn.Module):
  """The block of Xception; returns the decoder's features as well."""

  def __init__(self, settings, unit, inputs):
    super().__init__()
    self.kind, self.outputs = unit.kind, unit.filters[-1]
    inside = self.kind == 'none'
    self.layers, channels = nn.ModuleList(), inputs
    for i, filters in enumerate(unit.filters, 1):
      scope, stride = f'{unit.name}/separable_conv{i}', 1 if i < 3 else None
      stride = stride or unit.stride
      self.layers.append(
        separable(settings, scope, channels, filters, stride, unit.rate, inside)
      )
      channels = filters
    self.shortcut = nn.Identity()
    if self.kind == 'conv':
      scope = f'{unit.name}/shortcut'
      self.shortcut = Conv(
        settings, scope, inputs, channels, stride=unit.stride, act=False
      )
    self.gives_skip = networks.SKIP_LAYERS['xception_65'].startswith(unit.name)

  def forward(self, inputs):
    net = inputs
    for i, layer in enumerate(self.layers):
      net = layer(net if self.kind == 'none' else F.relu(net))
      if i == 1:
        skip = net
    if self.kind != 'none':
      net = net + self.shortcut(inputs)
    return (net, skip) if self.gives_skip else net


_BLOCKS = {
  'mobilenet_v2': InvertedResidual,
  'resnet_v1_50_beta': Bottleneck,
  'xception_65': XceptionModule,
}


class DeepLab(nn.Module):
  """Backbone, ASPP with the image-level feature, decoder, logits."""

  def __init__(self, name, output_stride, num_classes):
    super().__init__()
    activation = nn.ReLU6 if name == 'mobilenet_v2' else nn.ReLU
    settings = (networks.BATCH_NORM[name], activation)
    self.stem, channels = _stem(name, settings)
    self.blocks = nn.ModuleList()
    for unit in networks.units(name, output_stride):
      block = _BLOCKS[name](settings, unit, channels)
      channels = block.outputs
      self.blocks.append(block)
    settings = (networks.HEAD_BATCH_NORM, nn.ReLU)
    filters = networks.ASPP_FILTERS
    self.pooling = Conv(settings, 'image_pooling', channels, filters)
    self.branches = nn.ModuleList([Conv(settings, 'aspp0', channels, filters)])
    self.has_decoder = name in networks.SKIP_LAYERS
    if self.has_decoder:
      for i, rate in enumerate(networks.atrous_rates(output_stride), 1):
        self.branches.append(
          separable(settings, f'aspp{i}', channels, filters, rate=rate)
        )
      self.skip = Conv(
        settings,
        'decoder/feature_projection0',
        networks.SKIP_CHANNELS,
        networks.DECODER_PROJECTION,
      )
      inputs = filters + networks.DECODER_PROJECTION
      self.decoder = nn.Sequential(
        separable(settings, 'decoder/decoder_conv0', inputs, filters),
        separable(settings, 'decoder/decoder_conv1', filters, filters),
      )
    inputs = filters * (len(self.branches) + 1)
    self.projection = Conv(settings, 'concat_projection', inputs, filters)
    self.dropout = nn.Dropout(networks.DROPOUT)
    self.logits = nn.Conv2d(filters, num_classes, 1)

  def forward(self, images):
    net, skip = self.stem(images * (2.0 / 255.0) - 1.0), None
    for block in self.blocks:
      net = block(net)
      if isinstance(net, tuple):
        net, skip = net
    pooled = self.pooling(net.mean((2, 3), keepdim=True))
    branches = [_resize(pooled, net.shape[2:])]
    branches += [branch(net) for branch in self.branches]
    net = self.dropout(self.projection(torch.cat(branches, 1)))
    if self.has_decoder:
      skip = self.skip(skip)
      net = torch.cat([_resize(net, skip.shape[2:]), skip], 1)
      net = self.decoder(net)
    return _resize(self.logits(net), images.shape[2:])


def _stem(name, settings):
  """The first layers, and the number of their channels."""
  if name == 'mobilenet_v2':
    return Conv(settings, 'MobilenetV2/Conv', 3, 32, 3, stride=2), 32
  if name == 'xception_65':
    scope = 'xception_65/entry_flow'
    return nn.Sequential(
      Conv(settings, f'{scope}/conv1_1', 3, 32, 3, stride=2),
      Conv(settings, f'{scope}/conv1_2', 32, 64, 3),
    ), 64
  scope = 'resnet_v1_50'
  return nn.Sequential(
    Conv(settings, f'{scope}/conv1_1', 3, 64, 3, stride=2),
    Conv(settings, f'{scope}/conv1_2', 64, 64, 3),
    Conv(settings, f'{scope}/conv1_3', 64, 128, 3),
    nn.MaxPool2d(3, 2, 1),
  ), 128

"""The parts that a network is divided into to be rematerialised."""

import pytest
from rematerialized import build

from deeplab import graph, rematerialization


@pytest.mark.parametrize('way', rematerialization.WAYS[1:])
@pytest.mark.parametrize('case', ['mobilenet_v2', 'image_pyramid', 'pnasnet'])
def test_segments_are_the_graph(case, way):
  """Every node once, and after what it takes."""
  network, _ = build(case)
  segments = rematerialization.split(network, way)
  nodes = [node for segment in segments for node in segment.nodes]
  wanted = [
    node for node in graph.nodes_in_order(network.outputs) if not node.is_input
  ]
  assert len(nodes) == len(wanted)
  assert {id(node) for node in nodes} == {id(node) for node in wanted}
  made = {id(network.inputs[0])}
  for segment in segments:
    assert {id(x) for x in segment.inputs} <= made
    known = {id(x) for x in segment.inputs}
    for node in segment.nodes:
      assert {id(x) for x in node.input_tensors} <= known
      known |= {id(x) for x in node.outputs}
    made |= {id(x) for x in segment.outputs}
  assert {id(x) for x in network.outputs} <= made


def test_a_unit_keeps_its_output():
  """Not the two summands, nor what a ReLU made for the next unit."""
  counts = {}
  for case in ('vgg_16', 'resnet_v1_50_beta', 'xception', 'pnasnet'):
    network, _ = build(case, decoder_output_stride=None)
    segments = rematerialization.split(network, 'blocks')
    # The first has the preprocessing of the images.
    counts[case] = [len(segment.outputs) for segment in segments[:-1]]
  assert counts['vgg_16'] == [1] * 7
  assert counts['resnet_v1_50_beta'] == [1] * 18
  assert counts['xception'] == [1] * 15
  # Each cell takes the two before it.
  assert counts['pnasnet'] == [2] * 12 + [1, 1]


def test_what_runs_once_is_last():
  network, _ = build('mobilenet_v2')
  last = rematerialization.split(network, 'blocks')[-1]
  names = [node.operation.name for node in last.nodes]
  assert names == ['logits.semantic']


def _kinds_run_twice(case, way='activations'):
  """{name of the last operation of a segment: kinds of them all}."""
  network, _ = build(case)
  return {
    segment.nodes[-1].operation.name: [*map(graph.kind, segment.nodes)]
    for segment in rematerialization.split(network, way)
    if segment.is_run_twice
  }


def test_activations_are_before_a_convolution():
  twice = _kinds_run_twice('resnet_v1_50_beta')
  unit = 'resnet_v1_50.block1.unit_2.bottleneck_v1.'
  assert twice[unit + 'conv2'] == ['BatchNorm', 'Relu', 'Conv2D']
  assert twice['decoder.decoder_conv0_depthwise'][-2:] == [
    'Concatenate',
    'SeparableConv2D',
  ]
  assert sum(kinds[-1] == 'MaxPool' for kinds in twice.values()) == 1


def test_every_other_sum_is_before_the_convolutions_that_take_it():
  twice = _kinds_run_twice('resnet_v1_50_beta', 'free_activations')
  sums = {name: kinds for name, kinds in twice.items() if 'Add' in kinds}
  block = 'resnet_v1_50.block3.unit_{}.bottleneck_v1.conv1'
  both = ['BatchNorm', 'BatchNorm', 'Add', 'Relu', 'Conv2D']
  one = ['BatchNorm', 'Add', 'Relu', 'Conv2D']
  found = [sums.get(block.format(unit)) for unit in range(2, 7)]
  # Of the first unit the shortcut is a convolution, too.
  assert found == [both, None, one, None, one]


def test_a_sum_that_more_is_made_of_is_kept():
  """The last one, which the pooling of the image takes, too."""
  network, _ = build('resnet_v1_50_beta')
  names = [
    node.operation.name
    for segment in rematerialization.split(network, 'activations')
    if segment.is_run_twice
    for node in segment.nodes
  ]
  norm = 'resnet_v1_50.block4.unit_{}.bottleneck_v1.conv3.BatchNorm'
  assert norm.format(1) in names
  assert norm.format(3) not in names


@pytest.mark.parametrize('way', ['activations', 'free_activations'])
@pytest.mark.parametrize(
  'case', ['resnet_v1_50_beta', 'mobilenet_v3', 'xception', 'pnasnet']
)
def test_what_is_costly_runs_once(case, way):
  """For the gradient of it nobody needs what it makes."""
  costly = {'Conv2D', 'SeparableConv2D', 'MaxPool', 'AveragePool', 'Mean'}
  network, _ = build(case)
  for segment in rematerialization.split(network, way):
    if not segment.is_run_twice:
      continue
    taken = {id(x) for node in segment.nodes for x in node.input_tensors}
    for node in segment.nodes:
      if graph.kind(node) in costly:
        assert not {id(x) for x in node.outputs} & taken
    assert graph.kind(segment.nodes[-1]) in {
      'Conv2D',
      'SeparableConv2D',
      'MaxPool',
    }


def test_what_quantised_convolutions_make_inside_is_kept():
  assert not _kinds_run_twice('quantized')


def test_free_is_what_is_before_a_large_convolution():
  names = []
  for way in ('activations', 'free_activations'):
    twice = _kinds_run_twice('resnet_v1_50_beta', way)
    names.append({x for x in twice if not x.startswith('max_pool')})
    assert len(twice) == len(names[-1]) + 1
  everything, free = names
  assert free < everything
  assert everything - free == {
    # Nine multiply-adds for each value, and four classes.
    'decoder.decoder_conv0_depthwise',
    'decoder.decoder_conv1_depthwise',
    'logits.semantic',
  }

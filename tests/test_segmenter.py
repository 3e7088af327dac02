"""The function from photographs to labels, as a user calls it."""

import numpy as np
import pytest
import small_checkpoint

from deeplab import checkpoints, segmenter, stored_info
from deeplab.common import InputError
from deeplab.core import dense_crf
from deeplab.datasets import dataset_info
from deeplab.evaluation import photos

_FLIPS = {'eval_scales': [0.75, 1.0], 'add_flipped_images': True}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """The folder of a checkpoint with all that a training writes."""
  folder = tmp_path_factory.mktemp('train')
  small_checkpoint.write(folder, atrous_rates=[2, 4])
  return str(folder)


@pytest.fixture(scope='module')
def segment(folder):
  return segmenter.Segmenter(folder)


def _image(height=60, width=50):
  noise = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
  return noise.repeat(height // 6, axis=0).repeat(width // 5, axis=1)


def test_three_lines(segment):
  labels = segment(_image())
  assert labels.shape == (60, 50) and np.issubdtype(labels.dtype, np.integer)
  assert segment.info == small_checkpoint.INFO and segment.step == 7
  probabilities = segment.probabilities(_image())
  assert probabilities.shape == (60, 50, 3)
  np.testing.assert_array_equal(labels, probabilities.argmax(-1))


@pytest.mark.parametrize(
  'changes', [_FLIPS, {'output_stride': 8}, {'crf': dense_crf.Parameters()}]
)
def test_changes_of_a_call_are_those_of_the_constructor(
  folder, segment, changes
):
  plain = segment.probabilities(_image())
  changed = segment.probabilities(_image(), **changes)
  assert np.abs(plain - changed).max() > 0.01
  np.testing.assert_allclose(
    segmenter.Segmenter(folder, **changes).probabilities(_image()),
    changed,
    atol=1e-6,
  )
  # And are forgotten after it.
  np.testing.assert_array_equal(segment.probabilities(_image()), plain)


def test_settings_share_the_weights(segment):
  segment(_image(), **_FLIPS)
  variables = [
    checkpoints.named_variables(predictor._first._model)
    for setting, predictor in segment._predictors.items()
    if setting.output_stride == 16
  ]
  assert len(variables) == 2
  for name, variable in variables[0].items():
    assert variables[1][name] is variable


def test_rates_grow_with_the_resolution(segment):
  segment(_image(), output_stride=8)
  rates = {
    setting.output_stride: predictor._options.atrous_rates
    for setting, predictor in segment._predictors.items()
  }
  assert rates == {16: [2, 4], 8: [4, 8]}
  with pytest.raises(InputError, match='makes the atrous rates'):
    segment(_image(), output_stride=64)


def test_a_checkpoint_that_nobody_described(tmp_path):
  """Its variables tell the network, their number the classes."""
  small_checkpoint.write(
    tmp_path, described=False, num_classes=21, depth_multiplier=0.5
  )
  segment = segmenter.Segmenter(str(tmp_path))
  assert segment.info == dataset_info.BUILTIN['pascal_voc_seg']
  assert segment(_image()).max() < 21


def test_guessed_classes_are_said_to_be(tmp_path, caplog):
  small_checkpoint.write(
    tmp_path, described=False, num_classes=19, depth_multiplier=0.5
  )
  assert stored_info.find(str(tmp_path)).name == 'cityscapes'
  assert 'what its 19 classes are; names and colours of cityscapes' in (
    caplog.text
  )
  caplog.clear()
  stored_info.find(str(tmp_path), 'cityscapes')
  assert not caplog.text


def test_a_name_beside_a_folder_called_so(folder, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'cityscapes').mkdir()
  info = stored_info.find(folder, 'cityscapes')
  assert info == dataset_info.BUILTIN['cityscapes']
  dataset_info.DatasetInfo('own', 5).save('mine')
  assert stored_info.find(folder, 'mine').name == 'own'
  dataset_info.DatasetInfo('own', 5).save('cityscapes')
  assert stored_info.find(folder, './cityscapes').name == 'own'


def test_an_image_pyramid(folder, segment):
  pyramid = segmenter.Segmenter(folder, image_pyramid=[0.75, 1.0])
  found = pyramid.probabilities(_image())
  assert np.abs(found - segment.probabilities(_image())).max() > 0.01
  with pytest.raises(InputError, match='--image_pyramid cannot be combined'):
    pyramid(_image(), eval_scales=[0.5, 1])


def test_classes_without_names(tmp_path):
  small_checkpoint.write(
    tmp_path, described=False, num_classes=5, depth_multiplier=0.5
  )
  info = segmenter.Segmenter(str(tmp_path)).info
  assert info.class_names[4] == 'class_4' and info.num_classes == 5
  data = tmp_path / 'data'
  dataset_info.DatasetInfo('own', 5, class_names='abcde').save(str(data))
  for place in (data, data / 'dataset_info.json'):
    named = segmenter.Segmenter(str(tmp_path), dataset=str(place))
    assert named.info.name == 'own'


def test_a_data_set_with_other_classes(folder):
  with pytest.raises(InputError, match=r"3 classes, .*'pascal_voc_seg' 21"):
    segmenter.Segmenter(folder, dataset='pascal_voc_seg')
  with pytest.raises(InputError, match='unknown data set --dataset=nothing'):
    segmenter.Segmenter(folder, dataset='nothing')


def test_no_checkpoint(tmp_path):
  with pytest.raises(InputError, match=r'no checkpoint|holds no'):
    segmenter.Segmenter(str(tmp_path))


def test_a_checkpoint_of_a_backbone(folder, tmp_path):
  variables = {
    name: values()
    for name, (_, values) in checkpoints.read(checkpoints.find(folder)).items()
    if name.startswith('MobilenetV2/')
  }
  checkpoints.save(str(tmp_path), 3, variables)
  with pytest.raises(InputError, match='are of no whole network'):
    segmenter.Segmenter(str(tmp_path))


@pytest.mark.parametrize(
  'image',
  [
    np.zeros((5, 5), np.uint8),
    np.zeros((5, 5, 4), np.uint8),
    np.zeros((5, 5, 3)),
    np.zeros((0, 5, 3), np.uint8),
  ],
)
def test_what_is_no_image(segment, image):
  with pytest.raises(InputError, match='image'):
    segment(image)


@pytest.mark.slow
def test_a_real_photograph(published_checkpoint, real_data):
  """Two aeroplanes; seen as well in tiles and at several scales."""
  path = real_data('VOCdevkit/VOC2012') / 'JPEGImages' / '2007_000032.jpg'
  image = photos.read_rgb(str(path))
  segment = segmenter.Segmenter(
    str(published_checkpoint('deeplabv3_mnv2_pascal_trainval'))
  )
  labels = segment(image)
  names = {segment.info.class_names[label] for label in np.unique(labels)}
  assert names == {'background', 'aeroplane'}
  several = segment(image, eval_scales=[0.75, 1.25], add_flipped_images=True)
  assert (several == labels).mean() > 0.99
  # At twice the size, in tiles: still the same aeroplanes.
  large = image.repeat(3, axis=0).repeat(3, axis=1)
  tiled = segment(large)[1::3, 1::3]
  assert (tiled == labels).mean() > 0.97

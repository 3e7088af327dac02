"""Official checkpoints: reading, writing, and what goes wrong with them."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import recipe
from deeplab import (
  checkpoints,
  common,
  inference,
  model,
  stored_options,
)
from deeplab.common import InputError


def _options(**changes):
  return common.ModelOptions(
    **{
      'outputs_to_num_classes': {'semantic': 5},
      'crop_size': [33, 33],
      'output_stride': 16,
      'depth_multiplier': 0.1,
      'divisible_by': 1,
      'aspp_convs_filters': 8,
      **changes,
    }
  )


@pytest.fixture(scope='module')
def network():
  """A small network with the recipe's weights."""
  network = model.build_model(_options())
  recipe.assign(checkpoints.named_variables(network))
  return network


@pytest.fixture
def saved(network, tmp_path):
  """A checkpoint of it, at step 7."""
  return checkpoints.save(
    str(tmp_path), 7, checkpoints.named_variables(network)
  )


def test_round_trip(network, saved):
  predictor = inference.build_predictor(_options())
  report = checkpoints.restore(predictor, saved)
  names = checkpoints.named_variables(network)
  assert report.restored == list(names)
  assert not report.initialized and not report.left_over
  for name, variable in checkpoints.named_variables(predictor).items():
    np.testing.assert_array_equal(variable.numpy(), names[name].numpy())


def test_tensorflow_reads_it(saved, tmp_path):
  assert tf.train.latest_checkpoint(str(tmp_path)) == saved
  assert os.path.basename(saved) == 'model.ckpt-7'
  stored = dict(tf.train.list_variables(saved))
  assert stored['MobilenetV2/Conv/weights'] == [3, 3, 3, 3]
  assert tf.train.load_variable(saved, 'global_step') == 7
  assert checkpoints.global_step(saved) == 7
  found = next(tf.train.checkpoints_iterator(str(tmp_path), timeout=0))
  assert found == saved


@pytest.mark.parametrize('suffix', ['', '.index', '.data-00000-of-00001'])
def test_directory_prefix_and_files_are_found(saved, tmp_path, suffix):
  assert checkpoints.find(saved + suffix) == saved
  assert checkpoints.find(tmp_path) == saved


def test_a_directory_without_a_state_file(saved, tmp_path):
  (tmp_path / 'checkpoint').unlink()
  assert checkpoints.find(tmp_path) == saved


def test_keeps_the_newest(network, tmp_path):
  values = checkpoints.named_variables(network)
  for step in range(5):
    checkpoints.save(str(tmp_path), step, values, keep_max=2)
  kept = sorted(path.name for path in tmp_path.glob('*.index'))
  assert kept == ['model.ckpt-3.index', 'model.ckpt-4.index']
  state = tf.train.get_checkpoint_state(str(tmp_path))
  assert len(state.all_model_checkpoint_paths) == 2
  assert not list(tmp_path.glob('.tmp*'))


def test_nothing_there(tmp_path):
  with pytest.raises(InputError, match='no checkpoint in this directory'):
    checkpoints.find(tmp_path)
  with pytest.raises(InputError, match='no such checkpoint'):
    checkpoints.find(tmp_path / 'model.ckpt-3')


def test_another_number_of_classes_names_the_cure(saved):
  other = model.build_model(_options(outputs_to_num_classes={'semantic': 9}))
  before = [v.numpy() for v in other.variables]
  with pytest.raises(InputError, match='--initialize_last_layer=false'):
    checkpoints.restore(other, saved)
  for variable, value in zip(other.variables, before, strict=True):
    np.testing.assert_array_equal(variable.numpy(), value)
  report = checkpoints.restore(other, saved, exclude=['logits'])
  assert sorted(report.initialized) == [
    'logits/semantic/biases',
    'logits/semantic/weights',
  ]
  assert '2 newly initialised' in str(report)


def test_another_model(saved):
  other = model.build_model(
    _options(model_variant='resnet_v1_18', aspp_with_batch_norm=False)
  )
  with pytest.raises(
    InputError, match=r'no variable of resnet_v1_18\..*MobilenetV2'
  ):
    checkpoints.restore(other, saved)
  backbone = {
    name: variable
    for name, variable in checkpoints.named_variables(other).items()
    if name.startswith('resnet')
  }
  with pytest.raises(InputError, match='no variable of resnet_v1_18'):
    checkpoints.restore(backbone, saved)


def test_a_head_alone_is_not_enough(saved):
  """Its shapes fit, but the backbone would silently start from scratch."""
  other = model.build_model(_options(model_variant='xception_41'))
  head = {
    name: variable
    for name, variable in checkpoints.named_variables(other).items()
    if name.startswith(('xception_41', 'logits'))
  }
  with pytest.raises(InputError, match='no variable of xception_41'):
    checkpoints.restore(head, saved, allow_missing=True)


def test_a_damaged_state_file(network, saved, tmp_path):
  (tmp_path / 'checkpoint').write_bytes(b'\xff\xfe\x00')
  assert checkpoints.latest(str(tmp_path)) == saved
  newer = checkpoints.save(
    str(tmp_path), 8, checkpoints.named_variables(network)
  )
  assert checkpoints.latest(str(tmp_path)) == newer


def test_missing_variables(saved):
  other = model.build_model(_options(atrous_rates=[2]))
  with pytest.raises(InputError, match='aspp1_depthwise'):
    checkpoints.restore(other, saved, exclude=['concat_projection'])
  report = checkpoints.restore(
    other, saved, exclude=['concat_projection'], allow_missing=True
  )
  assert 'aspp1_depthwise/depthwise_weights' in report.initialized


def test_slots_are_not_left_over_and_other_things_are(network, tmp_path):
  values = dict(checkpoints.named_variables(network))
  values['MobilenetV2/Conv/weights/Momentum'] = np.zeros([3, 3, 3, 3])
  values['elsewhere/weights'] = np.zeros([1])
  prefix = checkpoints.save(str(tmp_path), 1, values)
  report = checkpoints.restore(network, prefix)
  assert report.left_over == ['elsewhere/weights']


def test_damaged_files(saved):
  data = pathlib.Path(f'{saved}.data-00000-of-00001')
  content = data.read_bytes()
  data.write_bytes(content[: len(content) // 2])
  fresh = model.build_model(_options())
  with pytest.raises(InputError, match=r'damaged|cannot be read'):
    checkpoints.restore(fresh, saved)
  pathlib.Path(f'{saved}.index').write_bytes(b'nothing')
  with pytest.raises(InputError, match='cannot be read'):
    checkpoints.restore(fresh, saved)


def test_a_failed_save_leaves_the_older_one(network, saved, tmp_path):
  # A directory where a file should go makes the rename fail, for root too.
  (tmp_path / 'model.ckpt-8.index').mkdir()
  (tmp_path / 'model.ckpt-8.index' / 'in_the_way').touch()
  with pytest.raises(InputError, match='Earlier checkpoints are intact'):
    checkpoints.save(str(tmp_path), 8, checkpoints.named_variables(network))
  assert not list(tmp_path.glob('.tmp*'))
  assert tf.train.latest_checkpoint(str(tmp_path)) == saved
  checkpoints.restore(network, saved)


def test_a_full_disk_leaves_the_older_one(network, saved, tmp_path):
  full = '/dev/full'
  if not os.path.exists(full):
    pytest.skip('no /dev/full')
  state = (tmp_path / 'checkpoint').read_text()
  with pytest.raises(InputError, match='could not be written'):
    checkpoints.save(
      os.path.join(full, 'x'), 8, checkpoints.named_variables(network)
    )
  assert (tmp_path / 'checkpoint').read_text() == state


def test_options_beside_a_checkpoint(saved, tmp_path):
  assert stored_options.load(saved) is None
  options = _options(atrous_rates=(6, 12), label_weights=[1, 2, 3, 4, 5])
  stored_options.save(str(tmp_path), options)
  for path in (str(tmp_path), saved):
    stored = stored_options.load(path)
    assert stored.to_dict() == options.to_dict()
  (tmp_path / common.MODEL_OPTIONS_FILE).write_text('{"no_such_field": 1}')
  with pytest.raises(InputError, match='no_such_field'):
    stored_options.load(saved)
  (tmp_path / common.MODEL_OPTIONS_FILE).write_bytes(b'\xff\xfe\x00')
  with pytest.raises(InputError, match='not valid model options'):
    stored_options.load(saved)
  (tmp_path / common.MODEL_OPTIONS_FILE).write_text('null')
  with pytest.raises(InputError, match='must be an object, not None'):
    stored_options.load(saved)
  (tmp_path / common.MODEL_OPTIONS_FILE).write_text('[' * 100_000)
  with pytest.raises(InputError, match=r'not valid model options.*recursion'):
    stored_options.load(saved)
  (tmp_path / common.MODEL_OPTIONS_FILE).write_text('{')
  with pytest.raises(InputError, match='not valid model options'):
    stored_options.load(saved)


@pytest.mark.parametrize('convs', [2, 3])
def test_stem_of_a_stored_resnet(tmp_path, convs):
  options = _options(model_variant='resnet_v1_18_beta', resnet_root_convs=convs)
  network = model.build_model(options)
  names = checkpoints.named_variables(network)
  last = names[f'resnet_v1_18/conv1_{convs}/weights']
  assert last.shape[-1] == 32
  prefix = checkpoints.save(str(tmp_path), 0, names)
  assert stored_options.resnet_root_convs(prefix) == convs


def test_the_originals_own_checkpoint(testdata):
  """A file that the original wrote, with the recipe's weights."""
  prefix = testdata / 'original' / 'ckpt_mobilenet_v2_dm05_os16'
  options = common.ModelOptions(
    {'semantic': 21},
    crop_size=[129, 129],
    output_stride=16,
    depth_multiplier=0.5,
  )
  network = model.build_model(options)
  report = checkpoints.restore(network, str(prefix))
  assert not report.initialized and not report.left_over
  for name, variable in checkpoints.named_variables(network).items():
    np.testing.assert_array_equal(
      variable.numpy(), recipe.make_value(name, variable.shape)
    )


def test_the_published_checkpoint(published_checkpoint):
  folder = published_checkpoint('deeplabv3_mnv2_pascal_trainval')
  network = model.build_model(common.ModelOptions({'semantic': 21}))
  report = checkpoints.restore(network, folder)
  assert not report.initialized and not report.left_over


@pytest.mark.parametrize('dtype', [np.int32, np.bytes_])
def test_weights_of_another_kind_change_nothing(network, tmp_path, dtype):
  values = {
    name: variable.numpy()
    for name, variable in checkpoints.named_variables(network).items()
  }
  last = list(values)[-1]
  values[last] = values[last].astype(dtype)
  prefix = checkpoints.save(str(tmp_path), 7, values)
  fresh = checkpoints.named_variables(model.build_model(_options()))
  before = [variable.numpy() for variable in fresh.values()]
  with pytest.raises(InputError, match=f'{last} is of the type .* float32'):
    checkpoints.restore(fresh, prefix)
  for variable, value in zip(fresh.values(), before, strict=True):
    np.testing.assert_array_equal(variable.numpy(), value)


def test_folders_whose_names_are_patterns(tmp_path):
  """TensorFlow would not find there what it has written."""
  folder = tmp_path / 'run [1]'
  folder.mkdir()
  with pytest.raises(InputError, match=r'run \[1\]: .* Rename the folder'):
    checkpoints.latest(str(folder))
  with pytest.raises(InputError, match='Rename the folder'):
    checkpoints.read(str(folder / 'model.ckpt-1'))

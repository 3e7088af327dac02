"""The training loop on small records: files, resuming, and what goes wrong."""

import hashlib
import json
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from deeplab import checkpoints, common, stored_options
from deeplab.common import InputError
from deeplab.datasets import data_generator
from deeplab.training import config as config_lib
from deeplab.training import loop, profiling, summaries

_ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
_DATA = _ROOT / 'tests' / 'testdata'
_RECORDS = _DATA / 'voc_tfrecord'
_TIMES = (
  'seconds',
  'steps_per_sec',
  'images_per_sec',
  'input_secs',
  'compute_secs',
)


def _make_config(folder, **changes):
  options = common.ModelOptions(
    outputs_to_num_classes={'semantic': 21},
    crop_size=[33, 33],
    output_stride=16,
    depth_multiplier=changes.pop('depth_multiplier', 0.35),
  )
  config = config_lib.TrainConfig(
    model_options=options,
    train_logdir=str(folder),
    dataset_dir=str(_RECORDS),
    train_split='trainval',
    train_batch_size=2,
    training_number_of_steps=6,
    base_learning_rate=0.01,
    log_steps=1,
    save_interval_steps=2,
    keep_checkpoint_max=2,
    save_retry_secs=0,
  )
  return config.replace(**changes)


def _read_log(folder):
  lines = (folder / 'train_log.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def _curve(folder):
  return [
    {key: value for key, value in line.items() if key not in _TIMES}
    for line in _read_log(folder)
  ]


def _values(prefix):
  return {name: get() for name, (_, get) in checkpoints.read(prefix).items()}


def _assert_same_checkpoint(first, second):
  first, second = _values(first), _values(second)
  assert first.keys() == second.keys()
  for name, value in first.items():
    np.testing.assert_array_equal(value, second[name], err_msg=name)


def _image_names():
  dataset = data_generator.Dataset(
    None, 'trainval', str(_RECORDS), batch_size=1, crop_size=[129, 129]
  )
  return [
    batch[common.IMAGE_NAME][0].numpy().decode() for batch in dataset.iterate()
  ]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run of six steps of the official MobileNetV2."""
  folder = tmp_path_factory.mktemp('trained')
  config = _make_config(
    folder, depth_multiplier=1.0, save_summaries_images=True
  )
  return folder, config, loop.train(config)


def test_checkpoint_holds_what_the_original_writes(trained):
  _, _, prefix = trained
  assert prefix.endswith('model.ckpt-6')
  found = sorted([n, list(s)] for n, s in tf.train.list_variables(prefix))
  golden = json.loads((_DATA / 'training' / 'checkpoint.json').read_text())
  assert len(found) == golden['count']
  digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()
  assert digest == golden['sha256']
  assert checkpoints.global_step(prefix) == 6


def test_folder_holds_the_newest_checkpoints_and_descriptions(trained):
  folder, config, _ = trained
  assert sorted(p.name for p in folder.glob('*.index')) == [
    'model.ckpt-4.index',
    'model.ckpt-6.index',
  ]
  options = stored_options.load(str(folder))
  assert options.to_dict() == config.model_options.to_dict()
  info = json.loads((folder / 'dataset_info.json').read_text())
  assert info['num_classes'] == 21
  assert not list(folder.glob('*tmp*'))


def test_log_file(trained):
  folder, _, _ = trained
  lines = _read_log(folder)
  assert [line['step'] for line in lines] == [1, 2, 3, 4, 5, 6]
  for line in lines:
    assert line['total_loss'] == pytest.approx(
      line['semantic_merged_logits'] + line['regularization'], rel=1e-6
    )
    assert line['learning_rate'] == pytest.approx(
      0.01 * (1 - (line['step'] - 1) / 6) ** 0.9, rel=1e-5
    )
    assert all(line[key] > 0 for key in _TIMES)


def test_summaries(trained):
  folder, _, _ = trained
  tags = {}
  for path in folder.glob('events*'):
    for event in tf.compat.v1.train.summary_iterator(str(path)):
      for value in event.summary.value:
        tags.setdefault(value.tag, set()).add(event.step)
  for tag in (
    'losses/semantic_merged_logits',
    'losses/regularization',
    'total_loss',
    'learning_rate',
    'samples/image',
    'samples/label',
    'samples/semantic',
    'logits/semantic/weights',
  ):
    assert tags[tag] == {1, 6}, tag


def test_resumes_exactly(trained, tmp_path):
  """A copy that lost its last checkpoint ends up as the original run did."""
  folder, config, prefix = trained
  for file in folder.glob('model.ckpt-4*'):
    shutil.copy(file, tmp_path)
  shutil.copy(folder / 'model_options.json', tmp_path)
  log = (folder / 'train_log.jsonl').read_text()
  # As after a kill: steps that the checkpoint does not know, half a line.
  (tmp_path / 'train_log.jsonl').write_text(log + '{"step": 7, "tot')

  resumed = loop.train(config.replace(train_logdir=str(tmp_path)))
  assert _curve(tmp_path) == _curve(folder)
  _assert_same_checkpoint(resumed, prefix)


def test_nothing_left_to_do(trained):
  folder, config, prefix = trained
  before = sorted((p.name, p.stat().st_mtime) for p in folder.iterdir())
  assert loop.train(config) == prefix
  assert before == sorted((p.name, p.stat().st_mtime) for p in folder.iterdir())


def test_other_optimizer_cannot_go_on(trained):
  _, config, _ = trained
  with pytest.raises(InputError, match='--optimizer=adam'):
    loop.train(config.replace(optimizer='adam', training_number_of_steps=8))


def test_initial_checkpoint_without_last_layers(trained, tmp_path, caplog):
  _, config, prefix = trained
  config = config.replace(
    train_logdir=str(tmp_path),
    tf_initial_checkpoint=prefix,
    initialize_last_layer=False,
    # Nothing moves, so that the checkpoint shows what was restored.
    base_learning_rate=0.0,
    fine_tune_batch_norm=False,
    training_number_of_steps=1,
    seed=5,
  )
  with caplog.at_level('INFO', logger='absl'):
    written = _values(loop.train(config))
  assert 'Restored 255 variables' in caplog.text
  initial = _values(prefix)
  assert written['global_step'] == 1
  for name, value in initial.items():
    if name.endswith('Momentum') or name == 'global_step':
      continue
    same = np.array_equal(written[name], value)
    last = not name.startswith('MobilenetV2/')
    if not last:
      assert same, name
    elif name.endswith('weights'):
      assert not same, name

  # The second time there is a checkpoint, which wins.
  with caplog.at_level('INFO', logger='absl'):
    loop.train(config)
  assert 'Ignoring --tf_initial_checkpoint' in caplog.text


@pytest.mark.parametrize(
  'rate, what, step',
  [(1e20, 'the loss is not finite', 2), (3e38, 'the update of variable', 1)],
)
def test_not_finite(tmp_path, rate, what, step):
  config = _make_config(
    tmp_path, base_learning_rate=rate, save_interval_steps=1
  )
  with pytest.raises(InputError, match=what) as error:
    loop.train(config)
  message = str(error.value)
  assert f'at step {step}:' in message
  assert 'learning_rate' in message
  assert 'Pixels of each label: ' in message and '255: ' in message
  names = re.search(r'Images: (\S+), (\S+)\. ', message).groups()
  assert set(names) <= set(_image_names())
  saved = sorted(p.name for p in tmp_path.glob('*.index'))
  assert saved == [f'model.ckpt-{i}.index' for i in range(1, step)]


def test_full_disk(trained, tmp_path):
  """Files may not grow beyond 2 MB: the checkpoint has 17."""
  folder, config, _ = trained
  for file in [*folder.glob('model.ckpt-4*'), folder / 'model_options.json']:
    shutil.copy(file, tmp_path)
  before = {p.name: p.read_bytes() for p in tmp_path.glob('model.ckpt*')}
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, limits[1]))
  try:
    with pytest.raises(InputError, match=r'model\.ckpt-6: .* not be written'):
      loop.train(config.replace(train_logdir=str(tmp_path)))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  after = {p.name: p.read_bytes() for p in tmp_path.glob('model.ckpt*')}
  assert after == before
  assert not list(tmp_path.glob('.tmp*'))


def test_classes_of_model_and_data(tmp_path):
  config = _make_config(tmp_path)
  options = config.model_options.replace(outputs_to_num_classes={'semantic': 5})
  with pytest.raises(InputError, match='5 classes'):
    loop.train(config.replace(model_options=options))


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'train_batch_size': 0}, 'train_batch_size'),
    ({'log_steps': 0}, 'log_steps'),
    ({'optimizer': 'lion'}, 'optimizer'),
    ({'top_k_percent_pixels': 0.0}, 'top_k_percent_pixels'),
    ({'top_k_percent_pixels': 25.0}, 'top_k_percent_pixels'),
    ({'learning_policy': 'never'}, 'learning_policy'),
    ({'train_logdir': ''}, 'train_logdir'),
    ({'base_learning_rate': -0.1}, 'base_learning_rate'),
    ({'base_learning_rate': float('nan')}, 'base_learning_rate'),
    ({'end_learning_rate': -1.0}, 'end_learning_rate'),
    ({'slow_start_learning_rate': -1.0}, 'slow_start_learning_rate'),
    ({'slow_start_step': -1}, 'slow_start_step'),
    ({'decay_steps': -5.0}, 'decay_steps'),
    ({'learning_power': -1.0}, 'learning_power'),
    ({'learning_rate_decay_factor': -1.0}, 'learning_rate_decay_factor'),
    ({'momentum': 1.5}, 'momentum'),
    ({'adam_learning_rate': -1.0}, 'adam_learning_rate'),
    ({'adam_epsilon': 0.0}, 'adam_epsilon'),
    ({'weight_decay': -1.0}, 'weight_decay'),
    ({'last_layer_gradient_multiplier': -1.0}, 'last_layer_gradient'),
    ({'image_pyramid': [-1.0, 1.0]}, 'image_pyramid'),
    ({'save_interval_secs': -1}, 'save_interval_secs'),
    ({'seed': -1}, 'seed'),
    ({'seed': 1 << 70}, 'seed'),
  ],
)
def test_refuses(tmp_path, changes, message):
  with pytest.raises(InputError, match=message):
    _make_config(tmp_path, **changes)


def test_a_state_file_without_its_checkpoint(tmp_path):
  (tmp_path / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt-4"')
  with pytest.raises(InputError, match='no complete checkpoint'):
    loop.train(_make_config(tmp_path))


def test_a_profile_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').touch()
  config = _make_config(tmp_path, profile_logdir=str(tmp_path / 'file' / 'x'))
  with pytest.raises(InputError, match='--profile_logdir'):
    profiling.Profiler(config, 0)


def test_a_profile_of_steps_that_do_not_come(tmp_path):
  config = _make_config(tmp_path, profile_steps=[50, 60])
  with pytest.raises(
    InputError, match='profile_steps=50,60: the training ends'
  ):
    profiling.Profiler(config, 0)


def test_lines_of_the_log_that_are_none(tmp_path):
  good = '{"step": 1, "seconds": 2.0}'
  bad = ['5', 'null', '[1]', '{"step": 1}', '{"st', good.replace('1', '7', 1)]
  path = tmp_path / summaries.LOG_FILE
  path.write_text('\n'.join([*bad, good]))
  log = summaries.TrainLog(str(tmp_path), 1)
  assert path.read_text() == good + '\n' and log.seconds == 2.0


# The script, killed.


def _command(folder):
  return [
    sys.executable,
    str(_ROOT / 'train.py'),
    f'--train_logdir={folder}',
    f'--dataset_dir={_RECORDS}',
    '--train_split=trainval',
    '--train_crop_size=33,33',
    '--train_batch_size=2',
    '--depth_multiplier=0.35',
    '--training_number_of_steps=30',
    '--base_learning_rate=0.01',
    '--log_steps=1',
    '--save_interval_steps=5',
  ]


@pytest.mark.slow
def test_killed_and_started_again(tmp_path):
  """As test_resumes_exactly, with three processes, one of which is killed."""
  killed, undisturbed = tmp_path / 'killed', tmp_path / 'undisturbed'
  process = subprocess.Popen(
    _command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  )
  until = time.monotonic() + 300
  while not (killed / 'model.ckpt-5.index').exists():
    assert process.poll() is None and time.monotonic() < until
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  assert process.wait() == -signal.SIGKILL
  assert not (killed / 'model.ckpt-30.index').exists()

  for folder in (killed, undisturbed):
    subprocess.run(_command(folder), check=True, capture_output=True)
  assert [line['step'] for line in _curve(killed)] == list(range(1, 31))
  assert _curve(killed) == _curve(undisturbed)
  _assert_same_checkpoint(
    *(str(folder / 'model.ckpt-30') for folder in (killed, undisturbed))
  )

"""Flags: official names and defaults, list values, and what they mean."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from deeplab import checkpoints, common, model_flags, stored_options
from deeplab import flags as deeplab_flags
from deeplab.common import InputError

_DUMP = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location('door', sys.argv[1])
door = importlib.util.module_from_spec(spec)
spec.loader.exec_module(door)
door._define_flags()
flags = door.FLAGS
print(json.dumps({name: flags[name].default for name in flags}))
"""


@pytest.mark.parametrize('script', ['train', 'eval', 'vis', 'export_model'])
def test_official_flags(script, repository, testdata):
  """Every official flag is there, with its default."""
  official = json.loads((testdata / 'official_flags.json').read_text())[script]
  result = subprocess.run(
    [sys.executable, '-c', _DUMP, f'{script}.py'],
    cwd=repository,
    capture_output=True,
    text=True,
    check=True,
  )
  ours = json.loads(result.stdout.splitlines()[-1])
  assert set(official) <= set(ours)
  for name, default in official.items():
    # The official 0.9997 reached no network; unset means official here.
    if name != 'batch_norm_decay':
      assert _plain(ours[name]) == _plain(default), name


def _plain(value):
  """'513' and 513 alike: official size flags are lists of strings."""
  if isinstance(value, list):
    return [float(item) for item in value]
  return value


@pytest.mark.parametrize(
  'text, values',
  [
    ('0.5,...,1.75', [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]),
    ('0.5,0.75,...,1.75', [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]),
    ('0.5,1,...,2', [0.5, 1.0, 1.5, 2.0]),
    ('1', [1.0]),
    ('0.5, 1', [0.5, 1.0]),
  ],
)
def test_lists(text, values):
  parser = deeplab_flags._ListParser(float)
  assert parser.parse(text) == pytest.approx(values)


@pytest.mark.parametrize(
  'text', ['...,2', '0.5,...', '0.5,...,1.6', '2,...,1', '1,...,2,3', 'a', '']
)
def test_bad_lists(text):
  with pytest.raises(ValueError):
    deeplab_flags._ListParser(float).parse(text)


def test_dots_among_names_are_a_name():
  parser = deeplab_flags._ListParser(str)
  assert parser.parse('a,...,b') == ['a', '...', 'b']


def test_elided_whole_numbers():
  parser = deeplab_flags._ListParser(int)
  assert parser.parse('1,...,4') == [1, 2, 3, 4]
  assert parser.parse('1,3,...,7') == [1, 3, 5, 7]


def test_repeated_and_comma_separated(parse_flags):
  assert parse_flags('--atrous_rates=6,12,18').atrous_rates == [6, 12, 18]
  flags = parse_flags('--atrous_rates=6', '--atrous_rates=12')
  assert flags.atrous_rates == [6, 12]
  assert parse_flags().atrous_rates is None
  assert parse_flags().image_pooling_stride == [1, 1]


def test_from_scratch_the_stem_has_two_convolutions(parse_flags):
  parse_flags('--model_variant=resnet_v1_50_beta')
  assert model_flags.model_options(21, [65, 65]).resnet_root_convs == 2
  parse_flags('--model_variant=resnet_v1_50_beta', '--resnet_root_convs=3')
  assert model_flags.model_options(21, [65, 65]).resnet_root_convs == 3


_RUN = """
import sys
from deeplab import flags
flags.flags.DEFINE_string('path', None, '')
flags.require('path')
def main():
  {}
flags.run(main)
"""


@pytest.mark.parametrize(
  'statement, argument, status, message',
  [
    ('pass', '--path=', 1, 'must not be empty'),
    ('raise MemoryError', '--path=x', 1, 'not enough memory'),
    ('raise KeyboardInterrupt', '--path=x', 130, 'interrupted'),
    (
      'import os, signal; os.kill(os.getpid(), signal.SIGTERM)',
      '--path=x',
      143,
      '',
    ),
    (
      'import os, signal; os.kill(os.getpid(), signal.SIGHUP)',
      '--path=x',
      129,
      '',
    ),
    ('raise ValueError("a bug")', '--path=x', 1, 'Traceback'),
  ],
)
def test_how_a_script_ends(statement, argument, status, message):
  script = _RUN.format(statement)
  result = subprocess.run(
    [sys.executable, '-c', script, argument],
    capture_output=True,
    text=True,
    # These tests may run under nohup.
    preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
  )
  assert result.returncode == status and message in result.stderr
  assert ('Traceback' in result.stderr) == ('Traceback' in message)


def test_a_list_that_does_not_parse_says_what_was_expected():
  with pytest.raises(ValueError, match='Expected integers, comma separated'):
    deeplab_flags._ListParser(int).parse('6,x')


_CELL = (
  '--dense_prediction_cell_json=deeplab/core/'
  'dense_prediction_cell_branch5_top1_cityscapes.json'
)


@pytest.fixture
def trained(tmp_path):
  """A folder with model_options.json, as training leaves it."""
  options = common.ModelOptions(
    {'semantic': 5},
    crop_size=[65, 65],
    output_stride=16,
    atrous_rates=[6, 12, 18],
    decoder_output_stride=[4],
    model_variant='xception_41',
  )
  stored_options.save(str(tmp_path), options)
  return str(tmp_path)


def test_options_come_from_the_checkpoint(parse_flags, trained):
  parse_flags()
  options = model_flags.model_options(5, [513, 513], trained)
  assert options.model_variant == 'xception_41'
  assert options.output_stride == 16
  assert list(options.atrous_rates) == [6, 12, 18]
  assert options.crop_size == [513, 513]


@pytest.mark.parametrize('stride, rates', [(8, [12, 24, 36]), (32, [3, 6, 9])])
def test_rates_follow_the_output_stride(parse_flags, trained, stride, rates):
  parse_flags(f'--output_stride={stride}')
  options = model_flags.model_options(5, [65, 65], trained)
  assert options.output_stride == stride
  assert options.atrous_rates == rates


def test_given_rates_stay(parse_flags, trained):
  parse_flags('--output_stride=8', '--atrous_rates=6,12,18')
  options = model_flags.model_options(5, [65, 65], trained)
  assert options.atrous_rates == [6, 12, 18]


@pytest.mark.parametrize(
  'arguments',
  [
    ['--model_variant=xception_41', '--depth_multiplier=0.5'],
    ['--model_variant=resnet_v1_50', '--divisible_by=8'],
    ['--model_variant=resnet_v1_50', '--resnet_root_convs=3'],
    ['--multi_grid=1,2,4'],
    ['--model_variant=nas_hnasnet', '--multi_grid=1,2,4'],
    ['--model_variant=mobilenet_v3_large_seg', '--divisible_by=4'],
    ['--model_variant=nas_pnasnet', '--nas_remove_os32_stride'],
    ['--nas_remove_os32_stride'],
    ['--image_se_uses_qsigmoid'],
    ['--aspp_with_squeeze_and_excitation', '--noadd_image_level_feature'],
    [_CELL, '--noaspp_with_batch_norm'],
    ['--decoder_output_is_logits', '--logits_kernel_size=3'],
    ['--decoder_filters=64'],
    ['--decoder_use_sum_merge'],
    [_CELL, '--atrous_rates=6,12'],
    [_CELL, '--aspp_convs_filters=64'],
    [_CELL, '--add_image_level_feature'],
    [_CELL, '--image_pooling_crop_size=65,65'],
    ['--noaspp_with_batch_norm', '--aspp_convs_filters=128'],
    ['--noaspp_with_batch_norm', '--aspp_with_squeeze_and_excitation'],
    ['--noaspp_with_batch_norm', '--image_pooling_crop_size=65,65'],
    ['--noadd_image_level_feature', '--image_pooling_crop_size=65,65'],
    ['--noadd_image_level_feature', '--image_pooling_stride=2,2'],
  ],
)
def test_flags_without_effect_are_refused(parse_flags, arguments):
  parse_flags(*arguments)
  with pytest.raises(InputError, match='has no effect'):
    model_flags.model_options(5, [65, 65])


@pytest.mark.parametrize(
  'arguments',
  [
    ['--nodecoder_use_sum_merge', '--noimage_se_uses_qsigmoid'],
    [_CELL, '--noadd_image_level_feature'],
    ['--model_variant=mobilenet_v3_large_seg', '--divisible_by=8'],
  ],
)
def test_what_is_not_there_can_be_switched_off(parse_flags, arguments):
  parse_flags(*arguments)
  model_flags.model_options(5, [65, 65])


def test_the_pooling_crop_matters_to_a_cell_that_pools(parse_flags, tmp_path):
  operation = {'op': 'pyramid_pooling', 'grid_size': [1, 1], 'input': -1}
  path = tmp_path / 'cell.json'
  path.write_text(json.dumps([operation]))
  parse_flags(
    f'--dense_prediction_cell_json={path}', '--image_pooling_crop_size=65,49'
  )
  options = model_flags.model_options(5, [65, 65])
  assert options.dense_prediction_cell_config == [operation]
  assert options.image_pooling_crop_size == [65, 49]


def test_a_bad_cell_names_the_flag(parse_flags, tmp_path):
  path = tmp_path / 'cell.json'
  path.write_text('[{"op": "conv", "kernel": 3, "input": -1}]')
  for value, message in (('a', 'cannot be read'), (path, "item 0, key 'rate'")):
    parse_flags(f'--dense_prediction_cell_json={value}')
    with pytest.raises(InputError, match=f'--.*_json={value}: .*{message}'):
      model_flags.model_options(5, [65, 65])


def test_a_cell_comes_from_the_checkpoint(parse_flags, tmp_path):
  parse_flags(_CELL)
  options = model_flags.model_options(5, [65, 65])
  assert len(options.dense_prediction_cell_config) == 5
  stored_options.save(str(tmp_path), options)
  for arguments in [], [_CELL], ['--output_stride=8']:
    parse_flags(*arguments)
    again = model_flags.model_options(5, [97, 97], str(tmp_path))
    assert again.dense_prediction_cell_config == (
      options.dense_prediction_cell_config
    )
  parse_flags('--dense_prediction_cell_json=')
  with pytest.raises(InputError, match='--dense_prediction_cell_json contra'):
    model_flags.model_options(5, [65, 65], str(tmp_path))


def test_rates_that_do_not_divide(parse_flags, trained):
  parse_flags('--output_stride=64')
  with pytest.raises(InputError, match='give --atrous_rates'):
    model_flags.model_options(5, [65, 65], trained)


def test_the_output_stride_of_pnasnet_is_in_its_weights(parse_flags, tmp_path):
  options = common.ModelOptions(
    {'semantic': 5},
    crop_size=[65, 65],
    output_stride=16,
    model_variant='nas_pnasnet',
  )
  checkpoints.save(str(tmp_path), 1, {'pnasnet/conv0/weights': np.zeros(1)})
  stored_options.save(str(tmp_path), options)
  parse_flags('--output_stride=16')
  model_flags.model_options(5, [65, 65], str(tmp_path))
  parse_flags('--output_stride=8')
  with pytest.raises(InputError, match='output_stride contradicts'):
    model_flags.model_options(5, [65, 65], str(tmp_path))


@pytest.mark.parametrize(
  'arguments, classes, named',
  [
    (['--model_variant=xception_65'], 5, ['xception_65', 'xception_41']),
    (['--decoder_output_stride=8,4'], 5, ['[8, 4]', '[4]']),
    (['--atrous_rates=6,12'], 5, ['[6, 12]', '[6, 12, 18]']),
    ([], 21, ["{'semantic': 21}", "{'semantic': 5}"]),
  ],
)
def test_contradictions_name_both_values(
  parse_flags, trained, arguments, classes, named
):
  parse_flags(*arguments)
  with pytest.raises(InputError) as error:
    model_flags.model_options(classes, [65, 65], trained)
  for value in named:
    assert value in str(error.value)


@pytest.mark.parametrize(
  'arguments, message',
  [
    (['--no_such_flag=1'], 'no_such_flag'),
    (['--atrous_rates=six'], 'atrous_rates'),
    # The same again, with the flag of another type.
    pytest.param(
      ['--eval_scales=1,...'], 'eval_scales', marks=pytest.mark.slow
    ),
    (['stray'], 'stray'),
  ],
)
def test_bad_command_lines(repository, tmp_path, arguments, message):
  result = subprocess.run(
    [
      sys.executable,
      'eval.py',
      f'--checkpoint_dir={tmp_path}',
      f'--eval_logdir={tmp_path}',
      f'--dataset_dir={tmp_path}',
      *arguments,
    ],
    cwd=repository,
    capture_output=True,
    text=True,
    env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''},
  )
  assert result.returncode == 1
  assert message in result.stderr
  assert 'Traceback' not in result.stderr


def test_a_contradiction_of_the_stem_names_the_flag(parse_flags, tmp_path):
  options = common.ModelOptions({'semantic': 5}, model_variant='nas_hnasnet')
  checkpoints.save(str(tmp_path), 1, {'hnasnet/conv0/weights': np.zeros(1)})
  stored_options.save(str(tmp_path), options)
  parse_flags('--nas_stem_output_num_conv_filters=32')
  with pytest.raises(InputError, match=r'--nas_stem.*_filters contradicts'):
    model_flags.model_options(5, [65, 65], str(tmp_path))

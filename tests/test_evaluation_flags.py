"""Flags that eval.py, vis.py and the search share."""

import subprocess
import sys

import numpy as np
import pytest
import small_checkpoint
from PIL import Image

from deeplab import evaluation_flags, flags
from deeplab.common import InputError
from deeplab.core import dense_crf


@pytest.fixture
def parse(parse, monkeypatch):
  """Parses arguments as eval.py does, with the flags of photographs too."""
  monkeypatch.setattr(flags, 'require', lambda *unused: None)

  def define():
    evaluation_flags.define_data_flags('eval')
    evaluation_flags.define_following_flags('max_number_of_evaluations')
    evaluation_flags.define_crf_flags()
    evaluation_flags.define_device_flags()
    evaluation_flags.define_photo_flags()

  return lambda *arguments: parse(evaluation_flags, define, arguments)


def test_no_crf_unless_asked_for(parse):
  parse()
  assert evaluation_flags.crf_parameters() is None


def test_crf_parameters(parse):
  parse('--crf')
  assert evaluation_flags.crf_parameters() == dense_crf.Parameters()
  parse(
    '--crf',
    '--crf_w1=5',
    '--crf_sigma_alpha=50.5',
    '--crf_sigma_beta=4',
    '--crf_w2=2',
    '--crf_sigma_gamma=1',
    '--crf_iterations=5',
  )
  expected = dense_crf.Parameters(5, 50.5, 4, 2, 1, 5)
  assert evaluation_flags.crf_parameters() == expected


def test_crf_parameters_without_crf(parse):
  # The default, given, is given.
  parse('--crf_w1=4', '--crf_iterations=3')
  with pytest.raises(
    InputError, match=r'--crf_iterations=3, --crf_w1=4\.0 without --crf\.'
  ):
    evaluation_flags.crf_parameters()


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('--crf_w1=-1', '--crf_w1 must be .*at least 0.*: --crf_w1=-1'),
    ('--crf_sigma_beta=0', '--crf_sigma_beta must be'),
    ('--crf_sigma_alpha=nan', '--crf_sigma_alpha must be'),
    ('--crf_iterations=0', '--crf_iterations must be an integer, at least 1'),
  ],
)
def test_crf_parameters_out_of_range(parse, argument, message):
  parse('--crf', argument)
  with pytest.raises(InputError, match=message):
    evaluation_flags.crf_parameters()


def test_the_job(parse):
  parse(
    '--checkpoint_dir=run',
    '--dataset_dir=data',
    '--eval_crop_size=65,97',
    '--eval_scales=0.5,1.0',
    '--add_flipped_images',
    '--max_number_of_evaluations=3',
    '--eval_interval_secs=7',
    '--timeout_secs=9',
    '--crf',
    '--nouse_moving_averages',
  )
  job = evaluation_flags.make_following_job('eval', 'max_number_of_evaluations')
  assert job.checkpoint_dir == 'run' and job.crop_size == [65, 97]
  assert job.eval_scales == [0.5, 1.0] and job.add_flipped_images
  assert (job.limit, job.interval_secs, job.timeout_secs) == (3, 7, 9)
  assert job.crf == dense_crf.Parameters()
  assert job.use_moving_averages is False and job.strategy is None


def test_moving_averages_are_left_to_the_checkpoint(parse):
  parse('--dataset_dir=data')
  assert evaluation_flags.make_job('eval').use_moving_averages is None


def test_devices(parse):
  parse('--eval_batch_size=2')
  assert evaluation_flags.make_strategy('eval_batch_size') is None
  parse('--clone_on_cpu')
  strategy = evaluation_flags.make_strategy('eval_batch_size')
  assert strategy.num_replicas_in_sync == 1


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--num_clones=0'], '--num_clones must be an integer, at least 1'),
    (
      ['--num_clones=2', '--clone_on_cpu'],
      '--eval_batch_size=1 is less than --num_clones=2',
    ),
    (
      ['--num_clones=64', '--eval_batch_size=64'],
      '--num_clones=64, but this host shows',
    ),
  ],
)
def test_devices_that_are_refused(parse, arguments, message):
  parse(*arguments)
  with pytest.raises(InputError, match=message):
    evaluation_flags.make_strategy('eval_batch_size')


def test_the_data_set(parse, testdata):
  parse(
    f'--dataset_dir={testdata}/voc_tfrecord',
    '--eval_crop_size=129,131',
    '--eval_batch_size=2',
    '--min_resize_value=60',
    '--max_resize_value=60',
  )
  dataset = evaluation_flags.make_job('eval').make_dataset('mobilenet_v2')
  (first, _) = dataset.iterate()
  assert first['image'].shape == (2, 129, 131, 3)
  assert max(first['resized_height'].numpy()) <= 60


def test_eval_refuses_parameters_without_crf(repository, tmp_path, testdata):
  done = subprocess.run(
    [
      *(sys.executable, str(repository / 'eval.py')),
      *(f'--checkpoint_dir={tmp_path}', f'--eval_logdir={tmp_path}/eval'),
      *(f'--dataset_dir={testdata}/voc_tfrecord', '--crf_w1=3'),
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  error = done.stderr.strip().splitlines()[-1]
  assert error == 'error: --crf_w1=3.0 without --crf. Give --crf as well.'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (
      ['--image_glob=p', '--dataset_dir=d'],
      '--dataset_dir=d has no effect with --image_glob',
    ),
    (
      ['--image_glob=p', '--eval_split=test'],
      '--eval_split=test has no effect with --image_glob',
    ),
    (
      ['--image_glob=p', '--eval_crop_size=65,65', '--max_tile_size=65'],
      '--max_tile_size=65 has no effect with --eval_crop_size',
    ),
    (
      ['--dataset_dir=d', '--tile_overlap=0.5'],
      r'--tile_overlap=0\.5 has no effect without --image_glob',
    ),
    (
      ['--image_glob=p', '--tile_overlap=0.9'],
      '--tile_overlap must be a finite number, at least 0',
    ),
    (
      ['--image_glob=p', '--max_tile_size=3'],
      '--max_tile_size must be an integer, at least 33',
    ),
    (
      ['--image_glob=p', '--eval_batch_size=0'],
      '--eval_batch_size must be an integer, at least 1',
    ),
  ],
)
def test_flags_of_photographs_that_do_not_go_together(
  parse, arguments, message
):
  parse(*arguments)
  with pytest.raises(InputError, match=message):
    evaluation_flags.check_photo_flags('eval')


def test_the_job_on_photographs(parse, tmp_path):
  """One checkpoint, each image at its own size, classes by their number."""
  checkpoint = tmp_path / 'train'
  small_checkpoint.write(checkpoint)
  for name in ('2.png', '10.png'):
    Image.new('RGB', (8, 9)).save(tmp_path / name)
  parse(
    f'--checkpoint_dir={checkpoint}',
    f'--image_glob={tmp_path}/2.png,{tmp_path}/1*.png',
    '--eval_batch_size=2',
    '--max_tile_size=65',
  )
  limit = 'max_number_of_evaluations'
  job, images = evaluation_flags.make_photo_job('eval', limit)
  assert job.limit == 1 and job.crop_size is None
  assert job.make_dataset('mobilenet_v2') is images
  assert images.num_examples == 2 and images.info == small_checkpoint.INFO
  (run,) = job.runs()
  assert run.predict(np.zeros((2, 40, 50, 3), np.uint8)).shape == (2, 40, 50)


def test_the_network_of_photographs_nobody_described(parse, tmp_path):
  """The variables tell it, as they do for the demo; flags still count."""
  checkpoint = tmp_path / 'train'
  small_checkpoint.write(
    checkpoint,
    described=False,
    depth_multiplier=0.5,
    add_image_level_feature=False,
    atrous_rates=[6, 12],
  )
  Image.new('RGB', (8, 9)).save(tmp_path / 'a.png')
  arguments = [f'--checkpoint_dir={checkpoint}', f'--image_glob={tmp_path}']
  limit = 'max_number_of_evaluations'
  for more, expected in (
    ([], (16, [6, 12], True)),
    (['--output_stride=8'], (8, [12, 24], True)),
    (['--atrous_rates=1,2'], (16, [1, 2], True)),
    (['--noprediction_with_upsampled_logits'], (16, [6, 12], False)),
  ):
    parse(*arguments, *more)
    job, _ = evaluation_flags.make_photo_job('eval', limit)
    options = job.make_options(3, str(checkpoint))
    assert options.depth_multiplier == 0.5
    assert not options.add_image_level_feature
    assert expected == (
      options.output_stride,
      list(options.atrous_rates),
      options.prediction_with_upsampled_logits,
    )

"""Flags that eval.py, vis.py and the search share."""

import functools
import subprocess
import sys

import pytest
from absl import flags as absl_flags

from deeplab import evaluation_flags, flags, model_flags
from deeplab.common import InputError
from deeplab.core import dense_crf


@pytest.fixture
def parse(monkeypatch):
  """Parses arguments as eval.py does."""

  def parse(*arguments):
    values = absl_flags.FlagValues()
    for module in (flags, model_flags, evaluation_flags):
      monkeypatch.setattr(module, 'FLAGS', values)
    monkeypatch.setattr(flags, 'require', lambda *unused: None)
    with monkeypatch.context() as patch:
      for name in dir(absl_flags):
        if name.startswith('DEFINE_'):
          define = functools.partial(
            getattr(absl_flags, name), flag_values=values
          )
          patch.setattr(absl_flags, name, define)
      evaluation_flags.define_data_flags('eval')
      evaluation_flags.define_following_flags('max_number_of_evaluations')
      evaluation_flags.define_crf_flags()
      evaluation_flags.define_device_flags()
    values(['script', *arguments])
    return values

  return parse


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
  parse()
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

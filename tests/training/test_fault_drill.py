"""Twenty kills at random moments, of one process and of one of two hosts."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import training_process
from conftest import ROOT

_STEPS = 300
_INTERVAL = 5
_TIMES = {
  'seconds',
  'steps_per_sec',
  'images_per_sec',
  'input_secs',
  'compute_secs',
}


class _Drill:
  """The processes of a run, started again whenever they are killed."""

  def __init__(self, folder, num_hosts):
    self.folder = folder
    self._hosts = training_process.free_addresses(num_hosts)
    self._processes = [self._start(index) for index in range(num_hosts)]

  def _start(self, index):
    command = [
      sys.executable,
      str(ROOT / 'train.py'),
      f'--train_logdir={self.folder}/train',
      f'--dataset_dir={ROOT}/tests/testdata/voc_tfrecord',
      '--train_split=trainval',
      '--model_variant=mobilenet_v2',
      '--depth_multiplier=0.35',
      '--output_stride=16',
      '--train_crop_size=33,33',
      '--train_batch_size=4',
      # Statistics of so small batches would make rounding visible.
      '--fine_tune_batch_norm=false',
      f'--training_number_of_steps={_STEPS}',
      f'--save_interval_steps={_INTERVAL}',
      '--log_steps=1',
      '--clone_on_cpu',
    ]
    if len(self._hosts) > 1:
      command += [f'--worker_hosts={",".join(self._hosts)}', f'--task={index}']
    with open(self._log(index), 'a') as log:
      return subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
      )

  def _log(self, index):
    return self.folder / f'{index}.log'

  def curve(self):
    """{step: what is logged of it, without times}."""
    path = self.folder / 'train' / 'train_log.jsonl'
    if not path.exists():
      return {}
    lines = [
      json.loads(x) for x in path.read_text().splitlines(True) if x[-1] == '\n'
    ]
    return {
      line['step']: {k: v for k, v in line.items() if k not in _TIMES}
      for line in lines
    }

  def wait_for(self, step):
    """Waits until that step is logged; ends are taken up."""
    limit = time.monotonic() + 300
    while max(self.curve(), default=0) < step:
      assert time.monotonic() < limit, self.tails()
      self.revive()
      time.sleep(0.05)

  def revive(self):
    """Starts processes again that ended, but for those that are done."""
    for index, process in enumerate(self._processes):
      if process.poll():
        assert process.returncode in (75, -signal.SIGKILL, 137), self.tails()
        self._processes[index] = self._start(index)

  def kill(self, index, number):
    """Sends a signal to a host: to its command, or SIGKILL to all of it."""
    process = self._processes[index]
    if number == signal.SIGKILL:
      os.killpg(process.pid, number)
    else:
      process.send_signal(number)

  def finish(self):
    """Waits for the end of all processes."""
    self.wait_for(_STEPS)
    for process in self._processes:
      assert process.wait(120) == 0, self.tails()

  def logs(self):
    """What each host wrote."""
    return [self._log(index).read_text() for index in range(len(self._hosts))]

  def tails(self):
    """The ends of the logs."""
    return [text[-2000:] for text in self.logs()]

  def starts(self):
    """The steps that a run of the first host began from."""
    found = re.findall(r'from step (\d+) to', self.logs()[0])
    return [int(step) for step in found]


@pytest.mark.slow
@pytest.mark.parametrize('num_hosts', [1, 2])
def test_kills_at_random_moments(num_hosts, tmp_path):
  undisturbed = tmp_path / 'undisturbed'
  disturbed = tmp_path / 'disturbed'
  for folder in (undisturbed, disturbed):
    folder.mkdir()
  plain = _Drill(undisturbed, num_hosts)
  plain.finish()
  moments = random.Random(num_hosts)
  drill = _Drill(disturbed, num_hosts)
  kills = []
  for _ in range(10):
    step = max(drill.curve(), default=0)
    drill.wait_for(min(step + moments.randrange(1, 20), _STEPS - 20))
    time.sleep(moments.uniform(0, 0.5))
    kills.append((len(drill.starts()), max(drill.curve())))
    number = moments.choice([signal.SIGKILL, signal.SIGTERM])
    drill.kill(moments.randrange(num_hosts), number)
    time.sleep(moments.uniform(0.5, 3))
  drill.finish()
  starts = drill.starts()
  assert len(starts) >= 5, 'most kills ended a run'
  # Whatever a run began from, no more than an interval before it was lost.
  # A kill may come before the run that it ends has begun, or too late.
  lost = [
    reached - starts[number]
    for number, reached in kills
    if number < len(starts)
  ]
  assert len(lost) >= 5 and max(lost) <= _INTERVAL, (kills, starts)
  expected, found = plain.curve(), drill.curve()
  assert expected.keys() == found.keys() == set(range(1, _STEPS + 1))
  for step, line in expected.items():
    assert found[step] == pytest.approx(line, rel=1e-5), step
  assert all('damaged' not in text for text in drill.logs())

"""Curves of trainings: what is read, what is drawn, and when."""

import io
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import training_process
from PIL import Image

from deeplab.common import InputError
from deeplab.evaluation import evaluator
from deeplab.training import loop, plot_curves, summaries


def _line(step, **changes):
  return {
    'step': step,
    'semantic': 2.0 / step,
    'regularization': 0.1,
    'total_loss': 2.0 / step + 0.1,
    'learning_rate': 0.01,
    'steps_per_sec': 1.0,
    'images_per_sec': 8.0,
    'seconds': float(step),
    **changes,
  }


def _write(folder, steps=range(1, 9), miou=None, results=''):
  """Writes a log and evaluations {step: mIoU}."""
  folder.mkdir(exist_ok=True)
  text = ''.join(json.dumps(_line(step)) + '\n' for step in steps)
  if text:
    (folder / 'train_log.jsonl').write_text(text)
  (folder / results).mkdir(exist_ok=True)
  for step, value in (miou or {}).items():
    path = folder / results / f'miou_{step}.json'
    path.write_text(json.dumps({'step': step, 'miou': value}))
  return str(folder)


def _size(content):
  return Image.open(io.BytesIO(content)).size


def test_reading(tmp_path):
  folder = _write(tmp_path / 'run', miou={10: 0.5, 2: 0.25}, results='eval')
  with (tmp_path / 'run' / 'train_log.jsonl').open('a') as file:
    file.write('[]\n{"seconds": 3}\n')
    file.write(json.dumps(_line(9, total_loss=None)) + '\n')
    # Killed.
    file.write('{"step": 10, "tot')
  # What counted nothing, and other files of such names.
  for name, text in (('miou_3', '{"step": 3, "miou": null}'), ('miou_x', '[')):
    (tmp_path / 'run' / 'eval' / f'{name}.json').write_text(text)
  run = plot_curves.read(folder, 'name')
  assert run.miou == {2: 0.25, 10: 0.5} and list(run.miou) == [2, 10]
  steps, losses = run.series('total_loss')
  np.testing.assert_array_equal(steps, range(1, 10))
  np.testing.assert_allclose(losses[[0, 7, 8]], [2.1, 0.35, np.nan])
  assert run.losses() == ['semantic', 'regularization', 'total_loss']


def test_an_eval_logdir_alone(tmp_path):
  folder = _write(tmp_path / 'eval', [], {2: 0.25})
  run = plot_curves.read(folder)
  assert run.miou == {2: 0.25} and not run.lines
  one = _size(plot_curves.draw([run]))
  full = plot_curves.read(_write(tmp_path / 'run', miou={2: 0.5}))
  four = _size(plot_curves.draw([full, run]))
  assert four == (2 * one[0], 2 * one[1])


@pytest.mark.parametrize(
  'lines',
  [
    [_line(5)],
    # Nothing that is a number; and no loss at all.
    [_line(1, total_loss=None), _line(2, total_loss='high')],
    [{'step': 1, 'seconds': 1.0}],
    [_line(step, total_loss=-1.0) for step in (1, 2)],
  ],
)
def test_odd_logs_are_drawn(lines):
  run = plot_curves.Run('a$^$b', lines, {})
  for runs in ([run], [run, run]):
    assert plot_curves.draw(runs).startswith(b'\x89PNG')


def test_running_means():
  values = np.arange(100.0)
  values[50] = np.nan
  means = plot_curves._running_mean(values)
  assert means[30] == pytest.approx(30) and np.isnan(means[50])
  # Neighbours on one side alone count at the ends and beside a gap.
  assert means[49] == pytest.approx(np.nanmean(values[45:54]), abs=0.3)
  assert 0 < means[0] < 5
  # The last of them all.
  assert means[97] == pytest.approx(np.mean(values[93:]), abs=1e-9)
  few = np.array([3.0, 1.0, np.nan])
  np.testing.assert_array_equal(plot_curves._running_mean(few), few)


def test_running_means_of_long_trainings():
  values = np.ones(500_000)
  values[5] = 1e30
  began = time.monotonic()
  means = plot_curves._running_mean(values)
  assert time.monotonic() - began < 3
  # A loss that was huge once does not blur what comes much later.
  np.testing.assert_array_equal(means[30_000:], 1)
  assert means[5] > 1e25


def test_a_training_draws_its_curves(tmp_path, monkeypatch):
  def evaluate(self, prefix, step):
    _write(tmp_path, [], {step: 0.5}, 'eval')
    return {'miou': 0.5}

  monkeypatch.setattr(evaluator.Evaluation, 'evaluate', evaluate)
  drawn = []
  draw = plot_curves.draw
  monkeypatch.setattr(
    plot_curves, 'draw', lambda runs: drawn.extend(runs) or draw(runs)
  )
  config = training_process.make_config(
    tmp_path,
    train_batch_size=2,
    training_number_of_steps=2,
    save_interval_steps=1,
    eval_interval_steps=2,
  )
  loop.train(config)
  # Once, at the end: less than a minute has passed.
  (run,) = drawn
  assert len(run.lines) == 2 and run.miou == {2: 0.5}
  assert _size((tmp_path / 'curves.png').read_bytes())[0] > 1000


def test_curves_are_drawn_once_a_minute(tmp_path, monkeypatch, caplog):
  now = [0.0]
  monkeypatch.setattr(summaries.time, 'monotonic', lambda: now[0])
  log = summaries.TrainLog(str(tmp_path), 0)
  picture = tmp_path / 'curves.png'
  # Nothing to draw yet.
  log.draw(now=True)
  assert not picture.exists() and not caplog.text
  log.write(_line(1))
  now[0] = 50
  log.draw()
  assert not picture.exists()
  now[0] = 70
  log.draw()
  assert picture.exists()
  picture.unlink()
  now[0] = 120
  log.draw()
  assert not picture.exists()
  # Another host writes nothing.
  summaries.TrainLog(str(tmp_path), 0, writes=False).draw(now=True)
  assert not picture.exists()


def test_a_fault_of_the_picture_is_a_warning(tmp_path, monkeypatch, caplog):
  log = summaries.TrainLog(str(tmp_path), 0)
  log.write(_line(1))
  (tmp_path / 'curves.png').mkdir()
  log.draw(now=True)
  assert 'curves are not drawn: ' in caplog.text
  assert 'curves.png cannot be written' in caplog.text
  caplog.clear()
  # As if it were not installed.
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  log.draw(now=True)
  assert 'curves are not drawn: ' in caplog.text


def test_a_folder_of_neither(tmp_path):
  for folder in (tmp_path, tmp_path / 'none'):
    with pytest.raises(InputError, match='neither logged steps'):
      plot_curves.read(str(folder))


def test_the_command(tmp_path):
  def run(*arguments):
    return subprocess.run(
      [sys.executable, '-m', 'deeplab.training.plot_curves', *arguments],
      capture_output=True,
      text=True,
      check=False,
    )

  one = _write(tmp_path / 'one')
  two = _write(tmp_path / 'two', miou={8: 0.5})
  plot = tmp_path / 'plot.svg'
  done = run(one, two, f'--output={plot}', '--labels=first,second')
  assert done.returncode == 0, done.stderr
  assert plot.read_bytes().startswith(b'<?xml')
  done = run(one, str(tmp_path), f'--output={plot}')
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert f'{tmp_path} has neither' in done.stderr.splitlines()[-1]

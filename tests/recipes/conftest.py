"""Recipes run in this process, and stand-ins for what they need."""

import json
import os

import pytest

from experiment import runner


@pytest.fixture
def run_recipe(parse):
  """Runs a recipe in this process; returns nothing."""

  def run(recipe, *arguments):
    parse(runner, runner.define_flags, arguments)
    runner.run(recipe)

  return run


@pytest.fixture
def records(tmp_path):
  """A folder that looks like TFRecord files."""
  folder = tmp_path / 'records'
  folder.mkdir()
  for split in ('train', 'val'):
    (folder / f'{split}-00000-of-00001.tfrecord').touch()
  return folder


@pytest.fixture
def ran(monkeypatch):
  """Commands that were run; evaluations leave a result."""
  commands = []

  def run_command(command, log_path):
    commands.append(command)
    arguments = command[2:] if command[0] == '-m' else command[1:]
    values = dict(flag[2:].split('=', 1) for flag in arguments)
    if command[0] == 'eval.py':
      os.makedirs(values['eval_logdir'])
      result = {'miou': 0.5, 'step': 7}
      if 'trimap_widths' in values:
        bands = [{'width': 1, 'miou': 0.25}, {'width': 2, 'miou': None}]
        result['trimap'] = {'bands': bands}
      path = os.path.join(values['eval_logdir'], 'miou_latest.json')
      with open(path, 'w') as file:
        json.dump(result, file)
    if command[:2] == ['-m', 'deeplab.crf_search']:
      with open(values['output'], 'w') as file:
        json.dump({'best': {'w1': 5, 'miou': 0.6}}, file)
    return 3.0

  monkeypatch.setattr(runner, 'run_command', run_command)
  return commands

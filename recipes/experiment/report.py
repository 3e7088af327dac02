"""The table that a recipe ends with."""

import json
import os

# What eval.py writes (evaluator.LATEST_FILE, whose import takes seconds).
_LATEST_FILE = 'miou_latest.json'


def write_json(path, values):
  """Writes a JSON file."""
  _write_text(path, json.dumps(values, indent=1) + '\n')


def _write_text(path, text):
  """Writes a file completely or not at all; its folder is made if absent.

  Not by `deeplab.atomic_files`: its TensorFlow would stay in memory beside that
  of the trainings.
  """
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(f'{path}.tmp', 'w', encoding='utf-8') as file:
    file.write(text)
  os.replace(f'{path}.tmp', path)


def measure(folder):
  """What an evaluation wrote.

  Args:
    folder: its --eval_logdir.

  Returns:
    {'miou': percent, 'step': training step}, and where boundaries were
    evaluated 'trimap': {width in pixels: percent}; None where undefined.
  """
  with open(os.path.join(folder, _LATEST_FILE), encoding='utf-8') as file:
    values = json.load(file)
  measured = {'miou': _percent(values['miou']), 'step': values['step']}
  if 'trimap' in values:
    measured['trimap'] = {
      band['width']: _percent(band['miou'])
      for band in values['trimap']['bands']
    }
  return measured


def _percent(share):
  return None if share is None else 100 * share


def write_table(recipe, scale, rows, measured, folder):
  """Writes results.json and results.md.

  Args:
    recipe: a plan.Recipe.
    scale: 'full' or 'small'.
    rows: the rows, complete.
    measured: {name of a row: values of `Job.measured`} as far as they are
      known.
    folder: where to write.

  Returns:
    The table in Markdown.
  """
  results = [
    {'row': row.name, 'paper': row.paper, **measured.get(row.name, {})}
    for row in rows
    if row.eval is not None
  ]
  widths = sorted({w for result in results for w in result.get('trimap', {})})
  titles = ['row', 'paper', 'measured', *(f'{w} px' for w in widths)]
  titles += ['training, s', 'evaluation, s', 'steps']
  lines = [
    f'{recipe.table}. --scale={scale}: {recipe.settings[scale].text}.',
    '',
    f'| {" | ".join(titles)} |',
    '| --- ' * len(titles) + '|',
  ]
  for result in results:
    seconds = dict(result.get('seconds', {}))
    training = seconds.pop('train', '')
    cells = [
      result['row'],
      _number(result['paper']),
      _number(result.get('miou')),
      *(_number(result.get('trimap', {}).get(width)) for width in widths),
      str(training),
      str(sum(seconds.values()) or ''),
      str(result.get('step', '')),
    ]
    lines.append(f'| {" | ".join(cells)} |')
  table = '\n'.join(lines) + '\n'
  _write_text(os.path.join(folder, 'results.md'), table)
  write_json(
    os.path.join(folder, 'results.json'),
    {'recipe': recipe.name, 'scale': scale, 'rows': results},
  )
  return table


def _number(value):
  return '' if value is None else f'{value:.2f}'

"""The real implementations, on networks and images that are small."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks import make_checkpoint, registry, runner, selection, summary
from benchmarks.artifacts import Checkpoint, Network, Records, Weights
from benchmarks.case import Case, Row
from deeplab import checkpoints

pytestmark = pytest.mark.slow

_SMALL = Network(
  'small',
  (
    '--model_variant=mobilenet_v2',
    '--depth_multiplier=0.1',
    '--divisible_by=8',
    '--output_stride=16',
  ),
  crop=65,
  classes=5,
)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """Runs rows as a case; returns the case and {name: result of the row}."""
  settings = runner.Settings(runs=1, seconds=0.01, threads=1)
  measure = runner.Runner(settings, tmp_path_factory.mktemp('work')).run

  def run_rows(rows):
    case = measure(Case('small/case', 'A case', list(rows)))
    return case, {row['name']: row for row in case['rows']}

  return run_rows


def _settled(rows, optional=()):
  """All rows have run, or need a package that is not here."""
  for name, row in rows.items():
    missing = name in optional and row['status'] == runner.NOT_INSTALLED
    assert row['status'] == 'ok' or missing, (name, row['status'])


@pytest.mark.parametrize('batch', [1, 2])
def test_exports_give_the_same_labels(run, batch):
  case, rows = run(registry.exported_rows(_SMALL, batch))
  _settled(rows, ('openvino', 'openvino_bfloat16', 'litert'))
  assert rows['frozen_graph']['labels_equal'] == 1
  assert rows['frozen_graph']['multiply_adds'] > 1e6
  for name, row in rows.items():
    if row['runs']:
      least = 0.9 if 'bfloat16' in name else 0.999
      assert row['labels_equal'] >= least, name
      assert row['runs'][0]['units'] == batch
      assert summary.rate(case, row) > 0


@pytest.mark.parametrize('trains', [True, False])
def test_training_step(run, trains):
  row = Row(
    'train_step',
    'benchmarks.training:train_step',
    {'size': 65, 'batch': 2, 'classes': 5, 'fine_tune_batch_norm': trains},
    ('tensorflow',),
    {'checkpoint': Checkpoint(_SMALL)},
  )
  _, rows = run([row])
  _settled(rows)


def test_input_and_what_a_training_waits_for(run):
  settings = {'size': 65, 'batch': 2, 'batches_per_call': 2, 'steps': 2}
  _, rows = run(
    Row(
      name,
      f'benchmarks.input_pipeline:{name}',
      settings,
      artifacts={'data': Records(8, (48, 64))},
    )
    for name in ('plain_tf_data', 'dataset', 'training')
  )
  _settled(rows)
  assert 0 <= rows['training']['runs'][0]['facts']['waiting'] < 1
  assert rows['training']['runs'][0]['calls'] == 2


@pytest.mark.parametrize('has_photograph', [False, True])
def test_several_scales(run, has_photograph, tmp_path):
  settings = {'size': 65, 'scales': [0.5, 1.0], 'flips': True}
  if has_photograph:
    settings['image'] = str(tmp_path / 'photo.jpg')
    Image.new('L', (40, 30)).save(settings['image'])
  _, rows = run(
    Row(
      name,
      f'benchmarks.multi_scale:{name}',
      settings,
      artifacts={'checkpoint': Checkpoint(_SMALL)},
    )
    for name in ('single_passes', 'several_scales')
  )
  _settled(rows)


def test_trained_weights_and_a_photograph(run, parse, tmp_path):
  """Weights whose best class is the worst one of the random weights."""
  image = str(tmp_path / 'photo.jpg')
  pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
  Image.fromarray(pixels).save(image)
  arguments = [*_SMALL.all_flags(), f'--output_dir={tmp_path}']
  parse(make_checkpoint, make_checkpoint._define_flags, arguments)
  make_checkpoint.main()
  with np.load(tmp_path / make_checkpoint.WEIGHTS_FILE) as file:
    values = {
      name: -file[name] if name.startswith('logits/') else file[name]
      for name in file
    }
  weights = Weights.of(checkpoints.save(str(tmp_path), 1, values))
  frozen_graph, saved_model, *_ = registry.exported_rows(_SMALL, 1)
  scales = Row(
    'several_scales',
    'benchmarks.multi_scale:several_scales',
    {'size': 65, 'scales': [1.0], 'flips': True},
    artifacts={'checkpoint': Checkpoint(_SMALL)},
  )
  random = dataclasses.replace(
    frozen_graph,
    name='random',
    settings={**frozen_graph.settings, 'image': image},
  )
  rows = [
    selection.row_with_weights(row, weights, image)
    for row in (frozen_graph, saved_model, scales)
  ]
  _, rows = run([*rows, random])
  _settled(rows)
  assert rows['saved_model']['labels_equal'] >= 0.999
  assert rows['random']['labels_equal'] == 0


def test_kernels(run):
  _, rows = run(
    [
      Row(
        'product',
        'benchmarks.kernels:matrix_product',
        {'side': 64, 'dtype': 'bfloat16'},
      ),
      Row(
        'crf',
        'benchmarks.kernels:dense_crf',
        {'height': 24, 'width': 32, 'classes': 4},
      ),
    ]
  )
  _settled(rows)


def test_command(tmp_path, repository):
  path = tmp_path / 'results.json'
  arguments = ['--cases=machine/*', '--runs=1', '--seconds=0.1']
  done = subprocess.run(
    [sys.executable, '-m', 'benchmarks', *arguments, f'--output={path}'],
    cwd=repository,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  results = json.loads(path.read_text())
  assert results['machine']['processors'] >= 1
  assert results['machine']['packages']['tensorflow']
  assert results['settings'] == {'runs': 1, 'seconds': 0.1, 'threads': None}
  assert set(summary.limits(results)) == {'float32', 'bfloat16'}
  assert 'Matrix product' in done.stdout
  table = (tmp_path / 'results.md').read_text()
  assert '| bfloat16 |' in table
  assert (tmp_path / 'results.png').stat().st_size > 1000

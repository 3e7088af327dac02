"""The search of the CRF's parameters."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest

from deeplab import crf_search
from deeplab.common import InputError
from deeplab.core import dense_crf
from deeplab.datasets import data_generator
from deeplab.evaluation import metrics

_GRID = {'w1': [2, 6], 'sigma_alpha': [40, 60, 80], 'sigma_beta': [3.0]}


def _peak(settings, asked):
  """As if mIoU had its peak at w1 = 5 and sigma_alpha = 50."""
  asked.append(settings)
  return {
    s: 1 - abs(s.w1 - 5) / 10 - abs(s.sigma_alpha - 50) / 100 for s in settings
  }


def test_coarse_to_fine():
  asked = []
  rounds = list(
    crf_search.search(functools.partial(_peak, asked=asked), _GRID, 2)
  )
  assert [len(found) for found in rounds] == [len(found) for found in asked]
  assert {(s.w1, s.sigma_alpha) for s in rounds[0]} == {
    (w1, alpha) for w1 in (2, 6) for alpha in (40, 60, 80)
  }
  # Around (6, 40), in halved steps.
  around = {(w1, alpha) for w1 in (4, 6, 8) for alpha in (30, 40, 50)}
  assert {(s.w1, s.sigma_alpha) for s in rounds[1]} == around - {(6, 40)}
  results = {key: value for found in rounds for key, value in found.items()}
  assert len(results) == sum(map(len, rounds)), 'nothing is computed twice'
  best = crf_search.best_of(results)
  assert (best.w1, best.sigma_alpha) == (5, 50) and results[best] == 1
  # What the papers fix.
  assert {(s.w2, s.sigma_gamma, s.iterations) for s in results} == {(3, 3, 10)}
  assert {s.sigma_beta for s in results} == {3}


def test_refinement_stays_in_range():
  def rises_towards_zero(settings):
    return {s: -s.w1 for s in settings}

  rounds = list(crf_search.search(rises_towards_zero, {'w1': [0, 4]}, 1))
  assert [s.w1 for s in rounds[1]] == [2]


def test_nothing_to_refine():
  rounds = list(
    crf_search.search(functools.partial(_peak, asked=[]), {'w1': [4]}, 2)
  )
  assert [len(found) for found in rounds] == [1]


def test_table_and_flags():
  setting = dense_crf.Parameters(w1=5.5)
  results = {setting: 0.75, dense_crf.Parameters(): 0.5}
  header, first, second = crf_search.to_table(results).splitlines()
  assert header.split() == ['w1', 'sigma_alpha', 'sigma_beta', 'mIoU']
  assert first.split() == ['5.5', '67', '3', '75.0000%']
  assert second.split() == ['4', '67', '3', '50.0000%']
  assert crf_search.flags_of(setting) == (
    '--crf --crf_w1=5.5 --crf_sigma_alpha=67 --crf_sigma_beta=3'
  )
  few = dataclasses.replace(setting, iterations=5)
  assert crf_search.flags_of(few).endswith(' --crf_iterations=5')


class _Network:
  """Probabilities that tell which image they belong to."""

  def __init__(self):
    self.num_images = 0

  def probabilities(self, images, sizes):
    self.num_images += len(images)
    return [
      (
        image[:height, :width].astype(np.uint8),
        np.random.default_rng(0)
        .uniform(0.1, 1, (height, width, 21))
        .astype(np.float32),
      )
      for image, (height, width) in zip(images.numpy(), sizes, strict=True)
    ]


def _dataset(testdata, batch_size):
  return data_generator.Dataset(
    'pascal_voc_seg',
    'val',
    str(testdata / 'voc_tfrecord'),
    batch_size,
    (129, 129),
    model_variant='mobilenet_v2',
  )


@pytest.mark.parametrize('batch_size', [1, 2])
@pytest.mark.parametrize(
  ('num_images', 'places'), [(2, (0, 2)), (1, (0,)), (100, (0, 1, 2))]
)
def test_collect(tmp_path, testdata, batch_size, num_images, places):
  """Only the images that are used go through the network."""
  network = _Network()
  samples = crf_search.collect(
    network, _dataset(testdata, batch_size), num_images, str(tmp_path)
  )
  assert network.num_images == len(samples) == len(places)
  names = ('2007_000006', '2007_000007', '2007_000008')
  assert [s.name for s in samples] == [names[place] for place in places]
  sizes = ((81, 120), (129, 129), (100, 75))
  for sample, place in zip(samples, places, strict=True):
    size = sizes[place]
    assert sample.image.shape == (*size, 3) and sample.labels.shape == size
    assert sample.probabilities().shape == (*size, 21)


def test_collect_needs_labels(tmp_path, testdata):
  dataset = _dataset(testdata, 1)
  dataset.has_labels = False
  with pytest.raises(InputError, match='--eval_split=val has no labels'):
    crf_search.collect(_Network(), dataset, 1, str(tmp_path))


def test_mean_ious(tmp_path):
  """Each setting gives what the CRF gives on its own."""
  generator = np.random.default_rng(0)
  samples = []
  for index in range(2):
    image = generator.integers(0, 40, (20, 30, 3)).astype(np.uint8)
    image[:, 15:] += 150
    labels = np.zeros((20, 30), int)
    labels[:, 15:] = 1
    labels[0] = 255
    path = str(tmp_path / f'{index}.npy')
    probabilities = generator.uniform(0.1, 1, (20, 30, 2)).astype(np.float32)
    probabilities[..., 1] += 0.2 * (labels == 1)
    np.save(path, probabilities)
    samples.append(crf_search.Sample(str(index), image, labels, path))
  settings = [
    dense_crf.Parameters(w1=w1, sigma_beta=beta)
    for w1 in (1, 10)
    for beta in (3, 20)
  ]

  def make_matrix():
    return metrics.ConfusionMatrix(2, 255)

  found = crf_search.mean_ious(samples, settings, make_matrix)
  for setting in settings:
    matrix = make_matrix()
    for sample in samples:
      marginals = dense_crf.dense_crf(
        sample.image, sample.probabilities(), setting
      )
      matrix.update(sample.labels[None], marginals.argmax(axis=2)[None])
    assert found[setting] == matrix.mean_iou()
  assert len(set(found.values())) > 1
  before = crf_search.mean_iou_without(samples, make_matrix)
  assert 0.3 < before < max(found.values())


def _run(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'deeplab.crf_search', *arguments],
    capture_output=True,
    text=True,
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'},
    check=False,
  )


def test_a_value_out_of_range_is_one_line(tmp_path, testdata):
  done = _run(
    f'--checkpoint_dir={tmp_path}',
    f'--dataset_dir={testdata}/voc_tfrecord',
    '--sigma_beta=3,0',
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  error = done.stderr.strip().splitlines()[-1]
  assert error.startswith('error: --sigma_beta must be a finite number')


@pytest.mark.slow
def test_the_command(tmp_path, testdata, published_checkpoint):
  checkpoint = published_checkpoint('deeplabv3_mnv2_pascal_trainval')
  output = tmp_path / 'search.json'
  done = _run(
    f'--checkpoint_dir={checkpoint}',
    f'--dataset_dir={testdata}/voc_tfrecord',
    '--eval_crop_size=129,129',
    '--w1=3,6',
    '--sigma_alpha=30',
    '--sigma_beta=3,9',
    '--num_images=2',
    f'--output={output}',
  )
  assert done.returncode == 0, done.stderr
  values = json.loads(output.read_text())
  assert values['num_images'] == 2 and values['step'] == 30000
  first, second = values['rounds']
  assert len(first) == 4 and 3 <= len(second) <= 8
  best = max((row for found in (first, second) for row in found), key=_miou)
  assert values['best'] == best
  assert values['flags'] in done.stdout


def _miou(row):
  return row['miou']


def test_the_output_is_checked_before_the_work(monkeypatch, tmp_path):
  values = types.SimpleNamespace(output=str(tmp_path))
  monkeypatch.setattr(crf_search, 'FLAGS', values)
  with pytest.raises(InputError, match='--output must name a file'):
    crf_search.main()

"""Half precision learns what float32 learns: the training of local_test.sh."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from deeplab.datasets import build_shapes_data, shapes_images

_NETWORK = [
  '--model_variant=mobilenet_v2',
  '--output_stride=16',
  '--depth_multiplier=0.5',
  '--divisible_by=8',
  '--decoder_output_stride=4',
  '--aspp_convs_filters=64',
  '--decoder_filters=64',
  '--batch_norm_decay=0.99',
]


def _run(script, *flags):
  subprocess.run([sys.executable, str(ROOT / script), *flags], check=True)


def _miou(folder, records, *flags):
  _run(
    'train.py',
    f'--train_logdir={folder}/train',
    f'--dataset_dir={records}',
    *_NETWORK,
    '--train_crop_size=97,97',
    '--min_scale_factor=0.75',
    '--max_scale_factor=1.0',
    '--train_batch_size=16',
    '--base_learning_rate=0.15',
    '--training_number_of_steps=1800',
    '--log_steps=100',
    '--seed=0',
    *flags,
  )
  _run(
    'eval.py',
    f'--checkpoint_dir={folder}/train',
    f'--eval_logdir={folder}/eval',
    f'--dataset_dir={records}',
    '--eval_crop_size=129,161',
    '--max_number_of_evaluations=1',
  )
  return json.loads((folder / 'eval' / 'miou_latest.json').read_text())['miou']


@pytest.mark.slow
def test_within_a_point_of_float32(tmp_path):
  size = shapes_images.Options(height=128, width=160)
  build_shapes_data.convert(str(tmp_path), 2000, 100, options=size)
  records = tmp_path / build_shapes_data.RECORDS
  plain = _miou(tmp_path / 'float32', records)
  assert plain > 0.7
  for name in ('bfloat16', 'float16'):
    flag = f'--mixed_precision={name}'
    assert _miou(tmp_path / name, records, flag) > plain - 0.01, name

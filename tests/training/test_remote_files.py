"""Everything of a training in folders that TensorFlow alone can reach."""

import json

import pytest
import tensorflow as tf
import training_process
from conftest import ROOT

from deeplab.training import loop

_RECORDS = ROOT / 'tests' / 'testdata' / 'voc_tfrecord'


@pytest.mark.slow
def test_a_training_goes_on_in_remote_folders():
  # TensorFlow's file system in memory stands for gs:// and others.
  data, logs = 'ram://remote/data', 'ram://remote/train'
  for path in _RECORDS.iterdir():
    tf.io.gfile.copy(str(path), f'{data}/{path.name}')
  for steps in (1, 2):
    prefix = loop.train(
      training_process.make_config(
        logs,
        dataset_dir=data,
        train_batch_size=2,
        training_number_of_steps=steps,
        eval_interval_steps=1,
        eval_crop_size=[65, 65],
        min_resize_value=33,
        max_resize_value=65,
        keep_best_by='miou',
      )
    )
    assert prefix == f'{logs}/model.ckpt-{steps}'
  with tf.io.gfile.GFile(f'{logs}/train_log.jsonl') as file:
    lines = [json.loads(line) for line in file.read().splitlines()]
  assert [line['step'] for line in lines] == [1, 2]
  for name in (
    'dataset_info.json',
    'model_options.json',
    'best/best.json',
    'eval/miou_1.json',
    'eval/miou_2.json',
  ):
    assert tf.io.gfile.exists(f'{logs}/{name}'), name

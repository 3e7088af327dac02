"""Each variant trains, saves, evaluates and exports."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab import checkpoints, common, export, inference
from deeplab.core import dense_prediction_cell, feature_extractor
from deeplab.datasets import build_shapes_data, data_generator, shapes_images
from deeplab.evaluation import evaluator, prediction
from deeplab.training import config, loop

_CROP_SIZE = [97, 97]
_STEPS = 10
_CLASSES = len(shapes_images.CLASS_NAMES)

# What a variant is published with, beside ASPP without atrous branches.
_LITE = {
  'output_stride': 32,
  'image_pooling_stride': [4, 5],
  'aspp_convs_filters': 128,
  'aspp_with_concat_projection': False,
  'aspp_with_squeeze_and_excitation': True,
  'image_se_uses_qsigmoid': True,
  'decoder_output_stride': [8],
  'decoder_use_sum_merge': True,
  'decoder_filters': _CLASSES,
  'decoder_output_is_logits': True,
}
_FULL = {'atrous_rates': [6, 12, 18], 'decoder_output_stride': [4]}
_CASES = {
  **{variant: {} for variant in feature_extractor.BACKBONES},
  'mobilenet_v3_large_seg': _LITE,
  'mobilenet_v3_small_seg': _LITE,
  'nas_hnasnet': {**_FULL, 'output_stride': 8},
  'nas_pnasnet': _FULL,
  'vgg_16': {
    'aspp_with_batch_norm': False,
    'atrous_rates': [6],
    'vgg_fc_filters': 256,
  },
  'xception_65': _FULL,
  'resnet_v1_50_beta': {**_FULL, 'multi_grid': [1, 2, 4]},
  'dense prediction cell': {
    'model_variant': 'xception_41',
    'dense_prediction_cell_config': dense_prediction_cell.read_config(
      'dense_prediction_cell_branch5_top1_cityscapes'
    ),
  },
  'weight standardization': {
    'model_variant': 'resnet_v1_18_beta',
    'use_weight_standardization': True,
  },
  'eight bits': {
    'model_variant': 'mobilenet_v3_small_seg',
    'quantize_delay_step': 5,
    **_LITE,
  },
}
# Without batch norm ten steps get nowhere at the rate of the others.
_TRAINING = {'vgg_16': {'base_learning_rate': 0.1, 'momentum': 0.9}}


@pytest.fixture(autouse=True)
def free_memory():
  yield
  keras.utils.clear_session()


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  """Few and small images: one batch holds all of the training split."""
  folder = tmp_path_factory.mktemp('shapes')
  build_shapes_data.convert(
    str(folder / 'shapes'),
    num_train=4,
    num_val=1,
    options=shapes_images.Options(height=96, width=96),
  )
  return str(folder / 'shapes' / build_shapes_data.RECORDS)


def _train(folder, records, options, **changes):
  """Trains; returns the prefix and the losses of the steps."""
  prefix = loop.train(
    config.TrainConfig(
      model_options=options,
      train_logdir=str(folder),
      dataset_dir=records,
      train_batch_size=4,
      training_number_of_steps=_STEPS,
      learning_power=0.0,
      min_scale_factor=1.0,
      max_scale_factor=1.0,
      log_steps=1,
      **{'base_learning_rate': 0.01, 'momentum': 0.5, **changes},
    )
  )
  lines = (folder / 'train_log.jsonl').read_text().splitlines()
  return prefix, [json.loads(line)['total_loss'] for line in lines]


def _make_dataset(records, variant):
  """The training images: image pooling has seen the statistics of no other."""
  return data_generator.Dataset(
    None, 'train', records, 1, _CROP_SIZE, model_variant=variant
  )


@pytest.mark.slow
@pytest.mark.parametrize('case', _CASES)
def test_trains_evaluates_and_exports(case, tmp_path, records):
  options = common.ModelOptions(
    outputs_to_num_classes={'semantic': _CLASSES},
    crop_size=_CROP_SIZE,
    # Moving statistics are those of the last steps, of so few.
    batch_norm_decay=0.1,
    # Or else background everywhere would be the best guess after ten steps.
    label_weights=[0.2] + [1.0] * (_CLASSES - 1),
    **{'output_stride': 16, 'model_variant': case, **_CASES[case]},
  )
  prefix, losses = _train(
    tmp_path / 'train', records, options, **_TRAINING.get(case, {})
  )
  assert len(losses) == _STEPS
  assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.05, losses

  job = prediction.Job(
    checkpoint_dir=str(tmp_path / 'train'),
    make_dataset=lambda variant: _make_dataset(records, variant),
    make_options=lambda classes, checkpoint: options,
    crop_size=_CROP_SIZE,
    limit=1,
  )
  values = evaluator.run(job, str(tmp_path / 'eval'))
  assert values['step'] == _STEPS

  export.export(prefix, str(tmp_path / 'exported'), options)
  saved = tf.saved_model.load(str(tmp_path / 'exported'))
  run = saved.signatures['serving_default']
  # What eval.py labels with, and its network.
  predict = prediction.Predictor(options, _CROP_SIZE)
  predict.restore(prefix)
  network = inference.build_predictor(options)
  checkpoints.restore(network, prefix)
  for batch in _make_dataset(records, options.model_variant).iterate():
    outputs = run(ImageTensor=batch[common.ORIGINAL_IMAGE])
    height, width = batch[common.ORIGINAL_IMAGE].shape[1:3]
    labels = predict(batch[common.IMAGE])[:, :height, :width]
    np.testing.assert_array_equal(outputs['SemanticPredictions'], labels)
    # Labels alone may say little: after ten steps most are of one class. Nor
    # do probabilities near 0 and 1; their logarithms do.
    probabilities = network(batch[common.IMAGE])['semantic_prob'].numpy()
    wanted = np.log(probabilities[:, :height, :width] + 1e-30)
    found = np.log(outputs['SemanticProbabilities'].numpy() + 1e-30)
    # The exported graph is optimised, this network is not: they round
    # differently.
    spread = wanted.std(axis=(1, 2)).max()
    assert np.abs(found - wanted).max() < 0.01 * spread

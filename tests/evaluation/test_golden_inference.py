"""Checkpoint to pictures and figures, with the original's network and data.

Everything but the flags: a checkpoint with the weights of the recipe is
written, found, restored and run on the original's TFRecord files.
"""

import json

import numpy as np
import pytest
from PIL import Image

import recipe
from deeplab import checkpoints, common, inference
from deeplab.datasets import data_generator
from deeplab.evaluation import evaluator, prediction, visualizer

_RESIZE = {'min_resize_value': 97, 'max_resize_value': 97, 'resize_factor': 16}


def _options(crop_size):
  return common.ModelOptions(
    {'semantic': 21},
    crop_size=crop_size,
    output_stride=16,
    model_variant='mobilenet_v2',
  )


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  """Directory of a checkpoint with the recipe's weights, at step 7."""
  directory = str(tmp_path_factory.mktemp('checkpoint'))
  model = inference.build_predictor(_options([129, 129]))
  values = {
    name: recipe.make_value(name, variable.shape)
    for name, variable in checkpoints.named_variables(model).items()
  }
  checkpoints.save(directory, 7, values)
  return directory


def _job(checkpoint, testdata, crop_size, batch_size, resize, **inference_args):
  def make_dataset(model_variant):
    return data_generator.Dataset(
      'pascal_voc_seg',
      'val',
      str(testdata / 'voc_tfrecord'),
      batch_size,
      crop_size,
      model_variant=model_variant,
      **resize,
    )

  return prediction.Job(
    checkpoint,
    make_dataset,
    lambda *unused: _options(crop_size),
    crop_size,
    limit=1,
    **inference_args,
  )


@pytest.mark.parametrize(
  ('config', 'crop_size', 'batch_size', 'resize', 'inference_args'),
  [
    ('single', [129, 129], 2, {}, {}),
    ('resize', [97, 97], 3, _RESIZE, {}),
    (
      'multiscale_flip',
      [129, 129],
      1,
      {},
      {'eval_scales': [0.5, 1.0, 1.5], 'add_flipped_images': True},
    ),
  ],
)
def test_evaluation_equals_the_original(
  checkpoint,
  testdata,
  tmp_path,
  config,
  crop_size,
  batch_size,
  resize,
  inference_args,
):
  job = _job(
    checkpoint, testdata, crop_size, batch_size, resize, **inference_args
  )
  values = evaluator.run(job, str(tmp_path))
  golden = json.loads((testdata / 'eval_confusion.json').read_text())[config]
  assert values['step'] == 7
  np.testing.assert_array_equal(values['confusion_matrix'], golden['confusion'])
  assert values['miou'] == pytest.approx(golden['miou'], rel=1e-12)


def test_pictures_equal_the_original(checkpoint, testdata, tmp_path):
  job = _job(checkpoint, testdata, [97, 97], 2, _RESIZE)
  assert visualizer.run(job, tmp_path, also_save_raw=True) == 3
  golden = np.load(testdata / 'e2e_predictions.npz')
  for name in ('2007_000006', '2007_000007', '2007_000008'):
    path = tmp_path / 'raw_segmentation_results' / f'{name}.png'
    with Image.open(path) as image:
      np.testing.assert_array_equal(
        np.asarray(image), golden[f'vis_recipe_resize_patched__{name}']
      )


def test_batches_of_any_size(checkpoint):
  predictor = prediction.Predictor(_options([65, 65]), [65, 65])
  assert predictor.restore(checkpoint) == 7
  images = np.random.default_rng(0).uniform(0, 255, (3, 65, 65, 3))
  images = images.astype(np.float32)
  together = predictor(images)
  assert together.shape == (3, 65, 65)
  single = np.concatenate([predictor(images[i : i + 1]) for i in range(3)])
  # Sums of another order may decide a tie otherwise.
  assert np.mean(together != single) < 1e-3

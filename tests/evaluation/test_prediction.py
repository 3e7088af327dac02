"""Finding checkpoints and following a training run."""

import os
import types

import keras
import numpy as np
import pytest
import small_checkpoint
import tensorflow as tf

from deeplab import checkpoints, common, inference, slim
from deeplab.common import InputError
from deeplab.core import dense_crf
from deeplab.datasets import data_generator
from deeplab.evaluation import prediction


def _write(folder, step, state=True):
  """Writes a checkpoint whose only variable is global_step."""
  prefix = os.path.join(folder, f'model.ckpt-{step}')
  tf.raw_ops.SaveV2(
    prefix=prefix,
    tensor_names=['global_step'],
    shape_and_slices=[''],
    tensors=[tf.constant(step, tf.int64)],
  )
  if state:
    tf.compat.v1.train.update_checkpoint_state(folder, prefix)
  return prefix


@pytest.mark.parametrize('suffix', ['', '.index', '.data-00000-of-00001'])
def test_prefix_or_file(tmp_path, suffix):
  prefix = _write(str(tmp_path), 5)
  assert prediction.fixed_checkpoint(prefix + suffix) == prefix
  # A fixed checkpoint is never waited for, whatever the limit.
  assert list(prediction.checkpoint_paths(prefix + suffix, 0)) == [prefix]


def test_directory_of_a_training_run(tmp_path):
  _write(str(tmp_path), 5)
  newest = _write(str(tmp_path), 12)
  assert prediction.fixed_checkpoint(str(tmp_path)) is None
  assert list(prediction.checkpoint_paths(str(tmp_path), 1)) == [newest]


def test_downloaded_directory_without_state_file(tmp_path):
  _write(str(tmp_path), 9, state=False)
  newest = _write(str(tmp_path), 30000, state=False)
  assert prediction.fixed_checkpoint(str(tmp_path)) == newest


@pytest.mark.parametrize('name', ['missing', 'missing/model.ckpt-7'])
def test_nothing_there(tmp_path, name):
  with pytest.raises(InputError, match='no such checkpoint'):
    list(prediction.checkpoint_paths(str(tmp_path / name), 1))


def test_empty_directory(tmp_path):
  with pytest.raises(InputError, match='holds no checkpoint'):
    list(prediction.checkpoint_paths(str(tmp_path), 1))
  with pytest.raises(
    InputError, match=r'no checkpoint appeared in 0\.1 seconds'
  ):
    list(prediction.checkpoint_paths(str(tmp_path), 0, 0, 0.1))


def test_follows_new_checkpoints_until_the_timeout(tmp_path):
  first = _write(str(tmp_path), 1)
  seen = []
  for prefix in prediction.checkpoint_paths(str(tmp_path), 0, 0, 0.5):
    seen.append(prefix)
    if prefix == first:
      second = _write(str(tmp_path), 2)
  assert seen == [first, second]


@pytest.mark.parametrize('name', ['interval_secs', 'timeout_secs'])
def test_times_are_not_negative(name):
  with pytest.raises(InputError, match=f'{name}=-1'):
    prediction.Job('run', None, None, [33, 33], **{name: -1})


def test_limit(tmp_path):
  _write(str(tmp_path), 1)
  seen = []
  for prefix in prediction.checkpoint_paths(str(tmp_path), 2, 0, 5):
    seen.append(os.path.basename(prefix))
    _write(str(tmp_path), len(seen) + 1)
  assert seen == ['model.ckpt-1', 'model.ckpt-2']


def test_job_builds_one_network(tmp_path, monkeypatch, capsys):
  first = _write(str(tmp_path), 1)
  built, restored, asked = [], [], []

  class Stub:
    def __init__(self, *arguments, **more):
      built.append((*arguments, more))

    def restore(self, prefix):
      restored.append(prefix)
      return len(restored)

  def make_options(num_classes, prefix):
    asked.append(prefix)
    return common.ModelOptions({'semantic': num_classes})

  def make_dataset(model_variant):
    return types.SimpleNamespace(num_of_classes=3, variant=model_variant)

  monkeypatch.setattr(prediction, 'Predictor', Stub)
  crf = dense_crf.Parameters(w1=5)
  job = prediction.Job(
    str(tmp_path),
    make_dataset,
    make_options,
    [33, 33],
    eval_scales=[0.5, 1.0],
    add_flipped_images=True,
    crf=crf,
    use_moving_averages=True,
    limit=2,
    interval_secs=0,
    timeout_secs=5,
  )
  steps = []
  for run in job.runs():
    steps.append(run.step)
    assert run.dataset.variant == 'mobilenet_v2'
    assert run.prefix == restored[-1]
    second = _write(str(tmp_path), 2)
  assert restored == [first, second] and steps == [1, 2] and asked == [first]
  assert built == [
    (
      common.ModelOptions({'semantic': 3}),
      [33, 33],
      [0.5, 1.0],
      True,
      None,
      crf,
      {
        'use_moving_averages': True,
        'strategy': None,
        'inference_dtype': 'float32',
      },
    )
  ]
  printed = capsys.readouterr().out
  assert printed.count('Dense CRF: w1=5, sigma_alpha=67, sigma_beta=3') == 1


def test_pyramid_and_scales_exclude_each_other():
  options = common.ModelOptions({'semantic': 3})
  with pytest.raises(InputError, match='--image_pyramid cannot be combined'):
    prediction.Predictor(options, [33, 33], [0.5], False, [1.0, 2.0])
  with pytest.raises(InputError, match='add_flipped_images=True'):
    prediction.Predictor(options, [33, 33], [1.0], True, [1.0, 2.0])


def test_scales_must_be_positive():
  options = common.ModelOptions({'semantic': 3})
  with pytest.raises(InputError, match='scales must be positive'):
    prediction.Predictor(options, [33, 33], [1.0, 0.0])


def test_a_moved_folder_with_absolute_paths_in_its_state_file(tmp_path):
  (tmp_path / 'checkpoint').write_text(
    'model_checkpoint_path: "/elsewhere/model.ckpt-3"\n'
  )
  checkpoints.save(str(tmp_path / 'x'), 3, {'v': 1.0})
  for file in (tmp_path / 'x').glob('model.ckpt-3.*'):
    file.rename(tmp_path / file.name)
  assert prediction.fixed_checkpoint(str(tmp_path)) == str(
    tmp_path / 'model.ckpt-3'
  )


# A CRF behind the network.


def _noisy_network(probabilities):
  """In the place of a network: always the same probabilities."""

  def build(*unused, **unused_too):
    images = keras.Input(probabilities.shape[1:-1] + (3,))
    values = slim.function(
      lambda x: tf.constant(probabilities)[: tf.shape(x)[0]], images
    )
    labels = slim.function(lambda x: tf.argmax(x, axis=-1), values)
    return keras.Model(images, {'semantic': labels, 'semantic_prob': values})

  return build


def _batch():
  """Two images of different sizes, padded to 20 x 24, and probabilities."""
  generator = np.random.default_rng(0)
  sizes = np.array([[20, 17], [12, 24]])
  images = np.full((2, 20, 24, 3), 127.5, np.float32)
  for image, (height, width) in zip(images, sizes, strict=True):
    image[:height, :width] = generator.integers(90, 120, (height, width, 3))
    image[: height // 2, :width] += 90
  probabilities = generator.uniform(0.2, 1, (2, 20, 24, 3)).astype(np.float32)
  return images, sizes, probabilities


def _crf_predictor(monkeypatch, probabilities, crf):
  monkeypatch.setattr(
    inference, 'build_predictor', _noisy_network(probabilities)
  )
  options = common.ModelOptions({'semantic': 3})
  return prediction.Predictor(options, [20, 24], crf=crf, for_speed=False)


def test_the_crf_sees_no_padding(monkeypatch):
  images, sizes, probabilities = _batch()
  crf = dense_crf.Parameters(sigma_beta=10, iterations=3)
  predictor = _crf_predictor(monkeypatch, probabilities, crf)
  plain = probabilities.argmax(axis=-1)
  batch = {
    common.IMAGE: tf.constant(images),
    data_generator.RESIZED_HEIGHT: sizes[:, 0],
    data_generator.RESIZED_WIDTH: sizes[:, 1],
  }
  labels = prediction.label_batch(predictor, batch)
  assert labels.shape == (2, 20, 24)
  for i, (height, width) in enumerate(sizes):
    expected = dense_crf.dense_crf(
      images[i, :height, :width].astype(np.uint8),
      probabilities[i, :height, :width],
      crf,
    ).argmax(axis=-1)
    np.testing.assert_array_equal(labels[i, :height, :width], expected)
    assert (expected != plain[i, :height, :width]).mean() > 0.1
    # Padding keeps the network's labels.
    np.testing.assert_array_equal(labels[i, height:], plain[i, height:])
    np.testing.assert_array_equal(labels[i, :, width:], plain[i, :, width:])


def test_the_crf_of_images_without_padding(monkeypatch):
  images, _, probabilities = _batch()
  crf = dense_crf.Parameters()
  predictor = _crf_predictor(monkeypatch, probabilities, crf)
  expected = dense_crf.dense_crf(
    np.rint(images[1]).astype(np.uint8), probabilities[1], crf
  )
  np.testing.assert_array_equal(predictor(images)[1], expected.argmax(axis=-1))


def test_what_a_crf_works_on(monkeypatch):
  images, sizes, probabilities = _batch()
  predictor = _crf_predictor(monkeypatch, probabilities, None)
  samples = predictor.probabilities(images, sizes)
  for i, (height, width) in enumerate(sizes):
    image, found = samples[i]
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, images[i, :height, :width])
    np.testing.assert_array_equal(found, probabilities[i, :height, :width])
  # And without a CRF the labels are the network's.
  np.testing.assert_array_equal(predictor(images), probabilities.argmax(-1))


def test_functions_of_images_alone_are_not_given_sizes():
  labels = prediction.label_batch(
    lambda images: images[..., 0], {common.IMAGE: np.ones((1, 2, 2, 3))}
  )
  assert labels.shape == (1, 2, 2)


# The folded network.


_SMALL = {
  'crop_size': [33, 33],
  'atrous_rates': [2],
  'aspp_convs_filters': 16,
  'decoder_output_stride': [4],
  'decoder_filters': 16,
}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  """(folder, options) of a small network."""
  folder = tmp_path_factory.mktemp('train')
  return str(folder), small_checkpoint.write(folder, **_SMALL)


def _blobs(seed, height=33, width=33):
  """One image of large squares of colour, float32 [1, height, width, 3]."""
  colors = np.random.default_rng(seed).integers(0, 256, (4, 4, 3))
  rows, columns = np.arange(height) // 9 % 4, np.arange(width) // 9 % 4
  return colors[rows][:, columns][np.newaxis].astype(np.float32)


def _restored(checkpoint, **arguments):
  folder, options = checkpoint
  predictor = prediction.Predictor(options, options.crop_size, **arguments)
  predictor.restore(folder)
  return predictor


@pytest.mark.parametrize(
  'passes', [{}, {'eval_scales': [0.5], 'add_flipped_images': True}]
)
def test_folded_equals_the_network(checkpoint, passes):
  folded = _restored(checkpoint, **passes)
  plain = _restored(checkpoint, for_speed=False, **passes)
  images = np.concatenate([_blobs(seed) for seed in range(3)])
  labels = folded(images)
  assert len(np.unique(labels)) > 1
  assert (labels == plain(images)).mean() > 0.999
  for found, expected in zip(
    folded.probabilities(images, None),
    plain.probabilities(images, None),
    strict=True,
  ):
    np.testing.assert_allclose(found[1], expected[1], atol=2e-5)


def test_bfloat16_is_close_to_the_network(checkpoint):
  images = np.concatenate([_blobs(seed) for seed in range(3)])
  found = _restored(checkpoint, inference_dtype='bfloat16')
  expected = _restored(checkpoint)
  assert (found(images) == expected(images)).mean() > 0.9
  difference = np.abs(
    [
      a[1] - b[1]
      for a, b in zip(
        found.probabilities(images, None),
        expected.probabilities(images, None),
        strict=True,
      )
    ]
  )
  assert difference.dtype == np.float32
  # It is not float32 under another name.
  assert 1e-4 < difference.max() < 0.2


@pytest.fixture(scope='module')
def changed(checkpoint, tmp_path_factory):
  """The folder of a checkpoint with other values of the same network."""
  folder = tmp_path_factory.mktemp('changed')
  predictor = inference.build_predictor(checkpoint[1])
  checkpoints.restore(predictor, checkpoint[0])
  variables = checkpoints.named_variables(predictor)
  bias = variables['logits/semantic/biases']
  bias.assign(bias + [0.0, 0.0, 1e3])
  checkpoints.save(str(folder), 8, variables)
  return str(folder)


@pytest.mark.parametrize('for_speed', [True, False])
def test_a_second_checkpoint(checkpoint, changed, for_speed):
  predictor = _restored(checkpoint, for_speed=for_speed)
  images = _blobs(0)
  first = predictor(images)
  probabilities = predictor.probabilities(images, None)[0][1]
  assert (first != 2).any()
  assert predictor.restore(changed) == 8
  assert (predictor(images) == 2).all()
  np.testing.assert_allclose(
    predictor.probabilities(images, None)[0][1][..., 2], 1
  )
  predictor.restore(checkpoint[0])
  np.testing.assert_array_equal(predictor(images), first)
  np.testing.assert_array_equal(
    predictor.probabilities(images, None)[0][1], probabilities
  )


def test_batches_of_any_number_are_one_trace(checkpoint, monkeypatch):
  predictor = _restored(checkpoint)
  images = np.concatenate([_blobs(seed) for seed in range(3)])
  together = predictor(images)

  def fold(*unused, **unused_too):
    raise AssertionError('The network was built once more.')

  monkeypatch.setattr(inference, 'fold', fold)
  for number in (1, 2, 3):
    # Sums of another order may decide a tie otherwise.
    assert (predictor(images[:number]) == together[:number]).mean() > 0.999


def test_a_quantised_network_is_not_folded(checkpoint, monkeypatch):
  monkeypatch.setattr(inference, 'fold', None)
  options = checkpoint[1].replace(quantize_delay_step=0)
  predictor = prediction.Predictor(options, options.crop_size)
  assert predictor(_blobs(0)).shape == (1, 33, 33)


@pytest.mark.parametrize(
  'changes, arguments, message',
  [
    ({}, {'inference_dtype': 'float16'}, "must be one of .*: 'float16'"),
    (
      {'quantize_delay_step': 5},
      {'inference_dtype': 'bfloat16'},
      '=bfloat16 cannot be combined .*: --quantize_delay_step=5',
    ),
    (
      {},
      {
        'inference_dtype': 'bfloat16',
        'strategy': tf.distribute.get_strategy(),
      },
      'bfloat16 is for one device; leave --num_clones and',
    ),
  ],
)
def test_types_that_are_refused(
  checkpoint, monkeypatch, changes, arguments, message
):
  """Before anything is built."""
  monkeypatch.delattr(inference, 'build_predictor')
  options = checkpoint[1].replace(**changes)
  with pytest.raises(InputError, match=message):
    prediction.Predictor(options, options.crop_size, **arguments)

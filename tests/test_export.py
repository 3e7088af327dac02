"""Exported models, as those who use them see them."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import recipe
from deeplab import (
  atomic_files,
  checkpoints,
  common,
  export,
  inference,
  model,
)
from deeplab.common import InputError
from deeplab.datasets import data_generator
from deeplab.evaluation import prediction, visualizer

_GOLDEN = {
  'single': ({}, {}, {}),
  'dm05': ({'depth_multiplier': 0.5}, {}, {}),
  'multi': (
    {},
    {'inference_scales': [0.75, 1.0, 1.25], 'add_flipped_images': True},
    {},
  ),
  'resize': (
    {},
    {},
    {'min_resize_value': 129, 'max_resize_value': 129, 'resize_factor': 16},
  ),
  'default': ({'output_stride': 8, 'crop_size': [513, 513]}, {}, {}),
}

# Runs where nothing of this package is imported.
_PLAIN = """
import sys
import numpy as np
import tensorflow as tf
run = tf.saved_model.load(sys.argv[1]).signatures['serving_default']
images = np.load(sys.argv[2])
labels = {n: run(ImageTensor=tf.constant(i[None]))['SemanticPredictions'][0]
          for n, i in images.items()}
np.savez(sys.argv[3], **labels)
assert not any(name.split('.')[0] == 'deeplab' for name in sys.modules)
"""


def _options(**changes):
  return common.ModelOptions(
    **{
      'outputs_to_num_classes': {'semantic': 21},
      'crop_size': [129, 129],
      'output_stride': 16,
      **changes,
    }
  )


def _small_options():
  return _options(crop_size=[33, 33], depth_multiplier=0.1, divisible_by=8)


def _checkpoint(folder, options):
  """A checkpoint with the recipe's weights."""
  variables = checkpoints.named_variables(model.build_model(options))
  recipe.assign(variables)
  return checkpoints.save(str(folder / 'train'), 0, variables)


def _run_frozen(path, image, names):
  graph_def = tf.compat.v1.GraphDef()
  graph_def.ParseFromString(path.read_bytes())
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(graph_def, name='')
  with tf.compat.v1.Session(graph=graph) as session:
    return session.run([f'{n}:0' for n in names], {'ImageTensor:0': image})


# 'single' has nothing that 'dm05' and 'resize' have not.
@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=pytest.mark.slow if name == 'single' else ())
    for name in _GOLDEN
  ],
)
def test_equals_the_original(name, tmp_path, testdata):
  changes, scales, resizing = _GOLDEN[name]
  golden = np.load(testdata / 'export.npz')
  image = golden['image'][np.newaxis]
  options = _options(**changes)
  export.export(
    _checkpoint(tmp_path, options),
    str(tmp_path / 'exported'),
    options,
    **scales,
    **resizing,
  )
  saved = tf.saved_model.load(str(tmp_path / 'exported'))
  outputs = saved.signatures['serving_default'](ImageTensor=tf.constant(image))
  labels = outputs['SemanticPredictions'].numpy()
  assert labels.dtype == np.int32
  np.testing.assert_array_equal(labels[0], golden[name])
  if name != 'multi':  # The original's are softmaxed twice.
    probabilities = outputs['SemanticProbabilities'].numpy()
    np.testing.assert_allclose(
      probabilities[0, ::5, ::5], golden[f'{name}_prob'], atol=1e-5
    )
  frozen, raw = _run_frozen(
    tmp_path / 'exported' / export.FROZEN_GRAPH_FILE,
    image,
    ['SemanticPredictions', 'RawSemanticPredictions'],
  )
  np.testing.assert_array_equal(frozen, labels)
  assert raw.shape == (1, *options.crop_size) and raw.dtype == np.float32


@pytest.mark.parametrize('use, value', [(None, 0.25), (False, 0.5)])
def test_moving_averages_are_exported(tmp_path, use, value):
  options = _options(crop_size=[33, 33], depth_multiplier=0.1, divisible_by=1)
  variables = checkpoints.named_variables(model.build_model(options))
  bias = 'logits/semantic/biases'
  variables[bias].assign(np.full([21], 0.5, np.float32))
  average = np.full([21], 0.25, np.float32)
  prefix = checkpoints.save(
    str(tmp_path), 3, {**variables, f'{bias}/ExponentialMovingAverage': average}
  )
  path = str(tmp_path / 'graph.pb')
  export.export(prefix, path, options, use_moving_averages=use)
  exported = checkpoints.read(path)[bias][1]()
  np.testing.assert_array_equal(exported, np.full([21], value))


def test_plain_tensorflow_gives_what_vis_writes(tmp_path, testdata):
  options = _options(crop_size=[129, 145])
  checkpoint = _checkpoint(tmp_path, options)
  dataset = data_generator.Dataset(
    None,
    'val',
    str(testdata / 'voc_tfrecord'),
    1,
    options.crop_size,
    model_variant='mobilenet_v2',
  )
  predict = prediction.Predictor(options, options.crop_size)
  predict.restore(checkpoint)
  visualizer.visualize(
    predict, dataset, str(tmp_path / 'vis'), also_save_raw=True
  )
  images = {
    batch[common.IMAGE_NAME].numpy()[0].decode(): batch[
      common.ORIGINAL_IMAGE
    ].numpy()[0]
    for batch in dataset.iterate()
  }
  assert len({image.shape for image in images.values()}) > 1
  np.savez(tmp_path / 'images.npz', **images)
  export.export(checkpoint, str(tmp_path / 'exported'), options)
  subprocess.run(
    [
      sys.executable,
      '-c',
      _PLAIN,
      str(tmp_path / 'exported'),
      str(tmp_path / 'images.npz'),
      str(tmp_path / 'labels.npz'),
    ],
    check=True,
    cwd=tmp_path,
  )
  labels = np.load(tmp_path / 'labels.npz')
  folder = tmp_path / 'vis' / visualizer.RAW_PREDICTION_FOLDER
  for name in images:
    content = tf.io.read_file(str(folder / f'{name}.png'))
    expected = tf.io.decode_png(content, channels=1)[..., 0].numpy()
    np.testing.assert_array_equal(labels[name], expected)


def test_an_image_larger_than_the_crop(tmp_path):
  options = _small_options()
  export.export(
    _checkpoint(tmp_path, options),
    str(tmp_path / 'exported'),
    options,
    formats=['saved_model'],
  )
  saved = tf.saved_model.load(str(tmp_path / 'exported'))
  image = tf.zeros([1, 40, 30, 3], tf.uint8)
  with pytest.raises(tf.errors.InvalidArgumentError, match='40x30'):
    saved.signatures['serving_default'](ImageTensor=image)


def test_a_frozen_graph_alone_and_its_text(tmp_path):
  options = _small_options()
  path = tmp_path / 'folder' / 'graph.pb'
  written = export.export(
    _checkpoint(tmp_path, options),
    str(path),
    options,
    save_inference_graph=True,
  )
  assert sorted(map(os.path.basename, written)) == [
    'graph.pb',
    'inference_graph.pbtxt',
  ]
  assert sorted(os.listdir(path.parent)) == [
    'graph.pb',
    'inference_graph.pbtxt',
  ]


def test_a_path_that_cannot_be_written(tmp_path):
  options = _small_options()
  (tmp_path / 'file').touch()
  with pytest.raises(InputError, match='--export_path'):
    export.export(
      _checkpoint(tmp_path, options), str(tmp_path / 'file' / 'x'), options
    )


def test_a_failure_leaves_the_earlier_export(tmp_path, monkeypatch):
  options = _small_options()
  checkpoint = _checkpoint(tmp_path, options)
  folder = tmp_path / 'exported'
  folder.mkdir()
  (folder / 'saved_model.pb').write_text('earlier')

  def full(*unused):
    raise OSError('No space left on device')

  monkeypatch.setattr(atomic_files, 'write', full)
  with pytest.raises(InputError, match='No space left'):
    export.export(checkpoint, str(folder), options)
  assert sorted(os.listdir(tmp_path)) == ['exported', 'train']
  assert os.listdir(folder) == ['saved_model.pb']


def test_bad_resizing(tmp_path):
  options = _small_options()
  with pytest.raises(InputError, match='min_resize_value=-1'):
    export.export('none', str(tmp_path / 'x'), options, min_resize_value=-1)


def test_other_files_are_never_replaced(tmp_path):
  options = _small_options()
  checkpoint = _checkpoint(tmp_path, options)
  with pytest.raises(InputError, match=r'more than an .*checkpoint'):
    export.export(checkpoint, str(tmp_path / 'train'), options)
  assert checkpoints.find(tmp_path / 'train') == checkpoint
  folder = tmp_path / 'exported'
  export.export(checkpoint, str(folder), options, formats=['frozen_graph'])
  with pytest.raises(InputError, match='folder of --checkpoint_path'):
    export.export(str(folder), str(folder), options)
  (folder / 'notes.txt').touch()
  with pytest.raises(InputError, match=r'more than an .*notes\.txt'):
    export.export(checkpoint, str(folder), options)


def test_a_second_export_replaces_the_first_and_nothing_else(tmp_path):
  options = _small_options()
  checkpoint = _checkpoint(tmp_path, options)
  others = [
    tmp_path / 'exported.old' / 'notes.txt',
    tmp_path / 'exported.tmp' / 'model_int8.tflite',
  ]
  for path in others:
    path.parent.mkdir()
    path.touch()
  folder = tmp_path / 'exported'
  for _ in range(2):
    export.export(checkpoint, str(folder), options, formats=['frozen_graph'])
  assert os.listdir(folder) == [export.FROZEN_GRAPH_FILE]
  assert all(path.exists() for path in others)
  assert sorted(os.listdir(tmp_path)) == [
    'exported',
    'exported.old',
    'exported.tmp',
    'train',
  ]
  assert folder.stat().st_mode == others[0].parent.stat().st_mode


def test_a_folder_that_cannot_take_its_place(tmp_path, monkeypatch):
  options = _small_options()
  checkpoint = _checkpoint(tmp_path, options)
  folder = tmp_path / 'exported'
  folder.mkdir()
  (folder / 'saved_model.pb').write_text('earlier')
  rename = os.rename

  def fail(source, target):
    if source.endswith('new'):
      raise OSError('Disk on fire')
    rename(source, target)

  monkeypatch.setattr(os, 'rename', fail)
  with pytest.raises(InputError, match='Disk on fire'):
    export.export(checkpoint, str(folder), options, formats=['frozen_graph'])
  assert sorted(os.listdir(tmp_path)) == ['exported', 'train']
  assert (folder / 'saved_model.pb').read_text() == 'earlier'


@pytest.fixture
def unbuilt(tmp_path, monkeypatch):
  """A checkpoint and options whose network must not be built."""
  checkpoint = checkpoints.save(
    str(tmp_path / 'train'), 0, {'x': np.zeros([1], np.float32)}
  )

  def build(*unused, **unused_too):
    raise AssertionError('The network was built.')

  monkeypatch.setattr(inference, 'build_predictor', build)
  return checkpoint, _small_options()


def test_paths_that_are_taken_are_found_first(tmp_path, unbuilt):
  checkpoint, options = unbuilt
  (tmp_path / 'model.bin').write_text("the user's")
  (tmp_path / 'x.pb.export_report.json').mkdir()
  (tmp_path / 'y.pb').mkdir()
  for name, message in (
    ('model.bin', 'is a file.*ends in .pb, .tflite, .onnx'),
    ('x.pb', r'x\.pb\.export_report\.json cannot be written: it is a folder'),
    ('y.pb', r'y\.pb cannot be written: it is a folder'),
  ):
    with pytest.raises(InputError, match=message):
      export.export(checkpoint, str(tmp_path / name), options, verify=True)
  assert (tmp_path / 'model.bin').read_text() == "the user's"
  assert not (tmp_path / 'x.pb').exists()


def test_a_report_belongs_to_its_model(tmp_path, monkeypatch):
  options = _small_options()
  checkpoint = _checkpoint(tmp_path, options)
  path = tmp_path / 'graph.pb'
  report = tmp_path / 'graph.pb.export_report.json'
  report.write_text('of an earlier model')
  export.export(checkpoint, str(path), options)
  assert not report.exists()
  earlier = path.read_bytes()
  write = atomic_files.write

  def fail(name, content):
    if name == str(path):
      raise InputError('No space left on device')
    write(name, content)

  monkeypatch.setattr(atomic_files, 'write', fail)
  with pytest.raises(InputError, match='No space left'):
    export.export(checkpoint, str(path), options, verify=True)
  assert path.read_bytes() == earlier and not report.exists()


def test_a_limit_of_no_images_is_refused(repository, testdata, tmp_path):
  checkpoint = testdata / 'original' / 'ckpt_mobilenet_v2_dm05_os16'
  done = subprocess.run(
    [
      sys.executable,
      str(repository / 'export_model.py'),
      f'--checkpoint_path={checkpoint}',
      f'--export_path={tmp_path / "exported"}',
      '--depth_multiplier=0.5',
      '--calibration_limit=5',
    ],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert '--calibration_limit=5 has no effect' in done.stderr
  assert not list(tmp_path.iterdir())

"""Pictures of a stand-in network's predictions on three small images."""

import json
import os
import pathlib
import re
import shutil
import types

import numpy as np
import pytest
from PIL import Image

from deeplab import common
from deeplab.common import InputError
from deeplab.datasets import data_generator, dataset_info
from deeplab.evaluation import (
  evaluator,
  metrics,
  photos,
  prediction,
  visualizer,
)
from deeplab.utils import get_dataset_colormap

_TESTDATA = pathlib.Path(__file__).parents[1] / 'testdata'
_GOLDEN = np.load(_TESTDATA / 'e2e_predictions.npz')
_NAMES = ('2007_000006', '2007_000007', '2007_000008')
_SIZES = ((81, 120), (129, 129), (100, 75))
_RESIZED = ((65, 97), (97, 97), (97, 81))
_RESIZE = {'min_resize_value': 97, 'max_resize_value': 97, 'resize_factor': 16}


def _dataset(batch_size, crop_size, **options):
  return data_generator.Dataset(
    'pascal_voc_seg',
    'val',
    str(_TESTDATA / 'voc_tfrecord'),
    batch_size,
    crop_size,
    model_variant='mobilenet_v2',
    **options,
  )


def _golden(config):
  """A network that predicts what the original's did, image by image."""
  labels = (_GOLDEN[f'eval__{config}__{name}__prediction'] for name in _NAMES)
  return lambda images: np.stack([next(labels) for _ in images])


def _read(*path):
  with Image.open(os.path.join(*path)) as image:
    return np.asarray(image)


def _page(folder):
  """The values inside a contact sheet."""
  text = (folder / 'index.html').read_text()
  (found,) = re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)
  return json.loads(found)


@pytest.mark.parametrize('batch_size', [1, 2])
@pytest.mark.parametrize('resize', [False, True])
def test_pictures_equal_the_original(tmp_path, batch_size, resize):
  config, crop_size, options = (
    ('resize', (97, 97), _RESIZE) if resize else ('single', (129, 129), {})
  )
  dataset = _dataset(batch_size, crop_size, **options)
  count = visualizer.visualize(
    _golden(config), dataset, tmp_path, also_save_raw=True
  )
  assert count == 3
  folder = tmp_path / 'segmentation_results'
  raw_folder = tmp_path / 'raw_segmentation_results'
  assert sorted(os.listdir(folder)) == [
    f'{index:06d}_{kind}.png'
    for index in range(3)
    for kind in ('error', 'image', 'label', 'overlay', 'prediction')
  ]
  assert sorted(os.listdir(raw_folder)) == [f'{name}.png' for name in _NAMES]
  golden = 'vis_recipe_resize_patched__' if resize else 'vis_recipe__'
  for index, name in enumerate(_NAMES):
    labels = _read(raw_folder, f'{name}.png')
    np.testing.assert_array_equal(labels, _GOLDEN[golden + name])
    colors = _read(folder, f'{index:06d}_prediction.png')
    np.testing.assert_array_equal(
      colors, get_dataset_colormap.label_to_color_image(labels)
    )
    image = _read(folder, f'{index:06d}_image.png')
    size = (_RESIZED if resize else _SIZES)[index]
    assert image.shape == (*size, 3)
    blend = _read(folder, f'{index:06d}_overlay.png')
    assert blend.shape == (*_SIZES[index], 3)
    if not resize:
      half = (image.astype(int) + colors) / 2
      assert np.abs(blend - half).max() <= 0.5


def test_colours_equal_the_original(tmp_path):
  dataset = _dataset(1, (129, 129))
  visualizer.visualize(_golden('single'), dataset, tmp_path)
  np.testing.assert_array_equal(
    _read(tmp_path, 'segmentation_results', '000000_prediction.png'),
    _GOLDEN['vis_recipe__000000_prediction_rgb'],
  )
  assert not os.listdir(tmp_path / 'raw_segmentation_results')


def test_images_are_the_files_pixels(tmp_path):
  dataset = _dataset(3, (129, 129))
  visualizer.visualize(_golden('single'), dataset, tmp_path)
  (batch,) = dataset.iterate()
  for index, (height, width) in enumerate(_SIZES):
    np.testing.assert_array_equal(
      _read(tmp_path, 'segmentation_results', f'{index:06d}_image.png'),
      batch[common.IMAGE][index, :height, :width].numpy(),
    )


def test_colours_of_the_data_set(tmp_path):
  dataset = _dataset(3, (129, 129))
  colormap = np.arange(21 * 3, dtype=np.uint8).reshape(21, 3)
  visualizer.visualize(_golden('single'), dataset, tmp_path, colormap)
  labels = _GOLDEN['vis_recipe__2007_000008']
  np.testing.assert_array_equal(
    _read(tmp_path, 'segmentation_results', '000002_prediction.png'),
    colormap[labels],
  )


@pytest.mark.parametrize('resize', [False, True])
def test_ground_truth_and_errors(tmp_path, resize):
  """Of the file's size, and red exactly where the two pictures differ."""
  config, crop_size, options = (
    ('resize', (97, 97), _RESIZE) if resize else ('single', (129, 129), {})
  )
  dataset = _dataset(2, crop_size, **options)
  visualizer.visualize(_golden(config), dataset, tmp_path)
  folder = tmp_path / 'segmentation_results'
  (batch,) = _dataset(3, (129, 129)).iterate()
  for index, size in enumerate(_SIZES):
    truth, predicted, error = (
      _read(folder, f'{index:06d}_{kind}.png').astype(int)
      for kind in ('label', 'prediction', 'error')
    )
    assert truth.shape == predicted.shape == error.shape == (*size, 3)
    label = batch[common.LABEL][index, : size[0], : size[1], 0].numpy()
    ignored = np.isin(truth, [88, 122]).all(axis=-1)
    expected = get_dataset_colormap.label_to_color_image(label)
    same = np.where(label == 255, ignored, (truth == expected).all(axis=-1))
    # After resizing, edges may have moved by a pixel or so.
    assert same.mean() > 0.95 if resize else same.all()
    is_red = error[..., 0] - error[..., 1] > 100
    is_wrong = (truth != predicted).any(axis=-1) & ~ignored
    np.testing.assert_array_equal(is_red, is_wrong)
    assert is_wrong.any() and ignored.any()


@pytest.mark.parametrize('resize', [False, True])
def test_the_page_says_what_evaluation_says(tmp_path, resize):
  config, crop_size, options = (
    ('resize', (97, 97), _RESIZE) if resize else ('single', (129, 129), {})
  )
  dataset = _dataset(2, crop_size, **options)
  visualizer.visualize(_golden(config), dataset, tmp_path, step=9)
  matrix = evaluator.evaluate(_golden(config), dataset)
  page = _page(tmp_path)
  assert page['title'] == 'pascal_voc_seg val, step 9'
  assert page['miou'] == pytest.approx(matrix.mean_iou(), abs=1e-4)
  assert page['accuracy'] == pytest.approx(matrix.pixel_accuracy(), abs=1e-4)
  expected = metrics.to_dict(matrix)['classes']
  for row, values in zip(page['classes'], expected, strict=True):
    assert row['iou'] == (
      None if values['iou'] is None else pytest.approx(values['iou'], abs=1e-4)
    )
  for image, name, size in zip(page['images'], _NAMES, _SIZES, strict=True):
    assert image['name'] == name
    assert (image['height'], image['width']) == size
    assert len(image['layers']) == 5
    for path in image['layers'].values():
      assert (tmp_path / path).is_file()


def test_a_split_without_labels(tmp_path):
  data = tmp_path / 'data'
  data.mkdir()
  for path in (_TESTDATA / 'voc_tfrecord').glob('val-*'):
    shutil.copy(path, data / path.name.replace('val', 'test'))
  dataset = data_generator.Dataset(
    'pascal_voc_seg', 'test', str(data), 1, (129, 129)
  )
  dataset.has_labels = False
  assert visualizer.visualize(_golden('single'), dataset, tmp_path) == 3
  kinds = {
    path.stem.partition('_')[2]
    for path in (tmp_path / 'segmentation_results').iterdir()
  }
  assert kinds == {'image', 'prediction', 'overlay'}
  page = _page(tmp_path)
  assert page['miou'] is None
  predicted = np.unique(_GOLDEN['vis_recipe__2007_000006']).tolist()
  assert [row[0] for row in page['images'][0]['classes']] == predicted


def test_each_checkpoint_replaces_the_page(tmp_path):
  dataset = _dataset(1, (129, 129))
  runs = [prediction.Run(_golden('single'), dataset, step=n) for n in (5, 8)]
  titles = []

  def following():
    for run in runs:
      yield run
      titles.append(_page(tmp_path)['title'])

  visualizer.run(types.SimpleNamespace(runs=following), tmp_path)
  assert titles == [f'pascal_voc_seg val, step {step}' for step in (5, 8)]


def test_cityscapes_ids(tmp_path):
  dataset = _dataset(3, (129, 129))
  dataset.info = dataset.info.replace(name='cityscapes')
  labels = np.full((3, 129, 129), 18)
  labels[:, :, 0] = 0
  visualizer.visualize(
    lambda unused: labels, dataset, tmp_path, also_save_raw=True
  )
  raw = _read(tmp_path, 'raw_segmentation_results', '2007_000006.png')
  assert raw[0, 0] == 7 and (raw[:, 1:] == 33).all()
  # The picture keeps the colours of the network's classes.
  picture = _read(tmp_path, 'segmentation_results', '000000_prediction.png')
  np.testing.assert_array_equal(picture[0, :2], [[0, 0, 0], [0, 192, 0]])


def test_photographs_have_no_ids_of_a_server(tmp_path):
  """Their classes may be guessed, from their number."""
  Image.new('RGB', (40, 30)).save(tmp_path / 'a.png')
  dataset = photos.Photos(
    [str(tmp_path / 'a.png')], dataset_info.BUILTIN['cityscapes']
  )
  visualizer.visualize(
    lambda images: np.full(images.shape[:3], 18),
    dataset,
    tmp_path,
    also_save_raw=True,
  )
  assert (_read(tmp_path, 'raw_segmentation_results', 'a.png') == 18).all()


def _with_broken_labels(monkeypatch, *names):
  """Gives images, by their names, a label that is no class."""
  read = prediction.batches

  def broken(*arguments):
    for batch in read(*arguments):
      label = batch[common.LABEL].copy()
      for index, name in enumerate(batch[common.IMAGE_NAME]):
        if name.decode() in names:
          label[index, 5, 5] = 77
      yield {**batch, common.LABEL: label}

  monkeypatch.setattr(prediction, 'batches', broken)


def test_labels_that_are_no_classes_do_not_end_it(
  tmp_path, monkeypatch, caplog
):
  """Such images are shown without; one of them is named."""
  _with_broken_labels(monkeypatch, *_NAMES[:2])
  dataset = _dataset(3, (129, 129))
  assert visualizer.visualize(_golden('single'), dataset, tmp_path) == 3
  first, second, third = _page(tmp_path)['images']
  assert first['miou'] is None and 'label' not in first['layers']
  assert first['classes'] and second['miou'] is None
  assert third['miou'] is not None and 'error' in third['layers']
  (warning,) = [
    r.getMessage() for r in caplog.records if '77' in r.getMessage()
  ]
  assert _NAMES[0] in warning


def test_the_page_is_there_after_a_late_error(tmp_path, monkeypatch):
  golden, calls = _golden('single'), []

  def predict(images):
    calls.append(images)
    if len(calls) == 3:
      raise InputError('the third image is broken.')
    return golden(images)

  with pytest.raises(InputError, match='the third image is broken'):
    visualizer.visualize(predict, _dataset(1, (129, 129)), tmp_path)
  names = [image['name'] for image in _page(tmp_path)['images']]
  assert names == list(_NAMES[:2])


def test_no_page_of_nothing(tmp_path):
  def predict(images):
    raise InputError('broken.')

  with pytest.raises(InputError, match='broken'):
    visualizer.visualize(predict, _dataset(1, (129, 129)), tmp_path)
  assert not (tmp_path / 'index.html').exists()


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    (b'2007_000033', '2007_000033'),
    (b'images/validation/ADE_val_00000001.jpg', 'ADE_val_00000001'),
    (b'frame.0001', 'frame.0001'),
    (b'a/b.PNG', 'b'),
    (b'no\xff text.png', 'no\ufffd text'),
  ],
)
def test_raw_names(name, expected):
  assert visualizer.raw_name(name) == expected


def test_names_of_any_bytes(tmp_path, monkeypatch):
  read = prediction.batches

  def renamed(*arguments):
    for batch in read(*arguments):
      yield {**batch, common.IMAGE_NAME: [b'no\xff text']}

  monkeypatch.setattr(prediction, 'batches', renamed)
  visualizer.visualize(_golden('single'), _dataset(1, (129, 129)), tmp_path)
  assert _page(tmp_path)['images'][0]['name'] == 'no\ufffd text'


def test_raw_predictions_do_not_overwrite_each_other(tmp_path, monkeypatch):
  monkeypatch.setattr(visualizer, 'raw_name', lambda unused: 'same')
  with pytest.raises(InputError, match=r'2007_000006.*2007_000007.*same\.png'):
    visualizer.visualize(
      _golden('single'),
      _dataset(1, (129, 129)),
      tmp_path,
      also_save_raw=True,
    )


def test_too_few_colours(tmp_path):
  dataset = _dataset(1, (129, 129))
  dataset.num_of_classes = 100
  with pytest.raises(InputError, match='mapillary_vistas has 66 colours'):
    visualizer.run(_job(dataset), tmp_path, 'mapillary_vistas')


def _job(dataset):
  """A job of one checkpoint that predicts what the original network did."""
  run = prediction.Run(_golden('single'), dataset)
  return types.SimpleNamespace(runs=lambda: iter([run]))


@pytest.mark.parametrize(
  ('colormap_type', 'described', 'expected'),
  [
    (None, False, 'pascal'),
    (None, True, 'own'),
    ('pascal', True, 'pascal'),
    ('ade20k', False, 'ade20k'),
  ],
)
def test_choice_of_colours(tmp_path, colormap_type, described, expected):
  """dataset_info.json gives the colours unless others are asked for."""
  dataset = _dataset(1, (129, 129))
  colors = [[index, 0, 255 - index] for index in range(21)]
  dataset.info = dataset.info.replace(colors=colors)
  dataset.dataset_dir = str(tmp_path / 'data')
  if described:
    dataset.info.save(dataset.dataset_dir)
  assert visualizer.run(_job(dataset), tmp_path, colormap_type) == 3
  colormap = (
    np.array(colors)
    if expected == 'own'
    else get_dataset_colormap.create_label_colormap(expected)
  )
  np.testing.assert_array_equal(
    _read(tmp_path, 'segmentation_results', '000002_prediction.png'),
    colormap[_GOLDEN['vis_recipe__2007_000008']],
  )
  legend = [row['color'] for row in _page(tmp_path)['classes']]
  np.testing.assert_array_equal(legend, colormap[:21])


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(InputError, match='file cannot be written to'):
    visualizer.run(_job(_dataset(1, (129, 129))), tmp_path / 'file')

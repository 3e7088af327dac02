"""The page of predictions, as its data and in a browser."""

import io
import json
import math
import re
from urllib import parse

import browser
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab.datasets import dataset_info
from deeplab.evaluation import contact_sheet, metrics, visualizer

_INFO = dataset_info.DatasetInfo(
  'mine',
  4,
  class_names=['ground', 'tree', '<b>house</b>', 'unseen'],
  colors=[[0, 0, 0], [0, 200, 0], [200, 0, 10], [9, 9, 9]],
)
_GREEN, _RED, _WHITE = (0, 200, 0), (200, 0, 10), (255, 255, 255)
# What a page or a path could stumble over.
_NAMES = ('b2', 'b10', 'a #1?% </script><!-- &"\'')
_SIZE = (30, 40)


def _prediction(index):
  """Ground; on the right half tree (image 0) or house (image 1)."""
  labels = np.zeros(_SIZE, np.int64)
  if index < 2:
    labels[:, 20:] = index + 1
  return labels


def _scores(truth, prediction):
  matrix = metrics.ConfusionMatrix(_INFO.num_classes, _INFO.ignore_label)
  matrix.update(truth[None], prediction[None])
  return matrix


def _make(folder, has_labels=True, repeat=1):
  """A page of three white images, which all are tree on the right half."""
  pictures = folder / 'pictures'
  pictures.mkdir()
  sheet = contact_sheet.ContactSheet(str(folder), _INFO)
  truth = _prediction(0)
  truth[0] = _INFO.ignore_label
  image = np.full((*_SIZE, 3), 255, np.uint8)
  colormap = np.array(_INFO.colors)
  for index, name in enumerate(_NAMES):
    labels = _prediction(index)
    files = visualizer.save_sample(
      f'{index} #%', image, labels, pictures, colormap,
      *((truth, _INFO.ignore_label) if has_labels else ()),
    )  # fmt: skip
    layers = {layer: f'pictures/{file}' for layer, file in files.items()}
    scores = _scores(truth, labels) if has_labels else None
    for copy in range(repeat):
      suffix = f'_{copy}' if copy else ''
      sheet.add(name + suffix, labels.shape, layers, scores, labels)
  return sheet.write('mine <val>, step 7')


def _data(path):
  """The values inside a page."""
  with tf.io.gfile.GFile(path) as file:
    text = file.read()
  (found,) = re.findall(r'id="data">(.*?)</script>', text, re.DOTALL)
  return json.loads(found)


@pytest.fixture(scope='module')
def url(tmp_path_factory):
  """A page with labels."""
  return f'file://{_make(tmp_path_factory.mktemp("sheet"))}'


def _shown(page):
  """Names on the sheet, in their order."""
  return page.locator('.card .name').all_inner_texts()


def _color(locator, x, y=0.5):
  """What is drawn at a place (shares of width and height) of an element."""
  locator.scroll_into_view_if_needed()
  locator.evaluate(
    'node => Promise.all('
    '[...node.querySelectorAll("img")].map((one) => one.decode()))'
  )
  picture = Image.open(io.BytesIO(locator.screenshot())).convert('RGB')
  place = (int(x * picture.width), int(y * picture.height))
  return picture.getpixel(place)


def _wait_for_focus(page, name):
  """Waits until the keyboard is at the name of an image."""
  page.wait_for_function(
    'name => document.activeElement.innerText === name', arg=name
  )


def test_values_of_the_page(tmp_path):
  data = _data(_make(tmp_path))
  assert data['title'] == 'mine <val>, step 7'
  assert [key for key, _ in data['layers']] == [
    'image', 'prediction', 'overlay', 'label', 'error',
  ]  # fmt: skip
  assert [image['name'] for image in data['images']] == list(_NAMES)
  right, half, ground = data['images']
  # The first row is ignored.
  assert (right['miou'], right['accuracy']) == (1, 1)
  assert right['classes'] == [[0, 0.5, 0.5, 1], [1, 0.5, 0.5, 1]]
  assert (half['miou'], half['accuracy']) == (0.3333, 0.5)
  assert half['classes'][1:] == [[1, 0, 0.5, 0], [2, 0.5, 0, 0]]
  assert ground['classes'] == [[0, 1, 0.5, 0.5], [1, 0, 0.5, 0]]
  # Of all images together: 3 halves of ground, 2 of them and more predicted.
  assert [row['iou'] for row in data['classes']] == [0.75, 0.3333, 0, None]
  assert data['miou'] == pytest.approx((0.75 + 1 / 3) / 3, abs=1e-4)
  assert data['accuracy'] == pytest.approx(4 / 6, abs=1e-4)
  assert (right['height'], right['width']) == _SIZE


def test_values_without_labels(tmp_path):
  data = _data(_make(tmp_path, has_labels=False))
  assert [key for key, _ in data['layers']] == [
    'image', 'prediction', 'overlay',
  ]  # fmt: skip
  image = data['images'][1]
  assert image['miou'] is None and data['miou'] is None
  assert image['classes'] == [[0, 0.5, None, None], [2, 0.5, None, None]]


def test_an_image_without_a_counted_pixel(tmp_path):
  sheet = contact_sheet.ContactSheet(str(tmp_path), _INFO)
  truth = np.full(_SIZE, _INFO.ignore_label)
  scores = _scores(truth, _prediction(0))
  assert math.isnan(scores.mean_iou())
  sheet.add('void', _SIZE, {'image': 'a.png'}, scores)
  (image,) = _data(sheet.write('t'))['images']
  assert image['miou'] is None and image['classes'] == []


def test_a_remote_folder_and_a_page_that_is_replaced():
  folder = 'ram://contact_sheet'
  for step in (1, 2):
    sheet = contact_sheet.ContactSheet(folder, _INFO)
    path = sheet.write(f'step {step}')
  assert path == f'{folder}/index.html'
  assert tf.io.gfile.listdir(folder) == ['index.html']
  assert _data(path)['title'] == 'step 2'


def test_pictures_order_and_names(url):
  with browser.open_page(url) as page:
    requests = []
    page.on('request', lambda request: requests.append(request.url))
    page.reload()
    assert page.title() == page.locator('h1').inner_text()
    assert page.title() == 'mine <val>, step 7'
    assert page.locator('.card').count() == 3
    assert page.locator('.card figcaption').first.inner_text() == 'Image'
    images = page.locator('.card img')
    images.last.scroll_into_view_if_needed()
    page.wait_for_function(
      '[...document.images].every((one) => one.naturalWidth === 40)'
    )
    assert all(
      images.nth(index).get_attribute(name)
      for index in range(images.count())
      for name in ('width', 'height', 'loading')
    )
    # Nothing comes from elsewhere.
    assert {parse.urlsplit(one).scheme for one in requests} <= {'file', 'data'}
    b2, b10, odd = _NAMES
    # Ground alone has a half of itself; a wrong class more lowers the mean.
    assert _shown(page) == [odd, b10, b2]
    for order, expected in {
      'IoU, best first': [b2, b10, odd],
      'accuracy, worst first': [b10, odd, b2],
      'name': [odd, b2, b10],
      'number': [b2, b10, odd],
    }.items():
      page.locator('#sort').select_option(order)
      assert _shown(page) == expected, order
    page.get_by_placeholder('contains').fill('B')
    assert _shown(page) == [b2, b10]
    assert page.locator('#status').inner_text() == '2 of 3 images'


def test_slider_and_opacity(url):
  with browser.open_page(url) as page:
    page.locator('#sort').select_option('number')
    page.get_by_text('Compare two').click()
    stage = page.locator('.card .stage').first
    # White on the left, what is predicted on the right.
    assert _color(stage, 0.4) == _WHITE
    assert _color(stage, 0.6) == _GREEN
    slider = page.locator('#comparison [data-bind=wipe]')
    slider.focus()
    page.keyboard.press('End')
    assert _color(stage, 0.6) == _WHITE
    # Drag to the left: the prediction everywhere.
    box = stage.bounding_box()
    y = box['y'] + box['height'] / 3
    page.mouse.move(box['x'] + box['width'] - 20, y)
    page.mouse.down()
    page.mouse.move(box['x'] + box['width'] * 0.25, y, steps=4)
    page.mouse.up()
    assert slider.input_value() == '25'
    assert page.locator('#viewer').is_hidden()
    assert _color(stage, 0.4, 0.9) == (0, 0, 0)
    assert _color(stage, 0.6, 0.9) == _GREEN
    page.locator('#comparison [data-bind=opacity]').focus()
    page.keyboard.press('Home')
    assert _color(stage, 0.6, 0.9) == _WHITE
    # Other pictures, on both sides.
    page.keyboard.press('End')
    page.locator('#comparison [data-bind=left]').select_option('Prediction')
    page.locator('#comparison [data-bind=right]').select_option('Ground truth')
    second = page.locator('.card .stage').nth(1)
    slider.fill('75')
    assert _color(second, 0.6, 0.9) == _RED
    assert _color(second, 0.9, 0.9) == _GREEN


def test_choosing_classes(url):
  with browser.open_page(url) as page:
    b2, b10, odd = _NAMES
    page.locator('#sort').select_option('number')
    classes = page.locator('#classes .class')
    house = classes.filter(has_text='<b>house</b>')
    assert classes.last.is_disabled() and 'unseen' in classes.last.inner_text()
    house.click()
    assert _shown(page) == [b10]
    assert house.get_attribute('aria-pressed') == 'true'
    assert classes.first.get_attribute('aria-pressed') == 'false'
    picture = page.locator('[data-layer=prediction]').first
    assert _color(picture, 0.75) == _RED
    # Ground is black no more, and the ground truth has no house.
    assert min(_color(picture, 0.25)) > 200
    truth = page.locator('[data-layer=label]').first
    assert min(_color(truth, 0.75)) > 200
    overlay = page.locator('[data-layer=overlay]').first
    assert _color(overlay, 0.25) == _WHITE
    assert _color(overlay, 0.75)[1] == pytest.approx(127, abs=2)
    classes.filter(has_text='tree').click()
    assert _shown(page) == [b2, b10, odd]
    assert _color(truth, 0.75) == _GREEN
    # Of these two classes the first image has one only, all of it right.
    first = page.locator('.facts').first.inner_text()
    assert 'IoU (chosen) 100.0' in first
    page.get_by_text('Show all').click()
    assert page.get_by_text('Show all').is_hidden()
    assert _color(picture, 0.25) == (0, 0, 0)


def test_the_viewer_by_keyboard(url):
  with browser.open_page(url) as page:
    page.locator('#sort').select_option('number')
    name = page.locator('#viewer-name')
    names = page.locator('.card .name')
    names.nth(1).focus()
    page.keyboard.press('Enter')
    assert name.inner_text() == _NAMES[1]
    page.keyboard.press('ArrowRight')
    page.keyboard.press('ArrowRight')  # There is no fourth.
    assert name.inner_text() == _NAMES[2]
    assert page.locator('#viewer-place').inner_text() == '3 / 3'
    page.keyboard.press('ArrowLeft')
    assert name.inner_text() == _NAMES[1]
    stage = page.locator('#viewer .stage')
    assert _color(stage, 0.6, 0.9) == _RED
    page.keyboard.press('4')
    assert _color(stage, 0.6, 0.9) == _GREEN
    for _ in range(4):
      page.keyboard.press('Shift+ArrowRight')
    assert _color(stage, 0.6, 0.9) == _WHITE
    slider = page.locator('#viewer [data-bind=wipe]')
    assert slider.input_value() == '70'
    # In the slider, arrows move it alone.
    slider.focus()
    page.keyboard.press('ArrowLeft')
    assert slider.input_value() == '69'
    assert name.inner_text() == _NAMES[1]
    house = page.locator('#viewer-scores .class').filter(has_text='house')
    house.press('Enter')
    assert page.locator('#viewer-place').inner_text() == '1 / 1'
    assert page.evaluate('document.activeElement.dataset.class') == '2'
    house.press('Enter')
    page.keyboard.press('Escape')
    assert page.locator('#viewer').is_hidden()
    _wait_for_focus(page, _NAMES[1])


def test_enlarging_by_click(url):
  with browser.open_page(url) as page:
    page.locator('.card figure').last.click()
    right = page.locator('#viewer [data-bind=right]')
    assert right.input_value() == 'error'
    assert page.locator('#viewer .tag.right').inner_text() == 'Errors'
    page.locator('#close').click()
    page.get_by_text('Compare two').click()
    page.locator('.card .stage').first.click()
    assert page.locator('#viewer').is_visible()


def test_without_labels(tmp_path):
  url = f'file://{_make(tmp_path, has_labels=False)}'
  with browser.open_page(url) as page:
    assert _shown(page) == list(_NAMES)
    assert page.locator('.card').first.locator('figure').count() == 3
    assert page.locator('#error-key').is_hidden()
    assert page.locator('#sort option').all_inner_texts() == ['name', 'number']
    assert 'IoU' not in page.locator('body').inner_text()
    page.locator('.card .name').first.click()
    assert page.locator('#viewer-scores th').all_inner_texts() == [
      'Class', 'predicted',
    ]  # fmt: skip


def test_the_viewer_goes_on_to_an_image_without_the_class(tmp_path):
  url = f'file://{_make(tmp_path, has_labels=False)}'
  with browser.open_page(url) as page:
    for name in ('tree', 'house'):
      page.locator('#classes .class').filter(has_text=name).click()
    page.locator('.card .name').first.click()
    tree = page.locator('#viewer-scores .class').filter(has_text='tree')
    tree.press('Enter')
    assert page.locator('#viewer-name').inner_text() == _NAMES[1]
    assert tree.count() == 0
    # The keyboard stays at the classes.
    assert page.evaluate('document.activeElement.dataset.class') == '0'


def test_many_images_in_a_narrow_window(tmp_path):
  """Those far below are not there before somebody comes near."""
  url = f'file://{_make(tmp_path, repeat=100)}'
  with browser.open_page(url, width=400, height=700) as page:
    cards = page.locator('.card')
    assert cards.count() < 100
    assert page.locator('#status').inner_text() == '300 images'
    assert page.evaluate('document.documentElement.scrollWidth') <= 400
    page.wait_for_function(
      """() => {
        window.scrollTo(0, document.body.scrollHeight);
        return document.querySelectorAll('.card').length === 300;
      }"""
    )
    # The keyboard gets beyond what was there as well.
    page.goto(url)
    page.locator('.card .name').first.click()
    assert cards.count() < 60
    for _ in range(60):
      page.keyboard.press('ArrowRight')
    last = page.locator('#viewer-name').inner_text()
    page.keyboard.press('Escape')
    _wait_for_focus(page, last)
    assert page.evaluate('document.documentElement.scrollWidth') <= 400

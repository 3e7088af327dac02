"""The demo page: what is behind it, and the page in a browser."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import browser
import numpy as np
import pytest
import small_checkpoint
from PIL import Image

from deeplab import demo
from deeplab.common import InputError
from deeplab.evaluation import any_size
from deeplab.segmenter import Segmenter

_COLORS = small_checkpoint.INFO.colors

# Gradio's client says so whenever a stream of events ends.
_KNOWN = ('Method not implemented.',)


@pytest.fixture(scope='module')
def train(tmp_path_factory):
  """The folder of a training."""
  folder = tmp_path_factory.mktemp('train')
  small_checkpoint.write(folder)
  return folder


def _save(path, height=60, width=90):
  noise = np.random.default_rng(3).integers(0, 256, (6, 9, 3), np.uint8)
  rows, columns = np.arange(height) * 6 // height, np.arange(width) * 9 // width
  Image.fromarray(noise[rows][:, columns]).save(path)
  return str(path)


# Behind the page.


def test_shrinking():
  image = np.zeros((100, 50, 3), np.uint8)
  assert demo.shrink(image, None) is image
  assert demo.shrink(image, 100) is image
  assert demo.shrink(image, 20).shape == (20, 10, 3)
  assert demo.shrink(np.zeros((999, 1, 3), np.uint8), 9).shape == (9, 1, 3)


def test_rendering():
  image = np.full((1, 3, 3), 100, np.uint8)
  labels = np.array([[0, 1, 2]])
  drawn = demo.render(image, labels, _COLORS, [1, 2], 0.5)
  assert drawn.tolist() == [[[100, 100, 100], [175, 70, 70], [70, 95, 175]]]
  assert (demo.render(image, labels, _COLORS, [], 1) == image).all()
  drawn = demo.render(image, labels, _COLORS, [0, 1, 2], 1)
  assert drawn[0].tolist() == _COLORS


def test_legend_has_names_colours_and_shares():
  labels = np.array([[0, 2, 2, 2]])
  found = demo.shares(labels, 3)
  assert found == [(2, 0.75), (0, 0.25)]
  text = demo.legend(
    small_checkpoint.INFO.replace(class_names=['<a>', 'b', 'square']), found
  )
  assert 'square' in text and '75.0 %' in text and 'rgb(40,90,250)' in text
  assert '&lt;a&gt;' in text and '<a>' not in text


def test_labels_are_as_large_as_the_file(train, tmp_path):
  page = demo.Demo(Segmenter(str(train)), [0.75, 1.0])
  path = _save(tmp_path / 'a.bmp', 60, 90)
  image, labels, full = page.segment(path, 33, True, True, True)
  assert image.shape == (60, 90, 3) and labels.shape == full.shape == (60, 90)
  # Undone without scales, mirror image and CRF.
  plain = page.segment(path, None, False, False, False)
  np.testing.assert_array_equal(
    plain[2], Segmenter(str(train))(np.asarray(Image.open(path)))
  )
  written = page.write_labels(full, str(tmp_path), 'a')
  with Image.open(written) as picture:
    np.testing.assert_array_equal(picture, full)
    colors = np.asarray(picture.convert('RGB'))
  np.testing.assert_array_equal(colors, np.array(_COLORS)[full])


def test_the_background_is_not_shown_at_first(train):
  page = demo.Demo(Segmenter(str(train)), [1.0])
  page.info = page.info.replace(class_names=['Background', 'disc', 'square'])
  assert page.shown_at_first([(0, 0.7), (2, 0.3)]) == [2]
  assert page.shown_at_first([(0, 1.0)]) == [0]


# The script.


def _free_port():
  with socket.create_server(('127.0.0.1', 0)) as server:
    return server.getsockname()[1]


def _command(*arguments):
  return [sys.executable, '-m', 'deeplab.demo', *arguments]


_ENVIRONMENT = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'}


@pytest.mark.parametrize(
  ('argument', 'message'),
  [
    ('--eval_scales=0', 'each value of --eval_scales must be'),
    ('--output_stride=0', '--output_stride must be an integer'),
    ('--max_tile_size=3', '--max_tile_size must be an integer'),
  ],
)
def test_numbers_are_checked_before_the_first_click(parse, argument, message):
  with pytest.raises(InputError, match=message):
    parse(argument)
    demo._check_numbers()


def test_what_was_forgotten_stays_on_the_page(train, tmp_path):
  gradio = pytest.importorskip('gradio')
  page = demo.Demo(Segmenter(str(train)), [1.0])
  _, draw, redraw = demo._handlers(gradio, page, str(tmp_path))
  # No photograph, no picture; but moving the slider takes none away.
  assert draw(None, [1], 0.5) is None
  assert redraw(None, [1], 0.5) == gradio.skip()
  state = np.zeros((4, 5, 3), np.uint8), np.ones((4, 5), int)
  np.testing.assert_array_equal(redraw(state, [1], 0.5), draw(state, [1], 0.5))


def test_label_maps_are_removed_after_a_while(tmp_path):
  for name, age in (('old', 100), ('new', 10)):
    folder = tmp_path / name
    folder.mkdir()
    (folder / 'a_labels.png').touch()
    os.utime(folder, (time.time() - age,) * 2)
  demo.remove_old(tmp_path, 50)
  assert os.listdir(tmp_path) == ['new']


def test_a_photograph_too_large_for_a_crf(train, tmp_path, monkeypatch):
  page = demo.Demo(Segmenter(str(train)), [1.0])
  monkeypatch.setattr(any_size, 'MAX_CRF_PIXELS', 1000)
  with pytest.raises(
    InputError, match='Choose a shorter longest side'
  ) as error:
    page.segment(_save(tmp_path / 'a.png'), None, False, False, True)
  assert '--' not in str(error.value)


def test_without_gradio(monkeypatch):
  monkeypatch.setitem(sys.modules, 'gradio', None)
  with pytest.raises(InputError, match=r"pip install -e '\.\[demo\]'"):
    demo._import_gradio()


@pytest.fixture
def parse(parse, monkeypatch):
  """Parses arguments as the demo does."""
  monkeypatch.setattr(demo.flags, 'require', lambda *unused: None)
  return lambda *arguments: parse(demo, demo._define_flags, arguments)


def test_defaults(parse):
  parse()
  assert (demo.FLAGS.host, demo.FLAGS.port) == ('127.0.0.1', 7860)


@contextlib.contextmanager
def _served(folder, *arguments):
  """Serves the page; yields its address. It ends without complaint."""
  port = _free_port()
  log = folder / 'log.txt'
  with open(log, 'w') as output:
    process = subprocess.Popen(
      _command(f'--port={port}', *arguments),
      stdout=output,
      stderr=subprocess.STDOUT,
      env=_ENVIRONMENT,
    )
  try:
    for _ in range(240):
      if 'The page is at' in log.read_text() or process.poll() is not None:
        break
      time.sleep(0.5)
    assert process.poll() is None, log.read_text()
    yield f'http://127.0.0.1:{port}'
  finally:
    process.send_signal(signal.SIGINT)
    status = process.wait(60)
  assert status == 128 + signal.SIGINT and 'Traceback' not in log.read_text()


def _picture(page):
  """The pixels of the result: height, width, four numbers for each."""
  return page.evaluate(
    """async () => {
      const image = document.querySelector('#result img');
      await image.decode();
      const canvas = document.createElement('canvas');
      canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
      const context = canvas.getContext('2d');
      context.drawImage(image, 0, 0);
      const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
      return [canvas.height, canvas.width, [...data]];
    }"""
  )


def _result(page):
  height, width, values = _picture(page)
  return np.array(values).reshape(height, width, 4)[..., :3]


def _after(page, act):
  """The result after an action has changed it."""
  source = page.get_attribute('#result img', 'src')
  act()
  page.wait_for_function(
    # It is away while it changes.
    '(old) => ![undefined, old].includes('
    "document.querySelector('#result img')?.src)",
    arg=source,
    timeout=60000,
  )
  return _result(page)


@pytest.mark.slow
def test_the_page_in_a_browser(train, tmp_path):
  pytest.importorskip('gradio')
  example = _save(tmp_path / 'example.png', 40, 40)
  path = _save(tmp_path / 'my photo.png')
  labels = Segmenter(str(train))(np.asarray(Image.open(path)))
  found = [index for index, _ in demo.shares(labels, 3)]
  assert len(found) > 1
  with (
    _served(
      tmp_path,
      f'--checkpoint_dir={train}',
      f'--examples={example}',
      '--eval_scales=0.75,1',
    ) as address,
    browser.open_page(address, known=_KNOWN) as page,
  ):
    page.set_default_timeout(60000)
    page.set_input_files('#photo input[type=file]', path)
    page.wait_for_selector('#result img')
    _check_first_result(page, path, labels, found)
    _check_drawing(page, path)
    _check_switches(page)
    with page.expect_download() as download:
      page.click('#download')
    assert download.value.suggested_filename == 'my photo_labels.png'
    elsewhere = page.evaluate(
      "performance.getEntriesByType('resource').map((e) => e.name)"
      '.filter((n) => !n.startsWith(location.origin))'
      ".filter((n) => !n.startsWith('data:') && !n.startsWith('blob:'))"
    )
    assert elsewhere == []  # Works without a network.


def _check_first_result(page, path, labels, found):
  """The overlay and the legend of what the network says."""
  image = np.asarray(Image.open(path))
  expected = demo.render(image, labels, _COLORS, found, 0.6)
  # JPEG.
  assert np.abs(_result(page) - expected.astype(int)).mean() < 12
  text = page.inner_text('#legend')
  assert '%' in text
  for index in found:
    assert small_checkpoint.INFO.class_names[index] in text
  boxes = page.locator('#classes input')
  assert boxes.count() == len(found)


def _check_drawing(page, path):
  """Opacity and classes change the picture, without the network."""
  image = np.asarray(Image.open(path)).astype(int)
  opacity = page.locator('#opacity input[type=range]')
  clear = _after(page, lambda: opacity.fill('0'))
  assert np.abs(clear - image).mean() < 12
  _after(page, lambda: opacity.fill('1'))
  for box in page.locator('#classes input').all():
    drawn = _after(page, box.uncheck)
  assert np.abs(drawn - image).mean() < 12


def _check_switches(page):
  """Each of them has the photograph labelled anew."""
  for name in ('scales', 'flips', 'crf'):
    _after(page, page.locator(f'#{name} input').check)
  assert page.locator('.toast-body.error').count() == 0


@pytest.mark.slow
def test_a_file_that_is_no_image(train, tmp_path):
  """The page says so, and labels the next one."""
  pytest.importorskip('gradio')
  broken = tmp_path / 'broken.png'
  good = _save(tmp_path / 'good.png')
  broken.write_bytes(pathlib.Path(good).read_bytes()[:120])
  with (
    _served(tmp_path, f'--checkpoint_dir={train}') as address,
    browser.open_page(address, known=_KNOWN) as page,
  ):
    page.set_default_timeout(60000)
    page.set_input_files('#photo input[type=file]', str(broken))
    page.wait_for_selector('text=damaged')
    page.reload()
    page.set_input_files('#photo input[type=file]', good)
    page.wait_for_selector('#result img')
    assert _result(page).shape == (60, 90, 3)


@pytest.mark.slow
def test_the_port_is_taken(train):
  with socket.create_server(('127.0.0.1', 0)) as server:
    port = server.getsockname()[1]
    done = subprocess.run(
      _command(f'--checkpoint_dir={train}', f'--port={port}'),
      capture_output=True,
      text=True,
      env=_ENVIRONMENT,
      check=False,
    )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert 'Give another port' in done.stderr.strip().splitlines()[-1]

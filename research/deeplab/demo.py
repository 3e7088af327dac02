"""A local web page that labels the photographs dropped on it.

  python -m deeplab.demo --checkpoint_dir=logs/train

Then open http://127.0.0.1:7860. The checkpoint may be of a training of one's
own or a published one. Nothing leaves this machine, and no network is needed.
Needs Gradio: pip install -e '.[demo]'.
"""

import logging
import os
import shutil
import tempfile
import time

import numpy as np
from absl import flags as absl_flags
from PIL import Image

from deeplab import common, flags, model_flags
from deeplab.common import InputError
from deeplab.core import dense_crf
from deeplab.evaluation import any_size, photos, tiling
from deeplab.segmenter import Segmenter
from deeplab.utils import html_page, page_address, save_annotation

FLAGS = flags.FLAGS

_TITLE = 'DeepLab'

# Longest sides that a photograph can be shrunk to; the last keeps it.
_SIZES = (513, 1025, 2049, None)
_DEFAULT_SIZE = 1025

# Longest side of what the page shows; the label map is as large as the file.
_SHOWN_SIZE = 1280

# What lies around the objects covers them on no picture at first.
_BACKGROUND = 'background'

# Of Gradio: seconds until the pictures of a visitor are forgotten.
_FORGET_SECS = 3600

# Photographs of more bytes are not taken.
_MAX_FILE_SIZE = '200mb'

_LEGEND_STYLE = """<style>
.shares { display: grid; grid-template-columns: auto auto 1fr auto;
  gap: .3rem .7rem; align-items: center; padding: .3rem .2rem; }
.shares .swatch { width: 1em; height: 1em; border: 1px solid #8884; }
.shares .bar { height: .6em; border-radius: .3em; min-width: 2px;
  outline: 1px solid #8884; }
.shares .number { text-align: right; font-variant-numeric: tabular-nums; }
</style>"""


def _define_flags():
  absl_flags.DEFINE_string(
    'checkpoint_dir',
    None,
    'Directory of a training run, prefix of a checkpoint, or one of its files.',
  )
  absl_flags.DEFINE_string(
    'dataset',
    None,
    'Names and colours of the classes: a data set, or the folder of one. '
    'Unless given, those beside the checkpoint, or, for a published one, those '
    'of the data set with as many classes.',
  )
  absl_flags.DEFINE_integer('port', 7860, 'Port of the page.')
  absl_flags.DEFINE_string(
    'host', '127.0.0.1', 'Address to listen at; 0.0.0.0 lets others in.'
  )
  flags.define_list(
    'examples', None, 'Photographs to choose from: patterns, folders.', str
  )
  absl_flags.DEFINE_integer(
    'output_stride', None, 'Of the network. Unset: as it was trained.'
  )
  flags.define_list(
    'eval_scales',
    [0.5, 0.75, 1.0, 1.25, 1.5, 1.75],
    'Scales behind the switch for several scales.',
    float,
  )
  absl_flags.DEFINE_integer(
    'max_tile_size',
    tiling.DEFAULT_MAX_SIZE,
    'Images of more pixels than a square of this side are cut into tiles.',
  )
  model_flags.define_moving_average_flag()
  flags.require('checkpoint_dir')


# What the page does.


def shrink(image, longest):
  """Shrinks an image; one that is small enough stays as it is.

  Args:
    image: uint8 [height, width, 3].
    longest: bound of the longer side, or None.

  Returns:
    uint8 [height', width', 3].
  """
  height, width = image.shape[:2]
  if longest is None or max(height, width) <= longest:
    return image
  scale = longest / max(height, width)
  size = [max(1, round(side * scale)) for side in (width, height)]
  resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
  return np.asarray(resized)


def resize_labels(labels, size):
  """Labels of another size [height, width], by the nearest neighbour."""
  picture = Image.fromarray(labels.astype(np.uint8))
  return np.asarray(picture.resize(size[::-1], Image.Resampling.NEAREST))


def render(image, labels, colors, shown, opacity):
  """Lays the colours of some classes over an image.

  Args:
    image: uint8 [height, width, 3].
    labels: integers [height, width].
    colors: [red, green, blue] of each class.
    shown: the classes to show.
    opacity: 0 shows the image only, 1 the colours only.

  Returns:
    uint8 [height, width, 3].
  """
  is_shown = np.zeros(len(colors), bool)
  is_shown[list(shown)] = True
  mixed = save_annotation.overlay(
    image, labels, np.asarray(colors, np.uint8), opacity
  )
  return np.where(is_shown[labels][..., None], mixed, image)


def shares(labels, num_classes):
  """[(class, share of the pixels)] of the classes that occur, largest first."""
  counts = np.bincount(labels.ravel(), minlength=num_classes) / labels.size
  return [(int(i), counts[i]) for i in np.argsort(-counts) if counts[i] > 0]


def legend(info, found):
  """The classes of `shares` with colour and share, as HTML."""
  rows = []
  for index, share in found:
    percent = f'{100 * share:.1f}'
    text = '< 0.1' if percent == '0.0' else percent
    color = 'rgb({},{},{})'.format(*info.colors[index])
    rows.append(
      f'{html_page.swatch(info.colors[index])}'
      f'<span>{html_page.escape(info.class_names[index])}</span>'
      f'<span class="bar" style="width: {percent}%; background: {color}">'
      f'</span><span class="number">{html_page.escape(text)} %</span>\n'
    )
  return f'{_LEGEND_STYLE}<div class="shares">{"".join(rows)}</div>'


class Demo:
  """What happens behind the page, without the page."""

  def __init__(self, segmenter, eval_scales):
    """Keeps the arguments.

    Args:
      segmenter: a Segmenter.
      eval_scales: scales behind the switch for several scales.
    """
    self.segmenter = segmenter
    self.info = segmenter.info
    self._eval_scales = tuple(eval_scales)

  def segment(self, path, longest, several_scales, flips, crf):
    """Labels a photograph.

    Args:
      path: its file.
      longest: see `shrink`.
      several_scales: average over scales.
      flips: average over the mirror image.
      crf: refine by a CRF.

    Returns:
      (image, labels, labels at the size of the file); the first two as large
      as the page shows them.

    Raises:
      InputError: the file cannot be read, or is too large for a CRF.
    """
    image = photos.read_rgb(path)
    small = shrink(image, longest)
    if crf:
      any_size.check_crf_size(
        small, 'the photograph', 'Choose a shorter longest side'
      )
    changes = {'eval_scales': self._eval_scales} if several_scales else {}
    labels = self.segmenter(
      small,
      add_flipped_images=flips,
      crf=dense_crf.Parameters() if crf else None,
      **changes,
    )
    shown = shrink(image, _SHOWN_SIZE)
    return (
      shown,
      resize_labels(labels, shown.shape[:2]),
      resize_labels(labels, image.shape[:2]),
    )

  def shown_at_first(self, found):
    """The classes of `shares` that cover the picture at first."""
    names = self.info.class_names
    return [
      index for index, _ in found if names[index].lower() != _BACKGROUND
    ] or [index for index, _ in found]

  def write_labels(self, labels, folder, stem):
    """Writes a label map: a PNG of indices that viewers show in colours.

    Args:
      labels: uint8 [height, width].
      folder: where it goes.
      stem: name of the file without '_labels.png'.

    Returns:
      The path of the file.
    """
    picture = Image.fromarray(labels)
    picture.putpalette(np.array(self.info.colors, np.uint8).tobytes())
    path = os.path.join(folder, f'{stem}_labels.png')
    picture.save(path)
    return path


# The page.


def _import_gradio():
  """The module, told to keep to itself."""
  os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
  # It asks the page itself whether it is there, and says so.
  logging.getLogger('httpx').setLevel(logging.WARNING)
  try:
    import gradio
  except ImportError as error:
    raise InputError(
      f'the demo page needs Gradio, which cannot be imported ({error}). '
      "Install it in the clone: pip install -e '.[demo]'."
    ) from error
  return gradio


def _handlers(gradio, demo, folder):
  """What the page calls: to label, to draw the result, and to draw it anew."""
  info = demo.info
  choices = [(name, index) for index, name in enumerate(info.class_names)]

  def segment(path, longest, *switches):
    if path is None:
      return (
        *(None, '', gradio.update(choices=[], value=[])),
        gradio.update(value=None, interactive=False),
      )
    try:
      image, labels, full = demo.segment(path, longest or None, *switches)
    except InputError as error:
      raise gradio.Error(
        str(error), duration=None, print_exception=False
      ) from error
    found = shares(labels, info.num_classes)
    stem = os.path.splitext(os.path.basename(path))[0]
    # Files of one name may come from several visitors.
    own_folder = tempfile.mkdtemp(dir=folder)
    return (
      (image, labels),
      legend(info, found),
      gradio.update(
        choices=[choices[index] for index, _ in found],
        value=demo.shown_at_first(found),
      ),
      gradio.update(
        value=demo.write_labels(full, own_folder, stem), interactive=True
      ),
    )

  def draw(state, shown, opacity):
    return state and render(*state, info.colors, shown, opacity)

  def redraw(state, *choices):
    # The picture stays when what it was drawn from has been forgotten.
    return draw(state, *choices) if state else gradio.skip()

  return segment, draw, redraw


def _add_inputs(gradio, examples):
  """Adds the left column; returns the photograph and what else matters."""
  photo = gradio.Image(
    label='Photograph',
    type='filepath',
    # The file itself, whatever is in it.
    image_mode=None,
    sources=['upload', 'clipboard'],
    height=280,
    elem_id='photo',
  )
  settings = [
    gradio.Radio(
      [(str(size or 'as it is'), size or 0) for size in _SIZES],
      value=_DEFAULT_SIZE,
      label='Longest side',
      info='Larger photographs are shrunk for the network.',
      elem_id='longest',
    ),
    gradio.Checkbox(label='Several scales', elem_id='scales'),
    gradio.Checkbox(label='Mirror image', elem_id='flips'),
    gradio.Checkbox(label='Dense CRF', elem_id='crf'),
  ]
  if examples:
    gradio.Examples(list(examples), photo, label='Examples')
  return [photo, *settings]


def _add_outputs(gradio):
  """Adds the right column; returns its components."""
  result = gradio.Image(
    label='Segmentation',
    interactive=False,
    format='jpeg',
    buttons=['download', 'fullscreen'],
    elem_id='result',
  )
  opacity = gradio.Slider(
    0, 1, 0.6, step=0.05, label='Opacity', elem_id='opacity'
  )
  shown = gradio.CheckboxGroup([], label='Classes shown', elem_id='classes')
  table = gradio.HTML(elem_id='legend', apply_default_css=False)
  download = gradio.DownloadButton(
    'Label map (PNG of indices)',
    interactive=False,
    size='sm',
    elem_id='download',
  )
  return result, opacity, shown, table, download


def build_page(gradio, demo, folder, examples=()):
  """Builds the page.

  Args:
    gradio: the module.
    demo: a Demo.
    folder: for the files to download.
    examples: paths of photographs to choose from.

  Returns:
    A gradio.Blocks.
  """
  segment, draw, redraw = _handlers(gradio, demo, folder)
  with gradio.Blocks(
    title=_TITLE,
    analytics_enabled=False,
    delete_cache=(_FORGET_SECS, _FORGET_SECS),
  ) as page:
    gradio.Markdown(
      f'# {_TITLE}\nDrop a photograph. {demo.info.num_classes} classes '
      f'({demo.info.name}), {demo.segmenter.options.model_variant}, step '
      f'{demo.segmenter.step}.'
    )
    # What was labelled last: drawing it anew does not need the network.
    state = gradio.State(time_to_live=_FORGET_SECS)
    with gradio.Row():
      with gradio.Column(scale=2):
        inputs = _add_inputs(gradio, examples)
      with gradio.Column(scale=4):
        result, opacity, shown, table, download = _add_outputs(gradio)
    gradio.on(
      [item.change for item in inputs],
      segment,
      inputs,
      [state, table, shown, download],
      # One after the other: they share the processor.
      concurrency_limit=1,
      trigger_mode='always_last',
      show_progress_on=result,
    ).then(draw, [state, shown, opacity], result, show_progress='hidden')
    gradio.on(
      [shown.input, opacity.input],
      redraw,
      [state, shown, opacity],
      result,
      trigger_mode='always_last',
      show_progress='hidden',
    )
  return page


def _check_numbers():
  """Checks the flags that would only matter at a click."""
  values = {
    '--eval_scales': FLAGS.eval_scales,
    '--output_stride': FLAGS.output_stride,
  }
  common.check_ranges(
    values,
    {
      '--eval_scales': common.POSITIVE,
      '--output_stride': common.COUNT,
    },
  )
  tiling.check_options(
    FLAGS.max_tile_size,
    tiling.DEFAULT_OVERLAP,
    {'max_tile_size': '--max_tile_size', 'tile_overlap': 'tile_overlap'},
  )


def remove_old(folder, seconds):
  """Removes the folders in a folder that nothing was written to for so long."""
  with os.scandir(folder) as entries:
    for entry in entries:
      if entry.stat().st_mtime <= time.time() - seconds:
        shutil.rmtree(entry.path, ignore_errors=True)


def main():
  _check_numbers()
  host = page_address.check(FLAGS.host, FLAGS.port)
  gradio = _import_gradio()
  examples = photos.find(FLAGS.examples) if FLAGS.examples else ()
  segmenter = Segmenter(
    FLAGS.checkpoint_dir,
    FLAGS.output_stride,
    dataset=FLAGS.dataset,
    max_tile_size=FLAGS.max_tile_size,
    use_moving_averages=FLAGS.use_moving_averages,
  )
  demo = Demo(segmenter, FLAGS.eval_scales)
  with tempfile.TemporaryDirectory(prefix='deeplab_demo_') as folder:
    page = build_page(gradio, demo, folder, examples)
    _, address, _ = page.launch(
      server_name=host,
      server_port=FLAGS.port,
      prevent_thread_lock=True,
      quiet=True,
      share=False,
      max_file_size=_MAX_FILE_SIZE,
      ssr_mode=False,
      footer_links=[],
      # Of the system: others would come from the network.
      theme=gradio.themes.Default(
        font=['system-ui', 'sans-serif'], font_mono=['monospace']
      ),
    )
    print(f'The page is at {address} (Ctrl-C ends it).', flush=True)
    try:
      while True:
        time.sleep(_FORGET_SECS)
        remove_old(folder, _FORGET_SECS)
    finally:
      page.close(verbose=False)


if __name__ == '__main__':
  _define_flags()
  flags.run(main)

"""A page to look through the predictions on many images.

The pictures lie beside the page, which draws them: side by side, or two on top
of each other with a slider between them, sorted and filtered. What it holds is
in contact_sheet.html, how it looks in contact_sheet.css and what it does in
contact_sheet.js and contact_sheet_viewer.js; all end up inside the page, so
that it opens from a folder, without a server and without a network.
"""

import math
import os
import pathlib

import numpy as np

from deeplab import atomic_files
from deeplab.evaluation import metrics
from deeplab.utils import html_page

FILE_NAME = 'index.html'

# The pictures that an image can have.
IMAGE = 'image'
PREDICTION = 'prediction'
OVERLAY = 'overlay'
LABEL = 'label'
ERROR = 'error'

# What the page calls them, in its order.
_TITLES = {
  IMAGE: 'Image',
  PREDICTION: 'Prediction',
  OVERLAY: 'Overlay',
  LABEL: 'Ground truth',
  ERROR: 'Errors',
}


def _part(ending):
  """Text of a file of the page, beside this one."""
  path = pathlib.Path(__file__).with_name(f'contact_sheet{ending}')
  return path.read_text(encoding='utf-8')


def _rounded(value):
  """A share as it goes into the page; NaN is not JSON."""
  return None if math.isnan(value) else round(float(value), 4)


def _class_rows(shares, label_shares, iou):
  """What the page knows of the classes of an image.

  Args:
    shares: float [num_classes], share of each class in the prediction.
    label_shares: the same of the labels, or None without labels.
    iou: float [num_classes], NaN for classes that do not occur; or None.

  Returns:
    [class, share, share of the labels or None, IoU or None] of each class that
    occurs in either.
  """
  unknown = np.full(len(shares), np.nan)
  label_shares = unknown if label_shares is None else label_shares
  iou = unknown if iou is None else iou
  return [
    [index, *map(_rounded, values)]
    for index, values in enumerate(zip(shares, label_shares, iou, strict=True))
    if values[0] > 0 or values[1] > 0
  ]


class ContactSheet:
  """Collects images, then writes the page.

  Example:

    sheet = ContactSheet('out', info)
    layers = {IMAGE: 'pictures/a.png', PREDICTION: 'pictures/a_labels.png'}
    sheet.add('a', labels.shape, layers, labels=labels)
    print(sheet.write('My photographs'))
  """

  def __init__(self, folder, info):
    """Starts with no images.

    Args:
      folder: where the page goes, local or remote.
      info: a DatasetInfo, or anything with its `class_names` and `colors`: the
        colours that the pictures have.
    """
    self._folder = folder
    self._classes = [
      {'name': name, 'color': [int(value) for value in color]}
      for name, color in zip(info.class_names, info.colors, strict=True)
    ]
    self._images = []
    self._total = metrics.ConfusionMatrix(len(self._classes))

  def add(self, name, size, layers, scores=None, labels=None):
    """Adds an image, whose pictures are (or will be) in the folder.

    Args:
      name: the image's name, as people know it.
      size: [height, width] of the prediction in pixels.
      layers: {IMAGE, PREDICTION, OVERLAY, LABEL or ERROR: path of the picture
        relative to the folder}, at least one of them.
      scores: a metrics.ConfusionMatrix of this image alone; None without
        labels.
      labels: integers [height, width], the prediction, which tells the classes
        that occur where there are no scores; None if not known.
    """
    shares, label_shares, iou = np.zeros(len(self._classes)), None, None
    values = {'miou': None, 'accuracy': None}
    if scores is not None:
      pixels = max(1, scores.counts.sum())
      shares = scores.predicted_pixels / pixels
      label_shares = scores.label_pixels / pixels
      iou = scores.class_iou()
      values['miou'] = _rounded(scores.mean_iou())
      values['accuracy'] = _rounded(scores.pixel_accuracy())
      self._total.counts += scores.counts
    elif labels is not None:
      counts = np.bincount(np.ravel(labels), minlength=len(self._classes))
      shares = counts / labels.size
    self._images.append(
      {
        'name': name,
        'height': int(size[0]),
        'width': int(size[1]),
        'layers': {key: layers[key] for key in _TITLES if key in layers},
        'classes': _class_rows(shares, label_shares, iou),
        **values,
      }
    )

  def write(self, title):
    """Writes the page; one that is there already is replaced at once.

    Args:
      title: plain text, such as 'camvid val, step 30000'.

    Returns:
      The path of the page.

    Raises:
      InputError: it cannot be written.
    """
    body = html_page.json_script('data', self._data(title)) + _part('.html')
    path = os.path.join(self._folder, FILE_NAME)
    script = _part('.js') + _part('_viewer.js')
    page = html_page.page(title, body, _part('.css'), script)
    atomic_files.write(path, page)
    return path

  def _data(self, title):
    """All that the page shows, as plain JSON values."""
    iou = self._total.class_iou()
    used = {key for image in self._images for key in image['layers']}
    return {
      'title': title,
      'layers': [[key, text] for key, text in _TITLES.items() if key in used],
      'classes': [
        {**row, 'iou': _rounded(value)}
        for row, value in zip(self._classes, iou, strict=True)
      ],
      'miou': _rounded(self._total.mean_iou()),
      'accuracy': _rounded(self._total.pixel_accuracy()),
      'images': self._images,
    }

"""The formats of `export_model.py --export_format`."""

import dataclasses
import os
from collections.abc import Callable

from deeplab import frozen_graph
from deeplab.exporting import frozen, onnx_model, saved_model, tflite
from deeplab.exporting.loaded import Loaded
from deeplab.exporting.network import Network


def _check_nothing(network):
  del network


@dataclasses.dataclass(frozen=True)
class Format:
  """How one format is written and read.

  Attributes:
    file: its name in a directory of exports; '' for one that is the directory.
    write: function of a Network and the path to write to.
    load: function of the path that returns a Loaded.
    check: function of a Network that raises InputError if it has no such form,
      or if something is missing; before anything is built.
    least_equal: share of labels that have to equal the network's on images of
      the user's.
    least_equal_generated: the same on generated images.
    greatest_difference: that probabilities may have from the network's.
    takes_batches: whether it takes several images at a time.
    takes_crop: whether it takes images of the size of the crop alone, and
      leaves resizing, padding and cropping to the caller.
    is_graph: whether `inference_graph.pbtxt` shows what is in it.
    takes_dtype: whether it computes in `Network.inference_dtype`.
  """

  file: str
  write: Callable[[Network, str], None]
  load: Callable[[str], Loaded]
  check: Callable[[Network], None] = _check_nothing
  least_equal: float = 0.999
  least_equal_generated: float = 0.999
  greatest_difference: float = 1e-3
  takes_batches: bool = False
  takes_crop: bool = False
  is_graph: bool = False
  takes_dtype: bool = False

  def limits_for(self, network):
    """The same format, with the limits that a Network can keep."""
    if not self.takes_dtype or network.inference_dtype == 'float32':
      return self
    # Eight bits of precision: labels change where two classes are close, with
    # random weights at many pixels.
    return dataclasses.replace(
      self,
      least_equal=0.97,
      least_equal_generated=0.8,
      greatest_difference=0.5,
    )

  @property
  def suffix(self):
    """Ending of a file that holds this format alone, '' for none."""
    return os.path.splitext(self.file)[1]


SAVED_MODEL = 'saved_model'
FROZEN_GRAPH = 'frozen_graph'
TFLITE_FLOAT = 'tflite_float'
TFLITE_FLOAT16 = 'tflite_float16'
TFLITE_INT8 = 'tflite_int8'
ONNX = 'onnx'

# The SavedModel is written first, into a folder that is still empty.
FORMATS = {
  SAVED_MODEL: Format(
    '',
    saved_model.write,
    saved_model.load,
    takes_batches=True,
    is_graph=True,
    takes_dtype=True,
  ),
  FROZEN_GRAPH: Format(
    frozen_graph.FILE_NAME, frozen.write, frozen.load, is_graph=True
  ),
  TFLITE_FLOAT: Format(
    'model_float.tflite',
    tflite.write_float,
    tflite.load,
    tflite.check_float,
    takes_crop=True,
  ),
  TFLITE_FLOAT16: Format(
    'model_float16.tflite',
    tflite.write_float16,
    tflite.load,
    tflite.check_float,
    # Weights are rounded to eleven bits; noise shows that more than photos.
    least_equal_generated=0.99,
    takes_crop=True,
  ),
  TFLITE_INT8: Format(
    'model_int8.tflite',
    tflite.write_int8,
    tflite.load,
    tflite.check_int8,
    least_equal=0.8,
    # Ranges of photos say nothing about noise.
    least_equal_generated=0.0,
    takes_crop=True,
  ),
  ONNX: Format(
    'model.onnx',
    onnx_model.write,
    onnx_model.load,
    onnx_model.check,
    takes_batches=True,
  ),
}

# What is written where --export_format does not say.
OF_DIRECTORY = (SAVED_MODEL, FROZEN_GRAPH)
OF_SUFFIX = {'.pb': FROZEN_GRAPH, '.tflite': TFLITE_INT8, '.onnx': ONNX}

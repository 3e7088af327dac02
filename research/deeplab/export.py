"""Writes a trained network in any of the formats of `exporting.formats`."""

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile

import tensorflow as tf
from absl import logging

from deeplab import (
  atomic_files,
  checkpoints,
  common,
  inference,
  input_preprocess,
)
from deeplab.common import InputError
from deeplab.exporting import formats as formats_lib
from deeplab.exporting import frozen, images, saved_model, verification
from deeplab.exporting.network import Network

# Values of --export_format.
FORMATS = tuple(formats_lib.FORMATS)

# Files of a directory of exports.
FROZEN_GRAPH_FILE = formats_lib.FORMATS[formats_lib.FROZEN_GRAPH].file
TFLITE_INT8_FILE = formats_lib.FORMATS[formats_lib.TFLITE_INT8].file
TEXT_GRAPH_FILE = 'inference_graph.pbtxt'
REPORT_FILE = 'export_report.json'

_EXPORTED = {
  *saved_model.NAMES,
  *(f.file for f in formats_lib.FORMATS.values() if f.file),
  TEXT_GRAPH_FILE,
  REPORT_FILE,
}


def export(
  checkpoint_path,
  export_path,
  options,
  inference_scales=(1.0,),
  add_flipped_images=False,
  image_pyramid=None,
  save_inference_graph=False,
  formats=None,
  calibration_images=None,
  calibration_limit=100,
  use_moving_averages=None,
  verify=False,
  verify_images=None,
  verify_limit=10,
  inference_dtype='float32',
  **resizing,
):
  """Exports a checkpoint.

  Args:
    checkpoint_path: directory, prefix or file of a checkpoint.
    export_path: a directory; or a file that ends in .pb, .tflite or .onnx for
      one format alone.
    options: ModelOptions with a crop_size.
    inference_scales: scales whose probabilities are averaged.
    add_flipped_images: also use the mirror image at each scale.
    image_pyramid: scales merged inside the network.
    save_inference_graph: also write the graph as text, inference_graph.pbtxt.
    formats: which of FORMATS to write; None for SavedModel and frozen graph in
      a directory, or what the ending of the file says: the frozen graph,
      eight-bit TFLite, ONNX.
    calibration_images: patterns of image files or records, for eight bits.
    calibration_limit: number of these images to use at most.
    use_moving_averages: see `checkpoints.restore`.
    verify: compare what was written with the network, and write a report,
      `export_report.json` (<file>.export_report.json beside a file).
    verify_images: patterns of image files or records to compare on; None for
      those of the calibration, or else generated ones.
    verify_limit: number of these images to use at most.
    inference_dtype: one of `inference.DTYPES`, that of a SavedModel.
    **resizing: see `Network`.

  Returns:
    The paths written.

  Raises:
    InputError: the checkpoint does not fit, a format cannot hold the network,
      the path cannot be written, or the comparison failed. Nothing has been
      written then.
  """
  input_preprocess.check_options(resizing)
  names = _names(export_path, formats)
  calibration = calibration_images and images.Source(
    'calibration_images', calibration_images, calibration_limit
  )
  network = Network(
    checkpoint_path,
    options,
    inference_scales,
    add_flipped_images,
    image_pyramid,
    use_moving_averages,
    calibration,
    resizing,
    inference_dtype,
  )
  _check(network, names, save_inference_graph)
  shown = _shown(calibration, verify_images, verify_limit) if verify else None
  for source in filter(None, (calibration, shown)):
    source.check(network)
  with _destination(export_path, checkpoint_path) as (folder, final_path):
    paths = {}
    with _writing(export_path):
      for name in names:
        paths[name] = os.path.join(folder, formats_lib.FORMATS[name].file)
        formats_lib.FORMATS[name].write(network, paths[name])
    texts = {}
    if save_inference_graph:
      graph = frozen.serving_function(network).get_concrete_function().graph
      texts[TEXT_GRAPH_FILE] = str(graph.as_graph_def())
    if verify:
      report = verification.verify(network, paths, shown)
      logging.info('%s', verification.as_text(report))
      texts[REPORT_FILE] = json.dumps(report, indent=2) + '\n'
    with _writing(export_path):
      for name, text in texts.items():
        atomic_files.write(os.path.join(folder, name), text)
    files = [formats_lib.FORMATS[name].file for name in names]
    return [final_path(file) for file in [*files, *texts]]


def _shown(calibration, patterns, limit):
  """The images.Source to compare on; None for generated images."""
  if patterns:
    return images.Source('verify_images', patterns, limit)
  common.check_ranges({'verify_limit': limit}, {'verify_limit': common.COUNT})
  return calibration and dataclasses.replace(
    calibration, limit=min(limit, calibration.limit)
  )


def _is_file(export_path):
  return os.path.splitext(export_path)[1] in formats_lib.OF_SUFFIX


def _names(export_path, names):
  """The formats to write, in the order of FORMATS."""
  unknown = sorted(set(names or ()) - set(FORMATS))
  if unknown:
    raise InputError(
      f'--export_format must be of {", ".join(FORMATS)}. Received: '
      f'{", ".join(unknown)}.'
    )
  if _is_file(export_path):
    suffix = os.path.splitext(export_path)[1]
    names = names or [formats_lib.OF_SUFFIX[suffix]]
    fitting = [n for n in FORMATS if formats_lib.FORMATS[n].suffix == suffix]
    if len(set(names)) > 1 or names[0] not in fitting:
      raise InputError(
        f'--export_path={export_path} is a file, for one of '
        f'{", ".join(fitting)} alone; give a directory for '
        f'--export_format={",".join(names)}.'
      )
  names = names or formats_lib.OF_DIRECTORY
  return [name for name in FORMATS if name in names]


def _check(network, names, save_inference_graph):
  """Refuses what the formats cannot do, or would ignore."""
  for name in names:
    formats_lib.FORMATS[name].check(network)
  if network.calibration and formats_lib.TFLITE_INT8 not in names:
    raise InputError(
      f'--calibration_images={network.calibration} has no effect without '
      f'--export_format={formats_lib.TFLITE_INT8}.'
    )
  _check_dtype(network, names)
  cropped = all(formats_lib.FORMATS[name].takes_crop for name in names)
  if network.resizes and cropped and not network.calibration:
    raise InputError(
      '--min_resize_value and --max_resize_value have no effect on TFLite '
      'models, which take images of the size of the crop and leave resizing to '
      'the caller. Leave them out.'
    )
  graphs = [name for name in FORMATS if formats_lib.FORMATS[name].is_graph]
  if save_inference_graph and not set(graphs) & set(names):
    raise InputError(
      '--save_inference_graph has no effect on TFLite and ONNX models alone; '
      f'it shows the graph of {" and ".join(graphs)}.'
    )


def _check_dtype(network, names):
  """Refuses a type that no format takes, or that the network cannot have."""
  inference.check_dtype(network.inference_dtype, network.options)
  taking = [name for name in FORMATS if formats_lib.FORMATS[name].takes_dtype]
  is_default = network.inference_dtype == inference.DTYPES[0]
  if not is_default and not set(taking) & set(names):
    raise InputError(
      f'--inference_dtype={network.inference_dtype} has no effect without '
      f'--export_format={" or ".join(taking)}; the other formats hold float32, '
      'or have a type of their own. Leave it out.'
    )


# Whole or not at all.


@contextlib.contextmanager
def _writing(export_path):
  """Names the flag where a file cannot be written."""
  try:
    yield
  except (OSError, tf.errors.OpError) as error:
    raise InputError(
      f'--export_path={export_path} cannot be written: {error}'
    ) from error


def _destination(export_path, checkpoint):
  """A context: a folder to write to, and the final path of a file in it.

  At the end its contents get to where they belong, unless there was an error.
  """
  if _is_file(export_path):
    return _beside(export_path)
  return _replacing(export_path, checkpoint)


@contextlib.contextmanager
def _beside(export_path):
  """For the file of one format, local or remote, and what comes with it."""

  def final_path(name):
    if name == TEXT_GRAPH_FILE:
      return os.path.join(os.path.dirname(export_path), name)
    return f'{export_path}.{name}' if name == REPORT_FILE else export_path

  report = final_path(REPORT_FILE)
  _check_writable([export_path, report])
  with tempfile.TemporaryDirectory() as folder:
    yield folder, final_path
    # The model last: where it is new, what belongs to it is there.
    names = sorted(
      os.listdir(folder), key=lambda n: final_path(n) == export_path
    )
    with _writing(export_path):
      if tf.io.gfile.exists(report):
        tf.io.gfile.remove(report)
      try:
        for name in names:
          with open(os.path.join(folder, name), 'rb') as file:
            atomic_files.write(final_path(name), file.read())
      except InputError:
        # An earlier model is left; the report is not its.
        if tf.io.gfile.exists(report):
          tf.io.gfile.remove(report)
        raise


def _check_writable(paths):
  """Refuses files that cannot be written, before anything is built."""
  for path in paths:
    if tf.io.gfile.isdir(path):
      raise InputError(
        f'{path} cannot be written: it is a folder. Give another '
        '--export_path, or move the folder away.'
      )
  folder = os.path.dirname(paths[0]) or '.'
  with _writing(paths[0]):
    tf.io.gfile.makedirs(folder)
  if os.path.isdir(folder) and not os.access(folder, os.W_OK):
    raise InputError(
      f'--export_path={paths[0]} cannot be written: there is no permission to '
      f'write into {folder}.'
    )


@contextlib.contextmanager
def _replacing(directory, checkpoint):
  """For a directory, which takes the place of an earlier export."""
  _check_replaceable(directory, checkpoint)
  target = os.path.abspath(directory)
  with _writing(directory):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    # Nobody else's, whatever lies there.
    own = tempfile.mkdtemp(
      prefix=f'{os.path.basename(target)}.', dir=os.path.dirname(target)
    )
  try:
    new, old = os.path.join(own, 'new'), os.path.join(own, 'old')
    os.mkdir(new)
    yield (
      new,
      lambda name: os.path.join(directory, name) if name else directory,
    )
    with _writing(directory):
      if os.path.exists(target):
        os.rename(target, old)
      try:
        os.rename(new, target)
      except OSError:
        if os.path.exists(old):
          os.rename(old, target)
        raise
  finally:
    shutil.rmtree(own, ignore_errors=True)


def _check_replaceable(directory, checkpoint):
  """Only an earlier export may be replaced, nothing else of the user's."""
  if tf.io.gfile.exists(directory) and not tf.io.gfile.isdir(directory):
    raise InputError(
      f'--export_path={directory} is a file. Give a directory, or a file that '
      f'ends in {", ".join(formats_lib.OF_SUFFIX)}.'
    )
  names = tf.io.gfile.listdir(directory) if tf.io.gfile.isdir(directory) else []
  foreign = sorted({name.rstrip('/') for name in names} - _EXPORTED)
  if foreign:
    raise InputError(
      f'--export_path={directory} holds more than an earlier export, for '
      f'example {foreign[0]}. Give another folder.'
    )
  source = os.path.dirname(checkpoints.find(checkpoint))
  if names and os.path.realpath(source) == os.path.realpath(directory):
    raise InputError(
      f'--export_path={directory} is the folder of --checkpoint_path, which '
      'would be replaced. Give another folder.'
    )

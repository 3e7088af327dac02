"""Compares exported models with the network that they were made from."""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf
from absl import logging

from deeplab import common
from deeplab.common import InputError
from deeplab.core import feature_extractor
from deeplab.evaluation import prediction
from deeplab.exporting import images, saved_model
from deeplab.exporting.formats import FORMATS, Format
from deeplab.exporting.network import LABELS, LOGITS, PROBABILITIES, to_image

# Below this share of equal labels there is a warning, for formats that may
# have fewer.
_SUSPICIOUS = 0.95

# Above this share of one label all others are hardly compared.
_NEARLY_ALL = 0.95


@dataclasses.dataclass
class _Score:
  """What has been seen of one format, or of one signature of it.

  Attributes:
    what: its name, for messages.
    limits: the Format, with the limits of the network.
    pixels: number of labels that were compared.
    equal: number of these that equal the network's.
    difference: the greatest of the probabilities, None if there are none.
  """

  what: str
  limits: Format
  pixels: int = 0
  equal: int = 0
  difference: float | None = None

  def update(self, found, expected):
    """Takes in the outputs for images, {name: array}, and the network's."""
    if LABELS in found:
      labels = np.asarray(expected[LABELS])
      self.pixels += labels.size
      self.equal += int(np.sum(np.asarray(found[LABELS]) == labels))
    for name in (PROBABILITIES, LOGITS):
      if name in found:
        self._take_difference(name, found[name], expected[name])

  def _take_difference(self, name, found, expected):
    """Logits count by the probabilities that they stand for."""
    for values, whose in ((expected, 'the network'), (found, self.what)):
      if not np.isfinite(values).all():
        raise InputError(
          f'{name} of {whose} are not all finite. Nothing was written. Look '
          'at the checkpoint with eval.py: its training may have diverged.'
        )
    if name == LOGITS:
      found, expected = tf.nn.softmax(found), tf.nn.softmax(expected)
    difference = np.abs(np.asarray(found) - np.asarray(expected)).max()
    self.difference = max(self.difference or 0.0, float(difference))

  @property
  def share(self):
    """Share of equal labels; 1 where there are none."""
    return self.equal / self.pixels if self.pixels else 1.0


def verify(network, paths, source=None):
  """Runs exported models on images, and the network they come from.

  The labels to be found are those of evaluation: its input pipeline, and its
  predictor with the weights of the checkpoint. Formats of images of the crop's
  size are compared with the predictor on the very same image. Every signature,
  and a batch of two where batches are possible, is run on the first image.

  Args:
    network: Network.
    paths: {name of a format: where it lies}.
    source: images.Source of the images; None for generated ones.

  Returns:
    {'images': where they come from, 'num_images': their number,
    'largest_class_share': share of the most frequent label, 'padding': the
    [red, green, blue] of what images are padded with, 'formats': {name:
    {'equal_labels': share of the pixels, 'max_probability_difference': where
    there are probabilities, 'megabytes', 'inputs', 'outputs', 'operations':
    see Loaded}}}.

  Raises:
    InputError: the outputs of a model are not those of the network, or the
      images cannot be used.
  """
  loaded = {name: FORMATS[name].load(path) for name, path in paths.items()}
  limits = {name: FORMATS[name].limits_for(network) for name in paths}
  scores = {
    name: _Score(f'--export_format={name}', limits[name]) for name in paths
  }
  reference = _Reference(network)
  count = 0
  # Not all at once: probabilities of a large image take a hundred megabytes.
  for example in images.examples(network, source):
    _compare(reference, loaded, scores, example)
    if not count:
      _compare_signatures(reference, loaded, example)
    count += 1
  for score in scores.values():
    _check(score, source)
  padding = feature_extractor.mean_pixel(network.options.model_variant)
  return {
    'images': str(source or 'generated'),
    'num_images': count,
    'largest_class_share': reference.largest_share(),
    'padding': np.rint(padding).astype(int).tolist(),
    'formats': {
      name: {
        **_entry(scores[name], loaded[name]),
        'megabytes': _megabytes(path),
      }
      for name, path in paths.items()
    },
  }


class _Reference:
  """The network as evaluation runs it.

  Attributes:
    network: Network.
  """

  def __init__(self, network):
    self.network = network
    self._predict = prediction.Predictor(
      network.options,
      network.options.crop_size,
      network.inference_scales,
      network.add_flipped_images,
      network.image_pyramid,
      use_moving_averages=network.use_moving_averages,
      # By other operations than those that are to be verified.
      for_speed=False,
    )
    self._predict.restore(network.checkpoint)
    self._counts = np.zeros(
      network.options.outputs_to_num_classes[common.OUTPUT_TYPE], np.int64
    )

  def on_images(self, batch, inside, padded, names=(PROBABILITIES,)):
    """What is to be found for images.

    Args:
      batch: uint8 [n, height, width, 3].
      inside: [height, width] of an image in the crop.
      padded: float32 [n, crop height, crop width, 3].
      names: of outputs beside the labels.

    Returns:
      {name: array} at the size of the images.
    """
    values = self.network.outputs(*names)(padded)
    values = {LABELS: self._predict(padded), **values}
    size = batch.shape[1:3]
    if tuple(size) == tuple(inside):
      expected = {
        name: np.asarray(value)[:, : size[0], : size[1]]
        for name, value in values.items()
      }
    else:
      expected = {
        name: to_image(name, value, inside, size)
        for name, value in values.items()
      }
    self._count(expected[LABELS])
    return expected

  def on_crop(self, inside, crop):
    """The labels of an image in a crop, uint8 [1, height, width, 3]."""
    labels = _cut(self._predict(tf.cast(crop, tf.float32)), inside)
    self._count(labels)
    return {LABELS: labels}

  def _count(self, labels):
    labels = np.asarray(labels).ravel()
    self._counts += np.bincount(labels, minlength=len(self._counts))

  def largest_share(self):
    """Share of the most frequent one of all labels."""
    return float(self._counts.max() / self._counts.sum())


def _compare(reference, loaded, scores, example):
  """Runs all models on one image, and takes the outcome in."""
  image, inside, padded = example
  expected = {}
  for name, model in loaded.items():
    if FORMATS[name].takes_crop:
      crop = np.rint(padded).astype(np.uint8)[np.newaxis]
      if True not in expected:
        expected[True] = reference.on_crop(inside, crop)
      found = {LABELS: _cut(model.run(crop)[LABELS], inside)}
    else:
      batch = image[np.newaxis]
      if False not in expected:
        expected[False] = reference.on_images(batch, inside, padded[tf.newaxis])
      found = model.run(batch)
    scores[name].update(found, expected[FORMATS[name].takes_crop])


def _cut(labels, inside):
  return np.asarray(labels)[:, : inside[0], : inside[1]]


def _compare_signatures(reference, loaded, example):
  """Runs every signature on an image, and batches of it and its mirror image.

  Raises:
    InputError: one of them differs from the network.
  """
  models = {
    name: model for name, model in loaded.items() if FORMATS[name].takes_batches
  }
  if not models:
    return
  image, inside, padded = example
  padded = np.stack([padded, padded])
  padded[1, : inside[0]] = padded[1, : inside[0]][::-1]
  batch = np.stack([image, image[::-1]])
  names = (PROBABILITIES, LOGITS)
  if reference.network.averages_probabilities:
    names = (PROBABILITIES,)
  both = reference.on_images(batch, inside, padded, names)
  first = {name: values[:1] for name, values in both.items()}
  for name, model in models.items():
    runs = [('a batch of two', model.run, batch, both)]
    for signature, run in model.signatures.items():
      runs.append((f'signature {signature}', run, batch[:1], first))
    for what, run, given, expected in runs:
      score = _Score(
        f'--export_format={name}, {what}',
        FORMATS[name].limits_for(reference.network),
      )
      score.update(run(given), expected)
      # The image itself is judged with all others.
      _check(score, None)


def _check(score, source):
  """Fails or warns where the outputs of a format differ too much."""
  limits = score.limits
  least = limits.least_equal if source else limits.least_equal_generated
  cure = (
    'Nothing was written. A network that has not been trained decides between '
    'labels by its last digits; look at images of your own with '
    '--verify_images, or write the file all the same with --verify=false.'
  )
  if score.share < least:
    raise InputError(
      f'{score.what}: on {score.share:.3%} of the pixels the labels equal the '
      f"network's, fewer than {least:.1%}. {cure}"
    )
  if (score.difference or 0) > limits.greatest_difference:
    raise InputError(
      f'{score.what}: probabilities differ by {score.difference:.1e} from the '
      f"network's, more than {limits.greatest_difference:.0e}. {cure}"
    )
  if source and score.share < _SUSPICIOUS:
    logging.warning(
      "%s: on only %.1f %% of the pixels of %s the labels equal the network's.",
      score.what,
      100 * score.share,
      source,
    )


def _entry(score, loaded):
  """What the report says about a format."""
  entry = {'equal_labels': score.share}
  if score.difference is not None:
    entry['max_probability_difference'] = score.difference
  entry['inputs'] = dict(loaded.inputs)
  entry['outputs'] = dict(loaded.outputs)
  if loaded.operations is not None:
    entry['operations'] = dict(loaded.operations)
  return entry


def _megabytes(path):
  """Size of a file, or of the files of a SavedModel in a folder."""
  root = pathlib.Path(path)
  parts = [root]
  if root.is_dir():
    # Of what else is in the folder, nothing belongs to the SavedModel.
    parts = [root / name for name in saved_model.NAMES]
  files = (f for part in parts for f in (part, *part.rglob('*')))
  return sum(f.stat().st_size for f in files if f.is_file()) / 1e6


def as_text(report):
  """A report of `verify` as lines of text."""
  lines = [
    f'Compared with the network on {report["num_images"]} images '
    f'({report["images"]}):'
  ]
  for name, entry in report['formats'].items():
    line = f'  {name:15}{entry["equal_labels"]:10.4%} of the labels equal'
    if 'max_probability_difference' in entry:
      difference = entry['max_probability_difference']
      line += f', probabilities within {difference:.1e}'
    lines.append(f'{line}, {entry["megabytes"]:.1f} MB')
  share = report['largest_class_share']
  if share > _NEARLY_ALL:
    lines.append(
      f'  That shows little: {share:.2%} of the labels are of one class. '
      '--verify_images with images of what the network knows shows more.'
    )
  return '\n'.join(lines)

"""Compares exported models with the network that they were made from."""

import dataclasses
import itertools

import numpy as np
import tensorflow as tf
from absl import logging

from deeplab import common
from deeplab.common import InputError
from deeplab.exporting import images
from deeplab.exporting.formats import FORMATS
from deeplab.exporting.network import LABELS, PROBABILITIES, to_image

_FLAG = 'verify_images'

# Below this share of equal labels on images of the user's there is a warning
# for formats that are not held to any.
_SUSPICIOUS = 0.95


@dataclasses.dataclass
class _Score:
  """What has been seen of one format."""

  pixels: int = 0
  equal: int = 0
  difference: float | None = None

  def update(self, found, expected):
    """Takes the outputs for an image in, {name: array}."""
    labels = np.asarray(expected[LABELS])
    self.pixels += labels.size
    self.equal += int(np.sum(np.asarray(found[LABELS]) == labels))
    if PROBABILITIES in found:
      difference = np.abs(
        np.asarray(found[PROBABILITIES]) - np.asarray(expected[PROBABILITIES])
      )
      self.difference = max(self.difference or 0.0, float(difference.max()))

  @property
  def share(self):
    """Share of equal labels."""
    return self.equal / self.pixels


def verify(network, paths, pattern=None, limit=10):
  """Runs exported models on images, and the network they come from.

  Formats of images of any size are compared with the predictor behind the
  input pipeline of evaluation; those of images of the crop's size with the
  predictor on the very same image.

  Args:
    network: Network.
    paths: {name of a format: where it lies}.
    pattern: of the images, see `images.read`; None for generated ones.
    limit: number of these images to use at most.

  Returns:
    {'images': where they come from, 'num_images': their number, 'formats':
    {name: {'equal_labels': share of the pixels, 'max_probability_difference':
    where there are probabilities, 'inputs', 'outputs', 'operations': see
    Loaded}}}.

  Raises:
    InputError: a model's labels are not those of the network, or the images
      cannot be used.
  """
  common.check_ranges({'verify_limit': limit}, {'verify_limit': common.COUNT})
  if pattern is None:
    found = images.generate(network.options.crop_size)
  else:
    found = itertools.islice(images.read(pattern, _FLAG), limit)
  loaded = {name: FORMATS[name].load(path) for name, path in paths.items()}
  scores = {name: _Score() for name in paths}
  count = 0
  # Not all at once: probabilities of a large image take a hundred megabytes.
  for image, (inside, padded) in images.preprocess(
    network, found, pattern or '(generated images)', _FLAG
  ):
    count += 1
    _compare(network, loaded, scores, image, inside, padded)
  if not count:
    raise InputError(
      f'--{_FLAG}={pattern}: there is no image in these files; leave the flag '
      'out to compare on generated ones.'
    )
  for name, score in scores.items():
    _check(name, score.share, pattern)
  return {
    'images': pattern or 'generated',
    'num_images': count,
    'formats': {name: _entry(scores[name], loaded[name]) for name in paths},
  }


def _compare(network, loaded, scores, image, inside, padded):
  """Runs all models on one image, and takes the outcome in."""
  expected = {}
  for name, model in loaded.items():
    takes_crop = FORMATS[name].takes_crop
    if takes_crop not in expected:
      expected[takes_crop] = (
        _on_crop(network, inside, padded)
        if takes_crop
        else _on_image(network, image, inside, padded)
      )
    given, wanted = expected[takes_crop]
    outputs = model.run(given)
    if takes_crop:
      outputs = {LABELS: _crop(outputs[LABELS], inside)}
    scores[name].update(outputs, wanted)


def _on_image(network, image, inside, padded):
  """The image as a batch, and the network's outputs for it."""
  outputs = network.outputs(LABELS, PROBABILITIES)(padded[tf.newaxis])
  size = tf.shape(image)[:2]
  return np.asarray(image)[np.newaxis], {
    name: to_image(name, values, inside, size)
    for name, values in outputs.items()
  }


def _on_crop(network, inside, padded):
  """The padded image in whole grey levels, and the network's labels for it."""
  given = np.rint(padded.numpy()).astype(np.uint8)[np.newaxis]
  outputs = network.outputs(LABELS)(given.astype(np.float32))
  return given, {LABELS: _crop(outputs[LABELS], inside)}


def _crop(labels, inside):
  return np.asarray(labels)[:, : inside[0], : inside[1]]


def _check(name, share, pattern):
  """Fails or warns where labels differ too often."""
  least = FORMATS[name].least_equal
  if share < least:
    raise InputError(
      f'--export_format={name}: on {share:.3%} of the pixels the labels equal '
      f"the network's, fewer than {least:.1%}. Nothing was written. A network "
      'that has not been trained decides between labels by its last digits; '
      'look at images of your own with --verify_images, or write the file all '
      'the same with --verify=false.'
    )
  if not least and pattern and share < _SUSPICIOUS:
    logging.warning(
      '--export_format=%s: on only %.1f %% of the pixels of %s the labels '
      "equal the network's.",
      name,
      100 * share,
      pattern,
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
  return '\n'.join(lines)

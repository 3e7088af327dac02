"""What evaluation and visualisation share: checkpoints in, label maps out."""

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deeplab import (
  checkpoint_files,
  checkpoints,
  common,
  constant_graph,
  inference,
  model,
  slim,
)
from deeplab.common import InputError
from deeplab.core import dense_crf
from deeplab.core.side_by_side import one_by_one
from deeplab.datasets import data_generator

# Least seconds between two looks for a new checkpoint.
_POLL_SECS = 1

_PROBABILITIES = common.OUTPUT_TYPE + model.PROB_SUFFIX

_RANGES = {
  'interval_secs': common.NOT_NEGATIVE,
  'timeout_secs': common.NOT_NEGATIVE,
}


def fixed_checkpoint(path):
  """The one checkpoint that `path` means, if it does not mean a training run.

  Args:
    path: a directory, a prefix ('.../model.ckpt-30000') or a checkpoint's file
      ('.../model.ckpt-30000.index').

  Returns:
    The prefix; None for a directory that a training run writes to (or will).
    A directory with a checkpoint but no `checkpoint` state file that names
    one is a downloaded or moved one: nobody trains there. Nor where there is
    only a frozen graph.

  Raises:
    InputError: there is nothing at `path`.
  """
  if not tf.io.gfile.isdir(path):
    return checkpoints.find(path)
  # A state file that names what is not there came with a moved folder.
  if checkpoints.named_by_state(path):
    return None
  return checkpoints.latest(path) or checkpoints.single_file(path)


def checkpoint_paths(path, limit=0, interval_secs=300, timeout_secs=None):
  """Goes through the checkpoints of a training run as they appear.

  Args:
    path: as in `fixed_checkpoint`; anything but a training run's directory is
      yielded once.
    limit: number of checkpoints to yield; 0 or less for no end.
    interval_secs: least time between two of them.
    timeout_secs: end when no new checkpoint appeared for so long; None waits
      for ever.

  Yields:
    Prefixes, always the newest one.

  Raises:
    InputError: there is nothing at `path`; or no checkpoint appeared before
      the timeout; or one is wanted, there is none, and no timeout was given.
  """
  fixed = fixed_checkpoint(path)
  if fixed:
    yield fixed
    return
  if checkpoints.latest(path) is None:
    if limit == 1 and timeout_secs is None:
      checkpoint_files.check_not_all_damaged(path)
      raise InputError(
        f'--checkpoint_dir={path} holds no checkpoint. Train first, or give '
        '--timeout_secs to wait for one.'
      )
    print(f'Waiting for a checkpoint in {path}.', flush=True)
  prefix, count = None, 0
  # Not asked for one more than the limit: it would wait for that one.
  while limit <= 0 or count < limit:
    prefix = _wait_for_another(path, prefix, timeout_secs)
    if prefix is None:
      break
    began = time.monotonic()
    yield prefix
    count += 1
    if limit <= 0 or count < limit:
      time.sleep(max(0, began + interval_secs - time.monotonic()))
  if not count:
    raise InputError(
      f'--checkpoint_dir={path}: no checkpoint appeared in {timeout_secs} '
      'seconds (--timeout_secs).'
    )


def _wait_for_another(path, last, timeout_secs):
  """The newest whole checkpoint once it is another one; None at the timeout."""
  began = time.monotonic()
  while True:
    prefix = checkpoints.latest(path, known=last)
    if prefix not in (None, last):
      return prefix
    waited = time.monotonic() - began
    if timeout_secs is not None and waited + _POLL_SECS > timeout_secs:
      return None
    time.sleep(_POLL_SECS)


@contextlib.contextmanager
def clear_write_errors(folder):
  """Turns errors of writing into `folder` into InputError."""
  try:
    yield
  except (OSError, tf.errors.OpError) as error:
    raise InputError(
      f'{folder} cannot be written to: {str(error).splitlines()[0]}. Free some '
      'space, make it writable, or choose another one.'
    ) from error


class Predictor:
  """A network that labels images, built once, its weights loaded many times.

  Attributes:
    crf: dense_crf.Parameters of the CRF behind the network, or None.
    output_stride: that of the network.
  """

  def __init__(
    self,
    options,
    crop_size,
    eval_scales=(1.0,),
    add_flipped_images=False,
    image_pyramid=None,
    crf=None,
    use_moving_averages=None,
    strategy=None,
    store=None,
    inference_dtype='float32',
    for_speed=True,
  ):
    """Builds the network; the weights come with `restore`.

    Args:
      options: ModelOptions.
      crop_size: [height, width] of the images it will get; None for a side
        of any length.
      eval_scales: scales whose probabilities are averaged.
      add_flipped_images: average over the mirrored images too.
      image_pyramid: scales of the network's own image pyramid, or None.
      crf: dense_crf.Parameters to refine the probabilities with, or None.
      use_moving_averages: see `checkpoints.restore`.
      strategy: tf.distribute strategy over whose devices each batch is spread;
        None for the default device.
      store: slim.LayerStore of a network to share the weights with, or None.
      inference_dtype: one of inference.DTYPES.
      for_speed: compute with `inference.fold`, on one device. Quantised
        networks, and several devices, compute with the network itself.

    Raises:
      InputError: the options cannot be built, a scale is not positive, there
        are both an image pyramid and several scales or flips, or the network
        cannot be run in that type.
    """
    inference.check_dtype(inference_dtype, options)
    if strategy and inference_dtype != inference.DTYPES[0]:
      raise InputError(
        f'--inference_dtype={inference_dtype} is for one device; leave '
        '--num_clones and --clone_on_cpu out.'
      )
    self._store = slim.LayerStore() if store is None else store
    self._passes = (eval_scales, add_flipped_images, image_pyramid)
    with strategy.scope() if strategy else contextlib.nullcontext():
      self._model = inference.build_predictor(
        options, *self._passes, store=self._store
      )
    self._options = options
    self._strategy = strategy
    self._use_moving_averages = use_moving_averages
    self._inference_dtype = inference_dtype
    self._is_folded = for_speed and not strategy and not options.is_quantized
    # One trace serves every batch: the last one may be smaller.
    self._signature = tf.TensorSpec([None, *crop_size, 3], name='images')
    self._functions = {}
    self.crf = crf
    self.output_stride = options.output_stride

  def forget_weights(self):
    """Has other weights, of the shared store, used from the next call on."""
    if self._is_folded:
      self._functions.clear()

  def _predict(self, images, *names):
    """{name: tensor} of those outputs, by a function that computes no more."""
    if names not in self._functions:
      self._functions[names] = self._function(names)
    return self._functions[names](tf.convert_to_tensor(images, tf.float32))

  def _function(self, names):
    network = self._model
    if self._is_folded:
      network = inference.fold(
        self._options, self._store, *self._passes, self._inference_dtype
      ).predictor()
    network = keras.Model(
      network.input, {name: network.output[name] for name in names}
    )
    if self._is_folded:
      if inference.averages(*self._passes[:2]):
        # Its parts are compiled. Within a function they would take the memory
        # of some more copies of the weights.
        return network
      compiled = constant_graph.compile_function(network, self._signature)
      return functools.partial(one_by_one, compiled)
    run = network
    if self._strategy is not None:
      run = functools.partial(_spread, self._strategy, network)
    return tf.function(run, input_signature=[self._signature])

  def restore(self, prefix):
    """Loads the weights of a checkpoint.

    Args:
      prefix: the checkpoint.

    Returns:
      The checkpoint's training step.

    Raises:
      InputError: it is not a checkpoint of this network.
    """
    report = checkpoints.restore(
      self._model, prefix, use_moving_averages=self._use_moving_averages
    )
    self.forget_weights()
    print(report)
    return checkpoints.global_step(prefix)

  def __call__(self, images, sizes=None):
    """Labels a batch.

    Args:
      images: float32 [batch, height, width, 3] in 0..255.
      sizes: integers [batch, 2], height and width of each image without its
        padding, which is none of the CRF's pixels; None for no padding. Without
        a CRF they do not matter.

    Returns:
      Integer NumPy array [batch, height, width].
    """
    if self.crf is None:
      outputs = self._predict(images, common.OUTPUT_TYPE)
      return outputs[common.OUTPUT_TYPE].numpy()
    outputs = self._predict(images, common.OUTPUT_TYPE, _PROBABILITIES)
    labels = outputs[common.OUTPUT_TYPE].numpy().copy()
    samples = self._samples(images, outputs, sizes)
    for label, sample in zip(labels, samples, strict=True):
      refined = dense_crf.dense_crf(*sample, self.crf).argmax(axis=2)
      label[: refined.shape[0], : refined.shape[1]] = refined
    return labels

  def probabilities(self, images, sizes):
    """What a CRF works on.

    Args:
      images: as in `__call__`.
      sizes: as in `__call__`.

    Returns:
      For each image, without its padding: (uint8 [height, width, 3], float32
      [height, width, classes]), the image and its probabilities before the CRF.
    """
    outputs = self._predict(images, _PROBABILITIES)
    return self._samples(images, outputs, sizes)

  def _samples(self, images, outputs, sizes):
    """See `probabilities`."""
    probabilities = outputs[_PROBABILITIES].numpy()
    # Whole numbers unless the images were resized.
    images = np.rint(np.clip(images, 0, 255)).astype(np.uint8)
    if sizes is None:
      sizes = [images.shape[1:3]] * len(images)
    return [
      (image[:height, :width], probability[:height, :width])
      for image, probability, (height, width) in zip(
        images, probabilities, sizes, strict=True
      )
    ]


def _spread(strategy, network, images):
  """Runs a network on all devices, each with a share of the batch.

  Args:
    strategy: tf.distribute strategy.
    network: keras.Model that was built under it.
    images: as it takes them; any number.

  Returns:
    What it gives for the whole batch.
  """
  number = strategy.num_replicas_in_sync
  count = tf.shape(images)[0]
  # Shares of the same size, none empty: the last image fills them up.
  share = (count + number - 1) // number
  images = tf.gather(images, tf.minimum(tf.range(share * number), count - 1))

  def run():
    first = tf.distribute.get_replica_context().replica_id_in_sync_group * share
    return network(images[first : first + share], training=False)

  return tf.nest.map_structure(
    lambda value: tf.concat(strategy.experimental_local_results(value), axis=0)[
      :count
    ],
    strategy.run(run),
  )


def label_batch(predict, batch):
  """Labels a batch of a data set, without its padding if a CRF is to be run.

  Args:
    predict: a Predictor, or any function from images, float32 [batch, height,
      width, 3] in 0..255, to integer labels [batch, height, width].
    batch: one of `batches`.

  Returns:
    Integer NumPy array [batch, height, width].
  """
  if getattr(predict, 'crf', None) is None:
    return predict(batch[common.IMAGE])
  return predict(batch[common.IMAGE], valid_sizes(batch))


def valid_sizes(batch):
  """Integers [batch, 2]: height and width of the images without padding."""
  return np.stack(
    [
      batch[data_generator.RESIZED_HEIGHT],
      batch[data_generator.RESIZED_WIDTH],
    ],
    axis=1,
  )


def batches(dataset, description):
  """The batches of a data set as NumPy, behind a progress bar in images.

  Args:
    dataset: a data_generator.Dataset.
    description: a word or two, shown before the bar.

  Yields:
    Dictionaries of the samples' items; the image stays a tensor.

  Raises:
    InputError: a record, image or label is broken, or an image does not fit
      into the crop.
  """
  # A log file gets a line now and then instead of a line for each batch.
  interval = 0.2 if sys.stderr.isatty() else 30
  with tqdm(
    total=dataset.num_examples,
    desc=description,
    unit='image',
    mininterval=interval,
  ) as bar:
    for batch in dataset.iterate():
      yield {
        name: value if name == common.IMAGE else value.numpy()
        for name, value in batch.items()
      }
      bar.update(int(batch[common.IMAGE].shape[0]))


@dataclasses.dataclass(frozen=True)
class Job:
  """Which checkpoints to run on what, and how; eval.py and vis.py share it.

  Attributes:
    checkpoint_dir: directory, prefix or file; see `fixed_checkpoint`.
    make_dataset: make_dataset(model_variant) returns the data_generator.Dataset
      that is padded as this backbone needs (None: as any).
    make_options: make_options(num_classes, prefix) returns the ModelOptions of
      a checkpoint. (A training run that has only just begun may not have
      written them yet.)
    crop_size: [height, width] of the images.
    eval_scales: scales whose probabilities are averaged.
    add_flipped_images: average over the mirrored images too.
    image_pyramid: scales of the network's own image pyramid, or None.
    crf: dense_crf.Parameters to refine the probabilities with, or None.
    use_moving_averages: see `checkpoints.restore`.
    strategy: see `Predictor`.
    inference_dtype: see `Predictor`.
    make_predictor: called like `Predictor` in its place, or None.
    limit: stop after so many checkpoints; 0 for no end.
    interval_secs: least time between two checkpoints.
    timeout_secs: stop when no new checkpoint appeared for so long, or None.
  """

  checkpoint_dir: str
  make_dataset: Callable[[str | None], data_generator.Dataset]
  make_options: Callable[[int, str], common.ModelOptions]
  crop_size: Sequence[int] | None
  eval_scales: Sequence[float] = (1.0,)
  add_flipped_images: bool = False
  image_pyramid: Sequence[float] | None = None
  crf: dense_crf.Parameters | None = None
  use_moving_averages: bool | None = None
  strategy: tf.distribute.Strategy | None = None
  inference_dtype: str = 'float32'
  make_predictor: Callable | None = None
  limit: int = 0
  interval_secs: float = 300
  timeout_secs: float | None = None

  def __post_init__(self):
    common.check_ranges(vars(self), _RANGES)

  def runs(self):
    """Goes through the checkpoints; see `checkpoint_paths`.

    Yields:
      A Run: the same predictor and data set each time, with the weights of the
      next checkpoint.
    """
    # First of all, so that a broken data set is reported before any waiting.
    num_classes = self.make_dataset(None).num_of_classes
    run = None
    for prefix in checkpoint_paths(
      self.checkpoint_dir, self.limit, self.interval_secs, self.timeout_secs
    ):
      run = run or self._first_run(num_classes, prefix)
      step = run.predict.restore(prefix)
      print(f'{time.strftime("%F %T")}  step {step}', flush=True)
      yield dataclasses.replace(run, step=step, prefix=prefix)

  def _first_run(self, num_classes, prefix):
    """Builds the network and the data set that goes with it."""
    options = self.make_options(num_classes, prefix)
    predictor = (self.make_predictor or Predictor)(
      options,
      self.crop_size,
      self.eval_scales,
      self.add_flipped_images,
      self.image_pyramid,
      self.crf,
      use_moving_averages=self.use_moving_averages,
      strategy=self.strategy,
      inference_dtype=self.inference_dtype,
    )
    if self.crf is not None:
      print(f'Dense CRF: {self.crf}.')
    return Run(predictor, self.make_dataset(options.model_variant))


@dataclasses.dataclass(frozen=True)
class Run:
  """One checkpoint of a Job.

  Attributes:
    predict: a Predictor with the checkpoint's weights.
    dataset: the data_generator.Dataset to label.
    prefix: the checkpoint.
    step: the training step at which it was written.
  """

  predict: Callable
  dataset: data_generator.Dataset
  prefix: str = ''
  step: int = 0

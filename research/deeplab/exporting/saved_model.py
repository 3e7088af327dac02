"""SavedModels: signatures for batches of images, raw or encoded."""

import tensorflow as tf

from deeplab.core import preprocess_utils
from deeplab.exporting import network as network_lib
from deeplab.exporting.loaded import Loaded, describe
from deeplab.exporting.network import LABELS, LOGITS, PROBABILITIES

# TensorFlow Serving takes base64 for inputs of type string; by convention their
# names end in `_bytes`.
ENCODED_INPUT_NAME = 'image_bytes'

DEFAULT_SIGNATURE = 'serving_default'
ENCODED_SIGNATURE = 'encoded'

# What each signature computes, of images as arrays.
_SIGNATURES = {
  DEFAULT_SIGNATURE: (LABELS, PROBABILITIES),
  'labels': (LABELS,),
  'probabilities': (PROBABILITIES,),
  'logits': (LOGITS,),
}

# What a SavedModel consists of.
NAMES = ('saved_model.pb', 'fingerprint.pb', 'variables', 'assets')


def write(network, folder):
  """Writes a SavedModel.

  Args:
    network: Network.
    folder: for its files.
  """
  functions = {
    name: network_lib.serving_function(network, outputs, for_speed=True)
    for name, outputs in _SIGNATURES.items()
    if LOGITS not in outputs or not network.averages_probabilities
  }
  functions[ENCODED_SIGNATURE] = _encoded(functions['labels'])
  with_variables = network.options.is_quantized
  network_lib.save(
    folder, functions, network.predictor if with_variables else None
  )


def _encoded(label):
  """A function from JPEG or PNG images, string [n], to their labels."""

  @tf.function(
    input_signature=[tf.TensorSpec([None], tf.string, name=ENCODED_INPUT_NAME)]
  )
  def label_encoded(contents):
    contents = preprocess_utils.check_input(
      contents,
      tf.size(contents) > 0,
      lambda: ['there must be an image in a batch. Received: none.'],
    )
    size = tf.shape(_decode(contents[0]))

    def decode(content):
      image = _decode(content)
      return preprocess_utils.check_input(
        image,
        tf.reduce_all(tf.shape(image) == size),
        lambda: [
          'the images of a batch must have one size; send others in requests '
          'of their own. Received: ',
          *preprocess_utils.size_text(size),
          ' and ',
          *preprocess_utils.size_text(tf.shape(image)),
          '.',
        ],
      )

    spec = tf.TensorSpec([None, None, 3], tf.uint8)
    return label(tf.map_fn(decode, contents, fn_output_signature=spec))

  return label_encoded


def _decode(content):
  return tf.io.decode_image(content, channels=3, expand_animations=False)


def load(folder):
  """Loads a SavedModel that `write` wrote; returns a Loaded."""
  saved = tf.saved_model.load(folder)
  signature = saved.signatures[DEFAULT_SIGNATURE]

  def runner(name):
    def run(images):
      # Each signature that has run holds the weights in a form of its own.
      # The others are loaded to be run once.
      is_default = name == DEFAULT_SIGNATURE
      model = saved if is_default else tf.saved_model.load(folder)
      # By way of the model: a signature alone does not keep its variables.
      call = model.signatures[name]
      if name == ENCODED_SIGNATURE:
        contents = [tf.io.encode_png(image) for image in images]
        return call(**{ENCODED_INPUT_NAME: tf.stack(contents)})
      return call(**{network_lib.INPUT_NAME: tf.constant(images)})

    return run

  _, inputs = signature.structured_input_signature
  return Loaded(
    runner(DEFAULT_SIGNATURE),
    *(
      {name: describe(s.dtype.name, s.shape) for name, s in specs.items()}
      for specs in (inputs, signature.structured_outputs)
    ),
    signatures={
      name: runner(name)
      for name in saved.signatures
      if name != DEFAULT_SIGNATURE
    },
  )

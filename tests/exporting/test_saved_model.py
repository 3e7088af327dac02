"""The signatures of a SavedModel, as its users call them."""

import base64
import json

import numpy as np
import pytest
import tensorflow as tf

from deeplab import export
from deeplab.core import preprocess_utils
from deeplab.exporting import network as network_lib
from deeplab.exporting import saved_model
from deeplab.exporting.network import LABELS, LOGITS, PROBABILITIES


@pytest.fixture(scope='module')
def saved(exported):
  return tf.saved_model.load(str(exported.folder))


@pytest.fixture(scope='module')
def signatures(saved):
  """{name: function of one array that returns {output: array}}."""

  def make(name):
    _, specs = saved.signatures[name].structured_input_signature
    ((input_name, spec),) = specs.items()

    def run(values):
      inputs = {input_name: tf.constant(values, spec.dtype)}
      outputs = saved.signatures[name](**inputs)
      return {key: value.numpy() for key, value in outputs.items()}

    return run

  return {name: make(name) for name in saved.signatures}


def _batch(count, height, width):
  shape = (count, height, width, 3)
  return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize('size', [(65, 97), (40, 51), (1, 1)])
def test_a_batch_is_its_images_one_by_one(signatures, size):
  run = signatures['serving_default']
  images = _batch(3, *size)
  together = run(images)
  assert together[LABELS].shape == (3, *size)
  assert together[PROBABILITIES].shape == (3, *size, 3)
  for i in range(3):
    alone = run(images[i : i + 1])
    np.testing.assert_array_equal(together[LABELS][i], alone[LABELS][0])
    np.testing.assert_allclose(
      together[PROBABILITIES][i], alone[PROBABILITIES][0], atol=1e-5
    )


def test_signatures_agree(signatures):
  images = _batch(2, 50, 60)
  default = signatures['serving_default'](images)
  outputs = {}
  for name in ('labels', 'probabilities', 'logits'):
    found = signatures[name](images)
    assert len(found) == 1
    outputs.update(found)
  np.testing.assert_array_equal(outputs[LABELS], default[LABELS])
  np.testing.assert_allclose(
    outputs[PROBABILITIES], default[PROBABILITIES], atol=1e-6
  )
  logits = outputs[LOGITS]
  np.testing.assert_array_equal(logits.argmax(-1), outputs[LABELS])
  np.testing.assert_allclose(
    tf.nn.softmax(logits), outputs[PROBABILITIES], atol=1e-5
  )


def test_labels_are_computed_without_probabilities(exported):
  network = network_lib.Network(exported.checkpoint, exported.options)
  for outputs, expected in (((LABELS,), False), ((PROBABILITIES,), True)):
    serve = network_lib.serving_function(network, outputs)
    graph = serve.get_concrete_function().graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert ('Softmax' in kinds) == expected
    assert ('ArgMax' in kinds) != expected


@pytest.mark.parametrize(
  'resizing',
  [
    {},
    {'min_resize_value': 30, 'max_resize_value': 65, 'resize_factor': 8},
    {'max_resize_value': 65, 'keep_aspect_ratio': False},
  ],
)
def test_preprocessing_of_a_batch_is_that_of_its_images(exported, resizing):
  network = network_lib.Network(
    exported.checkpoint, exported.options, resizing=resizing
  )
  images = _batch(3, 41, 58)
  size, together = network.preprocess(images)
  for i, image in enumerate(images):
    alone_size, alone = network.preprocess(image)
    np.testing.assert_array_equal(size, alone_size)
    np.testing.assert_array_equal(together[i], alone)


def test_averaged_probabilities_have_no_logits(exported, tmp_path):
  export.export(
    exported.checkpoint,
    str(tmp_path / 'out'),
    exported.options,
    add_flipped_images=True,
    formats=['saved_model'],
  )
  saved = tf.saved_model.load(str(tmp_path / 'out'))
  assert set(saved.signatures) == {
    'serving_default',
    'labels',
    'probabilities',
    'encoded',
  }


def test_encoded_images(signatures, exported):
  images = _batch(2, 30, 40)
  contents = [tf.io.encode_png(images[0]).numpy()]
  contents.append(tf.io.encode_jpeg(images[1], quality=95).numpy())
  decoded = [
    tf.io.decode_image(content, 3, expand_animations=False)
    for content in contents
  ]
  found = signatures['encoded'](contents)[LABELS]
  expected = signatures['labels'](np.stack(decoded))[LABELS]
  np.testing.assert_array_equal(found, expected)


def test_encoded_images_of_several_sizes(signatures):
  contents = [
    tf.io.encode_png(_batch(1, *size)[0]).numpy() for size in ((9, 8), (9, 7))
  ]
  with pytest.raises(tf.errors.InvalidArgumentError) as caught:
    signatures['encoded'](contents)
  text = preprocess_utils.input_error_text(caught.value)
  assert 'must have one size' in text and '9x8 and 9x7' in text


def test_no_encoded_images(signatures):
  with pytest.raises(tf.errors.InvalidArgumentError) as caught:
    signatures['encoded']([])
  text = preprocess_utils.input_error_text(caught.value)
  assert text and 'must be an image in a batch' in text


# TensorFlow Serving's REST interface, row format.


def _serve_rest(saved, body):
  """What TensorFlow Serving answers to a POST of `body` to :predict.

  Rows of a signature with one input may be bare values; {"b64": ...} stands
  for bytes; rows are stacked to a tensor of the input's type, whose first
  dimension is that of the batch. Outputs are unstacked likewise; if there are
  several, a row is an object.
  """

  def decode(value):
    if isinstance(value, dict) and set(value) == {'b64'}:
      return base64.b64decode(value['b64'])
    return value

  request = json.loads(body)
  name = request.get('signature_name', 'serving_default')
  signature = saved.signatures[name]
  _, specs = signature.structured_input_signature
  ((input_name, spec),) = specs.items()
  rows = [
    row[input_name] if isinstance(row, dict) and input_name in row else row
    for row in request['instances']
  ]
  tensor = tf.constant([decode(row) for row in rows], spec.dtype)
  outputs = signature(**{input_name: tensor})
  assert all(len(value) == len(rows) for value in outputs.values())
  predictions = [
    {key: value[i].numpy().tolist() for key, value in outputs.items()}
    for i in range(len(rows))
  ]
  if len(outputs) == 1:
    predictions = [next(iter(row.values())) for row in predictions]
  return json.dumps({'predictions': predictions})


@pytest.mark.parametrize('named', [False, True])
def test_rest_rows(saved, named):
  images = _batch(2, 20, 30)
  rows = [{'ImageTensor': i} if named else i for i in images.tolist()]
  answer = json.loads(_serve_rest(saved, json.dumps({'instances': rows})))
  expected = saved.signatures['serving_default'](tf.constant(images))
  for i, row in enumerate(answer['predictions']):
    np.testing.assert_array_equal(row[LABELS], expected[LABELS][i])
    np.testing.assert_allclose(row[PROBABILITIES], expected[PROBABILITIES][i])


def test_rest_rows_of_encoded_images(saved):
  image = _batch(1, 20, 30)
  content = base64.b64encode(tf.io.encode_png(image[0]).numpy()).decode()
  body = {'signature_name': 'encoded', 'instances': [{'b64': content}]}
  answer = json.loads(_serve_rest(saved, json.dumps(body)))
  expected = saved.signatures['labels'](tf.constant(image))[LABELS]
  np.testing.assert_array_equal(answer['predictions'], expected)
  assert saved_model.ENCODED_INPUT_NAME.endswith('_bytes')

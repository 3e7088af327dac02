"""The Python of docs/export.md, run as it stands, one block after another."""

import re

import numpy as np
import pytest
import tensorflow as tf

from deeplab.exporting.network import LABELS


@pytest.fixture
def folder(exported, tmp_path, monkeypatch):
  """What the commands of the page leave behind."""
  (tmp_path / 'exported').symlink_to(exported.folder)
  (tmp_path / 'all').symlink_to(exported.folder)
  (tmp_path / 'model.onnx').symlink_to(exported.folder / 'model.onnx')
  (tmp_path / 'photos').mkdir()
  content = tf.io.encode_jpeg(exported.image, quality=95).numpy()
  (tmp_path / 'photos' / '1.jpg').write_bytes(content)
  monkeypatch.chdir(tmp_path)
  return tmp_path


def test_python_of_the_page(exported, folder, repository):
  page = (repository / 'docs' / 'export.md').read_text()
  blocks = re.findall(r'^```python\n(.*?)^```', page, re.DOTALL | re.MULTILINE)
  assert len(blocks) == 3
  names, labels = {}, []
  for block in blocks:
    exec(block, names)
    labels.append(np.squeeze(names['labels']))
    assert labels[-1].shape == exported.image.shape[:2]
  saved_model, float16, onnx = labels
  np.testing.assert_array_equal(onnx, saved_model)
  # Rounded weights; and grey of 128 where the network pads with 127.5.
  assert np.mean(float16 == saved_model) > 0.95
  outputs = names['saved'].signatures['labels'](
    ImageTensor=tf.constant(names['image'][None])
  )
  np.testing.assert_array_equal(outputs[LABELS][0], saved_model)

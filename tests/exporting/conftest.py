"""One export of a small network in all formats, which the tests look into."""

import types

import numpy as np
import pytest
import small_checkpoint
import tensorflow as tf

from deeplab import checkpoints, export, inference


@pytest.fixture(scope='session')
def exported(tmp_path_factory):
  """checkpoint, options, folder with all formats, predictor, an image."""
  root = tmp_path_factory.mktemp('exported')
  options = small_checkpoint.write(
    root / 'train',
    crop_size=[65, 97],
    atrous_rates=[2, 4],
    aspp_convs_filters=16,
    decoder_output_stride=[4],
    decoder_filters=16,
  )
  image = np.random.default_rng(0).integers(0, 256, (48, 75, 3), np.uint8)
  (root / 'photo.png').write_bytes(tf.io.encode_png(image).numpy())
  written = export.export(
    str(root / 'train'),
    str(root / 'out'),
    options,
    formats=export.FORMATS,
    calibration_images=[str(root / '*.png')],
    verify=True,
    save_inference_graph=True,
  )
  predictor = inference.build_predictor(options)
  checkpoints.restore(predictor, str(root / 'train'))
  return types.SimpleNamespace(
    checkpoint=str(root / 'train'),
    options=options,
    folder=root / 'out',
    written=written,
    predictor=predictor,
    image=image,
    photos=[str(root / '*.png')],
  )

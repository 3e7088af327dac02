"""Small data sets, prepared by TFDS as the real ones are."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

_F = tfds.features

# The features of the data sets of these names.
PET_FEATURES = {
  'image': _F.Image(encoding_format='jpeg'),
  'label': _F.ClassLabel(num_classes=37),
  'species': _F.ClassLabel(names=['Cat', 'Dog']),
  'file_name': _F.Text(),
  'segmentation_mask': _F.Image(shape=(None, None, 1), use_colormap=True),
  'head_bbox': _F.BBoxFeature(),
}
CITYSCAPES_FEATURES = {
  'image_id': _F.Text(),
  'image_left': _F.Image(shape=(None, None, 3), encoding_format='png'),
  'segmentation_label': _F.Image(
    shape=(None, None, 1), encoding_format='png', use_colormap=True
  ),
}


def jpeg(number):
  """The bytes of a JPEG file of noise of 40 x (48 + number) pixels."""
  noise = np.random.default_rng(number)
  image = noise.integers(0, 256, [40, 48 + number, 3], np.uint8)
  with io.BytesIO() as output:
    Image.fromarray(image).save(output, 'JPEG', quality=90)
    return output.getvalue()


def mask(number, values=(1, 2, 3)):
  """A mask for `jpeg(number)`."""
  noise = np.random.default_rng(number)
  return noise.choice(np.uint8(values), [40, 48 + number, 1])


def pet(number, **changes):
  """An example of oxford_iiit_pet."""
  return {
    'image': io.BytesIO(jpeg(number)),
    'label': 3,
    'species': 1,
    'file_name': f'pet_{number}.jpg',
    'segmentation_mask': mask(number),
    'head_bbox': _F.BBox(0.0, 0.0, 0.5, 0.5),
    **changes,
  }


def prepare(
  folder,
  name,
  features,
  splits,
  config=None,
  num_shards=None,
  file_format=None,
  version='4.0.0',
):
  """Has TFDS write a data set into a folder.

  Args:
    folder: its data_dir.
    name: name of the data set.
    features: {name: feature}.
    splits: {split: list of examples}. They keep their order.
    config: name of the configuration, None for none.
    num_shards: number of files of each split, None for what TFDS takes.
    file_format: 'tfrecord' or another one.
    version: of the data set.
  """
  tfds.disable_progress_bar()
  tfds.dataset_builders.store_as_tfds_dataset(
    name,
    version,
    _F.FeaturesDict(features),
    {split: list(enumerate(examples)) for split, examples in splits.items()},
    config=config,
    data_dir=str(folder),
    file_format=file_format,
    download_config=tfds.download.DownloadConfig(num_shards=num_shards),
    disable_shuffling=True,
  )


def prepare_pets(folder, num_train=9, num_test=4, **changes):
  """Has TFDS write oxford_iiit_pet: pets 0..num_train-1 to train on, ..."""
  train = [pet(number) for number in range(num_train)]
  test = [pet(num_train + number) for number in range(num_test)]
  splits = {'train': train, 'test': test}
  prepare(folder, 'oxford_iiit_pet', PET_FEATURES, splits, **changes)

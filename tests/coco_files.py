"""Data sets in COCO's panoptic format, for tests."""

import json

import numpy as np
from PIL import Image

CATEGORIES = [
  {'id': 1, 'name': 'person', 'isthing': 1},
  {'id': 2, 'name': 'sky', 'isthing': 0},
  {'id': 3, 'name': 'bird', 'isthing': 1},
]


def write(folder, name, images, **content):
  """Writes one side of a data set.

  Args:
    folder: a pathlib.Path.
    name: of the JSON file and of the folder of PNG files.
    images: [(image id, segment ids [height, width], segments_info)].
    **content: more keys of the JSON file.

  Returns:
    The JSON file.
  """
  annotations = []
  (folder / name).mkdir(parents=True, exist_ok=True)
  for image_id, ids, infos in images:
    ids = np.asarray(ids)
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 256**2], -1)
    file_name = f'{image_id}.png'
    Image.fromarray(colours.astype(np.uint8)).save(folder / name / file_name)
    annotations.append(
      {'image_id': image_id, 'file_name': file_name, 'segments_info': infos}
    )
  path = folder / f'{name}.json'
  path.write_text(json.dumps({'annotations': annotations, **content}))
  return path

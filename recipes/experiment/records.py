"""Looks for TFRecord files without reading them."""

import os
import re


def has_records(folder, split='train'):
  """Whether a folder holds TFRecord files of a split."""
  pattern = re.compile(re.escape(split) + r'-\d+-of-\d+')
  return os.path.isdir(folder) and any(map(pattern.match, os.listdir(folder)))

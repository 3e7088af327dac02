"""Trainings of a few steps, without what takes longest in them."""

import pytest
import training_process


@pytest.fixture(autouse=True)
def no_histograms(monkeypatch):
  """Leaves the histograms of all variables out of TensorBoard's summaries.

  They are a quarter of the time of a short run. Fixtures of a module are made
  without this: test_loop.py looks for histograms in the run of `trained`.
  """
  # Here, so that tests are collected without it.
  import tensorflow as tf

  monkeypatch.setattr(
    tf.summary, 'histogram', training_process.ignore_histogram
  )

"""Rows of recipes, and what they take from settings."""

import pytest

from experiment import plan
from experiment.plan import Recipe, Row, Setting

_SETTING = Setting('text', 'shapes', {'a': 1, 'b': 2}, {'c': 3}, 'start')


def _make(*rows, **settings):
  settings = settings or {'full': _SETTING, 'small': _SETTING}
  return Recipe('name', 'table', rows, settings)


def test_flags_of_a_row_win():
  row = Row(
    'one',
    train={'a': None, 'b': 5, 'd': [1, 2]},
    eval={'e': True},
    small_train={'b': None},
    small_eval={'e': False},
  )
  (full,) = plan.select_rows(_make(row), 'full')
  assert full.train == {'b': 5, 'd': [1, 2]}
  assert full.eval == {'c': 3, 'e': True}
  (small,) = plan.select_rows(_make(row), 'small')
  assert small.train == {'d': [1, 2]}
  assert plan.shell_flags(small.eval) == ['--c=3', '--e=false']
  assert plan.shell_flags(small.train) == ['--d=1,2']


def test_a_row_brings_those_it_needs():
  recipe = _make(
    Row('zero'),
    Row('one'),
    Row('two', start='one', small_start=None),
    Row('three', weights='two'),
  )

  def names(scale):
    return [r.name for r in plan.select_rows(recipe, scale, ['three'])]

  assert names('full') == ['one', 'two', 'three']
  assert names('small') == ['two', 'three']


def test_other_data_and_checkpoints_are_those_of_full_scale():
  recipe = _make(Row('one', data='coco', checkpoint='other'))
  (full,) = plan.select_rows(recipe, 'full')
  assert (full.data, full.checkpoint) == ('coco', 'other')
  (small,) = plan.select_rows(recipe, 'small')
  assert (small.data, small.checkpoint) == ('shapes', 'start')


@pytest.mark.parametrize(
  'rows, message',
  [
    ([Row('one'), Row('one')], 'two rows'),
    ([Row('a/b')], 'no name of a folder'),
    ([Row('one', weights='two'), Row('two')], "comes before 'two'"),
    ([Row('one'), Row('two', weights='one', train={'a': 1})], 'not train'),
  ],
)
def test_plans_that_are_wrong(rows, message):
  with pytest.raises(ValueError, match=message):
    _make(*rows)

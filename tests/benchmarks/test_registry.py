"""The cases: what they name exists, and how they are chosen."""

import importlib
import subprocess
import sys

import pytest

from benchmarks import registry
from deeplab.common import InputError

CASES = registry.all_cases()


def test_names_are_unique():
  names = [case.name for case in CASES]
  assert len(set(names)) == len(names)
  for case in CASES:
    rows = [row.name for row in case.rows]
    assert len(set(rows)) == len(rows), case.name


def test_builders_exist():
  for build in {row.build for case in CASES for row in case.rows}:
    module, _, function = build.partition(':')
    assert callable(getattr(importlib.import_module(module), function)), build


def test_tasks_import_no_framework_by_themselves(repository):
  modules = {row.build.partition(':')[0] for case in CASES for row in case.rows}
  code = (
    f'import sys, {", ".join(sorted(modules))}, benchmarks.worker\n'
    "print({'tensorflow', 'torch', 'keras', 'absl'} & set(sys.modules))"
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=repository,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == 'set()\n'


def test_baseline_of_inference_is_the_plain_graph():
  cases = registry.select(['inference/*'], CASES)
  assert len(cases) == 8
  assert {case.rows[0].name for case in cases} == {'frozen_graph'}


def test_select_keeps_the_order_of_cases():
  cases = registry.select(['training/*', 'machine/*'], CASES)
  assert [case.name.partition('/')[0] for case in cases] == [
    *('machine', 'training', 'training')
  ]
  with pytest.raises(InputError, match='There are: machine/matrix_product, '):
    registry.select(['machine/*', 'nothing'], CASES)


def test_rows_always_have_the_baseline():
  (case,) = registry.select(['start_up/*'], CASES)
  (chosen,) = registry.select_rows([case], ['open*'])
  names = ['frozen_graph', 'openvino', 'openvino_bfloat16']
  assert [row.name for row in chosen.rows] == names
  (chosen,) = registry.select_rows([case], ['frozen_graph', 'litert'])
  assert [row.name for row in chosen.rows] == ['frozen_graph', 'litert']
  assert registry.select_rows([case], None) == [case]


def test_rows_choose_among_cases():
  cases = registry.select(['start_up/*', 'training/*'], CASES)
  chosen = registry.select_rows(cases, ['litert'])
  assert [case.name for case in chosen] == ['start_up/mobilenet_v2_os16']
  # Also beside a pattern that fits.
  message = (
    "--implementations: no row of these cases is called 'nothing'. There"
  )
  with pytest.raises(InputError, match=message):
    registry.select_rows(cases, ['litert', 'nothing'])


def test_weights_for_several_scales():
  cases = registry.select(['multi_scale/*', 'growth/scales'], CASES)
  for case in registry.with_weights(cases, 'model.ckpt-7', 'photo.jpg'):
    for row in case.rows:
      assert row.settings['checkpoint'] == 'model.ckpt-7'
      assert row.settings['image'] == 'photo.jpg'
      assert row.settings['scales']
  with pytest.raises(InputError, match='Received: machine/'):
    registry.with_weights(CASES, 'model.ckpt-7', 'photo.jpg')

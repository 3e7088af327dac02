"""Which cases run, of which rows, with which weights."""

import dataclasses

import pytest

from benchmarks import registry, selection
from benchmarks.artifacts import Weights
from deeplab.common import InputError

CASES = registry.all_cases()
_WEIGHTS = Weights('model.ckpt-7', '7')


def test_baseline_of_inference_is_the_plain_graph():
  cases = selection.select(['inference/*'], CASES)
  assert len(cases) == 8
  assert {case.rows[0].name for case in cases} == {'frozen_graph'}


def test_select_keeps_the_order_of_cases():
  cases = selection.select(['training/*', 'machine/*'], CASES)
  assert [case.name.partition('/')[0] for case in cases] == [
    *('machine', 'training', 'training')
  ]
  with pytest.raises(InputError, match='There are: machine/matrix_product, '):
    selection.select(['machine/*', 'nothing'], CASES)


def test_rows_always_have_the_baseline():
  (case,) = selection.select(['start_up/*'], CASES)
  (chosen,) = selection.select_rows([case], ['open*'])
  names = ['frozen_graph', 'openvino', 'openvino_bfloat16']
  assert [row.name for row in chosen.rows] == names
  (chosen,) = selection.select_rows([case], ['frozen_graph', 'litert'])
  assert [row.name for row in chosen.rows] == ['frozen_graph', 'litert']
  assert selection.select_rows([case], None) == [case]


def test_rows_choose_among_cases():
  cases = selection.select(['start_up/*', 'training/*'], CASES)
  chosen = selection.select_rows(cases, ['litert'])
  assert [case.name for case in chosen] == ['start_up/mobilenet_v2_os16']
  # Also beside a pattern that fits.
  message = (
    "--implementations: no row of these cases is called 'nothing'. There"
  )
  with pytest.raises(InputError, match=message):
    selection.select_rows(cases, ['litert', 'nothing'])


def test_trained_weights():
  patterns = ['inference/mobilenet*', 'start_up/*', 'multi_scale/mobilenet*']
  patterns += ['growth/crop_size', 'growth/output_stride', 'growth/scales']
  cases = selection.select(patterns, CASES)
  found = selection.with_weights(cases, _WEIGHTS, 'photo.jpg')
  for case, before in zip(found, cases, strict=True):
    for row, old in zip(case.rows, before.rows, strict=True):
      assert row.settings == {**old.settings, 'image': 'photo.jpg'}
      for name, artifact in row.artifacts.items():
        network = old.artifacts[name].network.replace(weights=_WEIGHTS)
        expected = dataclasses.replace(old.artifacts[name], network=network)
        assert artifact == expected


def test_cases_without_a_network_stay_as_they_are():
  cases = selection.select(['machine/*', 'multi_scale/mobilenet*'], CASES)
  found = selection.with_weights(cases, _WEIGHTS, 'photo.jpg')
  assert found[0] == cases[0]
  assert found[1] != cases[1]
  with pytest.raises(InputError, match='Received: machine/matrix_product'):
    selection.with_weights(cases[:1], _WEIGHTS, 'photo.jpg')


@pytest.mark.parametrize(
  'name',
  [
    'inference/xception_65_batch1',
    'multi_scale/resnet_v1_50_beta',
    'training/mobilenet_v2_os16_crop513',
    'growth/classes',
    'input/jpeg_records',
  ],
)
def test_trained_weights_of_another_network(name):
  cases = selection.select(['multi_scale/mobilenet*', name], CASES)
  message = f'with --cases: inference/mobilenet_v2_os16_.*Received: {name}'
  with pytest.raises(InputError, match=message):
    selection.with_weights(cases, _WEIGHTS, 'photo.jpg')

"""Comparing evaluations: classes, images, settings, and what is chance."""

import json
import subprocess
import sys

import numpy as np
import pytest

from deeplab.common import InputError
from deeplab.evaluation import (
  compare_evals,
  image_scores,
  metrics,
  plot_trimap,
)
from deeplab.utils import plots

_NAMES = ['sky', 'pole', 'car']


def _write(folder, images, names=_NAMES, step=3, with_images=True, **changes):
  """Writes an evaluation of {image name: (labels, predictions)}."""
  matrix = metrics.ConfusionMatrix(len(names), 255)
  scores = image_scores.ImageScores(len(names), names)
  for name, (labels, predictions) in images.items():
    labels, predictions = np.array([labels]), np.array([predictions])
    scores.add([name], matrix.update(labels, predictions))
  values = {
    'step': step,
    'checkpoint': f'run/model.ckpt-{step}',
    'tag': 'miou_1.0',
    'crf': None,
    **metrics.to_dict(matrix, names),
    **changes,
  }
  folder.mkdir(exist_ok=True)
  path = folder / f'miou_{step}.json'
  path.write_text(json.dumps(values))
  if with_images:
    content = scores.counts().to_bytes()
    (folder / f'images_{step}.npz').write_bytes(content)
  return str(path)


_OLD = {
  'b': ([0, 0, 1, 1], [0, 0, 1, 0]),
  'a': ([0, 0, 0, 0], [0, 0, 0, 0]),
}
# The images in another order.
_NEW = {
  'a': ([0, 0, 0, 0], [0, 0, 0, 2]),
  'b': ([0, 0, 1, 1], [0, 0, 1, 1]),
}


def test_what_changed(tmp_path):
  paths = [_write(tmp_path / 'old', _OLD), _write(tmp_path / 'new', _NEW)]
  values = compare_evals.compare(compare_evals.load(paths))
  assert [row['label'] for row in values['evaluations']] == ['old', 'new']
  assert values['settings_that_differ'] == []
  # Sorted by the difference; 'car' is predicted in the new one alone.
  sky, pole, car = values['classes']
  assert (sky['name'], sky['iou']) == ('sky', pytest.approx([6 / 7, 5 / 6]))
  assert (pole['name'], pole['difference']) == ('pole', 0.5)
  assert (car['iou'], car['difference']) == ([None, 0.0], None)
  old, new = values['evaluations']
  assert old['miou'] == pytest.approx((6 / 7 + 1 / 2) / 2)
  assert new['miou'] == pytest.approx((5 / 6 + 1 + 0) / 3)
  assert old['miou_same_classes'] == old['miou']
  assert new['miou_same_classes'] == pytest.approx((5 / 6 + 1) / 2)
  (comparison,) = values['comparisons']
  assert comparison['remark'] == ''
  assert comparison['miou_difference'] == new['miou'] - old['miou']
  a, b = comparison['images']
  assert a == {
    'name': 'a',
    'miou': [1.0, pytest.approx(3 / 8)],
    'difference': pytest.approx(-5 / 8),
  }
  assert b['name'] == 'b' and b['miou'][1] == 1.0 and b['difference'] > 0
  # Of two images either may be drawn twice.
  assert comparison['interval'] == pytest.approx(
    [-5 / 8, 1 - (2 / 3 + 1 / 2) / 2]
  )


def test_text(tmp_path):
  paths = [
    _write(tmp_path / 'old', _OLD),
    _write(tmp_path / 'new', _NEW, step=4),
  ]
  text = compare_evals.to_text(
    compare_evals.compare(compare_evals.load(paths, 'A, B'))
  )
  lines = [line.split() for line in text.splitlines()]
  assert ['A:', 'run/model.ckpt-3'] in lines
  assert ['IoU', 'A', 'B', 'difference'] in lines
  assert ['pole', '0.5000', '1.0000', '+0.5000'] in lines
  assert ['car', '-', '0.0000', '-'] in lines
  assert ['mIoU', '0.6786', '0.6111', '-0.0675'] in lines
  assert 'B against A: mIoU -0.0675.' in text
  assert 'the choice of the images may well explain it.' in text
  at = lines.index(['images', 'that', 'lost:', '1', 'A', 'B', 'difference'])
  assert lines[at + 1] == ['a', '1.0000', '0.3750', '-0.6250']
  assert 'crf' not in text


def _trimap(boundary, bands):
  """The trimap of an evaluation, {width: mIoU}."""
  return {
    'boundary': boundary,
    'bands': [{'width': width, 'miou': miou} for width, miou in bands.items()],
    'whole_image': {'miou': 0.5},
  }


def test_trimaps(tmp_path):
  """Widths that all have with one kind of boundary are compared."""
  trimaps = {
    'old': _trimap('any', {1: 0.25, 5: None, 9: 0.5}),
    'new': _trimap('any', {1: 0.5, 5: 0.5, 7: 1}),
    'other': _trimap('void', {1: 0.5}),
  }
  old, new, other = (
    _write(tmp_path / name, _OLD, trimap=trimap)
    for name, trimap in trimaps.items()
  )
  values = compare_evals.compare(compare_evals.load([old, new]))
  assert values['trimaps'] == [
    {'width': 1, 'miou': [0.25, 0.5], 'difference': 0.25},
    {'width': 5, 'miou': [None, 0.5], 'difference': None},
  ]
  assert values['settings_that_differ'] == []
  lines = compare_evals.to_text(values).splitlines()
  at = lines.index('mIoU, trimap 1      0.2500  0.5000     +0.2500')
  assert set(lines[at - 1]) == {'-'} and lines[at + 1].split()[3:] == [
    '-', '0.5000', '-',
  ]  # fmt: skip
  without = _write(tmp_path / 'without', _OLD)
  for path, boundary in ((other, 'void'), (without, None)):
    values = compare_evals.compare(compare_evals.load([old, path]))
    assert values['trimaps'] == []
    assert values['settings_that_differ'] == ['trimap_boundary']
    assert values['evaluations'][1]['trimap_boundary'] == boundary
    assert 'trimap 1' not in compare_evals.to_text(values)
  broken = _write(tmp_path / 'broken', _OLD, trimap={'boundary': 'any'})
  with pytest.raises(InputError, match=r'miou_3.json is no .*"bands" is no'):
    compare_evals.load([old, broken])


def test_the_output_stride_is_a_setting(tmp_path):
  paths = [
    _write(tmp_path / 'one', _OLD, output_stride=16),
    _write(tmp_path / 'two', _OLD, output_stride=8),
  ]
  text = compare_evals.to_text(compare_evals.compare(compare_evals.load(paths)))
  assert text.startswith('output_stride:\n  one: 16\n  two: 8\n\n')


def test_remote_files(tmp_path):
  tf = pytest.importorskip('tensorflow')
  paths = []
  for name, images in (('old', _OLD), ('new', _NEW)):
    _write(tmp_path / name, images, trimap=_trimap('any', {1: 0.5}))
    folder = f'ram://compare_evals/{name}'
    tf.io.gfile.makedirs(folder)
    for file in (tmp_path / name).iterdir():
      with tf.io.gfile.GFile(f'{folder}/{file.name}', 'wb') as target:
        target.write(file.read_bytes())
    paths.append(f'{folder}/miou_3.json')
  values = compare_evals.compare(compare_evals.load(paths))
  assert [row['label'] for row in values['evaluations']] == ['old', 'new']
  assert len(values['comparisons'][0]['images']) == 2
  assert plot_trimap.load(paths[0])['bands'] == [{'width': 1, 'miou': 0.5}]
  assert plots.check_output('ram://compare_evals/a.json', ['json']) == 'json'
  for path in ('ram://compare_evals/none.json', 'no-such://a/miou_3.json'):
    with pytest.raises(InputError, match=f'{path} cannot be read: '):
      compare_evals.load([paths[0], path])


def test_several_are_compared_with_the_first(tmp_path):
  paths = [
    _write(tmp_path / name, images)
    for name, images in (('x', _OLD), ('y', _NEW), ('z', _OLD))
  ]
  values = compare_evals.compare(compare_evals.load(paths))
  assert [row['label'] for row in values['comparisons']] == ['y', 'z']
  assert values['comparisons'][1]['interval'] == [0.0, 0.0]
  assert all(len(row['iou']) == 3 for row in values['classes'])
  assert not any(row['difference'] for row in values['classes'])


def _counts(rng, right):
  """100 images of 900 pixels of which a share of some 0..1 is right."""
  unions = np.full((100, 2), 900)
  shares = np.clip(rng.normal(right, 0.1, unions.shape), 0, 1)
  names = np.arange(100).astype(str)
  return image_scores.Counts(names, np.int64(unions * shares), unions)


def test_the_interval_is_that_of_independent_images():
  """mIoU is a mean over images here, whose error is known."""
  rng = np.random.default_rng(0)
  one, two = _counts(rng, 0.5), _counts(rng, 0.6)
  low, high = compare_evals.miou_interval(one, two)
  differences = two.miou() - one.miou()
  middle, error = differences.mean(), differences.std() / np.sqrt(100)
  assert low == pytest.approx(middle - 1.96 * error, abs=0.1 * error)
  assert high == pytest.approx(middle + 1.96 * error, abs=0.1 * error)
  assert low > 0
  # Images of the same difficulty: only what is different counts.
  shifted = image_scores.Counts(
    one.names, np.maximum(one.intersections - 9, 0), one.unions
  )
  low, high = compare_evals.miou_interval(one, shifted)
  assert -0.0101 < low <= high < -0.0099


def test_without_counts_by_image(tmp_path):
  one = _write(tmp_path / 'one', _OLD)
  two = _write(tmp_path / 'two', _NEW, with_images=False)
  values = compare_evals.compare(compare_evals.load([one, two]))
  assert values['comparisons'][0]['interval'] is None
  text = compare_evals.to_text(values)
  assert 'there is no ' in text and 'images_3.npz; evaluate again' in text
  # Another evaluation of the same step has been written over it.
  replaced = (tmp_path / 'one' / 'images_3.npz').read_bytes()
  (tmp_path / 'two' / 'images_3.npz').write_bytes(replaced)
  values = compare_evals.compare(compare_evals.load([one, two]))
  assert 'is of another evaluation than' in values['comparisons'][0]['remark']


def test_other_images(tmp_path):
  one = _write(tmp_path / 'one', _OLD)
  two = _write(tmp_path / 'two', {'c': _OLD['a'], 'b': _OLD['b']})
  values = compare_evals.compare(compare_evals.load([one, two]))
  assert values['comparisons'][0]['images'] == []
  remark = values['comparisons'][0]['remark']
  assert remark == 'one and two are of different images'


def test_nothing_that_counts(tmp_path):
  void = {'a': ([255, 255], [0, 0])}
  paths = [_write(tmp_path / name, void) for name in ('one', 'two')]
  values = compare_evals.compare(compare_evals.load(paths))
  assert values['comparisons'][0]['interval'] is None
  assert 'no comparison by image: no pixel' in compare_evals.to_text(values)


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    (['sky', 'pole', 'bus'], "class 2 is 'car' and 'bus'"),
    (['sky', 'pole', 'car', 'bus'], '3 and 4 classes'),
  ],
)
def test_different_classes_are_refused(names, message, tmp_path):
  one = _write(tmp_path / 'one', _OLD)
  two = _write(tmp_path / 'two', _OLD, names)
  with pytest.raises(InputError, match=rf'different classes: {message}'):
    compare_evals.load([one, two])


def test_one_file_is_nothing_to_compare(tmp_path):
  with pytest.raises(InputError, match=r'two miou_<step>.json or more'):
    compare_evals.load([_write(tmp_path / 'one', _OLD)])


def test_the_command(tmp_path):
  def run(*arguments):
    return subprocess.run(
      [sys.executable, '-m', 'deeplab.evaluation.compare_evals', *arguments],
      capture_output=True,
      text=True,
      check=False,
    )

  one, two = _write(tmp_path / 'one', _OLD), _write(tmp_path / 'two', _NEW)
  output = tmp_path / 'comparison.json'
  done = run(one, two, f'--output={output}')
  assert done.returncode == 0, done.stderr
  assert 'two against one: mIoU -0.0675.' in done.stdout
  values = compare_evals.compare(compare_evals.load([one, two]))
  assert json.loads(output.read_text()) == values
  for arguments, message in (
    ([one, two, '--output=a.png'], 'must end in .json'),
    ([one, one], 'given twice'),
  ):
    done = run(*arguments)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert message in done.stderr.splitlines()[-1]

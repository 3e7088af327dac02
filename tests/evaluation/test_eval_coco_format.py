"""Evaluation of files against plain loops, and the command."""

import fractions
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

import coco_files
from deeplab.evaluation import parsing_covering
from deeplab.evaluation.eval_coco_format import eval_coco_format


def _segments_info(rng, ids, categories, crowds):
  """segments_info of an image."""
  return [
    {
      'id': int(i),
      'category_id': int(category),
      'iscrowd': int(i in crowds),
    }
    for i, category in zip(ids, categories, strict=True)
  ]


def _random_images(seed, count):
  """Ground truth and predictions, lists of (image id, ids, segments_info)."""
  rng = np.random.default_rng(seed)
  gt, pred = [], []
  for number in range(count):
    height, width = rng.integers(2, 6, 2)
    ids = rng.choice(256**3 - 1, 8, replace=False) + 1
    layout = rng.integers(0, 8, (height, width))
    gt_map = np.kron(np.r_[0, ids[1:]][layout], np.ones((4, 5), int))
    names = np.setdiff1d(gt_map, [0])
    categories = rng.integers(1, 4, len(names))
    # One crowd for each category at most, as in COCO.
    firsts = [names[categories == c][:1] for c in (1, 3)]
    crowds = set(np.concatenate(firsts).tolist())
    gt.append((number, gt_map, _segments_info(rng, names, categories, crowds)))
    # The prediction: shifted, spotted, some categories wrong, other ids.
    pred_map = np.roll(gt_map, rng.integers(0, 3), axis=1)
    spots = rng.random(pred_map.shape) < 0.1
    pred_map[spots] = rng.choice(names) if len(names) else 0
    wrong = rng.random(len(names)) < 0.2
    categories = np.where(wrong, rng.integers(1, 4, len(names)), categories)
    kept = np.isin(names, pred_map)
    infos = _segments_info(rng, names[kept], categories[kept], set())
    pred.append((number, pred_map, infos))
  return gt, pred


def _plain_pq(gt_images, pred_images, of_any_category=True):
  """{category: PQ}, by segment ids as COCO's own evaluation defines it.

  There, a prediction is excused by crowds of its own category only; in the
  original, and here, by those of any category.
  """
  totals = {
    c['id']: [fractions.Fraction(0), 0, 0, 0] for c in coco_files.CATEGORIES
  }
  for (_, gt_map, gt), (_, pred_map, pred) in zip(
    gt_images, pred_images, strict=True
  ):
    found = set()
    void = gt_map == 0
    for g, p in itertools.product(gt, pred):
      if g['category_id'] != p['category_id'] or g['iscrowd']:
        continue
      of_gt, of_pred = gt_map == g['id'], pred_map == p['id']
      both = int((of_gt & of_pred).sum())
      union = int((of_gt | (of_pred & ~void)).sum())
      if 2 * both > union:
        totals[g['category_id']][0] += fractions.Fraction(both, union)
        totals[g['category_id']][1] += 1
        found |= {('gt', g['id']), ('pred', p['id'])}
    for g in gt:
      if not g['iscrowd'] and ('gt', g['id']) not in found:
        totals[g['category_id']][2] += 1
    for p in pred:
      of_pred = pred_map == p['id']
      crowds = [
        g['id']
        for g in gt
        if g['iscrowd']
        and (of_any_category or g['category_id'] == p['category_id'])
      ]
      ignored = void | np.isin(gt_map, crowds)
      mostly = 2 * (of_pred & ignored).sum() > of_pred.sum()
      if ('pred', p['id']) not in found and not mostly:
        totals[p['category_id']][3] += 1
  return {
    c: float(iou / (tp + fractions.Fraction(fn + fp, 2)))
    for c, (iou, tp, fn, fp) in totals.items()
    if tp + fn + fp
  }


@pytest.fixture
def random_set(tmp_path):
  """JSON files of ground truth and predictions, and what they hold."""
  gt, pred = _random_images(0, 12)
  return (
    coco_files.write(tmp_path, 'gt', gt, categories=coco_files.CATEGORIES),
    coco_files.write(tmp_path, 'pred', pred),
    (gt, pred),
  )


def _files(random_set):
  return [str(path) for path in random_set[:2]]


@pytest.mark.parametrize('seed', range(4))
def test_equals_coco_without_crowds(tmp_path, seed):
  gt, pred = _random_images(seed, 6)
  for _, _, infos in gt:
    for info in infos:
      info['iscrowd'] = 0
  gt_json = coco_files.write(
    tmp_path, 'gt', gt, categories=coco_files.CATEGORIES
  )
  results = eval_coco_format(
    gt_json, coco_files.write(tmp_path, 'pred', pred), num_categories=4
  )
  plain = list(_plain_pq(gt, pred, of_any_category=False).values())
  assert results['All']['n'] == len(plain)
  assert results['All']['pq'] == pytest.approx(np.mean(plain), rel=1e-13)


def test_crowds_of_any_category_excuse(random_set):
  """A difference of the original's from COCO's own evaluation, kept."""
  same, any_category = (
    _plain_pq(*random_set[2], of_any_category=flag) for flag in (False, True)
  )
  assert all(any_category[c] >= same[c] for c in same)
  assert any_category != same


def test_panoptic_quality(random_set, capsys):
  results = eval_coco_format(*_files(random_set), num_categories=4)
  plain = _plain_pq(*random_set[2])
  assert sorted(plain) == [1, 2, 3] and 0.1 < plain[1] < 0.9
  for name, members in (
    ('All', (1, 2, 3)),
    ('Things', (1, 3)),
    ('Stuff', (2,)),
  ):
    mean = np.mean([plain[c] for c in members])
    assert results[name]['pq'] == pytest.approx(mean, rel=1e-13)
    assert results[name]['n'] == len(members)
  rows = capsys.readouterr().out.splitlines()
  assert [row.split()[1] for row in rows[3:6]] == ['All', 'Things', 'Stuff']
  assert rows[3].split()[3] == f'{100 * results["All"]["pq"]:.1f}'


@pytest.mark.parametrize('normalize', [True, False])
def test_parsing_covering(random_set, normalize):
  results = eval_coco_format(
    *_files(random_set),
    metric='pc',
    num_categories=4,
    normalize_by_image_size=normalize,
  )
  metric = parsing_covering.ParsingCovering(4, 0, 99, 1000, normalize)
  for (_, gt_map, gt), (_, pred_map, pred) in zip(*random_set[2], strict=True):
    arrays = np.zeros([4, *gt_map.shape], int)
    for first, ids, infos in ((0, gt_map, gt), (2, pred_map, pred)):
      for number, info in enumerate(infos, 1):
        mask = ids == info['id']
        is_crowd = first == 0 and info['iscrowd']
        arrays[first][mask] = 0 if is_crowd else info['category_id']
        arrays[first + 1][mask] = number
    metric.compare_and_accumulate(*arrays)
  assert results['All']['pc'] == pytest.approx(metric.result(), rel=1e-13)
  assert 0.1 < results['All']['pc'] < 0.95
  assert sorted(results['All']) == ['n', 'pc']


@pytest.mark.parametrize('metric', ['pq', 'pc'])
def test_workers_do_not_matter(random_set, tmp_path, metric):
  outputs = []
  for workers in (0, 2):
    path = tmp_path / f'{workers}.json'
    eval_coco_format(
      *_files(random_set),
      metric=metric,
      num_categories=4,
      num_workers=workers,
      output_json=str(path),
    )
    outputs.append(path.read_bytes())
  assert outputs[0] == outputs[1]


def test_output_json(random_set, tmp_path):
  path = tmp_path / 'result.json'
  results = eval_coco_format(
    *_files(random_set), num_categories=4, output_json=str(path)
  )
  content = json.loads(path.read_text())
  assert content['metric'] == 'pq' and content['num_images'] == 12
  assert {key: content[key] for key in results} == results
  rows = {row['id']: row for row in content['categories']}
  assert [rows[i]['name'] for i in (1, 2, 3)] == ['person', 'sky', 'bird']
  plain = _plain_pq(*random_set[2])
  assert rows[3]['pq'] == pytest.approx(plain[3], rel=1e-13)
  assert rows[3]['valid'] is True and rows[2]['isthing'] == 0
  assert isinstance(rows[1]['tp_per_class'], int)
  assert not list(tmp_path.glob('*.tmp'))


def test_id_0_is_a_segment_if_the_json_says_so(tmp_path):
  info = {'id': 0, 'category_id': 1, 'iscrowd': 0}
  gt = coco_files.write(
    tmp_path,
    'gt',
    [(1, [[5, 5]], [{**info, 'id': 5}])],
    categories=coco_files.CATEGORIES,
  )
  pred = coco_files.write(tmp_path, 'pred', [(1, [[0, 0]], [info])])
  assert eval_coco_format(gt, pred, num_categories=4)['All']['pq'] == 1


def test_crowds_of_predictions_count(tmp_path):
  """As in the original and in COCO's own evaluation."""
  images = [(1, [[5, 5]], [{'id': 5, 'category_id': 1, 'iscrowd': 0}])]
  gt = coco_files.write(
    tmp_path, 'gt', images, categories=coco_files.CATEGORIES
  )
  images[0][2][0]['iscrowd'] = 1
  pred = coco_files.write(tmp_path, 'pred', images)
  assert eval_coco_format(gt, pred, num_categories=4)['All']['pq'] == 1


def test_an_ignored_label_beyond_the_categories(random_set):
  """Void must not turn into category 0."""
  few = eval_coco_format(*_files(random_set), num_categories=4)
  many = eval_coco_format(
    *_files(random_set), num_categories=4, ignored_label=255
  )
  assert many == few


# The command.


def _run(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'deeplab.evaluation.eval_coco_format', *arguments],
    capture_output=True,
    text=True,
  )


def test_the_command_with_workers(random_set, tmp_path):
  path = tmp_path / 'result.json'
  gt, pred = _files(random_set)
  done = _run(
    f'--gt_json_file={gt}',
    f'--pred_json_file={pred}',
    '--num_categories=4',
    '--num_workers=2',
    f'--output_json={path}',
  )
  assert done.returncode == 0, done.stderr
  results = eval_coco_format(gt, pred, num_categories=4)
  assert json.loads(path.read_text())['All'] == results['All']
  assert f'{100 * results["All"]["pq"]:.1f}' in done.stdout


def test_the_command_fails_without_a_traceback(tmp_path):
  images = [(17, [[0]], [])]
  gt = coco_files.write(
    tmp_path, 'gt', images, categories=coco_files.CATEGORIES
  )
  pred = coco_files.write(tmp_path, 'pred', images)
  (tmp_path / 'pred' / '17.png').unlink()
  done = _run(
    f'--gt_json_file={gt}',
    f'--pred_json_file={pred}',
    '--num_workers=1',
    f'--output_json={tmp_path / "result.json"}',
  )
  assert done.returncode == 1
  assert '17.png is missing' in done.stderr.splitlines()[-1]
  assert 'Traceback' not in done.stderr
  assert not (tmp_path / 'result.json').exists()
  done = _run(
    f'--gt_json_file={gt}',
    f'--pred_json_file={pred}',
    '--nonormalize_by_image_size',
  )
  assert done.returncode == 1
  assert 'has no effect on --metric=pq' in done.stderr.splitlines()[-1]


def test_the_library_needs_no_tensorflow():
  code = (
    'import sys, deeplab.evaluation.eval_coco_format;'
    "assert 'tensorflow' not in sys.modules"
  )
  subprocess.run([sys.executable, '-c', code], check=True)

"""What each of several input pipelines reads."""

import itertools

import pytest
import small_records

from deeplab import common
from deeplab.datasets import records, sharding


def shards_of(counts):
  return [records.Shard(f's{i}', n, 100 * n) for i, n in enumerate(counts)]


def batches(dataset, count, *arguments):
  """The rows of each of the first batches."""
  taken = dataset.as_dataset(*arguments).take(count)
  return [small_records.rows(batch) for batch in taken]


@pytest.mark.parametrize(
  ('counts', 'num_parts', 'text'),
  [
    ([5] * 16, 2, 'by files: 8 of 16 here'),
    ([10, 0, 10, 9], 3, 'by files: 1 of 3 here'),
    ([30, 10, 10, 10], 2, 'by files: 1 of 4 here'),
    ([5, 5], 4, 'by records, 2 shards are too few for 4 pipelines'),
    ([5, 5, 0, 0], 4, 'by records, 2 shards are too few for 4 pipelines'),
    (
      [298] * 9 + [293],
      4,
      'by records, 10 shards cannot be dealt out evenly to 4 pipelines '
      '(596 to 894 records)',
    ),
    ([10, 8], 2, 'by records, 2 shards cannot be dealt out evenly to 2 '
     'pipelines (8 to 10 records)'),
    ([5], 1, 'not sharded: one input pipeline'),
  ],
)  # fmt: skip
def test_what_is_shared(counts, num_parts, text):
  shards = shards_of(counts)
  plans = [sharding.plan(shards, p, num_parts) for p in range(num_parts)]
  assert plans[0].text == text
  read = [shard for plan in plans for shard in plan.shards]
  full = [shard for shard in shards if shard.num_records]
  if text.startswith('by files'):
    # Every file once; the examples of the parts are counted through.
    assert sorted(s.path for s in read) == sorted(s.path for s in full)
    sizes = [plan.num_examples for plan in plans]
    starts = [plan.first_example for plan in plans]
    assert starts == [0, *itertools.accumulate(sizes)][:-1]
    assert min(sizes) >= 0.9 * max(sizes)
  else:
    assert read == full * num_parts
    assert [plan.slice for plan in plans] == list(range(num_parts))
    assert {plan.first_example for plan in plans} == {0}


def test_what_is_shared_can_be_asked_for():
  shards = shards_of([10, 10, 1])
  plan = sharding.plan(shards, 0, 2, 'records')
  assert plan.text == 'by records, as asked for'
  assert sharding.plan(shards_of([10, 1]), 1, 2, 'files').num_examples == 1
  with pytest.raises(common.InputError, match='3 shards are too few for 4'):
    sharding.plan(shards, 0, 4, 'files')
  plan = sharding.plan(shards_of([10, 10]), 0, 2, repeats=False)
  assert plan.text == 'by records, since epochs do not repeat'


@pytest.mark.parametrize(('num_parts', 'start'), [(2, 0), (2, 4), (4, 3)])
def test_by_records_the_parts_are_the_whole_batch(tmp_path, num_parts, start):
  dataset = small_records.make(small_records.write(tmp_path, [7, 3]), 4,
                               shard_by='records')  # fmt: skip
  whole = batches(dataset, 8)
  parts = [
    batches(dataset, 8 - start, start, part, num_parts)
    for part in range(num_parts)
  ]
  assert all(len(rows) == 4 // num_parts for part in parts for rows in part)
  steps = zip(*parts, strict=True)
  assert [list(itertools.chain(*shares)) for shares in steps] == whole[start:]


@pytest.mark.parametrize(
  ('training', 'lengths'), [(False, [[2, 2, 1], [2, 2]]), (True, [[2, 2]] * 2)]
)
def test_by_records_without_repetition(tmp_path, training, lengths):
  """In training all pipelines end at the same step, though rows are left."""
  count = 9 if not training else 11
  dataset = small_records.make(
    small_records.write(tmp_path, [count]),
    4,
    (49, 49),
    is_training=training,
    should_repeat=False,
    should_shuffle=False,
  )
  assert dataset.describe_sharding(0, 2).startswith('by records')
  parts = [batches(dataset, 9, 0, part, 2) for part in range(2)]
  assert [[len(rows) for rows in part] for part in parts] == lengths
  whole = batches(dataset, 9)
  for step, rows in enumerate(whole):
    shares = [part[step] for part in parts if step < len(part)]
    assert list(itertools.chain(*shares)) == rows


def test_by_records_others_rows_are_not_decoded(tmp_path):
  folder = small_records.write(tmp_path, [8], bad=(2, 3, 6, 7))
  dataset = small_records.make(
    folder, 4, shard_by='records', should_shuffle=False
  )
  names = [[n for n, _ in rows] for rows in batches(dataset, 3, 0, 0, 2)]
  assert names == [[0, 1], [4, 5], [0, 1]]
  with pytest.raises(common.InputError, match='"2" holds 7'):
    next(dataset.iterate(dataset.as_dataset(0, 1, 2)))


def test_by_files_every_part_has_its_own_epochs(tmp_path):
  folder = small_records.write(tmp_path, [3, 3, 3, 3])
  dataset = small_records.make(folder, 4)
  assert dataset.describe_sharding(1, 2) == 'by files: 2 of 4 here'
  own = [{0, 1, 2, 6, 7, 8}, {3, 4, 5, 9, 10, 11}]
  positions = []
  for part in range(2):
    taken = batches(dataset, 9, 0, part, 2)
    assert {len(rows) for rows in taken} == {2}
    names = [name for rows in taken for name, _ in rows]
    epochs = [names[i : i + 6] for i in range(0, 18, 6)]
    assert [set(epoch) for epoch in epochs] == [own[part]] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    ranked = sorted(own[part])
    positions.append([ranked.index(name) for name in names])
    for start in (1, 4):
      assert batches(dataset, 9 - start, start, part, 2) == taken[start:]
  # The parts do not go through their files in one and the same order.
  assert positions[0] != positions[1]


def numbers(dataset, count, start_step, *part):
  """The numbers of the examples that augmentation depends on."""
  plan = dataset._plan(*part)
  stream = dataset._stream(plan, start_step)
  return [int(number) for number, _ in stream.take(count)]


def test_numbers_of_the_examples(tmp_path):
  dataset = small_records.make(small_records.write(tmp_path, [3, 2]), 3)
  assert numbers(dataset, 9, 0, 0, 1) == list(range(9))
  assert numbers(dataset, 9, 4, 0, 1) == list(range(12, 21))


def test_numbers_are_unique_among_parts(tmp_path):
  folder = small_records.write(tmp_path, [10, 9])
  dataset = small_records.make(folder, 4)
  assert dataset.describe_sharding(0, 2).startswith('by files')
  both = [numbers(dataset, 27, 0, part, 2) for part in range(2)]
  assert both[0][:11] == [*range(10), 19]
  assert both[1][:10] == [*range(10, 19), 29]
  assert not set(both[0]) & set(both[1])
  dataset = small_records.make(folder, 4, shard_by='records')
  both = [numbers(dataset, 20, 0, part, 2) for part in range(2)]
  assert sorted(both[0] + both[1]) == list(range(40))


def test_bad_arguments(tmp_path):
  folder = small_records.write(tmp_path, [2, 2])
  dataset = small_records.make(folder, 4)
  for arguments, match in (
    ((0, 0, 3), r'batch_size=4 .*num_parts=3.*such as 6'),
    ((0, 2, 2), 'part=2'),
    ((0, -1, 2), 'part=-1'),
    ((0, 0, 0), 'num_parts=0'),
  ):
    with pytest.raises(common.InputError, match=match):
      dataset.as_dataset(*arguments)
  with pytest.raises(common.InputError, match="shard_by='rows'"):
    small_records.make(folder, 4, shard_by='rows')
  dataset = small_records.make(folder, 4, shard_by='files')
  with pytest.raises(common.InputError, match='too few for 4'):
    dataset.as_dataset(0, 0, 4)

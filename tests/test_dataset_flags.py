"""--dataset and --dataset_dir: a folder, a name, or data of TFDS."""

import pytest

from deeplab import dataset_flags
from deeplab.common import InputError
from deeplab.datasets import dataset_info


@pytest.fixture
def find(parse):
  """What the flags name."""

  def find(*arguments):
    parse(dataset_flags, dataset_flags.define_dataset_flags, arguments)
    return dataset_flags.find()

  return find


def test_a_folder_is_enough(find, tmp_path):
  info = dataset_info.DatasetInfo('fruit', 4)
  folder = str(tmp_path)
  info.save(folder)
  for arguments in (
    [f'--dataset={folder}'],
    [f'--dataset_dir={folder}'],
    [f'--dataset={folder}', f'--dataset_dir={folder}/'],
  ):
    name, found = find(*arguments)
    assert name is None and found.rstrip('/') == folder
    assert dataset_info.resolve(name, found) == info


def test_a_folder_that_is_not_there_is_no_name(find):
  with pytest.raises(
    InputError, match='--dataset=data/fruit: there is no such'
  ):
    find('--dataset=data/fruit')


def test_a_folder_that_does_not_say_its_classes(find, tmp_path):
  with pytest.raises(
    InputError,
    match=r'no dataset_info\.json.*--dataset=pascal_voc_seg --dataset_dir=',
  ):
    find(f'--dataset={tmp_path}')
  assert find(f'--dataset_dir={tmp_path}') == (None, str(tmp_path))


def test_a_folder_by_its_name_alone(find, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'cityscapes').mkdir()
  dataset_info.DatasetInfo('fruit', 4).save('fruit')
  assert find('--dataset=fruit') == (None, 'fruit')
  # The official names mean what they always did.
  found = find('--dataset=cityscapes', '--dataset_dir=data')
  assert found == ('cityscapes', 'data')
  with pytest.raises(InputError, match=r"'cityscapes' write --dataset=\./city"):
    find('--dataset=cityscapes')


def test_a_name_that_nobody_knows(find):
  with pytest.raises(InputError, match="no folder 'friut', nor is a data set"):
    find('--dataset=friut')


def test_a_name_needs_a_folder(find):
  assert find('--dataset=ade20k', '--dataset_dir=x') == ('ade20k', 'x')
  assert find('--dataset_dir=x') == (None, 'x')
  for arguments in ([], ['--dataset=ade20k'], ['--dataset_dir=']):
    with pytest.raises(InputError, match='there are no data: give --dataset='):
      find(*arguments)


def test_two_folders(find, tmp_path):
  with pytest.raises(InputError, match='and --dataset_dir=x another'):
    find(f'--dataset={tmp_path}', '--dataset_dir=x')


def test_a_name_against_its_folder(find, tmp_path):
  dataset_info.DatasetInfo('fruit', 4).save(str(tmp_path))
  found = find('--dataset=cityscapes', f'--dataset_dir={tmp_path}')
  with pytest.raises(InputError, match="describes the data set 'fruit'"):
    dataset_info.resolve(*found)


def test_data_of_tfds_need_no_folder(find):
  name = 'tfds:cityscapes/semantic_segmentation,num_classes=3'
  assert find(f'--dataset={name}') == (name, None)
  assert find(f'--dataset={name}', '--dataset_dir=x') == (name, 'x')

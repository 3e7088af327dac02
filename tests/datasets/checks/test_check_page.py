"""The page of check_dataset, in a browser."""

import browser
import numpy as np
from PIL import Image

from deeplab.datasets import build_data, dataset_info
from deeplab.datasets.checks import check_page, dataset_checks

_EVIL = '<b onclick="alert(1)">&amp;</b>'


def _page(tmp_path, **arguments):
  """The page for three images, one with a bad label and one of another size."""
  examples = []
  for index, size in enumerate([(20, 30), (20, 30), (24, 18)]):
    label = np.full(size, index, np.uint8)
    if index == 1:
      label[:4] = 9
    paths = [str(tmp_path / f'{kind}{index}.png') for kind in ('i', 'l')]
    Image.new('RGB', size[::-1], (40 * index, 90, 90)).save(paths[0])
    Image.fromarray(label).save(paths[1])
    examples.append(build_data.Example(f'{_EVIL}{index}', *paths))
  info = dataset_info.DatasetInfo(
    _EVIL, 3, class_names=[_EVIL, 'two', 'three'], colors=[[9, 9, 9]] * 3
  )
  report = dataset_checks.check_files({'train': examples}, info, **arguments)
  path = tmp_path / 'check.html'
  path.write_text(check_page.make(report))
  return path


def test_page_in_a_browser(tmp_path):
  with browser.open_page(_page(tmp_path).as_uri()) as page:
    assert page.locator('.finding.error').count() == 1
    assert 'i1.png' in page.locator('.finding.error').inner_text()
    assert page.locator('table.classes tbody tr').count() == 3
    # Names are text, whatever they hold.
    assert _EVIL in page.locator('table.classes').inner_text()
    assert page.locator('b[onclick]').count() == 0
    assert page.locator('svg.sizes circle').count() == 2
    figures = page.locator('figure')
    assert figures.count() == 3
    assert 'illegal: 9' in figures.first.inner_text()
    for picture in page.locator('figure img').all():
      assert picture.evaluate('image => image.naturalWidth') > 0
    label = page.locator('img[alt=label]').first
    opacity = 'element => getComputedStyle(element).opacity'
    assert label.evaluate(opacity) == '0.5'
    page.locator('#opacity').fill('100')
    assert label.evaluate(opacity) == '1'


def test_page_without_samples(tmp_path):
  text = _page(tmp_path, num_samples=0).read_text()
  assert '<figure>' not in text and 'id="opacity"' not in text


def test_samples_are_few_and_those_with_errors_first(tmp_path):
  text = _page(tmp_path, num_samples=1).read_text()
  assert text.count('<figure>') == 1
  assert 'illegal: 9' in text

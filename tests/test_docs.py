"""The pages that are made from the code are those of the code."""

import importlib.util
import re

import docs_commands
import pytest
from conftest import ROOT

_LINK = re.compile(r'\[[^\]]*\]\(([^)\s#]*)(?:#([^)\s]*))?\)')


def test_flags_page():
  path = ROOT / 'docs' / 'make_flags.py'
  spec = importlib.util.spec_from_file_location('make_flags', path)
  make_flags = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(make_flags)
  page = (ROOT / 'docs' / 'flags.md').read_text()
  # python docs/make_flags.py
  assert make_flags.make_page() == page


_LINES = re.MULTILINE | re.DOTALL


def _anchors(path):
  """The anchors of a page's headings, as GitHub makes them."""
  headings = re.findall(r'^#+ (.*)$', path.read_text(), re.MULTILINE)
  plain = (re.sub(r'[^\w\s-]', '', heading.lower()) for heading in headings)
  return {heading.strip().replace(' ', '-') for heading in plain}


@pytest.mark.parametrize('page', docs_commands.pages())
def test_links_lead_somewhere(page):
  path = ROOT / page
  text = re.sub(r'^```.*?^```', '', path.read_text(), flags=_LINES)
  for target, anchor in _LINK.findall(text):
    if '://' in target:
      continue
    there = path.parent / target if target else path
    assert there.exists(), target
    assert not anchor or anchor in _anchors(there), f'{target}#{anchor}'

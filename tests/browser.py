"""Headless Chromium for the tests of pages.

A page is tested as its reader sees it: opened from its file, or from a server
on this machine; whatever it says on the console is a failure.
"""

import contextlib
import shutil

import pytest

_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')

# As root there is no sandbox; the rest keeps Chromium from asking the network.
_ARGUMENTS = (
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
)


@contextlib.contextmanager
def open_page(url, width=1280, height=900, known=()):
  """Opens a page, and fails if it complained.

  Args:
    url: 'file:///...' or 'http://localhost:...'.
    width: of the window in pixels.
    height: of the window in pixels.
    known: texts on the console that are a library's and no failure.

  Yields:
    The playwright Page; the test is skipped where there is no browser.
  """
  sync_api = pytest.importorskip('playwright.sync_api')
  path = next(filter(None, map(shutil.which, _NAMES)), None)
  if path is None:
    pytest.skip(f'no browser: none of {", ".join(_NAMES)} is installed.')
  complaints = []
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(
      executable_path=path, args=list(_ARGUMENTS)
    )
    page = browser.new_page(viewport={'width': width, 'height': height})
    page.on(
      'console',
      lambda message: (
        complaints.append(message.text)
        if message.type in ('error', 'warning') and message.text not in known
        else None
      ),
    )
    page.on('pageerror', lambda error: complaints.append(str(error)))
    # A page may change its mind about a picture that is on its way.
    page.on(
      'requestfailed',
      lambda request: (
        complaints.append(f'{request.url} failed')
        if request.failure != 'net::ERR_ABORTED'
        else None
      ),
    )
    page.goto(url)
    yield page
    browser.close()
  assert not complaints, complaints

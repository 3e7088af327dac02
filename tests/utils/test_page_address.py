"""Addresses that a page can, and cannot, be served at."""

import socket

import pytest

from deeplab.common import InputError
from deeplab.utils import page_address


def _free_port():
  with socket.create_server(('127.0.0.1', 0)) as server:
    return server.getsockname()[1]


def _check(host, port):
  with pytest.raises(InputError) as caught:
    page_address.check(host, port)
  return str(caught.value)


def test_addresses_that_cannot_be_had():
  with socket.create_server(('127.0.0.1', 0)) as server:
    port = server.getsockname()[1]
    error = _check('127.0.0.1', port)
    assert f'--port={port}: the page cannot be served' in error
    assert f'--port={port % 65535 + 1}' in error
  assert '--port must be an integer' in _check('127.0.0.1', 70000)
  for host in ('203.0.113.1', 'no such host', 'a' * 64):
    error = _check(host, port)
    assert f'--host={host}' in error and 'Give an address of this' in error


def test_addresses_of_both_kinds():
  port = _free_port()
  assert page_address.check('127.0.0.1', port) == '127.0.0.1'
  try:
    socket.create_server(('::1', 0), family=socket.AF_INET6).close()
  except OSError:
    pytest.skip('this machine has no IPv6')
  # Gradio wants brackets.
  assert page_address.check('::1', port) == '[::1]'

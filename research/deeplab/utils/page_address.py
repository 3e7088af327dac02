"""Where a page of this machine can be served."""

import errno
import socket

from deeplab import common
from deeplab.common import InputError

# The cure for most that is none.
_HOSTS = (
  'Give an address of this machine: 127.0.0.1 for itself alone, 0.0.0.0 to let '
  'others in.'
)


def check(host, port):
  """Looks whether the page can be served there, before anything is loaded.

  Args:
    host: a name, or an address of IPv4 or IPv6.
    port: the port.

  Returns:
    The host as Gradio takes it.

  Raises:
    InputError: it cannot.
  """
  common.check_ranges(
    {'--port': port}, {'--port': common.Range(1, 65535, whole=True)}
  )
  where = f'--host={host} --port={port}: the page cannot be served there'
  try:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    with socket.create_server((host, port), family=family):
      pass
  # Names that cannot be looked up, or not even be written as bytes.
  except (socket.gaierror, UnicodeError) as error:
    raise InputError(f'{where}: {error}. {_HOSTS}') from error
  except OSError as error:
    cures = {
      errno.EADDRNOTAVAIL: _HOSTS,
      errno.EACCES: 'Give a port above 1023, such as --port=7860.',
    }
    cure = cures.get(
      error.errno,
      'Is another demo running? Give another port, such as '
      f'--port={port % 65535 + 1}.',
    )
    raise InputError(f'{where}: {error.strerror}. {cure}') from error
  return f'[{host}]' if family == socket.AF_INET6 else host

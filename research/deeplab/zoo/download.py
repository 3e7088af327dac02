"""Fetches a published checkpoint, checks it, and puts it in its place."""

import contextlib
import errno
import functools
import gzip
import hashlib
import http.client
import lzma
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import uuid
import zlib

from tqdm import tqdm

from deeplab import checkpoints, diagnosis, stored_options
from deeplab.common import InputError
from deeplab.zoo.entry import BACKBONE

# Seconds without a byte until the other side counts as gone.
_TIMEOUT = 60
_CHUNK = 1 << 20

# What reading a damaged archive raises.
_DAMAGE = (
  tarfile.TarError,
  EOFError,
  zlib.error,
  gzip.BadGzipFile,
  lzma.LZMAError,
)

# Errors that come from the names in an archive, not from the disk.
_BAD_NAMES = (errno.ENAMETOOLONG, errno.EEXIST, errno.EISDIR, errno.ENOTDIR)


def install(
  entry,
  output_dir,
  base_url=None,
  archive=None,
  sha256=None,
  overwrite=False,
):
  """Makes output_dir/<name of the entry> with checkpoint and model options.

  The folder appears when all is there and checked; nothing half-finished is
  left otherwise.

  Args:
    entry: a zoo.entry.Entry.
    output_dir: folder for published checkpoints; made if absent.
    base_url: where to take the archive from instead of its own place.
    archive: path of an archive that was fetched by other means; None to
      download it.
    sha256: checksum of the archive; None takes that of the table, if any.
    overwrite: replace what was installed before.

  Returns:
    The folder, and whether it was made (False: it was there already).

  Raises:
    InputError: the archive cannot be had, is damaged, would write elsewhere,
      or does not hold this network; or the folder is of something else.
  """
  target = os.path.join(output_dir, entry.name)
  if _is_installed(target) and not overwrite:
    return target, False
  try:
    os.makedirs(output_dir, exist_ok=True)
    with _temporary_folder(output_dir) as temporary:
      if archive is None:
        archive = os.path.join(temporary, entry.archive)
        fetch(_url(entry, base_url), archive, _command(entry, output_dir))
      _check_sha256(archive, sha256 or entry.sha256)
      unpacked = os.path.join(temporary, 'unpacked')
      unpack(archive, unpacked)
      folder = _find_checkpoint(archive, unpacked)
      check_fit(entry, folder)
      _describe(entry, folder)
      _move(folder, target, temporary)
  except OSError as error:
    raise InputError(
      f'{target}: cannot be written: {error}. Free some space, or give another '
      '--output_dir.'
    ) from error
  return target, True


def _is_installed(target):
  """Whether a folder holds a checkpoint; InputError if it is another's."""
  if not os.path.exists(target):
    return False
  if not os.path.isdir(target):
    raise InputError(
      f'{target} is a file where a folder should go. Give another '
      '--output_dir, or move it away.'
    )
  if not os.listdir(target):
    return False
  try:
    checkpoints.find(target)
  except InputError as error:
    raise InputError(
      f'{target} is there and holds no checkpoint. Give another --output_dir, '
      'or move it away.'
    ) from error
  return True


def _url(entry, base_url):
  if base_url is None:
    return entry.url
  return f'{base_url.rstrip("/")}/{entry.archive}'


def _command(entry, output_dir):
  return (
    f'python -m deeplab.model_zoo download {entry.name} '
    f'--output_dir={output_dir} --archive={entry.archive}'
  )


@contextlib.contextmanager
def _temporary_folder(parent):
  """A folder on the same disk that is gone afterwards."""
  path = os.path.join(parent, f'.tmp-{uuid.uuid4().hex}')
  os.mkdir(path)
  try:
    yield path
  finally:
    shutil.rmtree(path, ignore_errors=True)


# Fetching.


def fetch(url, path, by_hand='fetch it by other means'):
  """Downloads a file.

  Args:
    url: what to fetch.
    path: where to write.
    by_hand: the command that takes a file fetched by other means.

  Raises:
    InputError: the server cannot be reached, refuses, or stops too early.
  """
  try:
    request = urllib.request.Request(
      url, headers={'User-Agent': 'deeplab-model-zoo'}
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
      _copy(response, url, path)
  except urllib.error.HTTPError as error:
    raise InputError(
      f'{url}: the server answers {error.code} {error.reason}. If the file has '
      f'moved, give --base_url=<its folder>, or fetch it yourself and run: '
      f'{by_hand}'
    ) from error
  except (urllib.error.URLError, http.client.HTTPException) as error:
    reason = getattr(error, 'reason', None) or error
    raise InputError(_unreachable(url, reason, by_hand)) from error
  except ValueError as error:
    if isinstance(error, InputError):
      raise
    raise InputError(f'{url}: not an address: {error}') from error


def _unreachable(url, reason, by_hand):
  return (
    f'{url} cannot be reached: {reason}. Without a network here, fetch the '
    f'file on another machine, copy it here and run: {by_hand}'
  )


def _copy(response, url, path):
  """Writes a response to a file; it must be as long as it was announced."""
  announced = response.headers.get('Content-Length')
  total = int(announced) if (announced or '').isdecimal() else None
  with (
    open(path, 'wb') as file,
    tqdm(
      total=total, desc=os.path.basename(path), unit='B', unit_scale=True
    ) as bar,
  ):
    while chunk := _read(response, url, file):
      file.write(chunk)
      bar.update(len(chunk))
    received = file.tell()
  if total is not None and received != total:
    raise InputError(_truncated(url, received, total))


def _read(response, url, file):
  try:
    return response.read(_CHUNK)
  # Reading may end early without an error, and does not say what is wrong.
  except (OSError, http.client.HTTPException) as error:
    raise InputError(
      f'{_truncated(url, file.tell(), response.headers.get("Content-Length"))} '
      f'({type(error).__name__}: {error})'
    ) from error


def _truncated(url, received, total):
  return (
    f'{url}: the download is truncated: {received} bytes received, '
    f'{total or "more"} expected. Nothing was kept; start the same command '
    'again.'
  )


def _check_sha256(path, expected):
  if not expected:
    return
  try:
    with open(path, 'rb') as file:
      digest = hashlib.sha256()
      for chunk in iter(functools.partial(file.read, _CHUNK), b''):
        digest.update(chunk)
  except OSError as error:
    raise InputError(f'{path} cannot be read: {error.strerror}.') from error
  if digest.hexdigest() != expected.lower():
    raise InputError(
      f'{path}: the checksum is wrong: SHA-256 is {digest.hexdigest()}, '
      f'expected {expected.lower()}. The file is damaged or another one.'
    )


# Unpacking.


def unpack(archive, folder):
  """Unpacks a tar archive, trusting nothing in it.

  Args:
    archive: path of a .tar, .tar.gz or .tgz file.
    folder: where to; made.

  Raises:
    InputError: it is no archive or a damaged one; or a member is a link or a
      device, or would be written outside the folder.
  """
  if not os.path.isfile(archive):
    raise InputError(f'--archive={archive}: there is no such file.')
  os.mkdir(folder)
  try:
    with tarfile.open(archive, 'r:*') as tar:
      for member in tar:
        _check_member(archive, member, folder)
        try:
          _extract(tar, member, folder)
        except OSError as error:
          if error.errno in _BAD_NAMES:
            raise InputError(
              f'{archive}: refused, nothing was kept: its member '
              f'{member.name[:80]!r} cannot be unpacked: {error.strerror}.'
            ) from error
          raise
      # To the end: there the checksum of the compressed data is compared.
      while tar.fileobj.read(_CHUNK):
        pass
  except _DAMAGE as error:
    size = os.path.getsize(archive)
    reason = ' '.join(str(error).split())
    raise InputError(
      f'{archive}: not a tar archive, or a damaged or truncated one ({size} '
      f'bytes): {reason}. Fetch it again.'
    ) from error


def _check_member(archive, member, folder):
  kind = None
  if member.issym() or member.islnk():
    kind = f'a link to {member.linkname!r}'
  elif not (member.isfile() or member.isdir()):
    kind = 'a device or another special file'
  else:
    root = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(root, member.name))
    if os.path.commonpath([root, path]) != root:
      kind = 'a path outside the folder it is unpacked into'
  if kind:
    raise InputError(
      f'{archive}: refused, nothing was kept: its member {member.name!r} is '
      f'{kind}. A published archive has nothing of the kind.'
    )


def _extract(tar, member, folder):
  """Writes content alone: no owners, modes or times."""
  path = os.path.join(folder, member.name)
  if member.isdir():
    os.makedirs(path, exist_ok=True)
    return
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with tar.extractfile(member) as source, open(path, 'wb') as target:
    shutil.copyfileobj(source, target, _CHUNK)
  if os.path.getsize(path) != member.size:
    raise tarfile.ReadError(f'{member.name} is cut short')


# Checking.


def _find_checkpoint(archive, unpacked):
  """The one folder of an unpacked archive that holds a checkpoint."""
  found = []
  for folder, _, _ in os.walk(unpacked):
    with contextlib.suppress(InputError):
      checkpoints.find(folder)
      found.append(folder)
  if not found:
    names = sorted(
      os.path.relpath(os.path.join(folder, name), unpacked)
      for folder, _, files in os.walk(unpacked)
      for name in files
    )
    raise InputError(
      f'{archive}: no checkpoint and no frozen graph in it. It holds: '
      f'{", ".join(names[:8]) or "nothing"}.'
    )
  if len(found) > 1:
    raise InputError(
      f'{archive}: several folders of it hold checkpoints: '
      f'{", ".join(os.path.relpath(path, unpacked) for path in found)}. '
      'Expected one.'
    )
  return found[0]


def check_fit(entry, checkpoint):
  """Checks that a checkpoint holds the network that the table says.

  Args:
    entry: a zoo.entry.Entry.
    checkpoint: directory, prefix or file.

  Raises:
    InputError: variables are missing, have other shapes, or cannot be read.
  """
  prefix = checkpoints.find(checkpoint)
  stored = {
    name: shape for name, (shape, _) in checkpoints.read(prefix).items()
  }
  options = entry.model_options()
  if entry.kind == BACKBONE:
    wanted, _ = diagnosis.backbone_shapes(options)
  else:
    wanted = diagnosis.model_shapes(options)
  missing = [name for name in wanted if name not in stored]
  wrong = [
    f'{name} is {list(stored[name])} instead of {list(shape)}'
    for name, shape in wanted.items()
    if stored.get(name, shape) != shape
  ]
  if missing or wrong:
    raise InputError(
      f'{os.path.basename(prefix)} of {entry.archive} is not {entry.name}: of '
      f'{len(wanted)} variables {len(missing)} are missing and {len(wrong)} '
      f'have another shape, such as {(missing + wrong)[0]}. '
      f'{diagnosis.describe(stored)}'
    )
  _read_all(prefix, wanted)


def _read_all(prefix, names):
  """Damaged data are found now, not in the middle of an evaluation."""
  stored = checkpoints.read(prefix)
  for name in names:
    stored[name][1]()


def _describe(entry, folder):
  """Writes what eval.py, vis.py and export_model.py need to know."""
  if entry.kind == BACKBONE:
    return
  stored_options.save(folder, entry.model_options())
  entry.info.save(folder)


def _move(folder, target, temporary):
  """Puts the finished folder in its place; the old one goes afterwards."""
  if os.path.exists(target):
    own = sorted(set(os.listdir(target)) - set(os.listdir(folder)))
    if own:
      raise InputError(
        f'{target} holds files that the archive has not, and that --overwrite '
        f'would remove: {", ".join(own[:6])}. Nothing was changed; move them '
        'away.'
      )
    os.rename(target, os.path.join(temporary, 'old'))
  try:
    os.rename(folder, target)
  except OSError:
    old = os.path.join(temporary, 'old')
    if os.path.exists(old):
      os.rename(old, target)
    raise

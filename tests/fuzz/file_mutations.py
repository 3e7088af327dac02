"""Damage to files of any kind: to their bytes, their names, their nature.

A mutation is a function of a file and of a random.Random; it changes what lies
there. What it does is a function of these two alone.
"""

import os
import pathlib
import random
from collections.abc import Callable, Sequence

Mutation = Callable[[pathlib.Path, random.Random], None]

_ODD_NAMES = (
  *('with space', ' leading', 'trailing ', '-dash', '--flag=1', '~', '$HOME'),
  *('[a-z]*?', '50%s {0}', 'a\nb', 'a\tb', 'a\\b', 'a"b\'c', '<b>&amp;'),
  *('\u00fcml\u00e4ut', '\u65e5\u672c', '\U0001f600', '\u202eabc', 'a' * 240),
  os.fsdecode(b'\xff\xfe'),
)


def in_bytes(change: Callable[[bytes, random.Random], bytes]) -> Mutation:
  """The mutation of a file from that of its content."""

  def mutate(path, rng):
    path.write_bytes(change(path.read_bytes(), rng))

  mutate.__name__ = change.__name__
  return mutate


def _place(data, rng):
  return rng.randrange(len(data)) if data else 0


def _slice(data, rng):
  """A random slice, short ones more often."""
  begin = _place(data, rng)
  length = int(len(data) ** rng.random())
  return slice(begin, begin + length)


def one_bit(data, rng):
  changed = bytearray(data)
  changed[_place(data, rng)] ^= 1 << rng.randrange(8)
  return bytes(changed)


def one_bit_of_the_beginning(data, rng):
  return one_bit(data[:64], rng) + data[64:]


def some_bits(data, rng):
  for _ in range(rng.randint(2, 20)):
    data = one_bit(data, rng)
  return data


def one_byte(data, rng):
  place = _place(data, rng)
  value = rng.choice([b'\0', b'\x7f', b'\x80', b'\xff'])
  return data[:place] + value + data[place + 1 :]


def cut_off(data, rng):
  return data[: _place(data, rng)]


def last_bytes_lost(data, rng):
  return data[: -rng.randint(1, 8)]


def first_bytes_lost(data, rng):
  return data[rng.randint(1, 8) :]


def bytes_lost(data, rng):
  part = _slice(data, rng)
  return data[: part.start] + data[part.stop :]


def bytes_inserted(data, rng):
  place = _place(data, rng)
  return data[:place] + rng.randbytes(rng.randint(1, 64)) + data[place:]


def bytes_appended(data, rng):
  return data + rng.randbytes(rng.randint(1, 64))


def bytes_doubled(data, rng):
  part = _slice(data, rng)
  return data[: part.stop] + data[part] + data[part.stop :]


def bytes_zeroed(data, rng):
  part = _slice(data, rng)
  zeros = b'\0' * len(data[part])
  return data[: part.start] + zeros + data[part.start + len(zeros) :]


def noise(data, rng):
  return rng.randbytes(len(data))


def empty(data, rng):
  del data, rng
  return b''


def page_of_a_server(data, rng):
  del data, rng
  return b'<!DOCTYPE html><html><title>404 Not Found</title></html>\n'


BYTE_CHANGES = (
  *(one_bit, one_bit_of_the_beginning, some_bits, one_byte, cut_off),
  *(last_bytes_lost, first_bytes_lost, bytes_lost, bytes_inserted),
  *(bytes_appended, bytes_doubled, bytes_zeroed, noise, empty),
  page_of_a_server,
)


def missing(path, rng):
  del rng
  path.unlink()


def folder_instead(path, rng):
  del rng
  path.unlink()
  path.mkdir()


def link_to_itself(path, rng):
  del rng
  path.unlink()
  path.symlink_to(path)


def link_to_nothing(path, rng):
  del rng
  path.unlink()
  path.symlink_to(path.with_name('nothing'))


def pipe_instead(path, rng):
  """Opening it waits for a writer, who never comes."""
  del rng
  path.unlink()
  os.mkfifo(path)


def unreadable(path, rng):
  """Not for root, who may read it all the same."""
  del rng
  path.chmod(0)


def another_file(path, rng):
  """The content of another input."""
  others = [p for p in sorted(path.parents[1].rglob('*')) if p.is_file()]
  path.write_bytes(rng.choice(others).read_bytes())


def _rename(path, name):
  if not path.with_name(name).exists():
    path.rename(path.with_name(name))


def odd_name(path, rng):
  _rename(path, rng.choice(_ODD_NAMES) + path.suffix)


def other_extension(path, rng):
  extensions = ['', '.', '.PNG', '.jpg', '.json', '.txt', '.gz', '.tif.png']
  _rename(path, path.stem + rng.choice(extensions))


BYTES: Sequence[Mutation] = tuple(map(in_bytes, BYTE_CHANGES))

FILES: Sequence[Mutation] = (
  *(missing, folder_instead, link_to_itself, link_to_nothing, pipe_instead),
  *(unreadable, another_file, odd_name, other_extension),
)

"""Damage to texts: JSON files, lists of names, tables of classes."""

import json
import random

from fuzz.file_mutations import in_bytes

# Texts that JSON files and lists may hold in the place of names.
ODD_TEXTS = (
  *('', ' ', '\0', 'a\0b', '\n', '..', '../../etc/passwd', '/', '/dev/zero'),
  *('a' * 300, 'a/' * 200, '-1', 'None', '<script>', '{}', '%s', '\u2028'),
  *('\ud800', '\U0001f600', '\u202e', 'a\u0301', 'x.jpg', 'a\\b.jpg', '*'),
)

# Values in the place of others. Some are no JSON, though Python reads them.
_VALUES = (
  *('null', 'true', 'false', '0', '-1', '1', '0.5', '1e308', '-1e308', '1e999'),
  *('NaN', '-Infinity', '255', '256', '65536', '2147483648', '1' + '0' * 30),
  *('9' * 5000, '[]', '{}', '[[]]', '[null]', '{"a": 1}', '"\\ud800"'),
  '[' * 300 + ']' * 300,
)


# JSON.


def _nodes(value, path=()):
  """The paths of all values within a value of JSON."""
  yield path
  items = ()
  if isinstance(value, dict):
    items = value.items()
  elif isinstance(value, list):
    items = enumerate(value)
  for key, item in items:
    yield from _nodes(item, (*path, key))


def _holder(content, path):
  """The list or object that the last step of a path begins at."""
  for key in path[:-1]:
    content = content[key]
  return content


def _at_random(content, rng):
  """(a list or object within, a key of it)."""
  path = rng.choice([path for path in _nodes(content) if path])
  return _holder(content, path), path[-1]


def in_json(change):
  """The mutation of a JSON file from a change of its content.

  The change returns what is put, as it is, for a text that it left as a mark;
  or None.
  """

  def changed(data, rng):
    content = json.loads(data)
    literal = change(content, rng)
    text = json.dumps(content, indent=1)
    if literal is not None:
      text = text.replace(json.dumps(_MARK), literal)
    return text.encode()

  changed.__name__ = change.__name__
  return in_bytes(changed)


_MARK = 'what is put here'


def other_value(content, rng):
  holder, key = _at_random(content, rng)
  holder[key] = _MARK
  return rng.choice(_VALUES)


def other_number(content, rng):
  """A number in the place of a number."""
  numbers = [
    path
    for path in _nodes(content)
    if path and type(_holder(content, path)[path[-1]]) in (int, float)
  ]
  path = rng.choice(numbers or [(next(iter(content)),)])
  _holder(content, path)[path[-1]] = _MARK
  return rng.choice([value for value in _VALUES if value[0] in '-0123456789N'])


def odd_text(content, rng):
  """A text in the place of a text."""
  texts = [
    path
    for path in _nodes(content)
    if path and isinstance(_holder(content, path)[path[-1]], str)
  ]
  path = rng.choice(texts or [(next(iter(content)),)])
  _holder(content, path)[path[-1]] = rng.choice(ODD_TEXTS)


def key_lost(content, rng):
  holder, key = _at_random(content, rng)
  del holder[key]


def key_renamed(content, rng):
  holder, key = _at_random(content, rng)
  if isinstance(holder, dict):
    holder[rng.choice(ODD_TEXTS)] = holder.pop(key)
  else:
    holder.insert(0, holder.pop())


def item_doubled(content, rng):
  holder, key = _at_random(content, rng)
  if isinstance(holder, list):
    holder.append(holder[key])
  else:
    holder[f'{key}2'] = holder[key]


def values_exchanged(content, rng):
  one, first = _at_random(content, rng)
  other, second = _at_random(json.loads(json.dumps(content)), rng)
  one[first] = other[second]


def deep_value(content, rng):
  """Nested deeper than any parser goes."""
  holder, key = _at_random(content, rng)
  holder[key] = _MARK
  return '[' * 100_000 + ']' * 100_000


def many_items(content, rng):
  holder, key = _at_random(content, rng)
  holder[key] = [holder[key]] * 300


JSON = tuple(
  map(
    in_json,
    (
      *(other_value, other_value, other_value, other_number, other_number),
      *(odd_text, odd_text, key_lost, key_lost, key_renamed, item_doubled),
      *(values_exchanged, deep_value, many_items),
    ),
  )
)


def key_twice(data, rng):
  lines = data.decode().split('\n')
  places = [i for i, line in enumerate(lines) if line.rstrip().endswith(',')]
  place = rng.choice(places or [0])
  return '\n'.join([*lines[:place], lines[place], *lines[place:]]).encode()


def another_json(data, rng):
  del data
  texts = ('null', '[]', '{}', '0', '"text"', '[[[]]]', '{"a": {}}', 'NaN')
  return rng.choice(texts).encode()


# Any text.


def byte_order_mark(data, rng):
  del rng
  return b'\xef\xbb\xbf' + data


def sixteen_bit_characters(data, rng):
  return data.decode().encode(rng.choice(['utf-16', 'utf-16-le', 'utf-32']))


def latin_1(data, rng):
  place = rng.randrange(len(data) or 1)
  return data[:place] + 'stra\u00dfe'.encode('latin-1') + data[place:]


def carriage_returns(data, rng):
  return data.replace(b'\n', rng.choice([b'\r\n', b'\r', b'\n\n', b'\x0b']))


def null_bytes(data, rng):
  place = rng.randrange(len(data) or 1)
  return data[:place] + b'\0' + data[place:]


TEXTS = tuple(
  map(
    in_bytes,
    (
      *(byte_order_mark, sixteen_bit_characters, latin_1),
      *(carriage_returns, null_bytes),
    ),
  )
)

JSON = (*JSON, *TEXTS, in_bytes(key_twice), in_bytes(another_json))


# Lines.


def in_lines(change):
  """The mutation of a text file from a change of its list of lines."""

  def changed(data, rng):
    lines = data.decode().splitlines()
    change(lines, rng)
    return ('\n'.join(lines) + '\n').encode(errors='surrogatepass')

  changed.__name__ = change.__name__
  return in_bytes(changed)


def line_lost(lines, rng):
  lines.pop(rng.randrange(len(lines)))


def line_doubled(lines, rng):
  lines.append(rng.choice(lines))


def odd_line(lines, rng):
  lines.insert(rng.randrange(len(lines) + 1), rng.choice(ODD_TEXTS))


def odd_spaces(lines, rng):
  lines[:] = [
    f' {line}{rng.choice([" ", chr(9), chr(0xA0)])}' for line in lines
  ]


def dangling_name(lines, rng):
  lines.insert(rng.randrange(len(lines) + 1), rng.choice(['nobody', 'a.b.c']))


def name_with_extension(lines, rng):
  place = rng.randrange(len(lines))
  lines[place] += rng.choice(['.jpg', '.PNG', '.jpg.png', '.txt', ' 1', ',1'])


def comment(lines, rng):
  lines.insert(0, rng.choice(['# names', 'name', 'image,label', ';']))


def long_line(lines, rng):
  """On which a slow expression would take hours."""
  part = rng.choice([' ', ',', 'a ', '1 ', '1,', 'a' * 9 + ' 1 1', '-'])
  lines.insert(0, f'a{part * 20_000}x')


def many_lines(lines, rng):
  kind = rng.choice(['{}', 'name{}', '{}', 'class{},{},0,0'])
  lines += [kind.format(i, i % 300) for i in range(3000)]


LINES = (
  *map(
    in_lines,
    (
      *(line_lost, line_doubled, odd_line, odd_line, odd_spaces),
      *(dangling_name, name_with_extension, comment, long_line, many_lines),
    ),
  ),
  *TEXTS,
)


# Tables of classes.


def other_color(lines, rng):
  name, *_ = lines[place := rng.randrange(len(lines))].split(',')
  colors = (
    *('256,0,0', '-1,0,0', '1.5,0,0', '0,0', '0,0,0,0', '#ff00', '#ff0000'),
    *('a,b,c', ',,', '9' * 5000 + ',0,0', '0x10,0,0', '128 0 0', '\u0663,1,2'),
  )
  lines[place] = f'{name},{rng.choice(colors)}'


def other_name(lines, rng):
  _, *color = lines[place := rng.randrange(len(lines))].split(',')
  lines[place] = ','.join([rng.choice(ODD_TEXTS), *color])


def fields_exchanged(lines, rng):
  place = rng.randrange(len(lines))
  fields = lines[place].split(',')
  rng.shuffle(fields)
  lines[place] = rng.choice([',', ';', ':', '\t', ' ']).join(fields)


TABLE = (
  *LINES,
  *map(in_lines, (other_color, other_color, other_name, fields_exchanged)),
)


def odd_text_for(rng: random.Random) -> bytes:
  """A text as the bytes of a name."""
  return rng.choice(ODD_TEXTS).encode(errors='surrogatepass')

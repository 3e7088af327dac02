"""What the description of a dense prediction cell must look like.

Apart from core/dense_prediction_cell.py, so that ModelOptions can check it
before any network is built.
"""

from collections.abc import Mapping, Sequence

OP = 'op'
INPUT = 'input'
KERNEL = 'kernel'
RATE = 'rate'
GRID_SIZE = 'grid_size'

CONV = 'conv'
PYRAMID_POOLING = 'pyramid_pooling'

# Keys of each operation besides `op` and `input`.
_KEYS = {CONV: (KERNEL, RATE), PYRAMID_POOLING: (GRID_SIZE,)}

_EXAMPLES = {
  CONV: '{"op": "conv", "kernel": 3, "rate": [6, 6], "input": -1}',
  PYRAMID_POOLING: '{"op": "pyramid_pooling", "grid_size": [1, 1], "input": 0}',
}


def find_fault(config):
  """Says what is wrong with the description of a dense prediction cell.

  Args:
    config: a sequence of mappings, one for each operation. All have `op`
      ('conv' or 'pyramid_pooling') and `input` (-1 for the features of the
      backbone, or the index of an earlier operation). A 'conv' has `kernel`
      (an integer or [height, width]) and, unless that is 1, `rate` ([height,
      width], at output stride 16); a 'pyramid_pooling' has `grid_size`
      ([height, width]).

  Returns:
    A message that names item and key, what was received and expected, and the
    cure; None where nothing is wrong.
  """
  if not _is_list(config) or not config:
    return (
      'a dense prediction cell is a list of one or more operations. '
      f'Received: {_short(config)}. Write for example [{_EXAMPLES[CONV]}].'
    )
  for i, operation in enumerate(config):
    fault = _fault(operation, i)
    if fault:
      return f'item {i}, {fault}'
  return None


def is_pointwise(operation):
  """Whether a convolution is 1x1 and needs no rate."""
  return operation[KERNEL] == 1 or operation[KERNEL] in ([1, 1], (1, 1))


def pools(config):
  """Whether an operation of a cell without faults pools."""
  return PYRAMID_POOLING in [operation[OP] for operation in config]


def _fault(operation, index):
  """What is wrong with one operation, or None."""
  if not isinstance(operation, Mapping):
    return (
      f'received {_short(operation)}, expected an object. Write for example '
      f'{_EXAMPLES[CONV]}.'
    )
  op = operation.get(OP)
  if not isinstance(op, str) or op not in _KEYS:
    return _key_fault(operation, OP, ' or '.join(f"'{name}'" for name in _KEYS))
  known = (OP, INPUT, *_KEYS[op])
  for key in operation:
    if key not in known:
      return (
        f'key {key!r}: unknown to {op!r}, which has the keys '
        f'{", ".join(known)}. Received: {_short(operation[key])}. Leave it out.'
      )
  checks = {
    INPUT: (
      lambda value: _is_integer(value) and -1 <= value < index,
      '-1 for the features of the backbone'
      + (f', or 0 to {index - 1} for an earlier item' if index else ''),
    ),
    KERNEL: (
      lambda value: _is_positive(value) or _is_pair(value),
      'a positive integer or a pair of them, [height, width]',
    ),
    RATE: (_is_pair, 'a pair of positive integers, [height, width]'),
    GRID_SIZE: (_is_pair, 'a pair of positive integers, [height, width]'),
  }
  for key in known[1:]:
    if key == RATE and key not in operation and is_pointwise(operation):
      continue
    is_good, expected = checks[key]
    if key not in operation or not is_good(operation[key]):
      return _key_fault(operation, key, expected)
  return None


def _key_fault(operation, key, expected):
  received = 'is missing'
  if key in operation:
    received = f'received {_short(operation[key])}'
  op = operation.get(OP)
  example = _EXAMPLES.get(op if isinstance(op, str) else CONV, _EXAMPLES[CONV])
  return (
    f'key {key!r}: {received}, expected {expected}. Write for example '
    f'{example}.'
  )


def _short(value):
  text = repr(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


def _is_list(value):
  return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_integer(value):
  return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value):
  return _is_integer(value) and value > 0


def _is_pair(value):
  return _is_list(value) and len(value) == 2 and all(map(_is_positive, value))

"""Running a script, and flags of kinds that absl does not have.

Only scripts use this module; everything below them takes plain arguments.
"""

import itertools
import signal
import sys

from absl import app, flags, logging

from deeplab.common import InputError

FLAGS = flags.FLAGS


def run(main, terminated_status=128 + signal.SIGTERM):
  """Runs a script: errors of the user are one line and exit status 1.

  A script that is interrupted or terminated cleans up as after an error.

  Args:
    main: function of no arguments.
    terminated_status: exit status after SIGTERM, unless `main` sees to it.
  """

  def checked(argv):
    if len(argv) > 1:
      raise InputError(
        f'unexpected arguments {argv[1:]}: every option begins with --.'
      )
    main()

  def guarded(argv):
    try:
      checked(argv)
    except InputError as error:
      _fail(error)
    except _memory_errors() as error:
      first_line = (str(error) or 'out of memory').splitlines()[0]
      _fail(
        f'there is not enough memory: {first_line}. Smaller batches, crops or '
        'images need less.'
      )
    except KeyboardInterrupt:
      _fail('interrupted.', status=128 + signal.SIGINT)

  statuses = {
    signal.SIGTERM: terminated_status,
    signal.SIGHUP: 128 + signal.SIGHUP,
  }
  for number in statuses:
    # `nohup` has the second one ignored.
    if signal.getsignal(number) == signal.SIG_DFL:
      signal.signal(number, lambda number, _: sys.exit(statuses[number]))
  logging.set_verbosity(logging.INFO)
  logging.use_absl_handler()
  app.run(guarded)


def _memory_errors():
  # Not every script needs TensorFlow, which takes seconds to import.
  tensorflow = sys.modules.get('tensorflow')
  if tensorflow is None:
    return MemoryError
  return (MemoryError, tensorflow.errors.ResourceExhaustedError)


def _fail(message, status=1):
  logging.flush()
  print(f'error: {message}', file=sys.stderr)
  sys.exit(status)


# List flags.


class _ListParser(flags.ArgumentParser):
  """Parses '6,12,18'; numbers may be elided, as in '0.5,...,1.75'."""

  def __init__(self, convert):
    self._convert = convert
    self._step = 1 if convert is int else 0.25
    self.syntactic_help = 'comma separated, or the flag repeated'

  def parse(self, argument):
    if not isinstance(argument, str):
      return [self._convert(argument)]
    try:
      return self._parse_text(argument)
    except ValueError as error:
      kind = 'integers' if self._convert is int else 'numbers'
      raise ValueError(
        f'{error}. Expected {kind}, {self.syntactic_help}'
      ) from error

  def _parse_text(self, argument):
    items = [item.strip() for item in argument.split(',')]
    if '...' in items and self._convert is not str:
      return self._fill(items)
    return [self._convert(item) for item in items]

  def _fill(self, items):
    """An ellipsis goes on with the step of the two numbers before it.

    After one number alone the step is 1 for whole numbers and, for scales,
    0.25.
    """
    at = items.index('...')
    if items.count('...') > 1 or at == 0 or at != len(items) - 2:
      raise ValueError(
        "'...' must stand between the first numbers and the last one"
      )
    values = [self._convert(item) for item in items[:at]]
    last = self._convert(items[-1])
    step = values[-1] - values[-2] if at > 1 else self._step
    if step <= 0 or last <= values[-1]:
      raise ValueError("the numbers around '...' must increase")
    count = round((last - values[-1]) / step)
    if abs(values[-1] + count * step - last) > 1e-6:
      raise ValueError(f'{last:g} is not reached in steps of {step:g}')
    filled = [values[-1] + i * step for i in range(1, count)]
    return [*values, *(self._convert(round(v, 9)) for v in filled), last]


class _ListFlag(flags.MultiFlag):
  def _parse(self, arguments):
    return list(itertools.chain(*super()._parse(arguments)))

  def flag_type(self):
    return 'list'


def define_list(name, default, help_text, convert=int):
  """A list flag: `--name=6,12` or `--name=6 --name=12`."""
  flags.DEFINE_flag(
    _ListFlag(
      _ListParser(convert),
      flags.ListSerializer(','),
      name,
      default,
      help_text,
    )
  )


def require(*names):
  """Marks flags as required; an empty text is no value either."""
  flags.mark_flags_as_required(names)
  for name in names:
    flags.register_validator(
      name, lambda value: value != '', message='must not be empty.'
    )


def is_given(name):
  """Whether a flag stands on the command line."""
  return bool(FLAGS[name].present)

"""Which cases run, of which rows, with which weights."""

import dataclasses
import fnmatch

from benchmarks import registry
from deeplab.common import InputError

# Modules of rows that show images to a network.
_PREDICTIONS = ('benchmarks.inference:', 'benchmarks.multi_scale:')


def select(patterns, cases=None):
  """The cases whose names fit.

  Args:
    patterns: names, with * and ? as in a shell.
    cases: to choose from; None for all.

  Returns:
    A list in their order.

  Raises:
    InputError: a pattern fits no case.
  """
  cases = registry.all_cases() if cases is None else cases
  names = [case.name for case in cases]
  chosen = _fitting(patterns, names, '--cases: no case')
  return [case for case in cases if case.name in chosen]


def select_rows(cases, patterns):
  """Cases with some of their rows, of which the baseline is always one.

  Args:
    cases: list of Case.
    patterns: names as in `select`; None for all rows.

  Returns:
    A list without the cases of which no row fits.

  Raises:
    InputError: a pattern fits no row of any case.
  """
  if patterns is None:
    return cases
  names = dict.fromkeys(row.name for case in cases for row in case.rows)
  problem = '--implementations: no row of these cases'
  chosen = _fitting(patterns, list(names), problem)
  found = []
  for case in cases:
    rows = [row for row in case.rows if row.name in chosen]
    if rows:
      if rows[0] is not case.rows[0]:
        rows.insert(0, case.rows[0])
      found.append(dataclasses.replace(case, rows=rows))
  return found


def with_weights(cases, checkpoint, image):
  """Cases with trained weights, on a photograph.

  Args:
    cases: list of Case. Predictions are by MOBILENET, at any output stride;
      what has no network may be among them.
    checkpoint: prefix of a checkpoint of it.
    image: file.

  Returns:
    A list of the same cases.

  Raises:
    InputError: another case is among them, or no prediction.
  """
  refused = [case.name for case in cases if not _may_have_weights(case)]
  if refused or not any(map(_predicts, cases)):
    possible = filter(
      _predicts, filter(_may_have_weights, registry.all_cases())
    )
    raise InputError(
      '--trained_checkpoint and --image are for predictions by mobilenet_v2: '
      f'{", ".join(case.name for case in possible)}. Received: --cases with '
      f'{", ".join(refused or [case.name for case in cases])}.'
    )
  return [
    dataclasses.replace(
      case, rows=[row_with_weights(row, checkpoint, image) for row in case.rows]
    )
    if _predicts(case)
    else case
    for case in cases
  ]


def _predicts(case):
  """Whether its rows show images to a network."""
  return all(row.build.startswith(_PREDICTIONS) for row in case.rows)


def _may_have_weights(case):
  """Whether each network of it is MOBILENET, and predicts."""
  artifacts = [a for row in case.rows for a in row.artifacts.values()]
  return not artifacts or (
    _predicts(case)
    and all(
      artifact.network.classes == registry.MOBILENET.classes
      and registry.MOBILENET.flags[0] in artifact.network.flags
      for artifact in artifacts
    )
  )


def row_with_weights(row, checkpoint, image):
  """A row with other weights and another image."""

  def trained(artifact):
    network = artifact.network.replace(trained_checkpoint=checkpoint)
    return dataclasses.replace(artifact, network=network)

  return dataclasses.replace(
    row,
    settings={**row.settings, 'image': image},
    artifacts={name: trained(a) for name, a in row.artifacts.items()},
  )


def _fitting(patterns, names, problem):
  """The set of the names that fit; each pattern has to fit one."""
  chosen = set()
  for pattern in patterns:
    fitting = fnmatch.filter(names, pattern)
    if not fitting:
      raise InputError(
        f'{problem} is called {pattern!r}. There are: {", ".join(names)}.'
      )
    chosen.update(fitting)
  return chosen

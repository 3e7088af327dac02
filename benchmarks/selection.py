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


def with_weights(cases, weights, image):
  """Cases with trained weights, on a photograph.

  Args:
    cases: list of Case. What has no network may be among them.
    weights: artifacts.Weights of registry.MOBILENET.
    image: file.

  Returns:
    A list of the same cases.

  Raises:
    InputError: there is no prediction by that network, or anything else that
      has a network.
  """
  chosen = [case for case in cases if _takes_weights(case)]
  others = [case for case in cases if case not in chosen and _reads(case)]
  if others or not chosen:
    possible = filter(_takes_weights, registry.all_cases())
    raise InputError(
      '--trained_checkpoint and --image are for predictions by mobilenet_v2; '
      f'give some of these with --cases: {_names(possible)}. Received: '
      f'{_names(others or cases)}.'
    )
  return [
    dataclasses.replace(
      case, rows=[row_with_weights(row, weights, image) for row in case.rows]
    )
    if case in chosen
    else case
    for case in cases
  ]


def row_with_weights(row, weights, image):
  """A row of exports or checkpoints with other weights and another image."""

  def trained(artifact):
    network = artifact.network.replace(weights=weights)
    return dataclasses.replace(artifact, network=network)

  return dataclasses.replace(
    row,
    settings={**row.settings, 'image': image},
    artifacts={name: trained(a) for name, a in row.artifacts.items()},
  )


def _takes_weights(case):
  """Whether it is predictions by MOBILENET, at any size and output stride."""
  return all(row.build.startswith(_PREDICTIONS) for row in case.rows) and {
    _variables_of(artifact.network) for artifact in _reads(case)
  } == {_variables_of(registry.MOBILENET)}


def _reads(case):
  """The artifacts of all rows."""
  return [artifact for row in case.rows for artifact in row.artifacts.values()]


def _variables_of(network):
  """What decides about its variables."""
  return network.classes, *(
    flag for flag in network.flags if not flag.startswith('--output_stride=')
  )


def _names(cases):
  return ', '.join(case.name for case in cases)


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

"""Runs many cases, or one again.

python tests/fuzz                    all
python tests/fuzz VOC                those of a target
python tests/fuzz VOC --case=17      one, with its stack if it fails
"""

import argparse
import os
import pathlib
import sys
import time
import traceback

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TQDM_DISABLE', '1')
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from absl import logging
from fuzz import harness, network_targets, targets

# Cases of each target in a whole run.
_CASES = 80


def _parse():
  parser = argparse.ArgumentParser()
  parser.add_argument('targets', nargs='*')
  parser.add_argument('--case', type=int)
  parser.add_argument('--cases', type=int, default=_CASES)
  parser.add_argument('--seed', type=int, default=0)
  return parser.parse_args()


def main():
  """Prints the counts; the exit status is that of failures, at most 99."""
  arguments = _parse()
  logging.set_verbosity(logging.ERROR)
  everything = (*targets.CONVERTERS, *network_targets.TARGETS)
  names = [target.name for target in everything]
  wanted = arguments.targets or names
  if not set(wanted) <= set(names):
    sys.exit(f'targets are {names}.')
  counts, failures = harness.Counts(), []
  for target in everything:
    if target.name not in wanted:
      continue
    numbers = range(arguments.cases)
    if arguments.case is not None:
      numbers = [arguments.case]
    with harness.Runner(target, arguments.seed) as runner:
      for number in numbers:
        # Known if the process is ended.
        case = harness.Case(target, number)
        print(case, end=' ', file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
          counts.add(*runner.run(number))
        except harness.Failure as failure:
          failures.append(failure)
          print(f'FAILED {failure}', flush=True)
          if arguments.case is not None:
            traceback.print_exc()
        secs = time.monotonic() - began
        print(f'{secs:.1f} s', file=sys.stderr, flush=True)
  print(counts.table())
  print(f'{len(failures)} failures')
  sys.exit(min(len(failures), 99))


if __name__ == '__main__':
  main()

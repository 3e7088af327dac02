#!/usr/bin/env bash
# Lint and tests, in the virtual environment that this script makes.
#   bash run_tests.sh               the fast tests
#   bash run_tests.sh -m slow       the slow ones; arguments go to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source environment.sh

ruff check .
ruff format --check .
if [ $# -eq 0 ]; then
  # Two at a time, which take tests from each other at the end: what shares a
  # fixture stays together but for these few. What is slow has the machine for
  # itself.
  set -- --numprocesses=2 --dist=worksteal
fi
python -m pytest -q --durations=10 "$@"

# Sourced by run_tests.sh and local_test.sh: makes the virtual environment
# .venv and installs this package into it, once for each state of setup.py.
# PYTHON chooses the interpreter (3.10 to 3.13).

stamp=".venv/installed-$(cat setup.py pyproject.toml | cksum | cut -d' ' -f1)"
if [ ! -e "$stamp" ]; then
  echo "Installing into .venv (some 2 GB, once) ..."
  "${PYTHON:-python3}" -m venv .venv
  # The pip of older Pythons searches for hours where a newer one finds.
  .venv/bin/python -m pip install --quiet --upgrade pip
  .venv/bin/python -m pip install --quiet --editable '.[test]'
  touch "$stamp"
fi
export PATH="$PWD/.venv/bin:$PATH"

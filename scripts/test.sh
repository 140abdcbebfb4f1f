#!/usr/bin/env bash
# Style and tests, from nothing: `bash scripts/test.sh [pytest's own arguments]`.
source "$(dirname "$0")/environment.sh"
make_environment "$REQUIREMENTS" requirements-dev.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
# The models of the tests are so small that threads only get into each other's way.
OMP_NUM_THREADS=1 .venv/bin/python -m pytest "$@"

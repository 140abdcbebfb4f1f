#!/usr/bin/env bash
# Runs all checks (style, imports, types, documentation, tests): `bash scripts/test.sh [arguments of pytest]`.
source "$(dirname "$0")/environment.sh"
make_environment "$REQUIREMENTS" requirements-dev.txt requirements-docs.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/lint-imports
.venv/bin/mypy
# The variable silences an advertisement of the theme.
NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
# The models of the tests are so small that more threads would slow each other down.
OMP_NUM_THREADS=1 .venv/bin/python -m pytest "$@"

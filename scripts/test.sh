#!/usr/bin/env bash
# Style and tests, from nothing: `bash scripts/test.sh [pytest's own arguments]`.
source "$(dirname "$0")/environment.sh"
make_environment "$REQUIREMENTS" requirements-dev.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/python -m pytest "$@"

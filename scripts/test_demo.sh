#!/usr/bin/env bash
# The tests of the demo and of explain's page, with Gradio and a headless browser:
#
#   bash scripts/test_demo.sh [pytest's own arguments]
#
# The browser is Debian's: apt-get install chromium chromium-driver. Without it, the browser tests are skipped.
source "$(dirname "$0")/environment.sh"
make_environment "$REQUIREMENTS" requirements-dev.txt requirements-demo.txt
.venv/bin/python -m pip install --quiet --disable-pip-version-check selenium==4.51.0
OMP_NUM_THREADS=1 .venv/bin/python -m pytest tests/demo tests/explain -rs "$@"

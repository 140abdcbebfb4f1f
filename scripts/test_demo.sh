#!/usr/bin/env bash
# Runs the demo's tests with Gradio and a headless browser: `bash scripts/test_demo.sh [arguments of pytest]`.
# The browser's test is skipped unless Debian's Chromium is installed: apt-get install chromium chromium-driver.
source "$(dirname "$0")/environment.sh"
make_environment "$REQUIREMENTS" requirements-dev.txt requirements-demo.txt
.venv/bin/python -m pip install --quiet --disable-pip-version-check selenium==4.51.0
OMP_NUM_THREADS=1 .venv/bin/python -m pytest tests/demo -rs "$@"

"""Measure the speed of kNN inference, building and tuning, side by side in one run.

python scripts/benchmark.py --data_dir D --file_name F --model_path S/model --datastore_path P [--out FILE]
"""

import sys
from pathlib import Path

# So that the script runs from any folder, with or without the package installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmark.run import main

from knn_ner.utils.command import run_main

if __name__ == "__main__":
    run_main(main)

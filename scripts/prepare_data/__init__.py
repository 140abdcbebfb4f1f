"""From published corpora to the files that the experiments read."""

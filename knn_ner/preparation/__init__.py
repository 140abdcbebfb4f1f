"""Corpora as their authors publish them -> the files that the experiments read."""

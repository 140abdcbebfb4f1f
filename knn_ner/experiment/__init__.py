"""Experiments with several seeds, their comparison, and the paper's tables with published and own results."""

"""Measurements of single questions, each a script."""

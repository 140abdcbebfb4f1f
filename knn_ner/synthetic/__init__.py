"""Seeded synthetic corpora and small encoders with random weights, for the quickstart and the tests."""

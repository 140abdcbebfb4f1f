"""Seeded synthetic corpora and small random encoders, for the quickstart and the tests."""

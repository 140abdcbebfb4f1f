"""The datastore on disk: written, read, edited, compacted."""

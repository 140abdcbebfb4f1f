"""Helpers without knowledge of tagging: errors, files, command-line flags, messages, devices."""

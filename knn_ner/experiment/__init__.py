"""Many seeds of one corpus: `seeds` runs the steps of each, `view` shows how far they are, `summary` gathers
what they measured, `page` shows it.
"""

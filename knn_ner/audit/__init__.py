"""Which stored labels look wrong: the evidence for and against each label, the ranking, and the files with it."""

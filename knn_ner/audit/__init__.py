"""Which stored labels look wrong: what speaks against each, the ranked list, and its pages."""

"""Commands in several processes."""

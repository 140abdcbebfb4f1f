"""Several processes that share one command."""

"""What every room uses and that knows nothing of tagging: errors, files, arguments, devices."""

"""The page that shows what the neighbours changed on a split."""

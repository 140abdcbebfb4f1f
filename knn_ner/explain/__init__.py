"""The page that shows what the neighbours changed: `cases` finds the cases, `projection` draws the maps of
neighbours, and `page` puts everything into one HTML file.
"""

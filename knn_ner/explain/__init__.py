"""The page that shows what the neighbours changed: `cases` finds what to show, `plane` draws the maps,
and `page` puts the data into one HTML file.
"""

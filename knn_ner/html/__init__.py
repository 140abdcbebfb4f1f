"""HTML from Jinja2 templates, and the stylesheet that explain, audit and demo share."""

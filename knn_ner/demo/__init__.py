"""The demo in the browser: `rendering` makes HTML, `page` answers what a visitor does, `app` is Gradio's part.

Only `app` needs Gradio.
"""

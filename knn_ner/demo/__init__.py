"""The demo in the browser: `backend` answers what a visitor does, `parts.html` are its HTML templates, and `app` is the
Gradio app. Only `app` imports Gradio.
"""

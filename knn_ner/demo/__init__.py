"""The demo in the browser; only `app` imports Gradio."""

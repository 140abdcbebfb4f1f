"""Data to one HTML page that needs nothing else: no network, no other file."""

import html
import json
from importlib.resources import files


def build_page(title: str, content: dict) -> str:
    """The page. Whatever `content` holds is shown as text; none of it becomes part of the page's code."""
    folder = files("knn_ner.explain")
    parts = {name: (folder / f"page.{name}").read_text("utf-8") for name in ("html", "css", "js")}
    # In a script element only `<` can end it, or open a comment.
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    page = parts["html"]
    before, after = page.split("{{data}}")
    before = before.replace("{{css}}", parts["css"]).replace("{{title}}", html.escape(title))
    return before + data + after.replace("{{js}}", parts["js"])

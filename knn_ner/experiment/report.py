"""The results of experiments as Markdown, from the templates beside this file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from knn_ner.utils.tables import align_tables


def with_spread(values: Mapping[str, Any], sign: str = "") -> str:
    """Mean and standard deviation, `35.49 ± 0.61`; the mean alone if there is one value.

    Args:
        values: `mean` and `std`.
        sign: `+` to show the sign of a positive mean.
    """
    text = f"{values['mean']:{sign}.2f}"
    return text if values["std"] is None else f"{text} ± {values['std']:.2f}"


def interval_text(interval: Sequence[float]) -> str:
    """An interval as `-0.10 to +0.85`."""
    low, high = interval
    return f"{low:+.2f} to {high:+.2f}"


def render(template: str, **values: Any) -> str:
    """Fill in a template.

    Args:
        template: the name of a file beside this one, without `.md.jinja`.
        values: the variables of the template.

    Returns:
        Markdown with aligned tables.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"spread": with_spread, "interval": interval_text}
    return align_tables(environment.get_template(f"{template}.md.jinja").render(values))

"""The one Jinja2 environment of the package: templates lie in the rooms that use them.

Every value is escaped. A page is one file that loads nothing: `base.html` puts the stylesheet into it.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from knn_ner.utils.text import counted

# Degrees between the hues of two types: the golden angle keeps any number of hues apart.
GOLDEN_ANGLE = 137.508
FIRST_HUE = 255


class Palette:
    """A hue for each entity type. `style.css` makes all hues equally light, so their contrast is equal.

    Args:
        labels: labels such as `S-PER`; their types get the first hues, in this order.

    Attributes:
        hues: hue of each type, 0 to 359 degrees.
    """

    def __init__(self, labels: Iterable[str] = ()):
        self.hues: dict[str, int] = {}
        for label in labels:
            self.hue_of_label(label)

    def hue(self, entity_type: str) -> int:
        """The hue of an entity type; a new type gets the next hue."""
        next_hue = round(FIRST_HUE + GOLDEN_ANGLE * len(self.hues)) % 360
        return self.hues.setdefault(entity_type, next_hue)

    def hue_of_label(self, label: str) -> int | None:
        """The hue of a label's type; None for `O`."""
        entity_type = label.partition("-")[2]
        return self.hue(entity_type) if entity_type else None


def percent(share: float) -> str:
    """A share from 0 to 1 as `42%`, `3.1%` or `<0.1%`."""
    if 0 < share < 0.0005:
        return "<0.1%"
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}"


def render(template: str, **values: Any) -> str:
    """Render a template.

    Args:
        template: path below `knn_ner`, such as `audit/page.html`.
        values: the variables of the template; text is escaped.
    """
    return _environment().get_template(template).render(values)


def macros(template: str) -> Any:
    """The macros of a template, as functions that return HTML."""
    return _environment().get_template(template).module


@cache
def _environment() -> Environment:
    loader = PackageLoader("knn_ner", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {"percent": percent, "counted": counted}
    # `tojson` escapes `<`, `>`, `&` and `'`, so that data cannot end the script element that holds it.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return environment

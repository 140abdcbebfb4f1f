"""How plots look and are written: PNG and SVG, the same input giving the same bytes.

matplotlib is loaded when a plot is drawn, as most commands draw none.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from knn_ner.utils.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which the colour-blind can tell apart; a system has one colour in all plots.
TAGGER, KNN, FULL = "#0072B2", "#D55E00", "#009E73"
PALETTE = (TAGGER, KNN, FULL, "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
PNG_COLOURS = 64
GREY, LIGHT = "#777777", "#DDDDDD"
STYLE = {
    "font.size": 9,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LIGHT,
    "grid.linewidth": 0.6,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "svg.hashsalt": "knn_ner",
    "svg.fonttype": "none",  # text as text: a third of the size, and it can be searched
    "savefig.dpi": 150,
}


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update(STYLE)
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: "Figure", path: Path) -> list[Path]:
    """Write a figure as `path`.png and `path`.svg; returns both.

    Raises `UserError` when the folder cannot be written.
    """
    from PIL import Image

    svg, png, small = io.BytesIO(), io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.savefig(png, format="png")
    # A few colours and their blends with white: a palette holds them in a third of the bytes.
    Image.open(png).convert("RGB").quantize(PNG_COLOURS).save(small, format="png", optimize=True)
    written = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    for file, content in zip(written, (small, svg), strict=True):
        write_bytes(file, content.getvalue())
    return written


def note(axes: "Axes", x: float, y: float, text: str, colour: str, above: bool) -> None:
    """A text at the right edge, just over or under a height of the data."""
    axes.annotate(
        text,
        (x, y),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0, 3 if above else -3),
        textcoords="offset points",
        color=colour,
        ha="right",
        va="bottom" if above else "top",
        fontsize=8,
    )


def apart(heights: Sequence[float], least: float) -> list[float]:
    """The heights, moved as little upwards as keeps them `least` apart."""
    moved = list(heights)
    last = -math.inf
    for place in sorted(range(len(heights)), key=lambda place: heights[place]):
        moved[place] = last = max(heights[place], last + least)
    return moved


def every(values: Sequence[float], count: int) -> list[float]:
    """About `count` of the values, the first and the last among them."""
    if len(values) <= count:
        return list(values)
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def k_name(k: float) -> str:
    return "all" if k < 0 else f"{k:g}"

"""Plots of measurements. Each `draw_` function returns a figure, which `save` writes as PNG and SVG.

The same input gives the same bytes. matplotlib is loaded when a plot is drawn, as most commands draw none.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from knn_ner.evaluation.breakdown import DIMENSIONS
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import write_bytes
from knn_ner.utils.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which the colour-blind can tell apart. A system has one colour in all plots.
TAGGER, KNN, FULL = "#0072B2", "#D55E00", "#009E73"
PALETTE = (TAGGER, KNN, FULL, "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")
PNG_COLOURS = 64
GREY, LIGHT = "#777777", "#DDDDDD"
DASHED = (0, (4, 3))
# A row of `tuning.csv`.
Setting = Mapping[str, float]
# What `experiment.json` holds.
Results = Mapping[str, Any]


def save(figure: "Figure", path: Path) -> list[Path]:
    """Write a figure as `path`.png and `path`.svg; returns both paths.

    Raises:
        UserError: if the folder cannot be written.
    """
    from PIL import Image

    svg, png, small = io.BytesIO(), io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.savefig(png, format="png")
    # A palette holds a few colours and their blends with white in a third of the bytes.
    Image.open(png).convert("RGB").quantize(PNG_COLOURS).save(small, format="png", optimize=True)
    written = [path.with_name(f"{path.name}.{kind}") for kind in ("png", "svg")]
    for file, content in zip(written, (small, svg), strict=True):
        write_bytes(file, content.getvalue())
    return written


def read_tuning(path: Path) -> list[Setting]:
    """The rows of a `tuning.csv` of `knn_ner.tune`.

    Raises:
        UserError: if there is no such file, or it holds something else.
    """
    try:
        heading, *lines = path.read_text(encoding="utf-8").splitlines()
        names = heading.split(",")
        rows: list[Setting] = [
            dict(zip(names, map(float, line.split(",")), strict=True)) for line in lines
        ]
    except FileNotFoundError:
        raise UserError(f"{path}: not found; python -m knn_ner.tune writes it") from None
    except ValueError:
        rows = []
    if not rows or rows[0].keys() != {"k", "temperature", "knn_weight", "f1"}:
        raise UserError(f"{path}: expected a file of knn_ner.tune, found another one; tune again")
    return rows


def draw_tuning(seeds: Sequence[Sequence[Setting]]) -> "Figure":
    """The F1 of dev over knn_weight, temperature and k: the mean of several tunings on one grid.

    Args:
        seeds: for each tuning the rows of its `tuning.csv`; settings that not all of them have are left out.
    """
    tables = [
        {(row["k"], row["temperature"], row["knn_weight"]): row["f1"] for row in rows}
        for rows in seeds
    ]
    common = set.intersection(*(set(table) for table in tables))
    f1 = {setting: sum(table[setting] for table in tables) / len(tables) for setting in common}
    # The first of equals, as tuning chooses it: fewer neighbours, then the lower temperature.
    best = min(f1, key=lambda each: (-f1[each], each[0] < 0, *each))
    ks = sorted({each[0] for each in f1}, key=lambda k: (k < 0, k))
    temperatures, weights = (sorted({each[place] for each in f1}) for place in (1, 2))
    heights = np.array([[[f1[k, t, w] for w in weights] for t in temperatures] for k in ks])
    lowest, highest = heights.min(axis=(0, 1)), heights.max(axis=(0, 1))
    of_weight = heights[ks.index(best[0]), temperatures.index(best[1])]
    alone = of_weight[0]

    figure = _new_figure(9, 3)
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=[5, 4, 4])
    label = "range over all k and T"
    left.fill_between(weights, lowest, highest, color=LIGHT, linewidth=0, label=label)
    left.plot(weights, of_weight, color=KNN, label=f"k = {_k_name(best[0])}, T = {best[1]:g}")
    left.set(xlabel="knn_weight", ylabel="dev F1")
    left.legend(loc="lower left")
    dots: dict[str, Any] = {"color": KNN, "marker": "o", "markersize": 3.5}
    middle.plot(temperatures, heights.max(axis=(0, 2)), **dots)
    middle.set(xscale="log", xlabel="temperature T, best k and knn_weight")
    middle.set_xticks(every(temperatures, 4), [f"{t:g}" for t in every(temperatures, 4)])
    middle.minorticks_off()
    right.plot(range(len(ks)), heights.max(axis=(1, 2)), **dots)
    right.set_xticks(range(len(ks)), [_k_name(k) for k in ks], fontsize=8)
    right.set_xlabel("k, best T and knn_weight")
    star: dict[str, Any] = {
        "marker": "*",
        "markersize": 11,
        "color": KNN,
        "markeredgecolor": "white",
    }
    for axes, place in ((left, best[2]), (middle, best[1]), (right, ks.index(best[0]))):
        axes.axhline(alone, color=TAGGER, linewidth=1, linestyle=DASHED)
        axes.plot([place], [f1[best]], **star)
    # F1 far below the tagger alone is of no interest, and would press the rest together.
    margin = max(0.5, f1[best] - alone)
    left.set_ylim(max(lowest.min(), alone - 2 * margin), f1[best] + 0.35 * margin)
    right.annotate(
        "tagger alone", (1, alone), xycoords=right.get_yaxis_transform(), xytext=(0, -3),
        textcoords="offset points", color=TAGGER, ha="right", va="top", fontsize=8,
    )  # fmt: skip
    left.set_title(
        f"best of tuning.csv: {f1[best]:.2f} at k = {_k_name(best[0])}, T = {best[1]:g}, "
        f"knn_weight = {best[2]:g}" + (f" (mean of {len(seeds)} seeds)" if len(seeds) > 1 else "")
    )
    return figure


def draw_gains(experiments: Sequence[Results]) -> "Figure":
    """The gain of kNN on each corpus with its interval; without leaked sentences; with settings chosen on test."""
    figure = _new_figure(7, 1.1 + 0.62 * len(experiments))
    axes = figure.subplots()
    for place, results in enumerate(experiments):
        lines = [
            line for line in results["comparisons"] if line["score"] == "f1" and "gain" in line
        ]
        first, last = lines[0], lines[-1]
        _draw_interval(axes, first["gain"]["mean"], first["interval"], place)
        axes.annotate(
            f"{first['gain']['mean']:+.2f}, p {first['p']:.2g}", (first["interval"][1], place),
            xytext=(5, 0), textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
        if len(lines) > 1:
            _draw_interval(axes, last["gain"]["mean"], last["interval"], place + 0.28, filled=False)
        oracle = results["oracle"]["gain"]["mean"]
        axes.plot([oracle], [place - 0.24], marker="v", color=GREY, markersize=5)
    _name_rows(
        axes, [f"{each['name']}\n({counted(len(each['seeds']), 'seed')})" for each in experiments]
    )
    axes.set_xlabel("gain over the tagger alone, word-level test F1, with p")
    # Handles of their own: the legend explains marks that the first corpus lacks too.
    shown = [
        axes.plot([], [], marker="o", color=KNN, label="tuned on dev, 95% interval")[0],
        axes.plot([], [], marker="o", color=KNN, markerfacecolor="white", linestyle=":",
                  label="without leaked sentences")[0],
        axes.plot([], [], marker="v", color=GREY, linestyle="",
                  label="settings chosen on test: not a fair number")[0],
    ]  # fmt: skip
    figure.legend(handles=shown, loc="outside upper left", ncols=3, fontsize=8)
    return figure


def draw_search_share(experiments: Sequence[Results]) -> "Figure":
    """The share of tokens that have to be searched, over knn_weight, for each corpus."""
    figure = _new_figure(6, 3.6)
    axes = figure.subplots()
    ends = []
    for place, results in enumerate(experiments):
        shares = [seed["searched_share"] for seed in results["per_seed"]]
        weights = [weight for weight in shares[0] if float(weight) < 0.5]
        means = [100 * sum(each[weight] for each in shares) / len(shares) for weight in weights]
        colour = PALETTE[place % len(PALETTE)]
        axes.plot([float(weight) for weight in weights], means, color=colour)
        ends.append((means[-1], results["name"], colour))
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle=DASHED)
    axes.set(yscale="log", xlim=(0, 0.66), xticks=[0, 0.1, 0.2, 0.3, 0.4, 0.5])
    low = axes.get_ylim()[0]
    axes.set_ylim(low, 100)
    ticks = [tick for tick in (0.01, 0.1, 1, 10, 100) if low <= tick]
    axes.set_yticks(ticks, [f"{tick:g}%" for tick in ticks])
    axes.text(0.51, 1.2 * low, "from 0.5 on: all", color=GREY, fontsize=8)
    heights = apart([math.log10(max(end[0], low)) for end in ends], 0.055 * math.log10(100 / low))
    for height, (_, name, colour) in zip(heights, ends, strict=True):
        axes.text(0.505, 10**height, name, color=colour, va="center")
    axes.set(xlabel="knn_weight", ylabel="tokens that have to be searched")
    return figure


def draw_low_resource(
    lines: Mapping[str, Sequence[tuple[float, float, float]]], corpus: str
) -> "Figure":
    """Test F1 over the share of the training sentences that the tagger saw.

    Args:
        lines: name to points (percent of the sentences, mean F1, standard deviation over seeds), ascending; the
            first line is the tagger alone.
        corpus: name of the corpus.
    """
    figure = _new_figure(6.5, 3.8)
    axes = figure.subplots()
    handles = []
    for (name, points), colour, marker in zip(
        lines.items(), (TAGGER, KNN, FULL), "os^", strict=False
    ):
        shares, means, deviations = map(list, zip(*points, strict=True))
        line = axes.errorbar(
            shares, means, deviations, color=colour, label=name,
            marker=marker, markersize=4.5, capsize=2, elinewidth=0.9,
        )  # fmt: skip
        handles.append(line)
    last, goal, _ = next(iter(lines.values()))[-1]
    axes.axhline(goal, color=TAGGER, linewidth=1, linestyle=DASHED)
    # The highest line first. At the right, where the lines are close together, there is no room for names.
    axes.legend(handles=handles[::-1], loc="lower right")
    axes.set(xscale="log", xlabel="training sentences that the tagger saw")
    axes.set_xticks(shares, [f"{share:g}%" for share in shares])
    axes.minorticks_off()
    axes.set_ylabel("word-level test F1")
    axes.set_title(f"{corpus}; dashed: tagger alone with {last:g}%")
    return figure


def draw_breakdown(results: Results) -> "Figure":
    """Where the gain comes from: by groups of entities, and by the neighbours' agreement."""
    groups = results["breakdown"]["groups"]
    figure = _new_figure(9, max(4.4, 0.9 + 0.3 * len(groups["type"])))
    grid = figure.add_gridspec(2, 3)
    places = (grid[:, 0], grid[0, 1], grid[0, 2], grid[1, 1])
    for dimension, place in zip(DIMENSIONS, places, strict=True):
        axes = figure.add_subplot(place)
        for row, group in enumerate(groups[dimension]):
            _draw_interval(axes, group["gain"], group["interval"], row)
        named = [f"{each['group']} ({each['entities']})" for each in groups[dimension]]
        _name_rows(axes, [name.replace("seen with", "seen with\n") for name in named])
        unit = " in words" if dimension == "length" else ""
        axes.set_title(f"gain by {dimension}{unit}")
    _draw_agreement(figure.add_subplot(grid[1, 2]), results["breakdown"]["agreement"])
    figure.suptitle(
        f"{results['name']}, {counted(len(results['seeds']), 'seed')}: gain in word-level test F1; in "
        "brackets: gold entities",
        x=0.01, ha="left", fontsize=10,
    )  # fmt: skip
    return figure


def _draw_agreement(axes: "Axes", rows: Sequence[Results]) -> None:
    """Words corrected and spoilt, by how much their neighbours agree."""
    rows = [row for row in rows if row["agreement"] != "not searched"]
    places = range(len(rows))
    axes.barh(places, [row["fixed"] for row in rows], color=FULL, height=0.65)
    axes.barh(places, [-row["broken"] for row in rows], color=KNN, height=0.65)
    _name_rows(axes, [row["agreement"] for row in rows])
    largest = max(1.0, *(max(row["fixed"], row["broken"]) for row in rows))
    axes.set_xlim(-1.1 * largest, 1.1 * largest)
    ticks = [tick for tick in axes.get_xticks() if abs(tick) <= 1.1 * largest]
    axes.set_xticks(ticks, [f"{abs(tick):g}" for tick in ticks])
    axes.set(title="tags by agreement", xlabel="spoilt | put right")


def _draw_interval(
    axes: "Axes", gain: float, interval: Sequence[float], place: float, filled: bool = True
) -> None:
    axes.plot(interval, [place, place], color=KNN, linestyle="-" if filled else ":")
    face = KNN if filled else "white"
    axes.plot([gain], [place], marker="o", color=KNN, markersize=5, markerfacecolor=face)


def _name_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Name the rows of a plot from top to bottom, with a line at 0."""
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def _new_figure(width: float, height: float) -> "Figure":
    """An empty figure; width and height in inches."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rc_file(Path(__file__).with_suffix(".mplstyle"), use_default_template=False)
    return Figure(figsize=(width, height), layout="constrained")


def apart(heights: Sequence[float], least: float) -> list[float]:
    """The heights, moved upwards as little as needed to be `least` apart."""
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


def _k_name(k: float) -> str:
    return "all" if k < 0 else f"{k:g}"

"""Plots of what was measured. Each function returns a figure, which `plotting.save` writes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knn_ner.evaluation.plotting import (
    FULL,
    GREY,
    KNN,
    LIGHT,
    PALETTE,
    TAGGER,
    apart,
    every,
    k_name,
    new_figure,
    note,
)
from knn_ner.utils.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A row of `tuning.csv`.
Setting = Mapping[str, float]


def read_tuning(path: Path) -> list[Setting]:
    """The rows of a `tuning.csv` of `knn_ner.tune`.

    Raises `UserError` when there is no such file, or it holds something else.
    """
    try:
        heading, *lines = path.read_text(encoding="utf-8").splitlines()
        names = heading.split(",")
        rows = [dict(zip(names, map(float, line.split(",")), strict=True)) for line in lines]
    except FileNotFoundError:
        raise UserError(f"{path}: not found; python -m knn_ner.tune writes it") from None
    except ValueError as error:
        rows, names = [], [str(error)]
    if not rows or set(names) != {"k", "temperature", "knn_weight", "f1"}:
        raise UserError(f"{path}: expected a file of knn_ner.tune, found another one; tune again")
    return rows


def draw_tuning(seeds: Sequence[Sequence[Setting]]) -> "Figure":
    """The F1 of dev over knn_weight, temperature and k; the mean of several tunings on one grid.

    seeds: for each tuning the rows of its `tuning.csv`; what not all of them have is left out.
    """
    tables = [
        {(row["k"], row["temperature"], row["knn_weight"]): row["f1"] for row in rows}
        for rows in seeds
    ]
    common = set.intersection(*(set(table) for table in tables))
    f1 = {setting: sum(table[setting] for table in tables) / len(tables) for setting in common}
    # Of equals the first, as tuning has it: fewer neighbours, then the lower temperature.
    best = min(f1, key=lambda each: (-f1[each], each[0] < 0, *each))
    ks = sorted({each[0] for each in f1}, key=lambda k: (k < 0, k))
    temperatures = sorted({each[1] for each in f1})
    weights = sorted({each[2] for each in f1})
    of_k = [max(f1[k, t, w] for t in temperatures for w in weights) for k in ks]
    of_temperature = [max(f1[k, t, w] for k in ks for w in weights) for t in temperatures]
    of_weight = [f1[best[0], best[1], w] for w in weights]
    lowest = [min(f1[k, t, w] for k in ks for t in temperatures) for w in weights]
    highest = [max(f1[k, t, w] for k in ks for t in temperatures) for w in weights]
    alone = f1[best[0], best[1], weights[0]]

    figure = new_figure(9, 3)
    left, middle, right = figure.subplots(
        1, 3, sharey=True, gridspec_kw={"width_ratios": [5, 4, 4]}
    )
    left.fill_between(
        weights, lowest, highest, color=LIGHT, linewidth=0, label="range over all k and T"
    )
    left.plot(weights, of_weight, color=KNN, label=f"k = {k_name(best[0])}, T = {best[1]:g}")
    left.set_xlabel("knn_weight")
    left.set_ylabel("dev F1")
    left.legend(loc="lower left")
    middle.plot(temperatures, of_temperature, color=KNN, marker="o", markersize=3.5)
    middle.set_xscale("log")
    middle.set_xlabel("temperature T, best k and knn_weight")
    middle.set_xticks(every(temperatures, 4), [f"{t:g}" for t in every(temperatures, 4)])
    middle.minorticks_off()
    right.plot(range(len(ks)), of_k, color=KNN, marker="o", markersize=3.5)
    right.set_xticks(range(len(ks)), [k_name(k) for k in ks], fontsize=8)
    right.set_xlabel("k, best T and knn_weight")
    for axes, place in zip(
        (left, middle, right), (best[2], best[1], ks.index(best[0])), strict=True
    ):
        axes.axhline(alone, color=TAGGER, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(
            [place], [f1[best]], marker="*", markersize=11, color=KNN, markeredgecolor="white"
        )
    # What is far below the tagger alone is of no interest, and would press the rest together.
    top = max(f1.values())
    margin = max(0.5, top - alone)
    left.set_ylim(max(min(lowest), alone - 2 * margin), top + 0.35 * margin)
    note(right, 1, alone, "tagger alone", TAGGER, above=False)
    left.set_title(
        f"best of tuning.csv: {f1[best]:.2f} at k = {k_name(best[0])}, T = {best[1]:g}, "
        f"knn_weight = {best[2]:g}" + (f" (mean of {len(seeds)} seeds)" if len(seeds) > 1 else "")
    )
    return figure


def draw_gains(experiments: Sequence[Mapping[str, Any]]) -> "Figure":
    """The gain of kNN on each corpus, with its interval; without leaked sentences; and the oracle's.

    experiments: what `experiment.json` holds of each.
    """
    figure = new_figure(7, 1.1 + 0.62 * len(experiments))
    axes = figure.subplots()
    names = []
    for place, results in enumerate(experiments):
        lines = [
            line for line in results["comparisons"] if line["score"] == "f1" and "gain" in line
        ]
        seeds = len(results["seeds"])
        names.append(f"{results['name']}\n({seeds} seed{'s' if seeds > 1 else ''})")
        _interval(axes, lines[0]["gain"]["mean"], lines[0]["interval"], place, filled=True)
        _gain_label(axes, lines[0], place)
        if len(lines) > 1:
            last = lines[-1]
            _interval(axes, last["gain"]["mean"], last["interval"], place + 0.28, filled=False)
        oracle = results["oracle"]["gain"]["mean"]
        axes.plot([oracle], [place - 0.24], marker="v", color=GREY, markersize=5)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("gain over the tagger alone, word-level test F1, with p")
    # Handles of their own, as what a corpus lacks is to be explained too.
    shown = [
        axes.plot([], [], marker="o", color=KNN, label="tuned on dev, 95% interval")[0],
        axes.plot([], [], marker="o", color=KNN, markerfacecolor="white", linestyle=":",
                  label="without leaked sentences")[0],
        axes.plot([], [], marker="v", color=GREY, linestyle="",
                  label="settings chosen on test: not a fair number")[0],
    ]  # fmt: skip
    figure.legend(handles=shown, loc="outside upper left", ncols=3, fontsize=8)
    return figure


def draw_search_share(experiments: Sequence[Mapping[str, Any]]) -> "Figure":
    """The share of tokens that have to be searched, over knn_weight, for each corpus.

    experiments: what `experiment.json` holds of each.
    """
    figure = new_figure(6, 3.6)
    axes = figure.subplots()
    ends = []
    for place, results in enumerate(experiments):
        shares = [seed["searched_share"] for seed in results["per_seed"]]
        weights = [weight for weight in shares[0] if float(weight) < 0.5]
        means = [100 * sum(each[weight] for each in shares) / len(shares) for weight in weights]
        colour = PALETTE[place % len(PALETTE)]
        axes.plot([float(weight) for weight in weights], means, color=colour)
        ends.append((means[-1], results["name"], colour))
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_yscale("log")
    axes.set_xlim(0, 0.66)
    axes.set_xticks([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    low = axes.get_ylim()[0]
    axes.set_ylim(low, 100)
    ticks = [tick for tick in (0.01, 0.1, 1, 10, 100) if low <= tick]
    axes.set_yticks(ticks, [f"{tick:g}%" for tick in ticks])
    axes.text(0.51, 1.2 * low, "from 0.5 on: all", color=GREY, fontsize=8)
    heights = apart([math.log10(max(end[0], low)) for end in ends], 0.055 * math.log10(100 / low))
    for height, (_, name, colour) in zip(heights, ends, strict=True):
        axes.text(0.505, 10**height, name, color=colour, va="center")
    axes.set_xlabel("knn_weight")
    axes.set_ylabel("tokens that have to be searched")
    return figure


def draw_low_resource(
    lines: Mapping[str, Sequence[tuple[float, float, float]]], corpus: str
) -> "Figure":
    """Test F1 over the share of the training sentences that the tagger saw.

    lines: name to points (percent of the sentences, mean F1, standard deviation over seeds), ascending; the
        first one is the tagger alone.
    """
    figure = new_figure(6.5, 3.8)
    axes = figure.subplots()
    handles = [
        axes.errorbar(
            *zip(*((share, mean) for share, mean, _ in points), strict=True),
            yerr=[deviation for *_, deviation in points],
            color=colour, marker=marker, markersize=4.5, capsize=2, elinewidth=0.9, label=name,
        )
        for (name, points), colour, marker in zip(
            lines.items(), (TAGGER, KNN, FULL), "os^", strict=False
        )
    ]  # fmt: skip
    *_, (last, goal, _) = next(iter(lines.values()))
    axes.axhline(goal, color=TAGGER, linewidth=1, linestyle=(0, (4, 3)))
    # Where the lines are close together at the right they cannot be named there; the highest first.
    axes.legend(handles=handles[::-1], loc="lower right")
    axes.set_xscale("log")
    shares = [share for share, *_ in next(iter(lines.values()))]
    axes.set_xticks(shares, [f"{share:g}%" for share in shares])
    axes.minorticks_off()
    axes.set_xlabel("training sentences that the tagger saw")
    axes.set_ylabel("word-level test F1")
    axes.set_title(f"{corpus}; dashed: tagger alone with {last:g}%")
    return figure


def draw_breakdown(results: Mapping[str, Any]) -> "Figure":
    """Where the gain comes from: by groups of entities, and by the neighbours' agreement.

    results: what `experiment.json` holds.
    """
    told = results["breakdown"]
    types = len(told["groups"]["type"])
    figure = new_figure(9, max(4.4, 0.9 + 0.3 * types))
    grid = figure.add_gridspec(2, 3)
    places = {
        "type": grid[:, 0],
        "length": grid[0, 1],
        "form in training": grid[0, 2],
        "times in training": grid[1, 1],
    }
    for dimension, place in places.items():
        axes = figure.add_subplot(place)
        groups = told["groups"][dimension]
        for row, group in enumerate(groups):
            _interval(axes, group["gain"], group["interval"], row, filled=True)
        axes.axvline(0, color=GREY, linewidth=1)
        names = [group["group"].replace("seen with", "seen with\n") for group in groups]
        labels = [
            f"{name} ({group['entities']})" for name, group in zip(names, groups, strict=True)
        ]
        axes.set_yticks(range(len(groups)), labels)
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        unit = " in words" if dimension == "length" else ""
        axes.set_title(f"gain by {dimension}{unit}")
    _draw_agreement(figure.add_subplot(grid[1, 2]), told["agreement"])
    seeds = len(results["seeds"])
    figure.suptitle(
        f"{results['name']}, {seeds} seed{'s' if seeds > 1 else ''}: gain in word-level test F1; in "
        "brackets: gold entities",
        x=0.01, ha="left", fontsize=10,
    )  # fmt: skip
    return figure


def _draw_agreement(axes: "Axes", rows: Sequence[Mapping[str, Any]]) -> None:
    """Words put right and spoilt, by how much their neighbours agree."""
    rows = [row for row in rows if row["agreement"] != "not searched"]
    places = range(len(rows))
    axes.barh(places, [row["fixed"] for row in rows], color=FULL, height=0.65)
    axes.barh(places, [-row["broken"] for row in rows], color=KNN, height=0.65)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(places, [row["agreement"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    largest = max(1.0, *(max(row["fixed"], row["broken"]) for row in rows))
    axes.set_xlim(-1.1 * largest, 1.1 * largest)
    ticks = [tick for tick in axes.get_xticks() if abs(tick) <= 1.1 * largest]
    axes.set_xticks(ticks, [f"{abs(tick):g}" for tick in ticks])
    axes.set_title("tags by agreement")
    axes.set_xlabel("spoilt | put right")


def _interval(
    axes: "Axes", gain: float, interval: Sequence[float], place: float, filled: bool
) -> None:
    axes.plot(interval, [place, place], color=KNN, linestyle="-" if filled else ":")
    face = KNN if filled else "white"
    axes.plot([gain], [place], marker="o", color=KNN, markersize=5, markerfacecolor=face)


def _gain_label(axes: "Axes", line: Mapping[str, Any], place: float) -> None:
    axes.annotate(
        f"{line['gain']['mean']:+.2f}, p {line['p']:.2g}",
        (line["interval"][1], place),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )

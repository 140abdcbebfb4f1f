"""Tables for the terminal and for Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

SCORE_COLUMNS = ("precision", "recall", "f1", "strict_f1", "piece_f1")


def markdown_table(rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A Markdown table, its first row the heading; all but the first `names` columns are aligned right."""
    align = ["left"] * names + ["right"] * (len(rows[0]) - names)
    return _table(rows, "pipe", align) + "\n"


def terminal_table(rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A table for the terminal, its first row the heading; all but the first `names` columns right."""
    align = ["left"] * names + ["right"] * (len(rows[0]) - names)
    return _table(rows, "plain", align)


def scores_table(
    systems: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, float] | None = None
) -> str:
    """Precision, recall and the three F1 of some systems or splits, a line each.

    Args:
        systems: scores by the name of the line.
        seconds: seconds by the name of the line, for a last column.
    """
    rows = [["", *SCORE_COLUMNS, *(["seconds"] if seconds else [])]]
    for name, scores in systems.items():
        numbers = [f"{scores[column]:.2f}" for column in SCORE_COLUMNS]
        rows.append([name, *numbers, *([f"{seconds[name]:.2f}"] if seconds else [])])
    return terminal_table(rows)


def _table(rows: Sequence[Sequence[str]], style: str, align: Sequence[str]) -> str:
    return tabulate(
        rows[1:],
        headers=rows[0],
        tablefmt=style,
        colalign=align,
        headersglobalalign="same",
        disable_numparse=True,
        preserve_whitespace=True,
    )

"""Tables for the terminal, for Markdown and for CSV files."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import DataRow, TableFormat, tabulate

SCORE_COLUMNS = ("precision", "recall", "f1", "strict_f1", "piece_f1")
_CELLS = DataRow("|", "|", "|")
_MARKDOWN_ROWS = TableFormat(None, None, None, None, _CELLS, _CELLS, 1, None)


def markdown_table(rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A Markdown table, its first row the heading; all but the first `names` columns are aligned right."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = [
        "-" * width if place < names else "-" * (width - 1) + ":"
        for place, width in enumerate(widths)
    ]
    return _table([rows[0], rule, *rows[1:]], names, tablefmt=_MARKDOWN_ROWS) + "\n"


def markdown_lines(lines: Sequence[Mapping[str, str]], names: int = 1) -> str:
    """A Markdown table like that of `markdown_table`.

    Args:
        lines: the text of each cell by column name; the cell of a missing name is empty.
        names: the number of columns that are aligned left.
    """
    columns = list(dict.fromkeys(column for line in lines for column in line))
    cells = [[line.get(column, "") for column in columns] for line in lines]
    return markdown_table([columns, *cells], names)


def align_tables(markdown: str) -> str:
    """Pad the cells of the tables in a Markdown text like those of `markdown_table`.

    Args:
        markdown: the text; no cell contains `|`.
    """

    def align(table: re.Match[str]) -> str:
        lines = [line[1:-1].split("|") for line in table[0].splitlines()]
        heading, rule, *rows = [[cell.strip() for cell in line] for line in lines]
        return markdown_table([heading, *rows], sum(not cell.endswith(":") for cell in rule))

    return re.sub(r"(^\|.*\n)+", align, markdown, flags=re.MULTILINE)


def csv_table(lines: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """The text of a CSV file.

    Args:
        lines: values by column name; a missing value is left empty.
        columns: the column names.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def terminal_table(rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """A table for the terminal, its first row the heading; all but the first `names` columns right."""
    return _table(rows, names, headers="firstrow", tablefmt="plain")


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


def _table(rows: Sequence[Sequence[str]], names: int, **style: Any) -> str:
    align = ["left"] * names + ["right"] * (len(rows[0]) - names)
    return tabulate(rows, colalign=align, disable_numparse=True, preserve_whitespace=True, **style)

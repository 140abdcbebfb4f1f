"""The files that several studies write."""

import csv
import io
from collections.abc import Mapping, Sequence


def csv_text(rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> str:
    """The text of a CSV file.

    Args:
        rows: values by column name; a missing value is left empty.
        names: the column names.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()

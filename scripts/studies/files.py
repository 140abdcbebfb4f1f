"""The files that several studies write."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from knn_ner.data.corpus import Sentence


def column_text(sentences: Iterable[Sentence]) -> str:
    """The text of a column file: a word and its tag on each line, an empty line between sentences."""
    return "\n".join(
        "".join(f"{word} {tag}\n" for word, tag in zip(each.words, each.tags, strict=True))
        for each in sentences
    )


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

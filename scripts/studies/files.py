"""The files that several studies write."""

from collections.abc import Iterable

from knn_ner.data.corpus import Sentence


def column_text(sentences: Iterable[Sentence]) -> str:
    """The text of a column file: a word and its tag on each line, an empty line between sentences."""
    return "\n".join(
        "".join(f"{word} {tag}\n" for word, tag in zip(each.words, each.tags, strict=True))
        for each in sentences
    )

"""What inference writes of a split: its tags, counts by sentence, and how the neighbours voted."""

from pathlib import Path

import numpy as np

from knn_ner.data.columns import format_columns
from knn_ner.evaluation.metrics import sentence_counts
from knn_ner.evaluation.prediction_files import (
    COUNTS_FILE,
    PREDICTIONS_FILE,
    VOTES_FILE,
    write_counts,
    write_votes,
)
from knn_ner.tagging.split import Split
from knn_ner.tagging.tag import Tagging
from knn_ner.utils.files import write_text


def write_predictions(folder: Path, split: Split, tagging: Tagging, *, votes: bool) -> None:
    """Write the tags (`predictions.txt`), the counts by sentence, and the votes of words' first pieces.

    Args:
        folder: the folder to write to.
        split: the split that was tagged.
        tagging: its tags.
        votes: whether votes are known; if not, a file with votes of an earlier run is removed.
    """
    _write_tags(folder / PREDICTIONS_FILE, split, tagging)
    gold = split.piece_tags(split.gold)
    base, knn = (
        sentence_counts(
            split.word_tags,
            split.decoder.sentences(rows),
            gold,
            split.piece_tags(rows),
            split.scheme,
        )
        for rows in (tagging.base, tagging.knn)
    )
    write_counts(folder / COUNTS_FILE, base, knn)
    if votes:
        _write_votes(folder / VOTES_FILE, split, tagging)
    else:
        (folder / VOTES_FILE).unlink(missing_ok=True)


def _write_tags(path: Path, split: Split, tagging: Tagging) -> None:
    """Write word, gold, base and knn, tab-separated, with a blank line between sentences."""
    base, knn = (split.decoder.sentences(rows) for rows in (tagging.base, tagging.knn))
    blocks = (
        format_columns(sentence.words, sentence.tags, a, b, separator="\t")
        for sentence, a, b in zip(split.sentences, base, knn, strict=True)
    )
    write_text(path, "\n".join(blocks))


def _write_votes(path: Path, split: Split, tagging: Tagging) -> None:
    decoder = split.decoder
    sentence = np.repeat(np.arange(len(decoder.counts)), decoder.counts)
    word = np.arange(len(sentence)) - decoder.word_starts[sentence]
    row = split.first_rows[sentence] + decoder.first_piece
    searched = np.flatnonzero(~np.isnan(tagging.agreement[row]))
    row = row[searched]
    labels = [tagging.labels[label] for label in tagging.vote[row]]
    write_votes(path, sentence[searched], word[searched], labels, tagging.agreement[row])

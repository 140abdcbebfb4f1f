"""Files that inference writes of a split beside its scores: tags, counts by sentence, and the neighbours' votes.

The counts compare two systems with confidence (`significance`); the votes tell where a gain comes from (`breakdown`).
"""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from knn_ner.evaluation.metrics import SCORES
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import write_text

T = TypeVar("T")

SYSTEMS = ("base", "knn")
PREDICTIONS_FILE = "predictions.txt"
COUNTS_FILE = "sentences.csv"
VOTES_FILE = "votes.csv"

# Words, gold tags, the tags of the tagger alone, and those of kNN.
Predicted = tuple[Sequence[str], Sequence[str], Sequence[str], Sequence[str]]


def write_counts(path: Path, base: np.ndarray, knn: np.ndarray) -> None:
    """Write the counts of tagger and kNN, (sentences, scores, 3) each as `metrics.sentence_counts` gives them."""
    columns = {"sentence": np.arange(len(base))}
    for place, score in enumerate(SCORES):
        columns[f"{score}_gold"] = base[:, place, 2]
        for system, counts in zip(SYSTEMS, (base, knn), strict=True):
            columns[f"{score}_{system}_right"] = counts[:, place, 0]
            columns[f"{score}_{system}_predicted"] = counts[:, place, 1]
    _write(path, columns, np.stack(list(columns.values()), axis=1).tolist())


def read_counts(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The counts of tagger and kNN, (sentences, scores, 3) int64 each, as `write_counts` wrote them.

    Raises:
        UserError: if there is no such file, or it holds something else.
    """
    names = [
        f"{score}_{name}"
        for system in SYSTEMS
        for score in SCORES
        for name in (f"{system}_right", f"{system}_predicted", "gold")
    ]
    rows = _read(path, "counts", lambda row: [int(row[name]) for name in names])
    counts = np.array(rows, dtype=np.int64).reshape(-1, len(SYSTEMS), len(SCORES), 3)
    return counts[:, 0], counts[:, 1]


def write_votes(
    path: Path,
    sentences: np.ndarray,
    words: np.ndarray,
    labels: Sequence[str],
    agreement: np.ndarray,
) -> None:
    """Write how the neighbours of words voted: the label with the largest share of the vote, and that share."""
    shares = [f"{share:.4f}" for share in agreement]
    rows = zip(sentences, words, labels, shares, strict=True)
    _write(path, ("sentence", "word", "label", "agreement"), rows)


def read_votes(path: Path) -> dict[tuple[int, int], tuple[str, float]]:
    """Label and share by (sentence, word), as `write_votes` wrote them.

    Raises:
        UserError: if there is no such file, or it holds something else.
    """
    rows = _read(
        path,
        "votes",
        lambda row: (int(row["sentence"]), int(row["word"]), row["label"], float(row["agreement"])),
    )
    return {(sentence, word): (label, share) for sentence, word, label, share in rows}


def read_predictions(path: Path) -> list[Predicted]:
    """The sentences of a `predictions.txt`.

    Raises:
        UserError: if there is no such file, or it holds something else.
    """
    sentences: list[Predicted] = []
    number = 0
    for block in _text(path).removesuffix("\n").split("\n\n"):
        lines = [line.split("\t") for line in block.split("\n")]
        for line in lines:
            number += 1
            if len(line) != 4:
                raise UserError(
                    f"{path}:{number}: {len(line)} columns found, expected word, gold, base and knn"
                )
        words, gold, base, knn = (list(column) for column in zip(*lines, strict=True))
        sentences.append((words, gold, base, knn))
        number += 1
    return sentences


def _write(path: Path, names: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _read(path: Path, what: str, convert: Callable[[dict[str, str]], T]) -> list[T]:
    try:
        return [convert(row) for row in csv.DictReader(io.StringIO(_text(path), newline=""))]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected {what} as knn_ner.infer writes them ({error!r}); run it again"
        ) from None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: not found; python -m knn_ner.infer writes it") from None

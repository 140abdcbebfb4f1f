"""What inference keeps of a split beside its scores: counts by sentence, and how the neighbours voted.

From the counts two systems can be compared with confidence (see `significance`); from the votes one can
see what a gain comes from (see `breakdown`).
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from seqeval.scheme import IOB2, IOBES, Entities

from knn_ner.data.spans import conlleval_tags, published_spans, to_bmes, word_spans
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import write_text

SCORES = ("f1", "strict_f1", "piece_f1")
SYSTEMS = ("base", "knn")
PREDICTIONS_FILE = "predictions.txt"
COUNTS_FILE = "sentences.csv"
VOTES_FILE = "votes.csv"

Tags = Sequence[Sequence[str]]


def sentence_counts(
    gold_words: Tags, predicted_words: Tags, gold_pieces: Tags, predicted_pieces: Tags, scheme: str
) -> np.ndarray:
    """Entities of each sentence: right, predicted and gold, as each of `SCORES` counts them.

    Arguments as for `metrics.score`, whose F1 are 200 right / (predicted + gold) of the sums.

    Returns: (sentences, scores, 3) int64.
    """

    def lenient(tags: Tags) -> list[Counter]:
        return [Counter(word_spans(each, scheme)) for each in tags]

    def strict(tags: Tags) -> list[Counter]:
        rule = IOB2 if scheme == "BIO" else IOBES
        found = Entities([conlleval_tags(each, scheme) for each in tags], rule)
        return [Counter(entity.to_tuple() for entity in entities) for entities in found.entities]

    def published(tags: Tags) -> list[Counter]:
        return [Counter(published_spans(to_bmes(each, scheme))) for each in tags]

    counts = np.zeros((len(gold_words), len(SCORES), 3), dtype=np.int64)
    for place, (spans_of, gold, predicted) in enumerate(
        (
            (lenient, gold_words, predicted_words),
            (strict, gold_words, predicted_words),
            (published, gold_pieces, predicted_pieces),
        )
    ):
        pairs = zip(spans_of(gold), spans_of(predicted), strict=True)
        for row, (true, found) in enumerate(pairs):
            counts[row, place] = (true & found).total(), found.total(), true.total()
    return counts


def write_counts(path: Path, base: np.ndarray, knn: np.ndarray) -> None:
    """Write the counts of `sentence_counts` of tagger and kNN, a line for each sentence."""
    names = ["sentence"]
    columns = [np.arange(len(base))]
    for place, score in enumerate(SCORES):
        names.append(f"{score}_gold")
        columns.append(base[:, place, 2])
        for system, counts in zip(SYSTEMS, (base, knn), strict=True):
            names += [f"{score}_{system}_right", f"{score}_{system}_predicted"]
            columns += [counts[:, place, 0], counts[:, place, 1]]
    lines = [",".join(map(str, line)) for line in np.stack(columns, axis=1).tolist()]
    write_text(path, "\n".join([",".join(names), *lines]) + "\n")


def read_counts(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What `write_counts` wrote: counts of tagger and kNN, each (sentences, scores, 3) int64.

    Raises `UserError` when there is no such file, or it holds something else.
    """
    rows = _read(path)
    try:
        base, knn = (
            np.array(
                [
                    [
                        [
                            int(row[f"{score}_{system}_right"]),
                            int(row[f"{score}_{system}_predicted"]),
                            int(row[f"{score}_gold"]),
                        ]
                        for score in SCORES
                    ]
                    for row in rows
                ],
                dtype=np.int64,
            ).reshape(-1, len(SCORES), 3)
            for system in SYSTEMS
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected counts as knn_ner.infer writes them ({error!r}); run it again"
        ) from None
    return base, knn


def write_votes(
    path: Path,
    sentences: np.ndarray,
    words: np.ndarray,
    labels: Sequence[str],
    agreement: np.ndarray,
) -> None:
    """Write how the neighbours of words voted.

    sentences, words: (V,) indices of the words whose neighbours were looked up. labels: (V,) what got
    most of the vote. agreement: (V,) its share.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sentence", "word", "label", "agreement"])
    for sentence, word, label, share in zip(sentences, words, labels, agreement, strict=True):
        writer.writerow([sentence, word, label, f"{share:.4f}"])
    write_text(path, text.getvalue())


def read_votes(path: Path) -> dict[tuple[int, int], tuple[str, float]]:
    """What `write_votes` wrote: (sentence, word) to label and agreement.

    Raises `UserError` when there is no such file, or it holds something else.
    """
    try:
        return {
            (int(row["sentence"]), int(row["word"])): (row["label"], float(row["agreement"]))
            for row in _read(path)
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected votes as knn_ner.infer writes them ({error!r}); run it again"
        ) from None


def read_predictions(path: Path) -> list[tuple[list[str], list[str], list[str], list[str]]]:
    """A `predictions.txt`: for each sentence its words, and the tags of gold, tagger and kNN.

    Raises `UserError` when there is no such file, or it holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: not found; python -m knn_ner.infer writes it") from None
    sentences = []
    number = 0
    for block in text.removesuffix("\n").split("\n\n"):
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


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise UserError(f"{path}: not found; python -m knn_ner.infer writes it") from None

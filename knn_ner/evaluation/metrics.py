"""The two scores of a tagging: word level (conlleval and strict) and the paper's piece level."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2, IOBES

from knn_ner.data.spans import (
    Span,
    conlleval_tags,
    published_spans,
    to_bmes,
    word_spans,
)

Tags = Sequence[Sequence[str]]


def percentages(
    true_positive: np.ndarray | int, predicted: np.ndarray | int, gold: np.ndarray | int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 in percent from counts of entities; 0 where a ratio has no base.

    Counts may be integers or integer arrays that broadcast; the results have their shape.
    F1 is one correctly rounded division, 200 tp / (predicted + gold): equal scores are equal
    floats, which choosing the best of many settings relies on.
    """
    true_positive, predicted, gold = np.broadcast_arrays(true_positive, predicted, gold)

    def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)

    return (
        ratio(100 * true_positive, predicted),
        ratio(100 * true_positive, gold),
        ratio(200 * true_positive, predicted + gold),
    )


def score(
    gold_words: Tags,
    predicted_words: Tags,
    gold_pieces: Tags,
    predicted_pieces: Tags,
    scheme: str,
) -> dict:
    """Score predicted tags, sentence by sentence, against gold tags of the same lengths.

    `scheme` is BIO, IOBES or BMES and holds for all four. All scores are percent, unrounded:

    - `precision`, `recall`, `f1`: entities over words, micro average, as conlleval and seqeval's
      default mode count them; `per_type`: the same for each type, and `support`, its gold count.
    - `strict_f1`: over words, seqeval's strict mode, where a malformed run is no entity at all.
    - `piece_precision`, `piece_recall`, `piece_f1`: entities over pieces, as published.

    A score without gold or predicted entities is 0. Raises UserError for an unknown scheme and
    ValueError when gold and prediction differ in length.
    """
    _check_lengths(gold_words, predicted_words, "words")
    _check_lengths(gold_pieces, predicted_pieces, "pieces")

    words = _count_words(gold_words, predicted_words, scheme)
    pieces = _count(
        gold_pieces, predicted_pieces, lambda tags: published_spans(to_bmes(tags, scheme))
    )
    precision, recall, f1 = _rates(words)
    piece_precision, piece_recall, piece_f1 = _rates(pieces)
    return {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "strict_f1": _strict_f1(gold_words, predicted_words, scheme),
        "piece_precision": piece_precision,
        "piece_recall": piece_recall,
        "piece_f1": piece_f1,
        "per_type": {type_: _type_scores(words, type_) for type_ in sorted(words[1] | words[2])},
    }


def word_f1(gold_words: Tags, predicted_words: Tags, scheme: str) -> float:
    """The `f1` of `score` alone, for choosing a checkpoint; raises what `score` raises."""
    _check_lengths(gold_words, predicted_words, "words")
    return _rates(_count_words(gold_words, predicted_words, scheme))[2]


# Entities by type: right, predicted, gold.
_Counts = tuple[Counter, Counter, Counter]


def _count_words(gold: Tags, predicted: Tags, scheme: str) -> _Counts:
    return _count(gold, predicted, lambda tags: word_spans(tags, scheme))


def _count(gold: Tags, predicted: Tags, spans_of: Callable[[Sequence[str]], list[Span]]) -> _Counts:
    counts = Counter(), Counter(), Counter()
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        # A span is at most once in a sentence, so that sets lose nothing of the multiset.
        gold_spans, predicted_spans = set(spans_of(gold_tags)), set(spans_of(predicted_tags))
        for counter, spans in zip(
            counts, (gold_spans & predicted_spans, predicted_spans, gold_spans), strict=True
        ):
            counter.update(type_ for type_, _, _ in spans)
    return counts


def _rates(counts: _Counts) -> tuple[float, float, float]:
    return tuple(float(rate) for rate in percentages(*(counter.total() for counter in counts)))


def _type_scores(counts: _Counts, type_: str) -> dict:
    rates = percentages(*(counter[type_] for counter in counts))
    precision, recall, f1 = (float(rate) for rate in rates)
    return {"precision": precision, "recall": recall, "f1": f1, "support": counts[2][type_]}


def _strict_f1(gold: Tags, predicted: Tags, scheme: str) -> float:
    if not gold:  # seqeval takes no empty corpus
        return 0.0
    return 100 * float(
        f1_score(
            [conlleval_tags(tags, scheme) for tags in gold],
            [conlleval_tags(tags, scheme) for tags in predicted],
            mode="strict",
            scheme=IOB2 if scheme == "BIO" else IOBES,
            zero_division=0,
        )
    )


def _check_lengths(gold: Tags, predicted: Tags, what: str) -> None:
    if len(gold) != len(predicted):
        raise ValueError(f"{len(predicted)} predicted sentences for {len(gold)} gold ones")
    for index, (gold_tags, predicted_tags) in enumerate(zip(gold, predicted, strict=True)):
        if len(gold_tags) != len(predicted_tags):
            raise ValueError(
                f"sentence {index}: {len(predicted_tags)} predicted {what} for {len(gold_tags)}"
            )
